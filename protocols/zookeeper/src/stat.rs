//! What ZooKeeper says of a node beside its data.

use crate::jute::Write;
use gateway::keyspace::{Entry, NodeView};

/// ZooKeeper's `Stat`, in its order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// The zxid of the node's creation.
    pub czxid: i64,
    /// The zxid of its data's last change.
    pub mzxid: i64,
    /// When it was created, in milliseconds since 1970.
    pub ctime: i64,
    /// When its data last changed.
    pub mtime: i64,
    /// How often its data changed.
    pub version: i32,
    /// How often children came or went.
    pub cversion: i32,
    /// How often its access list changed.
    pub aversion: i32,
    /// The session it ends with, or 0.
    pub ephemeral_owner: i64,
    /// Bytes of data.
    pub data_length: i32,
    /// Nodes right beneath.
    pub num_children: i32,
    /// The zxid at which a child last came or went.
    pub pzxid: i64,
}

impl Stat {
    /// The stat of a node of the keyspace. Of children, only their creations are counted: one that
    /// came and went counts twice in `cversion`, one that is there once.
    pub fn of(node: &NodeView) -> Stat {
        let entry = node.entry.as_ref();
        let creates = node.creates.cast_signed();
        let children = node.children.cast_signed();
        Stat {
            czxid: node.created.0.cast_signed(),
            mzxid: node.modified.0.cast_signed(),
            ctime: node.born.0.cast_signed(),
            mtime: node.written.0.cast_signed(),
            version: version_of(node.puts),
            cversion: creates.wrapping_mul(2).wrapping_sub(children),
            aversion: node.acl_version.cast_signed(),
            ephemeral_owner: entry.map_or(0, |entry| entry.lease().0),
            data_length: entry.map_or(0, |entry| crate::jute::length(entry.value().len())),
            num_children: children,
            pzxid: node.children_changed.0.cast_signed(),
        }
    }

    /// Appends it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.long(self.czxid);
        out.long(self.mzxid);
        out.long(self.ctime);
        out.long(self.mtime);
        out.int(self.version);
        out.int(self.cversion);
        out.int(self.aversion);
        out.long(self.ephemeral_owner);
        out.int(self.data_length);
        out.int(self.num_children);
        out.long(self.pzxid);
    }
}

/// ZooKeeper counts changes after the creation, in 31 bits, and steps over -1, which means "any".
fn version_of(puts: u64) -> i32 {
    const ROUND: u64 = u32::MAX as u64;
    let changes = puts.saturating_sub(1);
    let version = u32::try_from(changes % ROUND).expect("a remainder is less");
    version.cast_signed()
}

/// How often a value was put that has this version.
pub fn puts_of(version: i32) -> u64 {
    u64::from(version.cast_unsigned()) + 1
}

/// What a stat says of this data.
pub fn length_of(data: Option<&[u8]>) -> i32 {
    crate::jute::length(data.map_or(0, <[u8]>::len))
}

/// A node's data: null where it has none, or was given none.
pub fn data(node: &NodeView) -> Option<&[u8]> {
    node.entry
        .as_ref()
        .filter(|entry| !entry.is_null())
        .map(Entry::value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_wrap_over_any() {
        assert_eq!(version_of(1), 0);
        assert_eq!(version_of(8), 7);
        assert_eq!(version_of(1 << 31), i32::MAX);
        assert_eq!(version_of((1 << 31) + 1), i32::MIN);
        assert_eq!(version_of(u64::from(u32::MAX)), -2);
        assert_eq!(version_of(u64::from(u32::MAX) + 1), 0);
        assert_eq!(puts_of(0), 1);
        assert_eq!(puts_of(i32::MIN), (1 << 31) + 1);
    }
}
