//! One digest for all weights of a model: from its card or stamp where these know the hashes, else taken once and stamped.

use super::error::{HubError, IoContext};
use super::files::ModelFiles;
use super::obtain::model_files;
use super::progress::Progress;
use super::stamp::{self, Seen, Stamp, hex, look, sha256_of};
use super::{Options, cache, select};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// SHA-256, as lower-case hex, over path and SHA-256 of every weight file, those of its modules included. The same weights in the same files have
/// the same digest wherever they lie. Of a model in one file, which is weights and all, its SHA-256.
///
/// # Errors
/// A file that cannot be read.
pub fn weights_digest(files: &ModelFiles, options: &Options, progress: &dyn Progress) -> Result<String, HubError> {
    let hashes: BTreeMap<String, String> = match files.card {
        // Verified when they were obtained.
        Some(card) => card.files.iter().map(|file| (file.path.clone(), file.sha256.clone())).collect(),
        None => on_disk(&files.root, options, progress)?,
    };
    if files.card.is_none() && files.root.is_file() {
        return Ok(hashes.into_values().collect());
    }
    let names: Vec<String> = hashes.keys().cloned().collect();
    let mut hash = Sha256::new();
    for name in select::weights(&names) {
        hash.update(format!("{name} {}\n", hashes[name]));
    }
    Ok(hex(hash))
}

/// The hashes of a directory's weights, or of the one file. What is hashed here is noted in our cache: the directory is not ours to write to.
fn on_disk(root: &Path, options: &Options, progress: &dyn Progress) -> Result<BTreeMap<String, String>, HubError> {
    let root = root.canonicalize().io("find", root)?;
    let mut name = Sha256::new();
    name.update(root.as_os_str().as_encoded_bytes());
    let note = options.cache_dir.join("stamps").join(format!("dir-{}.json", &hex(name)[..16]));
    let own = Stamp::load(&root.join(stamp::FILE_NAME));
    let noted = || Stamp::load(&note).filter(|stamp| stamp.root.as_deref() == Some(root.as_path()));
    let known = own.or_else(noted).unwrap_or_default();

    let (mut seen, mut hashed) = (BTreeMap::new(), false);
    let weights = if root.is_file() { BTreeMap::from([("model".to_owned(), root.clone())]) } else { of_directory(&root)? };
    for (name, path) in &weights {
        let Some((size_bytes, modified_ns)) = look(path)? else { continue };
        let before = known.files.get(name).filter(|seen| (seen.size_bytes, seen.modified_ns) == (size_bytes, modified_ns));
        let sha256 = match before {
            Some(seen) => seen.sha256.clone(),
            None => {
                hashed = true;
                sha256_of(path, |done| progress.bytes(&format!("hashing {name}"), done, Some(size_bytes)))?
            }
        };
        seen.insert(name.clone(), Seen { size_bytes, modified_ns, sha256 });
    }
    let hashes = seen.iter().map(|(name, seen)| (name.clone(), seen.sha256.clone())).collect();
    if hashed {
        let stamp = Stamp { root: Some(root), origin: "hashed when it was loaded".to_owned(), files: seen };
        // A cache that cannot be written to costs the next start the same time again, and nothing else.
        if let Err(error) = cache::create_parent(&note).and_then(|()| stamp.save(&note)) {
            progress.note(&format!("the weights' digest could not be noted: {error}"));
        }
    }
    Ok(hashes)
}

/// A directory's weights and where they lie.
fn of_directory(root: &Path) -> Result<BTreeMap<String, PathBuf>, HubError> {
    let (_, chosen) = model_files(root)?;
    Ok(select::weights(&chosen).map(|name| (name.clone(), root.join(name))).collect())
}
