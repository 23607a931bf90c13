//! Access lists and identities: ZooKeeper's schemes, in and out.

use crate::errors::Code;
use crate::jute::Write;
use crate::record::Acl;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gateway::keyspace::access::{AccessEntry, AccessList, Identity, Permissions};
use sha1::{Digest, Sha1};
use std::net::IpAddr;

/// The longest access list: looking at a node looks at all of it.
const ENTRIES_MAX: usize = 1024;

/// An access list as it is kept: `auth` stands for whoever the caller has authenticated as, equal
/// entries count once, and what is open to everyone needs no list.
pub fn expand(acl: &[Acl<'_>], callers: &[Identity]) -> Result<Option<AccessList>, Code> {
    if acl.len() > ENTRIES_MAX {
        return Err(Code::InvalidAcl);
    }
    let mut list: Vec<AccessEntry> = Vec::with_capacity(acl.len());
    for (at, entry) in acl.iter().enumerate() {
        if acl[..at].contains(entry) {
            continue;
        }
        let permissions = Permissions(entry.permissions.cast_unsigned());
        let who = |who: Identity| AccessEntry { permissions, who };
        match entry.scheme.ok_or(Code::InvalidAcl)? {
            "auth" => {
                let known = list.len();
                let authenticated = callers.iter().filter(|id| is_authenticated(id));
                list.extend(authenticated.cloned().map(who));
                if list.len() == known {
                    return Err(Code::InvalidAcl);
                }
            }
            scheme if is_meaningful(scheme, entry.id) => {
                list.push(who(Identity::new(scheme, entry.id)));
            }
            _ => return Err(Code::InvalidAcl),
        }
    }
    if list.is_empty() || list.len() > ENTRIES_MAX {
        return Err(Code::InvalidAcl);
    }
    Ok((list != [open()]).then(|| list.into()))
}

/// What lets everyone do everything.
fn open() -> AccessEntry {
    AccessEntry {
        permissions: Permissions::ALL,
        who: Identity::anyone(),
    }
}

/// An address is not something that its owner has proved.
fn is_authenticated(id: &Identity) -> bool {
    &*id.scheme != "ip"
}

/// Whether an access list may name this one.
fn is_meaningful(scheme: &str, id: &str) -> bool {
    match scheme {
        "world" => id == "anyone",
        // Java's `split` forgets empty parts at the end.
        "digest" => id.trim_end_matches(':').split(':').count() == 2,
        "ip" => is_network(id),
        _ => false,
    }
}

/// Whether this is an address, perhaps with the number of bits that count.
fn is_network(id: &str) -> bool {
    let (address, bits) = match id.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (id, None),
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        return false;
    };
    let width = if address.is_ipv4() { 32 } else { 128 };
    bits.is_none_or(|bits| bits.parse::<u8>().is_ok_and(|bits| bits <= width))
}

/// The identities that a proof makes; none if it is none.
pub fn authenticate(
    scheme: &str,
    token: &[u8],
    peer: &Identity,
    super_digest: Option<&str>,
) -> Option<Vec<Identity>> {
    match scheme {
        "digest" => {
            let digest = digest(token);
            let is_super = super_digest == Some(&digest);
            let superuser = is_super.then(|| Identity::new(SUPER, ""));
            Some(
                superuser
                    .into_iter()
                    .chain([Identity::new("digest", digest)])
                    .collect(),
            )
        }
        "ip" => Some(vec![peer.clone()]),
        _ => None,
    }
}

/// The scheme of who may do everything.
const SUPER: &str = "super";

/// Whether one of these may do everything.
pub fn is_super(callers: &[Identity]) -> bool {
    callers.iter().any(|id| &*id.scheme == SUPER)
}

/// `user:base64(SHA-1("user:password"))`.
fn digest(token: &[u8]) -> String {
    let token = String::from_utf8_lossy(token);
    let user = token.split(':').next().unwrap_or_default();
    format!("{user}:{}", STANDARD.encode(Sha1::digest(token.as_bytes())))
}

/// Whom a client is told that it is: of a digest, only the user.
pub fn user_of(id: &Identity) -> &str {
    match &*id.scheme {
        "digest" => id.id.split(':').next().unwrap_or_default(),
        _ => &id.id,
    }
}

/// Appends an access list; with `redact`, without what a password could be guessed from.
pub fn encode(out: &mut Vec<u8>, list: Option<&[AccessEntry]>, redact: bool) {
    let open = [open()];
    let list = list.unwrap_or(&open);
    out.count(list.len());
    for entry in list {
        out.int(entry.permissions.0.cast_signed());
        out.text(&entry.who.scheme);
        match entry.who.id.split_once(':') {
            Some((user, _)) if redact && &*entry.who.scheme == "digest" => {
                out.text(&format!("{user}:x"));
            }
            Some(_) | None => out.text(&entry.who.id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry<'a>(scheme: &'a str, id: &'a str) -> Acl<'a> {
        Acl {
            permissions: 31,
            scheme: Some(scheme),
            id,
        }
    }

    fn ids(list: Option<AccessList>) -> Vec<String> {
        let list = list.expect("a list");
        let text = |e: &AccessEntry| format!("{}:{}", e.who.scheme, e.who.id);
        list.iter().map(text).collect()
    }

    #[test]
    fn digests_are_zookeepers() {
        // The example of ZooKeeper's administrator's guide.
        assert_eq!(digest(b"super:admin"), "super:xQJmxLMiHGwaqBvst5y6rkB6HQs=");
        assert_eq!(digest(b"nobody").split(':').next(), Some("nobody"));
    }

    #[test]
    fn only_known_schemes_may_be_named() {
        for (scheme, id, known) in [
            ("world", "anyone", true),
            ("world", "someone", false),
            ("digest", "a:b", true),
            ("digest", "a:b:", true),
            ("digest", "a:", false),
            ("digest", "a:b:c", false),
            ("ip", "10.0.0.0/8", true),
            ("ip", "10.0.0.0/33", false),
            ("ip", "::1", true),
            ("ip", "::1/129", false),
            ("ip", "host", false),
            ("sasl", "a", false),
            ("super", "", false),
        ] {
            assert_eq!(is_meaningful(scheme, id), known, "{scheme}:{id}");
        }
    }

    #[test]
    fn auth_stands_for_who_has_authenticated() {
        let callers = [
            Identity::new("ip", "127.0.0.1"),
            Identity::new("digest", "a:x"),
        ];
        let list = expand(&[entry("auth", "")], &callers).expect("a list");
        assert_eq!(ids(list), ["digest:a:x"]);
        assert_eq!(
            expand(&[entry("auth", "")], &callers[..1]),
            Err(Code::InvalidAcl)
        );
    }

    #[test]
    fn equal_entries_count_once_and_none_is_no_list() {
        let twice = [entry("digest", "a:b"), entry("digest", "a:b")];
        assert_eq!(ids(expand(&twice, &[]).expect("a list")), ["digest:a:b"]);
        assert_eq!(expand(&[], &[]), Err(Code::InvalidAcl));
        assert_eq!(expand(&[entry("world", "anyone")], &[]), Ok(None));
    }

    #[test]
    fn a_super_user_is_known_by_the_digest() {
        let peer = Identity::new("ip", "127.0.0.1");
        let known = Some("super:xQJmxLMiHGwaqBvst5y6rkB6HQs=");
        let ids = |token| authenticate("digest", token, &peer, known).expect("never fails");
        assert!(is_super(&ids(b"super:admin")));
        assert!(!is_super(&ids(b"super:other")));
        assert_eq!(authenticate("world", b"", &peer, known), None);
    }
}
