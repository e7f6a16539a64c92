//! From a bundle to a directory of our cache: every file verified on its way, all of them there or none.

use super::super::cache::{Slot, create_parent};
use super::super::error::{HubError, IoContext};
use super::super::progress::Progress;
use super::super::stamp::{self, Seen, Stamp};
use super::read::{Head, Reader};
use super::{PublicKey, damaged};
use crate::hub::Options;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The name under which a bundle's own length and time are noted.
const ITSELF: &str = "bundle";

/// The directory that holds the bundle's files, unpacked and verified now or on an earlier start.
///
/// `digest` is that of the manifest as it was when the command line was read. A bundle that has not changed since it was verified is not read again.
///
/// # Errors
/// A byte that is not what it must be, named by the part it lies in; a signature that is missing or not of the trusted key.
pub(in crate::hub) fn unpack(bundle: &Path, digest: &str, options: &Options, progress: &dyn Progress) -> Result<PathBuf, HubError> {
    let (reader, head) = Reader::open(bundle)?;
    if head.digest != digest {
        return Err(damaged(bundle, super::MANIFEST, "the file was replaced while it was being opened"));
    }
    trusted(bundle, head.signer.as_ref(), options.trust.as_ref())?;
    let slot = Slot::new(&options.cache_dir, &format!("bundle-{}", &digest[..16]));
    let guard = slot.lock(progress)?;
    let bundle = bundle.canonicalize().io("find", bundle)?;
    let now = itself(&bundle, digest)?;
    let before = Stamp::load(&slot.foreign_stamp).filter(|stamp| stamp.root.as_deref() == Some(bundle.as_path()));
    if before.is_some_and(|stamp| stamp.files.get(ITSELF) == Some(&now)) && whole(&slot, &head, progress) {
        return Ok(slot.dir);
    }
    let staging = slot.staging(&guard)?;
    extract(reader, &bundle, &head, &staging.ready, progress)?;
    slot.commit(&staging, &head.manifest.files, &bundle.display().to_string())?;
    create_parent(&slot.foreign_stamp)?;
    let files = [(ITSELF.to_owned(), now)].into();
    Stamp { root: Some(bundle), origin: "verified whole".to_owned(), files }.save(&slot.foreign_stamp)?;
    Ok(slot.dir)
}

/// Refuses a bundle that the trusted key has not signed.
fn trusted(bundle: &Path, signer: Option<&PublicKey>, trust: Option<&PublicKey>) -> Result<(), HubError> {
    let Some(trust) = trust else { return Ok(()) };
    let reason = match signer {
        Some(signer) if signer == trust => return Ok(()),
        Some(signer) => format!("it is signed by {signer}, and only {trust} is trusted"),
        None => format!("it is not signed, and only what {trust} has signed is trusted"),
    };
    Err(HubError::Untrusted { what: bundle.display().to_string(), reason })
}

fn itself(bundle: &Path, digest: &str) -> Result<Seen, HubError> {
    let missing = || HubError::Missing { file: ITSELF.to_owned(), origin: bundle.display().to_string() };
    let (size_bytes, modified_ns) = stamp::look(bundle)?.ok_or_else(missing)?;
    Ok(Seen { size_bytes, modified_ns, sha256: digest.to_owned() })
}

/// Whether what was unpacked earlier is still as it was.
fn whole(slot: &Slot, head: &Head, progress: &dyn Progress) -> bool {
    let known = Stamp::load(&slot.dir.join(stamp::FILE_NAME));
    stamp::verify(&slot.dir, &head.manifest.files, known.as_ref(), progress).is_ok()
}

fn extract(mut reader: Reader, bundle: &Path, head: &Head, to: &Path, progress: &dyn Progress) -> Result<(), HubError> {
    for file in &head.manifest.files {
        let path = to.join(&file.path);
        create_parent(&path)?;
        let mut out = File::create(&path).io("create", &path)?;
        let mut done = 0;
        reader.header(&file.path, file.size_bytes)?;
        let sha256 = reader.body(&file.path, file.size_bytes, &mut |piece| {
            done += piece.len() as u64;
            progress.bytes(&format!("unpacking {}", file.path), done, Some(file.size_bytes));
            out.write_all(piece).io("write", &path)
        })?;
        if sha256 != file.sha256 {
            return Err(damaged(bundle, &file.path, format!("its sha256 is {sha256}, and the manifest says {}", file.sha256)));
        }
    }
    reader.end()
}
