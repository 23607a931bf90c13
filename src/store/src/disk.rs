//! What both stores need of a file system: faults that name the file, directories that are synced,
//! and one process to a directory.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::fs::FlockOperation;

use crate::Fault;

/// A fault about `path` because of an error of the operating system.
pub(crate) fn failed(action: &'static str, path: &Path, error: &io::Error) -> Fault {
    let advice = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free space on its file system, then start again"
        }
        io::ErrorKind::FileTooLarge => "; raise the limit on the size of files, then start again",
        _ => "",
    };
    refused(action, path, format!("{error}{advice}"))
}

/// A fault about `path` for a reason of our own.
pub(crate) fn refused(action: &'static str, path: &Path, cause: impl Into<String>) -> Fault {
    Fault {
        action,
        path: path.display().to_string(),
        cause: cause.into(),
    }
}

/// Makes the names in a directory durable: those created, renamed and removed.
pub(crate) fn sync_dir(path: &Path) -> Result<(), Fault> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(|error| failed("sync the directory", path, &error))
}

/// Makes a directory and those above it, where missing, and their names durable.
pub(crate) fn make_dir(path: &Path) -> Result<(), Fault> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent() {
        make_dir(if above.as_os_str().is_empty() {
            Path::new(".")
        } else {
            above
        })?;
        fs::create_dir(path).map_err(|error| failed("create the directory", path, &error))?;
        sync_dir(if above.as_os_str().is_empty() {
            Path::new(".")
        } else {
            above
        })?;
    }
    Ok(())
}

/// Removes a file that may be gone already.
pub(crate) fn remove(path: &Path) -> Result<(), Fault> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed("remove", path, &error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Holds a directory for this process, until dropped or until the process ends in whatever way.
#[derive(Debug)]
pub(crate) struct DirLock {
    _file: File,
}

impl DirLock {
    pub(crate) fn take(dir: &Path) -> Result<DirLock, Fault> {
        let path = dir.join("lock");
        let action = "lock";
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| failed(action, &path, &error))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(DirLock { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let cause = "another process has this directory open; stop it first";
                Err(refused(action, &path, cause))
            }
            Err(error) => Err(failed(action, &path, &error.into())),
        }
    }
}
