//! Access lists and identities: ZooKeeper's schemes, in and out.

use crate::Arrival;
use crate::config::{DigestAlgorithm, Options};
use crate::errors::Code;
use crate::jute::Write;
use crate::record::Acl;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gateway::keyspace::access::{AccessEntry, AccessList, Identity, Permissions};
use sha1::{Digest, Sha1};
use sha2::{Sha256, Sha512};
use std::net::IpAddr;

/// The longest access list: looking at a node looks at all of it.
const ENTRIES_MAX: usize = 1024;
/// The same in bytes: a line of `auth` may stand for many.
const LIST_BYTES_MAX: usize = 64 << 10;

/// An access list as it is kept: `auth` stands for whoever the caller has authenticated as, equal
/// entries count once, and what is open to everyone needs no list.
pub fn expand(
    acl: &[Acl<'_>],
    callers: &[Identity],
    options: &Options,
) -> Result<Option<AccessList>, Code> {
    if acl.len() > ENTRIES_MAX {
        return Err(Code::InvalidAcl);
    }
    let mut list = Growing {
        entries: Vec::with_capacity(acl.len()),
        bytes: 0,
    };
    for (at, entry) in acl.iter().enumerate() {
        if acl[..at].contains(entry) {
            continue;
        }
        let permissions = Permissions(entry.permissions.cast_unsigned());
        match entry.scheme.ok_or(Code::InvalidAcl)? {
            "auth" => {
                let known = list.entries.len();
                let authenticated = callers
                    .iter()
                    .filter(|id| is_authenticated(id) && is_known(&id.scheme, options));
                for id in authenticated {
                    list.push(permissions, &id.scheme, &id.id)?;
                }
                if list.entries.len() == known {
                    return Err(Code::InvalidAcl);
                }
            }
            scheme if is_known(scheme, options) && is_meaningful(scheme, entry.id) => {
                list.push(permissions, scheme, entry.id)?;
            }
            _ => return Err(Code::InvalidAcl),
        }
    }
    let list = list.entries;
    if list.is_empty() {
        return Err(Code::InvalidAcl);
    }
    Ok((list != [open()]).then(|| list.into()))
}

/// An access list that grows no longer than it may.
struct Growing {
    entries: Vec<AccessEntry>,
    bytes: usize,
}

impl Growing {
    fn push(&mut self, permissions: Permissions, scheme: &str, id: &str) -> Result<(), Code> {
        let who = Identity::new(scheme, id);
        self.bytes += who.len_bytes();
        if self.entries.len() == ENTRIES_MAX || self.bytes > LIST_BYTES_MAX {
            return Err(Code::InvalidAcl);
        }
        self.entries.push(AccessEntry { permissions, who });
        Ok(())
    }
}

/// What identities take.
pub fn bytes_of<'a>(ids: impl IntoIterator<Item = &'a Identity>) -> usize {
    let ids = ids.into_iter();
    ids.map(Identity::len_bytes).sum()
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

/// Whether identities of this scheme count: those of SASL only where it was said that they do.
fn is_known(scheme: &str, options: &Options) -> bool {
    scheme != "sasl" || options.sasl_scheme
}

/// Whether an access list may name this one.
fn is_meaningful(scheme: &str, id: &str) -> bool {
    match scheme {
        "world" => id == "anyone",
        // Java's `split` forgets empty parts at the end.
        "digest" => id.trim_end_matches(':').split(':').count() == 2,
        "ip" => is_network(id),
        "x509" => is_name(id),
        "sasl" => is_principal(id),
        _ => false,
    }
}

/// The types of attributes that Java knows in names, beside numbers.
const ATTRIBUTES: [&str; 21] = [
    "CN",
    "C",
    "L",
    "S",
    "ST",
    "O",
    "OU",
    "T",
    "IP",
    "STREET",
    "DC",
    "DNQUALIFIER",
    "DNQ",
    "SURNAME",
    "GIVENNAME",
    "INITIALS",
    "GENERATION",
    "EMAILADDRESS",
    "UID",
    "SERIALNUMBER",
    "EMAIL",
];

/// Whether this is the name of a certificate's owner: attributes with values, or nothing.
fn is_name(id: &str) -> bool {
    let mut quoted = false;
    let mut escaped = false;
    let mut parts = id.split(|character: char| {
        let splits = matches!(character, ',' | ';' | '+') && !quoted && !escaped;
        quoted ^= character == '"' && !escaped;
        escaped = character == '\\' && !escaped;
        splits
    });
    id.is_empty()
        || parts.all(|part| {
            let Some((kind, _)) = part.split_once('=') else {
                return false;
            };
            let kind = kind.trim().to_ascii_uppercase();
            let number = kind.strip_prefix("OID.").unwrap_or(&kind);
            let is_number = number.split('.').count() > 1
                && number.split('.').all(|part| part.parse::<u64>().is_ok());
            is_number || ATTRIBUTES.contains(&kind.as_str())
        })
}

/// Whether this can be the name of someone who logs in: with a realm, it is Kerberos' name.
fn is_principal(id: &str) -> bool {
    match id.split_once('@') {
        None => true,
        Some((name, realm)) => name.matches('/').count() <= 1 && !realm.contains(['/', '@']),
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

/// Who a client is by its connection.
pub struct Inborn {
    address: Identity,
    /// By its certificate; and who may do everything, if that is such a one's.
    certificate: Vec<Identity>,
}

impl Inborn {
    /// Who came so.
    pub fn of(arrival: &Arrival, options: &Options) -> Inborn {
        let mut certificate = Vec::new();
        if let Some(subject) = &arrival.subject {
            if options.super_subject.as_ref() == Some(subject) {
                certificate.push(Identity::new(SUPER, &**subject));
            }
            certificate.push(Identity::new("x509", &**subject));
        }
        Inborn {
            address: Identity::new("ip", arrival.peer.ip().to_canonical().to_string()),
            certificate,
        }
    }

    /// All of them.
    pub fn ids(&self) -> impl Iterator<Item = &Identity> {
        std::iter::once(&self.address).chain(&self.certificate)
    }
}

/// The identities that a proof makes; none if it is none.
pub fn authenticate(
    scheme: &str,
    token: &[u8],
    inborn: &Inborn,
    options: &Options,
) -> Option<Vec<Identity>> {
    match scheme {
        "digest" => {
            let digest = digest(token, options.digest_algorithm);
            let is_super = options.super_digest.as_ref() == Some(&digest);
            let superuser = is_super.then(|| Identity::new(SUPER, ""));
            Some(
                superuser
                    .into_iter()
                    .chain([Identity::new("digest", digest)])
                    .collect(),
            )
        }
        "ip" => Some(vec![inborn.address.clone()]),
        "x509" => Some(inborn.certificate.clone()).filter(|ids| !ids.is_empty()),
        _ => None,
    }
}

/// The identities of who has logged in by SASL.
pub fn logged_in(user: &str, super_users: &[String]) -> Vec<Identity> {
    let is_super = super_users.iter().any(|known| known == user);
    let superuser = is_super.then(|| Identity::new(SUPER, ""));
    [Identity::new("sasl", user)]
        .into_iter()
        .chain(superuser)
        .collect()
}

/// The scheme of who may do everything.
const SUPER: &str = "super";

/// Whether one of these may do everything.
pub fn is_super(callers: &[Identity]) -> bool {
    callers.iter().any(|id| &*id.scheme == SUPER)
}

/// `user:base64(SHA-1("user:password"))`, or with another algorithm.
fn digest(token: &[u8], algorithm: DigestAlgorithm) -> String {
    let token = String::from_utf8_lossy(token);
    let user = token.split(':').next().unwrap_or_default();
    let hash = match algorithm {
        DigestAlgorithm::Sha1 => STANDARD.encode(Sha1::digest(token.as_bytes())),
        DigestAlgorithm::Sha256 => STANDARD.encode(Sha256::digest(token.as_bytes())),
        DigestAlgorithm::Sha512 => STANDARD.encode(Sha512::digest(token.as_bytes())),
    };
    format!("{user}:{hash}")
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
        let sha1 = |token| digest(token, DigestAlgorithm::Sha1);
        assert_eq!(sha1(b"super:admin"), "super:xQJmxLMiHGwaqBvst5y6rkB6HQs=");
        assert_eq!(sha1(b"nobody").split(':').next(), Some("nobody"));
        let sha256 = digest(b"super:admin", DigestAlgorithm::Sha256);
        assert_eq!(sha256, "super:wtZw1Um4mq1rRKbXqxHs8ueodBP35/JhtBP/nwJ62WY=");
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
            ("x509", "CN=a,O=b c,1.2.3=#0c", true),
            ("x509", "cn=a\\,b+OU=\"c,d\"", true),
            ("x509", "", true),
            ("x509", "CN=a,b", false),
            ("x509", "name=a", false),
            ("sasl", "a", true),
            ("sasl", "a/b@c", true),
            ("sasl", "a/b/c@d", false),
            ("sasl", "a@b@c", false),
            ("super", "", false),
        ] {
            assert_eq!(is_meaningful(scheme, id), known, "{scheme}:{id}");
        }
    }

    #[test]
    fn auth_stands_for_who_has_authenticated() {
        let mut options = Options::default();
        let callers = [
            Identity::new("ip", "127.0.0.1"),
            Identity::new("digest", "a:x"),
            Identity::new("sasl", "b"),
        ];
        let list = expand(&[entry("auth", "")], &callers, &options).expect("a list");
        assert_eq!(ids(list), ["digest:a:x"]);
        assert_eq!(
            expand(&[entry("auth", "")], &callers[..1], &options),
            Err(Code::InvalidAcl)
        );
        assert!(expand(&[entry("sasl", "b")], &[], &options).is_err());
        options.sasl_scheme = true;
        let list = expand(&[entry("auth", "")], &callers, &options).expect("a list");
        assert_eq!(ids(list), ["digest:a:x", "sasl:b"]);
        assert!(expand(&[entry("sasl", "b")], &[], &options).is_ok());
    }

    #[test]
    fn a_list_may_not_grow_too_long() {
        let options = Options::default();
        let lines: Vec<String> = (0..ENTRIES_MAX).map(|line| line.to_string()).collect();
        let acl: Vec<_> = lines.iter().map(|line| entry("auth", line)).collect();
        let expanded = |callers: &[Identity]| expand(&acl, callers, &options);
        let short = [Identity::new("digest", "a:x")];
        assert_eq!(ids(expanded(&short).expect("a list")).len(), ENTRIES_MAX);
        let two = [short[0].clone(), Identity::new("digest", "b:x")];
        assert_eq!(expanded(&two), Err(Code::InvalidAcl));
        let long = [Identity::new("digest", "a".repeat(100))];
        assert_eq!(expanded(&long), Err(Code::InvalidAcl));
    }

    #[test]
    fn equal_entries_count_once_and_none_is_no_list() {
        let options = Options::default();
        let twice = [entry("digest", "a:b"), entry("digest", "a:b")];
        assert_eq!(
            ids(expand(&twice, &[], &options).expect("a list")),
            ["digest:a:b"]
        );
        assert_eq!(expand(&[], &[], &options), Err(Code::InvalidAcl));
        assert_eq!(expand(&[entry("world", "anyone")], &[], &options), Ok(None));
    }

    #[test]
    fn a_super_user_is_known_by_the_digest() {
        let options = Options {
            super_digest: Some("super:xQJmxLMiHGwaqBvst5y6rkB6HQs=".to_owned()),
            ..Options::default()
        };
        let inborn = Inborn::of(&arrival(None), &options);
        let ids = |token| authenticate("digest", token, &inborn, &options).expect("never fails");
        assert!(is_super(&ids(b"super:admin")));
        assert!(!is_super(&ids(b"super:other")));
        assert_eq!(authenticate("world", b"", &inborn, &options), None);
    }

    fn arrival(subject: Option<&str>) -> Arrival {
        Arrival {
            subject: subject.map(str::to_owned),
            ..Arrival::plain(([127, 0, 0, 1], 1).into())
        }
    }

    #[test]
    fn a_certificate_is_an_identity() {
        let options = Options {
            super_subject: Some("CN=root".to_owned()),
            ..Options::default()
        };
        let ids = |subject| {
            let inborn = Inborn::of(&arrival(subject), &options);
            let text = |id: &Identity| format!("{}:{}", id.scheme, id.id);
            let born: Vec<_> = inborn.ids().map(text).collect();
            let shown = authenticate("x509", b"", &inborn, &options);
            (born, shown.map(|ids| is_super(&ids)))
        };
        assert_eq!(ids(None), (vec!["ip:127.0.0.1".to_owned()], None));
        let (born, shown) = ids(Some("CN=a"));
        assert_eq!(
            (&born[1..], shown),
            (&["x509:CN=a".to_owned()][..], Some(false))
        );
        let (born, shown) = ids(Some("CN=root"));
        assert_eq!((born.len(), shown), (3, Some(true)));
    }
}
