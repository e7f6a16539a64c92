//! Where a checkpoint's tensors lie: one safetensors file, or several that an index names.

use super::map::map;
use crate::encoders::json::{Json, short};
use crate::network::{LoadError, WeightTable};
use std::collections::BTreeSet;
use std::path::{Component, Path};

const WHOLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Pickles run code when they are read; named so that the refusal can say what was found.
const PICKLES: [&str; 2] = ["pytorch_model.bin", "pytorch_model.bin.index.json"];

/// The tensors of the checkpoint in a directory.
///
/// # Errors
/// No safetensors there, a file that is broken, an index that leaves the directory or names tensors that are not there.
pub fn weights(dir: &Path) -> Result<WeightTable, LoadError> {
    let (whole, index) = (dir.join(WHOLE), dir.join(INDEX));
    if whole.exists() {
        let label = whole.display().to_string();
        let mut table = WeightTable::new(&label);
        table.add(&label, map(&whole)?)?;
        return Ok(table);
    }
    if let Some(index) = Json::read(&index)? {
        return sharded(dir, &index);
    }
    if let Some(pickle) = PICKLES.map(|name| dir.join(name)).iter().find(|path| path.exists()) {
        let reason = "is a pickle, which can run any code when it is read; only safetensors are loaded: convert it first";
        return Err(LoadError::file(pickle.display().to_string(), reason));
    }
    Err(LoadError::file(whole.display().to_string(), format!("is missing, and there is no {INDEX}")))
}

fn sharded(dir: &Path, index: &Json) -> Result<WeightTable, LoadError> {
    let map_field = index.object("weight_map")?.ok_or_else(|| index.refuse("weight_map", "is missing"))?;
    let mut shards = BTreeSet::new();
    for (tensor, shard) in map_field {
        let name = shard.as_str().filter(|name| is_inside(name));
        shards.insert(name.ok_or_else(|| index.refuse(&format!("weight_map.{tensor}"), format!("{} is not a file of this folder", short(shard))))?);
    }
    let mut table = WeightTable::new(index.file());
    for shard in shards {
        let path = dir.join(shard);
        table.add(&path.display().to_string(), map(&path)?)?;
    }
    match map_field.keys().find(|name| !table.has(name)) {
        Some(name) => Err(LoadError::tensor(index.file(), name, "is in the index, but in none of its files")),
        None => Ok(table),
    }
}

/// True for a relative path that stays below the folder it is relative to.
pub fn is_inside(path: &str) -> bool {
    let mut parts = Path::new(path).components().peekable();
    parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::is_inside;

    #[test]
    fn paths_that_leave_the_folder_are_told_apart() {
        for inside in ["a.safetensors", "sub/a.safetensors"] {
            assert!(is_inside(inside), "{inside}");
        }
        for outside in ["", "..", "../a", "/a", "a/../../b", "./.."] {
            assert!(!is_inside(outside), "{outside}");
        }
    }
}
