//! etcd's flags, `ETCD_` environment and configuration file, under etcd's rules.
//!
//! [`table`] is the one list of flags: parsing, `--help`, the environment and the file all read it.
//! No argument library fits: Go takes `-name` for `--name`, a bare boolean but never `--bool value`,
//! and numbers and durations in its own spelling; etcd makes a flag that is also in the environment
//! fatal, and lets a file replace both.

mod file;
mod help;
#[rustfmt::skip] // one flag a line
mod table;
pub mod value;

use crate::config::Config;
use crate::zoo_cfg;
pub use help::help;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use thiserror::Error;
use value::{FlagValue, Kind};

/// A heading of `--help`, as etcd groups its flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Process,
    Member,
    Clustering,
    Security,
    Auth,
    Monitoring,
    Logging,
    Tracing,
    Features,
    Unsafe,
    /// Names of older etcds that manifests still carry; not shown.
    Former,
}

/// One flag.
pub struct Flag {
    pub group: Group,
    pub name: &'static str,
    pub default: &'static str,
    /// What it is for, for `--help`.
    pub about: &'static str,
    pub kind: Kind,
    effect: Effect,
}

impl Flag {
    /// Why it does nothing, if it does nothing.
    fn without_effect(&self) -> Option<&'static str> {
        match self.effect {
            Effect::Nothing(_, why) | Effect::Refuses(_, why) => Some(why),
            Effect::Sets(_) | Effect::SameAs(_) => None,
        }
    }
}

/// Writes a flag's value, given as text, where it belongs.
type Set = Box<dyn Fn(&mut Config, &str) -> Result<(), String>>;

/// Whether a flag's value, given as text, asks for something else than the default.
type Differs = Box<dyn Fn(&str) -> Result<bool, String>>;

/// What giving the flag does.
enum Effect {
    /// Sets a field of [`Config`].
    Sets(Set),
    /// Nothing, since what it steers does not exist here; the text says why.
    Nothing(Differs, &'static str),
    /// Stops the start, rather than run without what was asked for; the text says why.
    Refuses(Differs, &'static str),
    /// The same as another flag.
    SameAs(&'static str),
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Invocation {
    /// Show the flags.
    Help,
    /// Show the versions.
    Version,
    /// Serve, after telling these remarks.
    Serve(Box<Config>, Vec<String>),
}

/// Why a server cannot be configured so.
#[derive(Debug, Error)]
pub enum Rejection {
    /// The command line cannot be read; the process exits with 2 and shows the usage, as Go does.
    #[error("{0}")]
    Usage(String),
    /// It can be read but not be followed.
    #[error("{0}")]
    Invalid(String),
}

/// Values by flag, each with where it came from (for messages).
type Given = BTreeMap<&'static str, (String, String)>;

/// Reads the arguments (without the program's name), the environment, and the configuration file
/// if either names one.
pub fn parse(
    args: &[String],
    environment: &[(String, String)],
    read_file: impl Fn(&Path) -> std::io::Result<String>,
) -> Result<Invocation, Rejection> {
    let flags = table::table();
    let Some(on_line) = read_args(&flags, args)? else {
        return Ok(Invocation::Help);
    };
    if let Some((text, _)) = on_line.get("version")
        && bool::parse(text) == Ok(true)
    {
        return Ok(Invocation::Version);
    }
    let file = on_line
        .get("config-file")
        .map(|(path, _)| path.clone())
        .or_else(|| lookup(environment, "ETCD_CONFIG_FILE").map(str::to_owned));
    let mut remarks = Vec::new();
    let given = match file {
        Some(path) => {
            let text = read_file(Path::new(&path))
                .map_err(|error| Rejection::Invalid(format!("open {path}: {error}")))?;
            remarks.push(format!(
                "loaded the configuration from {path}; other flags and environment variables are ignored"
            ));
            file::read(&flags, &text, &mut remarks).map_err(Rejection::Invalid)?
        }
        None => with_environment(&flags, on_line, environment, &mut remarks)
            .map_err(Rejection::Invalid)?,
    };
    let mut config = configure(&flags, &given, &mut remarks).map_err(Rejection::Invalid)?;
    if !config.zoo_cfg.is_empty() {
        let path = Path::new(&config.zoo_cfg);
        let text = read_file(path)
            .map_err(|error| Rejection::Invalid(format!("open {}: {error}", path.display())))?;
        zoo_cfg::apply(&text, &read_file, &mut config, &mut remarks).map_err(Rejection::Invalid)?;
    }
    config.check_zookeeper().map_err(Rejection::Invalid)?;
    if !config.zookeeper_jaas.is_empty() {
        let path = Path::new(&config.zookeeper_jaas);
        let text = read_file(path)
            .map_err(|error| Rejection::Invalid(format!("open {}: {error}", path.display())))?;
        config.take_users(&text).map_err(Rejection::Invalid)?;
    }
    Ok(Invocation::Serve(Box::new(config), remarks))
}

/// Go's `flag.Parse`. Nothing means that help was asked for.
fn read_args(flags: &[Flag], args: &[String]) -> Result<Option<Given>, Rejection> {
    let mut given = Given::new();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let name = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-'));
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            let stray = if arg == "--" { args.next() } else { Some(arg) };
            let Some(stray) = stray else { break };
            return Err(Rejection::Invalid(format!("{stray:?} is not a valid flag")));
        };
        if name.starts_with(['-', '=']) {
            return Err(Rejection::Usage(format!("bad flag syntax: {arg}")));
        }
        let (name, value) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (name, None),
        };
        let Some(flag) = flags.iter().find(|flag| flag.name == name) else {
            if name == "help" || name == "h" {
                return Ok(None);
            }
            return Err(Rejection::Usage(format!(
                "flag provided but not defined: -{name}"
            )));
        };
        let value = match (value, flag.kind) {
            (Some(value), _) => value,
            (None, Kind::Bool) => "true".to_owned(),
            (None, Kind::Text | Kind::Number | Kind::Duration | Kind::List) => args
                .next()
                .cloned()
                .ok_or_else(|| Rejection::Usage(format!("flag needs an argument: -{name}")))?,
        };
        check(flags, flag, &value).map_err(|why| {
            let what = if flag.kind == Kind::Bool {
                "boolean value"
            } else {
                "value"
            };
            let whose = if flag.kind == Kind::Bool { "" } else { "flag " };
            Rejection::Usage(format!(
                "invalid {what} {value:?} for {whose}-{name}: {why}"
            ))
        })?;
        given.insert(flag.name, (value, format!("--{name}")));
    }
    Ok(Some(given))
}

/// Adds what the environment sets. The same option by both is fatal, even when they agree.
fn with_environment(
    flags: &[Flag],
    mut given: Given,
    environment: &[(String, String)],
    remarks: &mut Vec<String>,
) -> Result<Given, String> {
    let mut known = BTreeSet::new();
    for flag in flags {
        let variable = environment_name(flag.name);
        let value = lookup(environment, &variable);
        known.insert(variable.clone());
        let Some(value) = value else { continue };
        if given.contains_key(flag.name) {
            return Err(format!(
                "conflicting environment variable {variable:?} is shadowed by corresponding \
                 command-line flag (either unset environment variable or disable flag)"
            ));
        }
        check(flags, flag, value)
            .map_err(|why| format!("invalid value {value:?} for {variable}: {why}"))?;
        given.insert(flag.name, (value.to_owned(), variable));
    }
    for (name, _) in environment {
        if name.starts_with("ETCD_") && !known.contains(name) {
            remarks.push(format!("unrecognized environment variable {name}"));
        }
    }
    Ok(given)
}

/// `some-flag` is `ETCD_SOME_FLAG`.
fn environment_name(flag: &str) -> String {
    format!("ETCD_{}", flag.to_ascii_uppercase().replace('-', "_"))
}

/// An empty variable counts as unset, as in etcd.
fn lookup<'a>(environment: &'a [(String, String)], name: &str) -> Option<&'a str> {
    environment
        .iter()
        .find(|(key, value)| key == name && !value.is_empty())
        .map(|(_, value)| value.as_str())
}

/// Follows a former name to the flag that does the work.
fn resolve<'a>(flags: &'a [Flag], flag: &'a Flag) -> &'a Flag {
    match flag.effect {
        Effect::SameAs(other) => flags
            .iter()
            .find(|flag| flag.name == other)
            .expect("the table's aliases name flags of the table"),
        Effect::Sets(_) | Effect::Nothing(..) | Effect::Refuses(..) => flag,
    }
}

fn check(flags: &[Flag], flag: &Flag, value: &str) -> Result<(), String> {
    match &resolve(flags, flag).effect {
        Effect::Sets(set) => set(&mut Config::default(), value),
        Effect::Nothing(differs, _) | Effect::Refuses(differs, _) => differs(value).map(drop),
        Effect::SameAs(_) => unreachable!("resolved above"),
    }
}

/// The defaults, then what was given, then what follows from both.
fn configure(flags: &[Flag], given: &Given, remarks: &mut Vec<String>) -> Result<Config, String> {
    let mut config = Config::default();
    for flag in flags {
        if let Effect::Sets(set) = &flag.effect {
            set(&mut config, flag.default).expect("the table's defaults are valid");
        }
    }
    for flag in flags {
        let Some((value, source)) = given.get(flag.name) else {
            continue;
        };
        let target = resolve(flags, flag);
        if target.name != flag.name {
            remarks.push(format!("{source} is a former name of --{}", target.name));
        }
        let said = |why: String| format!("invalid value {value:?} for {source}: {why}");
        match &target.effect {
            Effect::Sets(set) => {
                set(&mut config, value).map_err(said)?;
                config.given.insert(target.name);
            }
            Effect::Nothing(differs, why) => {
                if differs(value).map_err(said)? {
                    remarks.push(format!("{source} has no effect here: {why}"));
                }
            }
            Effect::Refuses(differs, why) => {
                if differs(value).map_err(said)? {
                    return Err(format!("{source}={value}: {why}"));
                }
            }
            Effect::SameAs(_) => unreachable!("resolved above"),
        }
    }
    config.complete();
    config.check(remarks)?;
    Ok(config)
}

#[cfg(test)]
mod tests;
