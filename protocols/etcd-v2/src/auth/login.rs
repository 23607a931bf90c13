//! Who asks, by basic authentication, and what they may do with keys.

use super::pattern;
use crate::Shared;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use gateway::keyspace::{Permissions, Principal};
use gateway::{Gate, Unavailable};

/// Who asks. None has shown something, but not to be a user: that is no guest either.
pub async fn who(gate: &Gate, headers: &HeaderMap) -> Result<Option<Principal>, Unavailable> {
    let given = headers.get(AUTHORIZATION).filter(|it| !it.is_empty());
    let Some(given) = given.filter(|_| gate.reader().auth().enabled()) else {
        return Ok(Some(Principal::Anonymous));
    };
    match basic(given.as_bytes()) {
        Some((user, password)) => gate.log_in(&user, &password).await,
        None => Ok(None),
    }
}

/// The user and the password of a header.
fn basic(header: &[u8]) -> Option<(String, Vec<u8>)> {
    let (scheme, encoded) = header.split_at_checked(b"Basic ".len())?;
    if !scheme.eq_ignore_ascii_case(b"Basic ") {
        return None;
    }
    let mut user = STANDARD.decode(encoded).ok()?;
    let colon = user.iter().position(|byte| *byte == b':')?;
    let password = user.split_off(colon + 1);
    user.pop();
    Some((String::from_utf8(user).ok()?, password))
}

/// A client before keys.
pub struct Visitor {
    /// Who it is.
    pub who: Principal,
    /// What stands for the path of what it wants, as it was spelled: see [`pattern::key`] ...
    pub key: Bytes,
    /// ... and all that begins so.
    pub recursive: bool,
    /// What it wants with that.
    pub may: Permissions,
}

impl Visitor {
    /// Whether it may, by users and roles as they are now.
    pub fn is_permitted(&self, shared: &Shared) -> bool {
        let reader = shared.gate.reader();
        if reader.is_open() {
            return true;
        }
        let auth = reader.auth();
        let checked = auth
            .rights(&self.who)
            .and_then(|rights| match self.recursive {
                true => rights.check(&pattern::beginning_with(self.key.clone()), self.may),
                false => rights.check_key(&self.key, self.may),
            });
        checked.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_name_users() {
        let named = |header: &str| {
            let (user, password) = basic(header.as_bytes())?;
            Some(format!("{user}/{}", String::from_utf8_lossy(&password)))
        };
        for (header, expected) in [
            ("Basic YTpi", Some("a/b")),
            ("basic YTpi", Some("a/b")),
            ("Basic YTo=", Some("a/")),
            ("Basic YTpiOmM=", Some("a/b:c")),
            ("Basic OmI=", Some("/b")),
            ("Basic YQ==", None),
            ("Basic !!!", None),
            ("Basic", None),
            ("Bearer YTpi", None),
            ("", None),
        ] {
            assert_eq!(named(header).as_deref(), expected, "{header}");
        }
    }
}
