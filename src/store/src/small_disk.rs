//! A small file system in memory, on which tests run out of room.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Mounted for as long as it lives.
pub struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// One with room for so many bytes. `None`, and a line on the test's output, where this process
    /// must not mount.
    ///
    /// # Panics
    /// When there is no directory to be had for it.
    pub fn mount(bytes: u64) -> Option<SmallDisk> {
        let dir = tempfile::tempdir().expect("a directory");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"])
            .arg(dir.path())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(SmallDisk(dir));
        }
        eprintln!("SKIP: mounting a small file system needs root");
        None
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes so many bytes, or all the room there is.
    ///
    /// # Panics
    /// When not even a name has room.
    pub fn fill(&self, bytes: Option<u64>) {
        let mut filler = File::create(self.filler()).expect("room for a name");
        let block = [0; 1 << 10];
        let mut left = bytes.map_or(u64::MAX, |bytes| bytes >> 10);
        while left > 0 && filler.write_all(&block).is_ok() {
            left -= 1;
        }
    }

    /// Gives back what [`SmallDisk::fill`] took.
    ///
    /// # Panics
    /// When it took nothing.
    pub fn make_room(&self) {
        fs::remove_file(self.filler()).expect("it was made");
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount")
            .arg("--lazy")
            .arg(self.path())
            .status();
        assert!(unmounted.is_ok_and(|status| status.success()));
    }
}
