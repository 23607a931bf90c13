//! The data directory, laid out as etcd's: `member/wal` for the Raft log, `member/snap` for
//! checkpoints.

use crate::config::Config;
use anyhow::{Context, bail};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use tracing::warn;

/// Data is its owner's alone.
const DIR_MODE: u32 = 0o700;

/// Whether a member already lives here. A directory with anything else of etcd's is refused: its
/// files are of another format, and starting beside them would look like losing them.
pub fn initialized(config: &Config) -> anyhow::Result<bool> {
    let member = config.member_dir();
    if member.join("snap").join("db").exists() {
        bail!(
            "{} holds the data of an etcd, which this server cannot read; \
             move it over through a running etcd, or start with another --data-dir",
            member.display()
        );
    }
    let log = config.log_dir();
    match fs::read_dir(&log) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("list {}", log.display())),
    }
}

/// Makes what is missing.
pub fn prepare(config: &Config) -> anyhow::Result<()> {
    for dir in [
        Path::new(&config.data_dir),
        &config.member_dir(),
        &config.log_dir(),
        &config.checkpoint_dir(),
    ] {
        make_private(dir).with_context(|| format!("make the directory {}", dir.display()))?;
    }
    Ok(())
}

fn make_private(dir: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(DIR_MODE)
        .create(dir)?;
    let mode = fs::metadata(dir)?.permissions().mode() & 0o777;
    if mode & !DIR_MODE != 0 {
        warn!(
            dir = %dir.display(),
            mode = format!("{mode:o}"),
            "others than the owner may read the data; chmod the directory to 700"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(dir: &Path) -> Config {
        Config {
            data_dir: dir.join("d").display().to_string(),
            ..Config::default()
        }
    }

    #[test]
    fn directories_are_private_and_empty_at_first() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = config(dir.path());
        assert!(!initialized(&config).expect("readable"));
        prepare(&config).expect("makes directories");
        let mode = fs::metadata(config.member_dir())
            .expect("exists")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, DIR_MODE);
        assert!(!initialized(&config).expect("readable"));
        fs::write(config.log_dir().join("segment"), b"x").expect("writes");
        assert!(initialized(&config).expect("readable"));
    }

    #[test]
    fn an_etcds_directory_is_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = config(dir.path());
        prepare(&config).expect("makes directories");
        fs::write(config.checkpoint_dir().join("db"), b"bbolt").expect("writes");
        assert!(initialized(&config).is_err());
    }
}
