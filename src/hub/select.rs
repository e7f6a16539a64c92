//! Which files of a directory or repo without a card make up the model, and the refusal of weights that are not safetensors.

use super::error::HubError;
use serde::Deserialize;
use std::collections::BTreeSet;

/// The file that lists the pipeline's modules and the folder of each.
pub(super) const MODULES: &str = "modules.json";

/// The folder beside a model's files that holds its goldens.
pub(super) const GOLDEN: &str = "golden";

/// Names of weights in formats that are pickles, or archives of them.
const PICKLE_ENDINGS: &[&str] = &[".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"];

/// At most this many names are listed in an error.
const NAMES_SHOWN: usize = 3;

#[derive(Deserialize)]
struct Module {
    #[serde(default)]
    path: String,
}

/// The folders a model's files lie in: those of its pipeline's modules, that of its goldens, and always the root (`""`).
pub(super) fn module_folders(modules_json: Option<&[u8]>) -> BTreeSet<String> {
    let modules: Vec<Module> = modules_json.and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or_default();
    [String::new(), GOLDEN.to_owned()].into_iter().chain(modules.into_iter().map(|module| module.path.trim_end_matches('/').to_owned())).collect()
}

/// Of `names`, the configuration, tokenizer and weights in `folders`. Other formats of the same weights stay away: where a folder has
/// `model.safetensors` that is it, else the shards (named in an index, or all).
pub(super) fn needed(names: &[String], folders: &BTreeSet<String>) -> Vec<String> {
    let split = |name: &String| name.rsplit_once('/').map_or((String::new(), name.clone()), |(dir, base)| (dir.to_owned(), base.to_owned()));
    let has = |dir: &str, base: &str| names.iter().any(|name| split(name) == (dir.to_owned(), base.to_owned()));
    let keep = |name: &&String| {
        let (dir, base) = split(name);
        if !folders.contains(&dir) || !crate::card::is_inside(name) || base.starts_with('.') {
            return false;
        }
        if base.ends_with(".safetensors") {
            return base == "model.safetensors" || !has(&dir, "model.safetensors");
        }
        is_configuration(&base)
    };
    names.iter().filter(keep).cloned().collect()
}

fn is_configuration(base: &str) -> bool {
    const NAMES: &[&str] = &["vocab.txt", "merges.txt", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model"];
    base.ends_with(".json") || NAMES.contains(&base)
}

/// Of a model's files, those that hold weights.
pub(super) fn weights(names: &[String]) -> impl Iterator<Item = &String> {
    names.iter().filter(|name| name.ends_with(".safetensors") && !name.starts_with("golden/"))
}

/// Refuses a model of which `names` are all the files, unless there are safetensors weights among `chosen`.
///
/// # Errors
/// [`HubError::PickleOnly`] if there are weights of the dangerous kind, else [`HubError::NoWeights`].
pub(super) fn require_safetensors(place: &str, names: &[String], chosen: &[String]) -> Result<(), HubError> {
    if weights(chosen).next().is_some() {
        return Ok(());
    }
    let pickles: Vec<&str> = names
        .iter()
        .map(String::as_str)
        .filter(|name| PICKLE_ENDINGS.iter().any(|ending| name.ends_with(ending)) && !name.ends_with("training_args.bin"))
        .collect();
    let place = place.to_owned();
    if pickles.is_empty() {
        return Err(HubError::NoWeights { place });
    }
    let more = if pickles.len() > NAMES_SHOWN { format!(" and {} more", pickles.len() - NAMES_SHOWN) } else { String::new() };
    Err(HubError::PickleOnly { place, files: format!("{}{more}", pickles[..pickles.len().min(NAMES_SHOWN)].join(", ")) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn only_the_pipelines_folders_are_taken() {
        let modules = br#"[{"path": "", "type": "a.Transformer"}, {"path": "1_Pooling"}, {"path": "2_Dense/"}]"#;
        let all = names(&[
            ".gitattributes",
            "README.md",
            "config.json",
            "tokenizer.json",
            "vocab.txt",
            "model.safetensors",
            "pytorch_model.bin",
            "modules.json",
            "1_Pooling/config.json",
            "2_Dense/model.safetensors",
            "2_Dense/pytorch_model.bin",
            "onnx/config.json",
            "onnx/model.onnx",
            "openvino/openvino_model.bin",
            "../../etc/x.json",
        ]);
        let chosen = needed(&all, &module_folders(Some(modules)));
        assert_eq!(
            chosen,
            names(&[
                "config.json",
                "tokenizer.json",
                "vocab.txt",
                "model.safetensors",
                "modules.json",
                "1_Pooling/config.json",
                "2_Dense/model.safetensors"
            ])
        );
        require_safetensors("x", &all, &chosen).unwrap();
    }

    #[test]
    fn a_hostile_modules_json_reaches_nothing_outside() {
        let all = names(&["../secret/config.json", "model.safetensors"]);
        let folders = module_folders(Some(br#"[{"path": "../secret"}]"#));
        assert_eq!(needed(&all, &folders), names(&["model.safetensors"]));
        assert_eq!(module_folders(Some(b"not json")), ["", GOLDEN].map(str::to_owned).into());
    }

    #[test]
    fn shards_come_with_their_index_and_whole_weights_win() {
        let shards = names(&["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]);
        let root = module_folders(None);
        assert_eq!(needed(&shards, &root), shards);
        let mut both = shards.clone();
        both.push("model.safetensors".to_owned());
        assert_eq!(needed(&both, &root), names(&["model.safetensors.index.json", "model.safetensors"]));
    }

    #[test]
    fn pickles_are_refused_with_their_names_and_the_reason() {
        let all = names(&["config.json", "pytorch_model.bin", "training_args.bin"]);
        let error = require_safetensors("owner/old", &all, &needed(&all, &module_folders(None))).unwrap_err().to_string();
        assert!(error.contains("owner/old") && error.contains("only as pytorch_model.bin:") && error.contains("run code"), "{error}");
        let none = names(&["config.json", "model.onnx"]);
        assert!(matches!(require_safetensors("x", &none, &none), Err(HubError::NoWeights { .. })));
    }
}
