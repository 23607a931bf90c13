//! The configuration file: YAML (and so JSON) with the flags' names, TLS and sockets in sections.

use super::{Flag, Given, Kind};
use serde_json::Value;

/// Sections of the file: each holds flags under other names than the command line's.
const SECTIONS: &[(&str, &[(&str, &str)])] = &[
    (
        "client-transport-security",
        &[
            ("cert-file", "cert-file"),
            ("key-file", "key-file"),
            ("client-cert-file", "client-cert-file"),
            ("client-key-file", "client-key-file"),
            ("client-cert-auth", "client-cert-auth"),
            ("trusted-ca-file", "trusted-ca-file"),
            ("auto-tls", "auto-tls"),
            ("allowed-hostname", "client-cert-allowed-hostname"),
        ],
    ),
    (
        "peer-transport-security",
        &[
            ("cert-file", "peer-cert-file"),
            ("key-file", "peer-key-file"),
            ("client-cert-file", "peer-client-cert-file"),
            ("client-key-file", "peer-client-key-file"),
            ("client-cert-auth", "peer-client-cert-auth"),
            ("trusted-ca-file", "peer-trusted-ca-file"),
            ("auto-tls", "peer-auto-tls"),
            ("allowed-cn", "peer-cert-allowed-cn"),
            ("allowed-hostname", "peer-cert-allowed-hostname"),
            (
                "skip-client-san-verification",
                "peer-skip-client-san-verification",
            ),
        ],
    ),
    (
        "socket-options",
        &[
            ("reuse-port", "socket-reuse-port"),
            ("reuse-address", "socket-reuse-address"),
        ],
    ),
];

/// Reads the file's text. Names that are no flags are remarked on and skipped, as etcd skips them.
pub fn read(flags: &[Flag], text: &str, remarks: &mut Vec<String>) -> Result<Given, String> {
    let content: Value =
        serde_saphyr::from_str(text).map_err(|error| format!("error in configuration: {error}"))?;
    let fields = match content {
        Value::Object(fields) => fields,
        Value::Null => return Ok(Given::new()),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            return Err("the configuration is not a map of flags".into());
        }
    };
    let mut given = Given::new();
    for (name, value) in &fields {
        let Some((_, names)) = SECTIONS.iter().find(|(section, _)| section == name) else {
            take(flags, name, name, value, &mut given, remarks)?;
            continue;
        };
        let Value::Object(section) = value else {
            return Err(format!("invalid {name}"));
        };
        for (inner, value) in section {
            let path = format!("{name}.{inner}");
            match names.iter().find(|(here, _)| here == inner) {
                Some((_, flag)) => take(flags, flag, &path, value, &mut given, remarks)?,
                None => remarks.push(format!("unrecognized field {path}")),
            }
        }
    }
    Ok(given)
}

fn take(
    flags: &[Flag],
    name: &str,
    path: &str,
    value: &Value,
    given: &mut Given,
    remarks: &mut Vec<String>,
) -> Result<(), String> {
    // On the command line TLS flags stand alone; in a file they have effect in their section only.
    let misplaced = path == name
        && SECTIONS
            .iter()
            .any(|(_, names)| names.iter().any(|(_, flag)| *flag == name));
    let flag = flags.iter().find(|flag| flag.name == name);
    let Some(flag) = flag.filter(|_| !misplaced) else {
        remarks.push(format!("unrecognized field {path}"));
        return Ok(());
    };
    if *value == Value::Null {
        return Ok(());
    }
    let text = text_of(flag.kind, value).ok_or_else(|| {
        format!(
            "error in configuration: {path} cannot be {value} ({})",
            expectation(flag.kind)
        )
    })?;
    given.insert(flag.name, (text, path.to_owned()));
    Ok(())
}

/// What a flag of that kind may be in a file.
fn expectation(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "want text",
        Kind::Bool => "want true or false",
        Kind::Number => "want a whole number",
        Kind::Duration => "want nanoseconds, a whole number",
        Kind::List => "want text or a list of texts",
    }
}

/// The value as the command line would spell it.
fn text_of(kind: Kind, value: &Value) -> Option<String> {
    let scalar = match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    };
    match kind {
        Kind::Text => scalar,
        Kind::Bool => value.as_bool().map(|truth| truth.to_string()),
        Kind::Number => value
            .is_i64()
            .then(|| value.to_string())
            .or_else(|| value.as_u64().map(|number| number.to_string())),
        Kind::Duration => value.as_u64().map(|ns| format!("{ns}ns")),
        Kind::List => match value {
            Value::Array(words) => words
                .iter()
                .map(Value::as_str)
                .collect::<Option<Vec<_>>>()
                .map(|words| words.join(",")),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Object(_) => scalar,
        },
    }
}
