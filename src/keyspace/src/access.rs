//! Who may do what to a node: access lists and those they are judged against.

use minicbor::{Decode, Encode};
use std::net::IpAddr;
use std::ops::BitOr;
use std::sync::Arc;

/// A node's access list, shared by all who look at it. A node that has none is open to everyone.
pub type AccessList = Arc<[AccessEntry]>;

/// One line of an access list.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AccessEntry {
    /// What is permitted ...
    #[n(0)]
    pub permissions: Permissions,
    /// ... and to whom.
    #[n(1)]
    pub who: Identity,
}

/// A set of permissions, as bits. Bits without a name permit nothing, but are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Permissions(#[n(0)] pub u32);

impl Permissions {
    /// To read a node's value and the names of its children, and to be told of events at it.
    pub const READ: Permissions = Permissions(1);
    /// To write its value.
    pub const WRITE: Permissions = Permissions(2);
    /// To create children of it.
    pub const CREATE: Permissions = Permissions(4);
    /// To delete children of it.
    pub const DELETE: Permissions = Permissions(8);
    /// To change its access list.
    pub const ADMIN: Permissions = Permissions(16);
    /// All that have a name.
    pub const ALL: Permissions = Permissions(31);

    /// Whether some permission is in both sets.
    pub fn meets(self, other: Permissions) -> bool {
        self.0 & other.0 != 0
    }
}

impl BitOr for Permissions {
    type Output = Permissions;

    fn bitor(self, other: Permissions) -> Permissions {
        Permissions(self.0 | other.0)
    }
}

/// Someone, or a group of them: a caller as authenticated, or whom an access list means. Schemes are
/// ZooKeeper's: `world` (whose `anyone` is everyone), `ip` (in a list perhaps with the number of bits
/// that count), `sasl` (where a caller `super` is whoever is meant), and others, which mean who is spelled the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Identity {
    /// How the caller was authenticated.
    #[n(0)]
    pub scheme: Box<str>,
    /// As whom.
    #[n(1)]
    pub id: Box<str>,
}

impl Identity {
    /// Someone.
    pub fn new(scheme: impl Into<Box<str>>, id: impl Into<Box<str>>) -> Identity {
        Identity {
            scheme: scheme.into(),
            id: id.into(),
        }
    }

    /// How many bytes it has.
    pub fn len_bytes(&self) -> usize {
        self.scheme.len() + self.id.len()
    }

    /// Everyone.
    pub fn anyone() -> Identity {
        Identity::new("world", "anyone")
    }

    /// Whether this one of a list means that caller.
    fn means(&self, caller: &Identity) -> bool {
        self.scheme == caller.scheme
            && match &*self.scheme {
                "ip" => within(&caller.id, &self.id),
                // ZooKeeper's: one of this name is everyone who logs in.
                "sasl" => &*caller.id == "super" || self.id == caller.id,
                _ => self.id == caller.id,
            }
    }
}

/// Whether a list permits one of `wanted` to a caller of these identities.
pub fn allows(list: Option<&[AccessEntry]>, callers: &[Identity], wanted: Permissions) -> bool {
    let Some(list) = list else { return true };
    list.iter()
        .filter(|entry| entry.permissions.meets(wanted))
        .any(|entry| {
            let who = &entry.who;
            let everyone = &*who.scheme == "world" && &*who.id == "anyone";
            everyone || callers.iter().any(|caller| who.means(caller))
        })
}

/// Whether an address lies in a network: another address, perhaps with the number of bits that
/// count after a slash.
fn within(address: &str, network: &str) -> bool {
    let (network, bits) = match network.split_once('/') {
        Some((network, bits)) => match bits.parse::<u32>() {
            Ok(bits) => (network, bits),
            Err(_) => return false,
        },
        None => (network, u32::MAX),
    };
    let (Ok(address), Ok(network)) = (address.parse::<IpAddr>(), network.parse::<IpAddr>()) else {
        return false;
    };
    let (address, network, width) = match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            (address.to_bits().into(), network.to_bits().into(), 32)
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => (address.to_bits(), network.to_bits(), 128),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
    };
    let differs: u128 = address ^ network;
    match bits {
        u32::MAX => differs == 0,
        bits if bits > width => false,
        bits => differs.checked_shr(width - bits).unwrap_or(0) == 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(permissions: Permissions, scheme: &str, id: &str) -> Vec<AccessEntry> {
        vec![AccessEntry {
            permissions,
            who: Identity::new(scheme, id),
        }]
    }

    #[test]
    fn no_list_is_open_and_an_empty_one_is_closed() {
        assert!(allows(None, &[], Permissions::ADMIN));
        assert!(!allows(Some(&[]), &[Identity::anyone()], Permissions::READ));
    }

    #[test]
    fn anyone_means_callers_who_named_nobody() {
        let list = list(Permissions::READ, "world", "anyone");
        assert!(allows(Some(&list), &[], Permissions::READ));
        assert!(!allows(Some(&list), &[], Permissions::WRITE));
        let either = Permissions::ADMIN | Permissions::READ;
        assert!(allows(Some(&list), &[], either));
    }

    #[test]
    fn other_schemes_mean_who_is_spelled_the_same() {
        let list = list(Permissions::ALL, "digest", "user:hash");
        let caller = |scheme, id| [Identity::new("ip", "1.2.3.4"), Identity::new(scheme, id)];
        let may = |caller: &[Identity]| allows(Some(&list), caller, Permissions::CREATE);
        assert!(may(&caller("digest", "user:hash")));
        assert!(!may(&caller("digest", "user:other")));
        assert!(!may(&caller("sasl", "user:hash")));
        assert!(!may(&caller("digest", "super")));
    }

    #[test]
    fn super_is_whoever_logs_in() {
        let list = list(Permissions::ALL, "sasl", "bob");
        for (who, may) in [("bob", true), ("super", true), ("ann", false)] {
            let caller = [Identity::new("sasl", who)];
            assert_eq!(
                allows(Some(&list), &caller, Permissions::READ),
                may,
                "{who}"
            );
        }
    }

    #[test]
    fn networks_mean_the_addresses_within() {
        for (address, network, is_within) in [
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("10.1.2.3", "10.1.0.0/16", true),
            ("10.2.2.3", "10.1.0.0/16", false),
            ("10.1.2.3", "0.0.0.0/0", true),
            ("10.1.2.3", "10.1.2.3/32", true),
            ("10.1.2.3", "10.1.2.3/33", false),
            ("10.1.2.3", "10.1.2.3/x", false),
            ("fe80::1", "fe80::/10", true),
            ("fe80::1", "::/0", true),
            ("10.1.2.3", "::/0", false),
            ("10.1.2.3", "host", false),
        ] {
            let list = list(Permissions::READ, "ip", network);
            let caller = [Identity::new("ip", address)];
            let may = allows(Some(&list), &caller, Permissions::READ);
            assert_eq!(may, is_within, "{address} {network}");
        }
    }
}
