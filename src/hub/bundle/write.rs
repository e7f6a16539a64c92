//! Writes a bundle: beside its place first, renamed when it is whole.

use super::super::error::{HubError, IoContext};
use super::super::files::ModelFiles;
use super::super::obtain::model_files;
use super::super::progress::Progress;
use super::super::stamp::{hash_into, hex};
use super::read::{SIGNATURE_BYTES, signature_text};
use super::{BLOCK, DIGEST, END, FORMAT, MANIFEST, Manifest, SIGNATURE, SecretKey, damaged, header, padding};
use crate::card::{self, CardFile};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Files beside a model that say on what terms it may be used.
const TERMS: [&str; 7] = ["LICENSE", "LICENSE.md", "LICENSE.txt", "LICENCE", "NOTICE", "NOTICE.txt", "README.md"];

/// Where a file's bytes are.
enum Source {
    Disk(PathBuf),
    Memory(&'static [u8]),
}

/// Writes the model, its goldens and its terms to `out`, which appears whole or not at all.
///
/// # Errors
/// A model that is one GGUF file; a file that cannot be read or written, or that changes meanwhile.
pub fn write(files: &ModelFiles, out: &Path, sign: Option<&SecretKey>, progress: &dyn Progress) -> Result<(), HubError> {
    let sources = sources(files)?;
    let mut listed = Vec::new();
    for (path, source) in &sources {
        let (size_bytes, sha256) = measure(source)?;
        progress.bytes(&format!("hashing {path}"), size_bytes, Some(size_bytes));
        listed.push(CardFile { path: path.clone(), size_bytes, sha256 });
    }
    let manifest = serde_json::to_vec_pretty(&manifest(files, listed.clone())).map_err(|source| HubError::Json { path: out.to_owned(), source })?;
    let mut filling = out.to_owned();
    filling.as_mut_os_string().push(format!(".partial-{}", std::process::id()));
    let outcome =
        fill(&filling, &manifest, sign, sources.values().zip(&listed), progress).and_then(|()| std::fs::rename(&filling, out).io("create", out));
    if outcome.is_err() {
        let _ = std::fs::remove_file(&filling);
    }
    outcome
}

/// Every file of the bundle, in the order in which it will stand there.
fn sources(files: &ModelFiles) -> Result<BTreeMap<String, Source>, HubError> {
    if files.root.is_file() {
        let reason = "is one file already: carry it as it is; a bundle is made of a directory".to_owned();
        return Err(HubError::Directory { path: files.root.clone(), reason });
    }
    let names: Vec<String> = match files.card {
        Some(card) => card.files.iter().map(|file| file.path.clone()).collect(),
        None => model_files(&files.root)?.1,
    };
    let mut sources = BTreeMap::new();
    for name in names {
        let path = files.path(&name).ok_or_else(|| HubError::Missing { file: name.clone(), origin: files.root.display().to_string() })?;
        sources.insert(name, Source::Disk(path));
    }
    for name in TERMS {
        if let Some(path) = files.path(name) {
            sources.insert(name.to_owned(), Source::Disk(path));
        }
    }
    if let Some(golden) = files.card.and_then(card::golden) {
        sources.entry("golden/golden.json".to_owned()).or_insert(Source::Memory(golden.record));
        sources.entry("golden/golden.safetensors".to_owned()).or_insert(Source::Memory(golden.vectors));
    }
    Ok(sources)
}

fn manifest(files: &ModelFiles, listed: Vec<CardFile>) -> Manifest {
    let card = files.card;
    Manifest {
        format: FORMAT,
        made_by: format!("vecmill {}", env!("CARGO_PKG_VERSION")),
        slug: files.slug.clone(),
        display_name: card.map_or_else(|| files.slug.clone(), |card| card.display_name.clone()),
        license: files.license().map(|(license, _)| license).unwrap_or_default(),
        dimensions: card.map_or(0, |card| card.dimensions),
        matryoshka: card.map(|card| card.matryoshka.clone()).unwrap_or_default(),
        prompts: card.map(|card| card.prompts.clone()).unwrap_or_default(),
        files: listed,
    }
}

/// Length and SHA-256.
fn measure(source: &Source) -> Result<(u64, String), HubError> {
    let (mut hash, mut size) = (Sha256::new(), 0);
    match source {
        Source::Disk(path) => hash_into(&mut hash, path, |done| size = done)?,
        Source::Memory(bytes) => {
            hash.update(bytes);
            size = bytes.len() as u64;
        }
    }
    Ok((size, hex(hash)))
}

fn fill<'a>(
    filling: &Path,
    manifest: &[u8],
    sign: Option<&SecretKey>,
    files: impl Iterator<Item = (&'a Source, &'a CardFile)>,
    progress: &dyn Progress,
) -> Result<(), HubError> {
    let mut tar = Tar { file: BufWriter::new(File::create(filling).io("create", filling)?), path: filling };
    let mut hash = Sha256::new();
    hash.update(manifest);
    tar.entry(MANIFEST, manifest)?;
    tar.entry(DIGEST, format!("{}\n", hex(hash)).as_bytes())?;
    if let Some(key) = sign {
        let text = signature_text(&key.public(), &key.sign(manifest));
        debug_assert_eq!(text.len() as u64, SIGNATURE_BYTES);
        tar.entry(SIGNATURE, text.as_bytes())?;
    }
    for (source, file) in files {
        match source {
            Source::Memory(bytes) => tar.entry(&file.path, bytes)?,
            Source::Disk(path) => tar.copy(file, path)?,
        }
        progress.bytes(&format!("bundling {}", file.path), file.size_bytes, Some(file.size_bytes));
    }
    tar.put(&[0; END])?;
    let file = tar.file.into_inner().map_err(|error| error.into_error()).io("write", filling)?;
    file.sync_all().io("write", filling)
}

struct Tar<'a> {
    file: BufWriter<File>,
    path: &'a Path,
}

impl Tar<'_> {
    fn entry(&mut self, name: &str, bytes: &[u8]) -> Result<(), HubError> {
        self.put(&header(self.path, name, bytes.len() as u64)?)?;
        self.put(bytes)?;
        self.put(&[0; BLOCK][..padding(bytes.len() as u64)])
    }

    /// A file as it was when its hash was taken; read back from what was written, for it may change meanwhile.
    fn copy(&mut self, file: &CardFile, from: &Path) -> Result<(), HubError> {
        self.put(&header(self.path, &file.path, file.size_bytes)?)?;
        let mut source = File::open(from).io("open", from)?;
        let copied = std::io::copy(&mut source, &mut self.file).io("copy", from)?;
        let (size, sha256) = measure(&Source::Disk(from.to_owned()))?;
        if (copied, size, &sha256) != (file.size_bytes, file.size_bytes, &file.sha256) {
            return Err(damaged(self.path, &file.path, "the file changed while it was copied"));
        }
        self.put(&[0; BLOCK][..padding(file.size_bytes)])
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), HubError> {
        self.file.write_all(bytes).io("write", self.path)
    }
}
