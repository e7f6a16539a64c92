//! A model as a plain directory somewhere else, to be carried to another machine or mounted into a container.

use super::cache::{create_parent, remove_dir};
use super::error::{HubError, IoContext};
use super::files::ModelFiles;
use super::obtain::model_files;
use super::progress::Progress;
use super::stamp::sha256_of;
use std::path::{Path, PathBuf};

/// Copies the model's files into `dir`, which must not be there, be empty, or hold the very same files already. It appears complete
/// or not at all.
///
/// # Errors
/// [`HubError::Directory`] if `dir` holds something else; [`HubError::Io`].
pub fn place(files: &ModelFiles, dir: &Path, progress: &dyn Progress) -> Result<(), HubError> {
    let names = match files.card {
        Some(card) => card.files.iter().map(|file| file.path.clone()).collect(),
        None => model_files(&files.root)?.1,
    };
    let refuse = |reason: &str| Err(HubError::Directory { path: dir.to_owned(), reason: reason.to_owned() });
    if dir.exists() {
        if !dir.is_dir() {
            return refuse("is a file");
        }
        if std::fs::read_dir(dir).io("list", dir)?.next().is_some() {
            return if same(files, &names, dir)? { Ok(()) } else { refuse("holds something else already; name a new or an empty directory") };
        }
    }
    let dir = std::path::absolute(dir).io("find", dir)?;
    create_parent(&dir)?;
    let mut filling = dir.clone();
    filling.as_mut_os_string().push(format!(".partial-{}", std::process::id()));
    let outcome = copy_all(files, &names, &filling, progress).and_then(|()| std::fs::rename(&filling, &dir).io("create", &dir));
    if outcome.is_err() {
        let _ = remove_dir(&filling);
    }
    outcome
}

fn copy_all(files: &ModelFiles, names: &[String], to: &Path, progress: &dyn Progress) -> Result<(), HubError> {
    remove_dir(to)?;
    for name in names {
        let (from, to) = (source(files, name)?, to.join(name));
        create_parent(&to)?;
        let bytes = std::fs::copy(&from, &to).io("copy", &from)?;
        progress.bytes(&format!("copying {name}"), bytes, Some(bytes));
    }
    Ok(())
}

fn same(files: &ModelFiles, names: &[String], dir: &Path) -> Result<bool, HubError> {
    for name in names {
        let (ours, theirs) = (source(files, name)?, dir.join(name));
        if !theirs.is_file() || sha256_of(&ours, |_| ())? != sha256_of(&theirs, |_| ())? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn source(files: &ModelFiles, name: &str) -> Result<PathBuf, HubError> {
    files.path(name).ok_or_else(|| HubError::Missing { file: name.to_owned(), origin: files.root.display().to_string() })
}
