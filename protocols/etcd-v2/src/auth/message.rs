//! Users and roles as JSON: read as Go reads it, and written as Go writes it.

use crate::json;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

/// A list that may be null, which Go tells from an empty one.
pub type List = Option<Vec<String>>;

/// What a role may do with keys, by patterns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Patterns {
    /// What may be read.
    pub read: List,
    /// What may be written.
    pub write: List,
}

/// What a role may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Permissions {
    /// With keys.
    #[serde(deserialize_with = "or_default")]
    pub kv: Patterns,
}

impl Permissions {
    /// Whether nothing is permitted.
    pub fn is_empty(&self) -> bool {
        let none = |list: &List| list.as_ref().is_none_or(Vec::is_empty);
        none(&self.kv.read) && none(&self.kv.write)
    }
}

/// A role as a client describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Role {
    /// Its name.
    #[serde(deserialize_with = "or_default")]
    pub role: String,
    /// What a new one may do.
    #[serde(deserialize_with = "or_default")]
    pub permissions: Permissions,
    /// What it may do from now on.
    pub grant: Option<Permissions>,
    /// What it may do no more.
    pub revoke: Option<Permissions>,
}

/// A user as a client describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct User {
    /// The name.
    #[serde(deserialize_with = "or_default")]
    pub user: String,
    /// The new password, if there is one.
    #[serde(deserialize_with = "or_default")]
    pub password: String,
    /// The roles of a new one.
    pub roles: List,
    /// Roles to give.
    #[serde(deserialize_with = "or_default")]
    pub grant: Vec<String>,
    /// Roles to take.
    #[serde(deserialize_with = "or_default")]
    pub revoke: Vec<String>,
}

/// Go takes null for nothing at all.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    d: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

/// The first value of a text; what follows it is overlooked, as by Go's decoder.
pub fn parse<T: DeserializeOwned>(text: &[u8]) -> Option<T> {
    // A list of the fields' values would do for serde, and not for Go.
    if text.trim_ascii_start().starts_with(b"[") {
        return None;
    }
    let values = serde_json::Deserializer::from_slice(text).into_iter::<T>();
    values.into_iter().next()?.ok()
}

/// Whether authentication is on.
pub fn enabled(enabled: bool) -> Vec<u8> {
    format!("{{\"enabled\":{enabled}}}\n").into_bytes()
}

/// Everything of a sort, under its name; null if there is nothing.
pub fn all(sort: &str, items: impl ExactSizeIterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut out = format!("{{\"{sort}\":").into_bytes();
    match items.len() {
        0 => out.extend_from_slice(b"null"),
        _ => list(&mut out, items, |out, item| out.extend_from_slice(&item)),
    }
    out.extend_from_slice(b"}\n");
    out
}

/// A role.
pub fn role(role: &Role) -> Vec<u8> {
    let mut out = b"{\"role\":".to_vec();
    json::string(&mut out, role.role.as_bytes());
    for (name, permissions) in [
        ("permissions", Some(&role.permissions)),
        ("grant", role.grant.as_ref()),
        ("revoke", role.revoke.as_ref()),
    ] {
        let Some(permissions) = permissions else {
            continue;
        };
        out.extend_from_slice(format!(",\"{name}\":{{\"kv\":{{\"read\":").as_bytes());
        strings(&mut out, permissions.kv.read.as_deref());
        out.extend_from_slice(b",\"write\":");
        strings(&mut out, permissions.kv.write.as_deref());
        out.extend_from_slice(b"}}");
    }
    out.push(b'}');
    out
}

/// A user with the names of the roles.
pub fn user(name: &str, roles: Option<&[String]>) -> Vec<u8> {
    let mut out = b"{\"user\":".to_vec();
    json::string(&mut out, name.as_bytes());
    out.extend_from_slice(b",\"roles\":");
    strings(&mut out, roles);
    out.extend_from_slice(b"}\n");
    out
}

/// A user with what the roles may do.
pub fn user_with_roles(name: &str, roles: &[Role]) -> Vec<u8> {
    let mut out = b"{\"user\":".to_vec();
    json::string(&mut out, name.as_bytes());
    if !roles.is_empty() {
        out.extend_from_slice(b",\"roles\":");
        list(&mut out, roles.iter(), |out, it| {
            out.extend_from_slice(&role(it));
        });
    }
    out.push(b'}');
    out
}

fn strings(out: &mut Vec<u8>, texts: Option<&[String]>) {
    match texts {
        None => out.extend_from_slice(b"null"),
        Some(texts) => list(out, texts.iter(), |out, text| {
            json::string(out, text.as_bytes());
        }),
    }
}

fn list<T>(
    out: &mut Vec<u8>,
    items: impl Iterator<Item = T>,
    mut append: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(b'[');
    for (at, item) in items.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        append(out, item);
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_nothing_are_told_apart_only_in_lists() {
        let parsed: Role =
            parse(br#"{"role":"r","permissions":null,"grant":{"kv":{"read":[]}}} x"#)
                .expect("it can be read");
        assert_eq!(
            String::from_utf8(role(&parsed)).as_deref(),
            Ok(concat!(
                r#"{"role":"r","permissions":{"kv":{"read":null,"write":null}},"#,
                r#""grant":{"kv":{"read":[],"write":null}}}"#
            ))
        );
        assert!(parsed.grant.is_some_and(|grant| grant.is_empty()));
        for text in ["", "{bad", "[]", r#"{"role":1}"#] {
            assert_eq!(parse::<Role>(text.as_bytes()), None, "{text}");
        }
    }
}
