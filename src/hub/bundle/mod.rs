//! Bundles: a model as one file, with a manifest of hashes and perhaps a signature. No byte of it is without a check.
//!
//! A bundle is an uncompressed tar: `bundle/manifest.json`, `bundle/manifest.sha256`, perhaps `bundle/manifest.sig`, then the files of the manifest in its
//! order, every content at a multiple of 512 bytes. Headers and padding hold nothing of their own: they follow from the manifest, and are compared with
//! what must stand there.

mod read;
mod sign;
mod unpack;
mod write;

pub use sign::{PublicKey, SecretKey};
pub use write::write;

pub(super) use read::peek;
pub(super) use unpack::unpack;

use super::error::HubError;
use crate::card::{Card, CardFile, Prompts, files_fault};
use serde::{Deserialize, Serialize};
use std::path::Path;

const FORMAT: u32 = 1;
const BLOCK: usize = 512;
/// Two blocks of zeros end a tar.
const END: usize = 2 * BLOCK;
const MANIFEST: &str = "bundle/manifest.json";
const DIGEST: &str = "bundle/manifest.sha256";
const SIGNATURE: &str = "bundle/manifest.sig";

/// What a bundle says of its model: what a card would, and every file with its hash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    format: u32,
    made_by: String,
    slug: String,
    display_name: String,
    /// Empty where nothing states it.
    license: String,
    /// 0 where it was not known before loading.
    dimensions: usize,
    matryoshka: Vec<usize>,
    prompts: Prompts,
    files: Vec<CardFile>,
}

impl Manifest {
    /// Reads a manifest, or says what is wrong with it.
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if manifest.format != FORMAT {
            return Err(format!("format {} is not known to this version, which reads {FORMAT}", manifest.format));
        }
        files_fault(&manifest.files).map_or(Ok(manifest), Err)
    }

    /// The same as a card, which is how a model's facts are known everywhere else.
    pub(super) fn card(&self) -> Card {
        Card {
            name: self.slug.rsplit('/').next().unwrap_or_default().to_owned(),
            display_name: self.display_name.clone(),
            repo: self.slug.clone(),
            revision: None,
            license: self.license.clone(),
            dimensions: self.dimensions,
            matryoshka: self.matryoshka.clone(),
            prompts: self.prompts.clone(),
            files: self.files.clone(),
            python: Vec::new(),
        }
    }
}

/// The only header that an entry of this name and length may have.
fn header(bundle: &Path, name: &str, size_bytes: u64) -> Result<[u8; BLOCK], HubError> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name).map_err(|error| damaged(bundle, name, format!("its name cannot be written: {error}")))?;
    header.set_size(size_bytes);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    Ok(*header.as_bytes())
}

/// Zeros from the end of a content to the next block.
fn padding(size_bytes: u64) -> usize {
    (BLOCK - (size_bytes % BLOCK as u64) as usize) % BLOCK
}

fn damaged(bundle: &Path, part: &str, reason: impl Into<String>) -> HubError {
    HubError::Bundle { bundle: bundle.to_owned(), part: part.to_owned(), reason: reason.into() }
}
