//! An input in a folder of this machine that the operator has named.

use super::{push, refuse};
use crate::service::jobs::Upload;
use crate::wire::Fault;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use tokio::io::AsyncReadExt as _;

/// Bytes read at a time.
const PIECE: usize = 256 << 10;

/// Reads the file at `path`, which must lie below `root`, links followed.
///
/// # Errors
/// `Validation`; if the store fails. What is not there, not allowed and not a file is told in one sentence: nobody learns what else there is.
pub(super) async fn read(path: PathBuf, root: &Path, upload: &mut Upload) -> Result<(), Fault> {
    let root = root.to_owned();
    let opened = tokio::task::spawn_blocking(move || open(&path, &root)).await.map_err(|_| Fault::Internal)?;
    let mut file = tokio::fs::File::from_std(opened.map_err(|_| refuse("names no file that can be read here"))?);
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece).await {
            Ok(0) => return Ok(()),
            Ok(len) => push(upload, &piece[..len]).await?,
            Err(error) => {
                tracing::error!(%error, "the input of a job cannot be read");
                return Err(refuse("cannot be read to its end"));
            }
        }
    }
}

fn open(path: &Path, root: &Path) -> io::Result<File> {
    let (path, root) = (path.canonicalize()?, root.canonicalize()?);
    // Looked at before it is opened: opening a pipe waits for its other end.
    if !path.starts_with(root) || !path.metadata()?.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    File::open(path)
}
