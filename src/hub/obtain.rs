//! The order in which sources are asked, and the report of what each answered.

use super::cache::{Slot, create_parent};
use super::error::{Attempts, HubError};
use super::files::{ModelFiles, list, read_limited};
use super::progress::Progress;
use super::stamp::{self, Stamp};
use super::{CONFIG_LIMIT_BYTES, Options, What, hfcache, python, remote, select};
use crate::card::{Card, CardFile};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What a source put into the staging directory.
#[derive(Debug)]
pub(super) struct Fetched {
    /// Every file of the model, verified.
    pub(super) files: Vec<CardFile>,
    /// Where they came from.
    pub(super) origin: String,
}

/// A model's files: from a directory as it is, or from the first source that has them, verified against the card if there is one.
///
/// # Errors
/// [`HubError::Directory`], [`HubError::PickleOnly`] and [`HubError::NoWeights`] for a path; [`HubError::Offline`] or
/// [`HubError::Exhausted`], with what every source answered, for the rest.
pub fn obtain(what: &What, options: &Options, progress: &dyn Progress) -> Result<ModelFiles, HubError> {
    let (Some(key), slug) = (what.cache_key(), what.slug()) else {
        let What::Path(path) = what else { return Err(HubError::Name { what: what.said(), reason: "it has no place in the cache".to_owned() }) };
        check_directory(path)?;
        return Ok(ModelFiles { root: path.clone(), card: None, slug: what.slug() });
    };
    let slot = Slot::new(&options.cache_dir, &key);
    let here = |root: PathBuf| ModelFiles { root, card: what.card(), slug: slug.clone() };

    let mut attempts = Attempts::default();
    if let Some(root) = in_our_cache(&slot, what, progress, &mut attempts).or_else(|| in_hf_cache(&slot, what, options, progress, &mut attempts)) {
        return Ok(here(root));
    }
    if options.offline {
        return Err(HubError::Offline { what: what.said(), looked: attempts, remedy: remedy(what, &slot) });
    }
    let guard = slot.lock(progress)?;
    if guard.waited
        && let Some(root) = in_our_cache(&slot, what, progress, &mut Attempts::default())
    {
        return Ok(here(root));
    }
    match fetch(&slot, &slot.staging(&guard)?, what, options, progress, &mut attempts)? {
        Some(fetched) => {
            tracing::info!(model = key, origin = fetched.origin, directory = %slot.dir.display(), "obtained");
            Ok(here(slot.dir.clone()))
        }
        None => Err(HubError::Exhausted { what: what.said(), attempts }),
    }
}

/// Where a card's files already are, judged by names and lengths only: for listings. [`obtain`] verifies.
pub fn cached(card: &Card, options: &Options) -> Option<PathBuf> {
    let own = Slot::new(&options.cache_dir, &card.name).dir;
    let foreign = hfcache::snapshots(&options.hf_home, &card.repo, card.revision.as_deref(), true);
    let as_long = |root: &Path, file: &CardFile| matches!(stamp::look(&root.join(&file.path)), Ok(Some((size, _))) if size == file.size_bytes);
    std::iter::once(own).chain(foreign).find(|root| card.files.iter().all(|file| as_long(root, file)))
}

fn fetch(
    slot: &Slot,
    staging: &super::cache::Staging,
    what: &What,
    options: &Options,
    progress: &dyn Progress,
    attempts: &mut Attempts,
) -> Result<Option<Fetched>, HubError> {
    let mut settle = |place: String, outcome: Result<Fetched, HubError>| -> Result<Option<Fetched>, HubError> {
        match outcome {
            Ok(fetched) => slot.commit(staging, &fetched.files, &fetched.origin).map(|()| Some(fetched)),
            Err(error) => {
                progress.note(&format!("{place}: {error}"));
                attempts.failed(place, error);
                Ok(None)
            }
        }
    };
    let place = format!("hub {}", options.hf_endpoint);
    progress.note(&format!("{}: asking {place}", what.said()));
    if let Some(fetched) = settle(place, remote::fetch(what, options, staging, progress))? {
        return Ok(Some(fetched));
    }
    for source in what.card().map(|card| card.python.as_slice()).unwrap_or_default() {
        let place = source.to_string();
        progress.note(&format!("{}: asking pip for {place}", what.said()));
        let files = what.card().map(|card| card.files.as_slice()).unwrap_or_default();
        if let Some(fetched) = settle(place, python::fetch(files, source, options, staging, progress))? {
            return Ok(Some(fetched));
        }
    }
    Ok(None)
}

/// Our cache's directory, if it holds the model.
fn in_our_cache(slot: &Slot, what: &What, progress: &dyn Progress, attempts: &mut Attempts) -> Option<PathBuf> {
    let place = slot.dir.display().to_string();
    if !slot.dir.is_dir() {
        attempts.absent(place, "no such directory");
        return None;
    }
    let stamp_path = slot.dir.join(stamp::FILE_NAME);
    let known = Stamp::load(&stamp_path);
    let wanted = what.card().map(|card| card.files.clone()).or_else(|| known.as_ref().map(Stamp::as_wanted));
    let outcome = match &wanted {
        Some(wanted) => verify_and_stamp(&slot.dir, wanted, known.as_ref(), &stamp_path, None, progress),
        // Put there by hand: everything fetched has a stamp.
        None => check_directory(&slot.dir),
    };
    match outcome {
        Ok(()) => Some(slot.dir.clone()),
        Err(error) => {
            progress.note(&format!("{place}: {error}"));
            attempts.failed(place, error);
            None
        }
    }
}

/// A snapshot of the hub's own cache, if one holds the model.
fn in_hf_cache(slot: &Slot, what: &What, options: &Options, progress: &dyn Progress, attempts: &mut Attempts) -> Option<PathBuf> {
    let repo = what.slug();
    let card = what.card();
    let snapshots = hfcache::snapshots(&options.hf_home, &repo, card.and_then(|card| card.revision.as_deref()), card.is_some());
    if snapshots.is_empty() {
        attempts.absent(hfcache::repo_dir(&options.hf_home, &repo).display().to_string(), "no snapshot of the model");
    }
    let known = Stamp::load(&slot.foreign_stamp);
    for root in snapshots {
        let known = known.as_ref().filter(|stamp| stamp.root.as_deref() == Some(&root));
        let outcome = match card {
            Some(card) => verify_and_stamp(&root, &card.files, known, &slot.foreign_stamp, Some(&root), progress),
            None => check_directory(&root),
        };
        match outcome {
            Ok(()) => return Some(root),
            Err(error) => attempts.failed(root.display().to_string(), error),
        }
    }
    None
}

fn verify_and_stamp(
    root: &Path,
    wanted: &[CardFile],
    known: Option<&Stamp>,
    stamp_path: &Path,
    stamp_root: Option<&Path>,
    progress: &dyn Progress,
) -> Result<(), HubError> {
    let (files, hashed) = stamp::verify(root, wanted, known, progress)?;
    if hashed {
        let origin = known.map_or_else(|| root.display().to_string(), |stamp| stamp.origin.clone());
        let stamp = Stamp { root: stamp_root.map(Path::to_owned), origin, files };
        // A read-only cache works too; the next start hashes again.
        if let Err(error) = create_parent(stamp_path).and_then(|()| stamp.save(stamp_path)) {
            tracing::debug!(%error, "the verification could not be noted");
        }
    }
    Ok(())
}

#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

/// Refuses what cannot be a model: no such directory, no safetensors in it, or a shard missing; a GGUF file is one by itself.
fn check_directory(root: &Path) -> Result<(), HubError> {
    let refuse = |reason: &str| Err(HubError::Directory { path: root.to_owned(), reason: reason.to_owned() });
    if !root.exists() {
        return refuse("there is no such directory");
    }
    // A model in one file: its reader checks it.
    if root.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) && root.is_file() {
        return Ok(());
    }
    if !root.is_dir() {
        return refuse("is a file; name the directory that holds the model, or a GGUF file");
    }
    let (names, chosen) = model_files(root)?;
    select::require_safetensors(&root.display().to_string(), &names, &chosen)?;
    for index in chosen.iter().filter(|name| name.ends_with(".safetensors.index.json")) {
        let folder = index.rsplit_once('/').map_or(String::new(), |(dir, _)| format!("{dir}/"));
        if chosen.contains(&format!("{folder}model.safetensors")) {
            continue;
        }
        let path = root.join(index);
        let bytes = read_limited(&path, CONFIG_LIMIT_BYTES)?;
        let parsed: ShardIndex = serde_json::from_slice(&bytes).map_err(|source| HubError::Json { path, source })?;
        if let Some(shard) = parsed.weight_map.values().find(|shard| !chosen.contains(&format!("{folder}{shard}"))) {
            return Err(HubError::Missing { file: format!("{folder}{shard}"), origin: root.display().to_string() });
        }
    }
    Ok(())
}

/// All files in a directory's own and its modules' folders, and of them those that make up the model.
pub(super) fn model_files(root: &Path) -> Result<(Vec<String>, Vec<String>), HubError> {
    let modules = root.join(select::MODULES);
    let modules = if modules.is_file() { Some(read_limited(&modules, CONFIG_LIMIT_BYTES)?) } else { None };
    let folders = select::module_folders(modules.as_deref());
    let names = list(root, &folders)?;
    let chosen = select::needed(&names, &folders);
    Ok((names, chosen))
}

fn remedy(what: &What, slot: &Slot) -> String {
    let said = what.said();
    let dir = slot.dir.display();
    format!("On a connected machine run `vecmill pull {said} --to DIR`, then bring DIR here as {dir}, or name it with `--model {}=DIR`", what.slug())
}
