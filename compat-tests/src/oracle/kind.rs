//! What is compared: the protocols, who speaks them, and where each implementation is.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use super::zookeeper;

/// What a scenario speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Protocol {
    /// etcd v3: gRPC, and HTTP beside it.
    EtcdV3,
    /// etcd v2: HTTP with forms and JSON.
    #[value(skip)]
    EtcdV2,
    /// ZooKeeper's own, and its four-letter words.
    Zookeeper,
    /// All of them, of one server: there is no original of that.
    Crossing,
}

impl Protocol {
    /// Every protocol.
    pub const ALL: [Self; 4] = [Self::EtcdV3, Self::EtcdV2, Self::Zookeeper, Self::Crossing];

    /// The folder of its scenarios.
    pub fn folder(self) -> &'static str {
        match self {
            Self::EtcdV3 => "etcd-v3",
            Self::EtcdV2 => "etcd-v2",
            Self::Zookeeper => "zookeeper",
            Self::Crossing => "crossing",
        }
    }

    /// The product that it comes from.
    pub fn product(self) -> &'static str {
        match self {
            Self::EtcdV3 | Self::EtcdV2 => "etcd",
            Self::Zookeeper => "ZooKeeper",
            Self::Crossing => "Triglot",
        }
    }

    /// What the servers that scenarios share are started with.
    pub fn shared_flags(self) -> &'static [&'static str] {
        match self {
            Self::EtcdV3 | Self::EtcdV2 => &[],
            Self::Zookeeper | Self::Crossing => &zookeeper::SHARED,
        }
    }

    /// What every server that is asked in it is started with, unless a scenario sets the same flag.
    pub fn needed_flag(self) -> Option<&'static str> {
        match self {
            Self::EtcdV3 | Self::Zookeeper | Self::Crossing => None,
            // The originals that still serve it do so only when told to.
            Self::EtcdV2 => Some("--enable-v2=true"),
        }
    }
}

/// Which implementation serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Kind {
    /// Debian's package: the line that many installations still run.
    #[value(name = "etcd-3.4")]
    Etcd34,
    /// The newest etcd, from which the scripts are recorded.
    #[value(name = "etcd-newest")]
    EtcdNewest,
    /// Debian's package.
    #[value(name = "zookeeper-3.8")]
    Zookeeper38,
    /// The newest ZooKeeper, from which the scripts are recorded.
    #[value(name = "zookeeper-newest")]
    ZookeeperNewest,
    /// Ours.
    Triglot,
}

impl Kind {
    /// Every target, originals first: a scenario must pass there before ours is asked.
    pub const ALL: [Self; 5] = [
        Self::Etcd34,
        Self::EtcdNewest,
        Self::Zookeeper38,
        Self::ZookeeperNewest,
        Self::Triglot,
    ];

    /// Those that speak `protocol`.
    pub fn speaking(protocol: Protocol) -> impl Iterator<Item = Self> {
        Self::ALL
            .into_iter()
            .filter(move |kind| kind.speaks(protocol))
    }

    /// The name used in scripts, flags and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd34 => "etcd-3.4",
            Self::EtcdNewest => "etcd-newest",
            Self::Zookeeper38 => "zookeeper-3.8",
            Self::ZookeeperNewest => "zookeeper-newest",
            Self::Triglot => "triglot",
        }
    }

    /// Whether it speaks `protocol`.
    pub fn speaks(self, protocol: Protocol) -> bool {
        match self {
            Self::Etcd34 => matches!(protocol, Protocol::EtcdV3 | Protocol::EtcdV2),
            Self::EtcdNewest => protocol == Protocol::EtcdV3,
            Self::Zookeeper38 | Self::ZookeeperNewest => protocol == Protocol::Zookeeper,
            Self::Triglot => true,
        }
    }

    /// Whether it is an original of `protocol`.
    pub fn is_original_of(self, protocol: Protocol) -> bool {
        self != Self::Triglot && self.speaks(protocol)
    }

    /// What starts it: an environment variable first, then where `./test` puts it.
    ///
    /// # Errors
    /// When it is not there.
    pub(super) fn command(self) -> Result<Command> {
        let (variable, default) = match self {
            Self::Etcd34 => ("ETCD34_BIN", PathBuf::from("/usr/bin/etcd")),
            Self::EtcdNewest => ("ETCD_NEWEST_BIN", originals_dir().join("etcd")),
            Self::Zookeeper38 => (
                "ZOOKEEPER38_JAR",
                PathBuf::from("/usr/share/java/zookeeper.jar"),
            ),
            Self::ZookeeperNewest => ("ZOOKEEPER_NEWEST_DIR", originals_dir().join("zookeeper")),
            Self::Triglot => (
                "TRIGLOT_BIN",
                Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debug/triglot"),
            ),
        };
        let path = std::env::var_os(variable).map_or(default, PathBuf::from);
        ensure!(
            path.exists(),
            "{} is not at {} (set {variable})",
            self.name(),
            path.display()
        );
        Ok(match self {
            Self::Etcd34 | Self::EtcdNewest | Self::Triglot => Command::new(path),
            Self::Zookeeper38 => zookeeper::command(&path),
            Self::ZookeeperNewest => zookeeper::command(&path.join("*")),
        })
    }
}

/// Where `./test` puts the newest originals: outside the repository.
fn originals_dir() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"),
        PathBuf::from,
    );
    cache.join("triglot-originals")
}
