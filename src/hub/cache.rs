//! Our own cache on disk: one directory per model, filled elsewhere and renamed into place, so that what is there is complete.
//!
//! `<cache_dir>/models/<key>/` holds a model's files directly; `partial/<key>/` what is being fetched, kept for the next attempt;
//! `locks/<key>.lock` keeps two processes from fetching the same model at once; `stamps/` notes what was verified elsewhere.

use super::error::{HubError, IoContext};
use super::progress::Progress;
use super::stamp::{self, Stamp};
use crate::card::CardFile;
use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

/// The places of one model.
#[derive(Debug)]
pub(super) struct Slot {
    /// Where the finished model is.
    pub(super) dir: PathBuf,
    /// Stamp of files verified in the hub's cache.
    pub(super) foreign_stamp: PathBuf,
    partial: PathBuf,
    lock: PathBuf,
}

/// Held while a model is being fetched; the system lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct Guard {
    /// True if another process held it first: the model may be here now.
    pub(super) waited: bool,
    file: Option<File>,
}

/// A directory being filled. Files are verified before they come to rest in `ready`.
#[derive(Debug)]
pub(super) struct Staging {
    /// Verified files, kept between attempts.
    pub(super) ready: PathBuf,
    /// Files in the middle of a download, kept between attempts.
    pub(super) parts: PathBuf,
    /// Whatever a source needs for itself; emptied by the source.
    pub(super) scratch: PathBuf,
    partial: PathBuf,
}

impl Slot {
    pub(super) fn new(cache_dir: &Path, key: &str) -> Self {
        Self {
            dir: cache_dir.join("models").join(key),
            foreign_stamp: cache_dir.join("stamps").join(format!("{key}.json")),
            partial: cache_dir.join("partial").join(key),
            lock: cache_dir.join("locks").join(format!("{key}.lock")),
        }
    }

    /// Waits until no other process is fetching this model.
    pub(super) fn lock(&self, progress: &dyn Progress) -> Result<Guard, HubError> {
        create_parent(&self.lock)?;
        let file = File::create(&self.lock).io("create", &self.lock)?;
        match file.try_lock() {
            Ok(()) => Ok(Guard { waited: false, file: Some(file) }),
            Err(TryLockError::WouldBlock) => {
                // No deadline of our own: the holder has one for every wait, and its lock dies with it.
                progress.note("another process is fetching this model; waiting for it");
                file.lock().io("lock", &self.lock)?;
                Ok(Guard { waited: true, file: Some(file) })
            }
            // A file system without locks: the staging directory then bears the process id, and renaming keeps the result whole.
            Err(TryLockError::Error(_)) => Ok(Guard { waited: false, file: None }),
        }
    }

    /// The directories to fill, made if they are not there.
    pub(super) fn staging(&self, guard: &Guard) -> Result<Staging, HubError> {
        let mut partial = self.partial.clone();
        if guard.file.is_none() {
            partial.as_mut_os_string().push(format!(".{}", std::process::id()));
        }
        let staging = Staging { ready: partial.join("ready"), parts: partial.join("parts"), scratch: partial.join("scratch"), partial };
        for dir in [&staging.ready, &staging.parts] {
            std::fs::create_dir_all(dir).io("create", dir)?;
        }
        Ok(staging)
    }

    /// Puts the verified `files` of `staging` in place of whatever was there, with their stamp, and clears the staging directory.
    pub(super) fn commit(&self, staging: &Staging, files: &[CardFile], origin: &str) -> Result<(), HubError> {
        let whole = staging.partial.join("whole");
        remove_dir(&whole)?;
        let mut seen = BTreeMap::new();
        for file in files {
            let (from, to) = (staging.ready.join(&file.path), whole.join(&file.path));
            create_parent(&to)?;
            std::fs::rename(&from, &to).io("move", &from)?;
            let (size_bytes, modified_ns) =
                stamp::look(&to)?.ok_or_else(|| HubError::Missing { file: file.path.clone(), origin: origin.to_owned() })?;
            seen.insert(file.path.clone(), stamp::Seen { size_bytes, modified_ns, sha256: file.sha256.clone() });
        }
        Stamp { root: None, origin: origin.to_owned(), files: seen }.save(&whole.join(stamp::FILE_NAME))?;
        create_parent(&self.dir)?;
        if self.dir.exists() {
            let old = staging.partial.join("old");
            remove_dir(&old)?;
            std::fs::rename(&self.dir, &old).io("replace", &self.dir)?;
        }
        std::fs::rename(&whole, &self.dir).io("create", &self.dir)?;
        remove_dir(&staging.partial)
    }
}

impl Staging {
    /// True if `file` is already here, verified again.
    pub(super) fn has(&self, file: &CardFile, progress: &dyn Progress) -> bool {
        let here = stamp::verify(&self.ready, std::slice::from_ref(file), None, progress).is_ok();
        if !here {
            let _ = std::fs::remove_file(self.ready.join(&file.path));
        }
        here
    }
}

/// Makes the directory that `path` lies in.
pub(super) fn create_parent(path: &Path) -> Result<(), HubError> {
    path.parent().map_or(Ok(()), |parent| std::fs::create_dir_all(parent).io("create", parent))
}

/// Removes a directory and what is in it; one that is not there is removed already.
pub(super) fn remove_dir(path: &Path) -> Result<(), HubError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).io("remove", path),
        _ => Ok(()),
    }
}
