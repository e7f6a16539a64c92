//! Copies of the small checkpoints that a test may break, and the refusals it then expects.

use crate::models::{exact, tiny};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use vecmill::engine::load::{LoadError, Options, load_dir};
use vecmill::service::tokenizer::TextEncoder;

/// A copy of a committed checkpoint that a test may break.
pub struct Copy {
    pub dir: tempfile::TempDir,
}

impl Copy {
    pub fn of(name: &str) -> Self {
        Self::of_architecture("bert", name)
    }

    pub fn of_architecture(architecture: &str, name: &str) -> Self {
        let from = tiny(architecture).into_iter().find(|dir| dir.ends_with(name)).expect("a committed checkpoint");
        let dir = tempfile::tempdir().expect("a directory");
        copy(&from, dir.path());
        Self { dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).expect("readable")
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::create_dir_all(self.path(name).parent().expect("a parent")).expect("a directory");
        std::fs::write(self.path(name), bytes).expect("writable");
    }

    pub fn remove(&self, name: &str) {
        std::fs::remove_file(self.path(name)).expect("there");
    }

    /// Sets a field of a JSON file, by JSON pointer's parent and key.
    pub fn set(&self, name: &str, field: &str, value: Value) {
        let mut json: Value = serde_json::from_slice(&self.read(name)).expect("JSON");
        let target = match field.rsplit_once('/') {
            Some((parent, _)) => json.pointer_mut(parent).expect("the field's parent"),
            None => &mut json,
        };
        target[field.rsplit('/').next().expect("a name")] = value;
        self.write(name, json.to_string());
    }

    /// Replaces the safetensors file by one with other tensors: `edit` sees name, dtype, shape and bytes of each.
    pub fn edit(&self, edit: impl Fn(&str, &mut Tensor) -> bool) {
        let bytes = self.read("model.safetensors");
        let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
        let mut tensors = Vec::new();
        for (name, view) in file.iter() {
            let mut tensor = Tensor { dtype: view.dtype(), shape: view.shape().to_vec(), data: view.data().to_vec() };
            if edit(name, &mut tensor) {
                tensors.push((name.to_owned(), tensor));
            }
        }
        self.write("model.safetensors", serialize(&tensors));
    }

    pub fn refusal(&self, options: &Options) -> LoadError {
        let loaded = load_dir(self.dir.path(), options).and_then(|loaded| TextEncoder::load(&loaded.info).map(|_| ()));
        loaded.expect_err("must be refused")
    }
}

pub struct Tensor {
    pub dtype: safetensors::Dtype,
    pub shape: Vec<usize>,
    pub data: Vec<u8>,
}

fn serialize(tensors: &[(String, Tensor)]) -> Vec<u8> {
    let views = tensors.iter().map(|(name, tensor)| {
        (name.as_str(), safetensors::tensor::TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.data).expect("a tensor"))
    });
    safetensors::serialize(views, None).expect("safetensors")
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("readable") {
        let path = entry.expect("readable").path();
        let target = to.join(path.file_name().expect("named"));
        if path.is_dir() {
            std::fs::create_dir(&target).expect("a directory");
            copy(&path, &target);
        } else {
            std::fs::write(&target, std::fs::read(&path).expect("readable")).expect("writable");
        }
    }
}

/// Breaks `old-mean` and expects a refusal that contains all of `words`.
#[track_caller]
pub fn refused(words: &[&str], damage: impl FnOnce(&Copy)) {
    let copy = Copy::of("old-mean");
    damage(&copy);
    let message = copy.refusal(&exact()).to_string();
    for word in words {
        assert!(message.contains(word), "{message:?} does not name {word:?}");
    }
}

/// As `refused`, by setting one field of one JSON file.
#[track_caller]
pub fn refused_field(file: &str, field: &str, value: Value, words: &[&str]) {
    let named = [&[file.split('/').next_back().expect("a name"), field.rsplit('/').next().expect("a name")], words].concat();
    refused(&named, |copy| copy.set(file, field, value));
}

/// Splits the checkpoint's file in two, with an index that `edit` may damage.
pub fn shard(copy: &Copy, edit: impl Fn(&mut Value)) {
    let bytes = copy.read("model.safetensors");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let (mut shards, mut index) = ([Vec::new(), Vec::new()], serde_json::Map::new());
    for (number, (name, view)) in file.iter().enumerate() {
        let tensor = Tensor { dtype: view.dtype(), shape: view.shape().to_vec(), data: view.data().to_vec() };
        shards[number % 2].push((name.to_owned(), tensor));
        index.insert(name.to_owned(), json!(format!("part-{}.safetensors", number % 2)));
    }
    for (number, shard) in shards.iter().enumerate() {
        copy.write(&format!("part-{number}.safetensors"), serialize(shard));
    }
    let mut index = json!({"metadata": {}, "weight_map": index});
    edit(&mut index);
    copy.remove("model.safetensors");
    copy.write("model.safetensors.index.json", index.to_string());
}
