//! From a GGUF file's metadata and tensor names to a config.json and the names of the checkpoint that it was made of. Whatever is left over is refused.

use super::architectures::Architecture;
use super::{Described, Gguf, pooling};
use crate::encoders::json::{Json, short};
use crate::network::{LoadError, Stored, Weight, WeightTable};
use serde_json::{Map, Value, json};

/// What a field of config.json can follow from.
pub enum Dimensions {
    /// The rows of a tensor.
    Rows(&'static str),
    /// That there is such a tensor.
    Has(&'static str),
}

/// Keys behind `ARCH.` that change nothing here, or are read by name below.
const BESIDE: &[&str] = &[
    "vocab_size",
    "context_length",
    "pooling_type",
    "attention.causal",
    "attention.value_length",
    "rope.dimension_count",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
    "dense_2_feat_in",
    "dense_2_feat_out",
    "dense_3_feat_in",
    "dense_3_feat_out",
];

/// Maps after pooling, and the map to the vocabulary, which no embedding needs.
const DENSE: [&str; 2] = ["dense_2.weight", "dense_3.weight"];
const TO_VOCABULARY: &str = "output.weight";

/// Factors on the frequencies of Llama 3's rotation.
const ROPE_FACTORS: &str = "rope_freqs.weight";

/// The network, by its architecture's page.
pub fn network(gguf: &Gguf, architecture: &Architecture) -> Result<Described, LoadError> {
    let (meta, name) = (&gguf.meta, architecture.name);
    let key = |key: &str| format!("{name}.{key}");
    refuse_unknown_keys(gguf, architecture)?;
    if let Some(causal) = meta.bool(&key("attention.causal"))?.filter(|causal| *causal != architecture.causal) {
        return Err(meta.refuse(&key("attention.causal"), format!("must be {} for this architecture, but is {causal}", architecture.causal)));
    }
    let mut table = WeightTable::new(meta.file());
    for tensor in gguf.tensors.names() {
        if let Some(renamed) = rename(architecture, tensor) {
            table.add_as(&renamed, &gguf.tensors, tensor)?;
        } else if tensor != TO_VOCABULARY && tensor != ROPE_FACTORS && !DENSE.contains(&tensor) {
            return Err(LoadError::tensor(meta.file(), tensor, format!("is not understood for the architecture `{name}`")));
        }
    }
    let config = Json::of(meta.file().to_owned(), config(gguf, architecture)?);
    let network = (architecture.describe)(&config, &table).map_err(|error| own_words(error, architecture))?;
    let context = meta.usize(&key("context_length"))?.ok_or_else(|| meta.refuse(&key("context_length"), "is missing"))?;
    Ok(Described { architecture: name, dense: dense(gguf, network.width)?, network, context, pooling: pooling(meta, &key("pooling_type"))? })
}

/// A page's complaint about a field of config.json, with the key that the field was read from.
fn own_words(error: LoadError, architecture: &Architecture) -> LoadError {
    match error {
        LoadError::Field { file, field, reason } => {
            let key = architecture.fields.iter().find(|(_, name)| *name == field).map(|(key, _)| format!("{}.{key}", architecture.name));
            LoadError::Field { file, field: key.unwrap_or(field), reason }
        }
        other => other,
    }
}

/// The checkpoint's name for a tensor of the file.
fn rename(architecture: &Architecture, tensor: &str) -> Option<String> {
    let (stem, kind) = tensor.rsplit_once('.')?;
    if !matches!(kind, "weight" | "bias") {
        return None;
    }
    let find = |names: &[(&str, &'static str)], stem: &str| names.iter().find(|(name, _)| *name == stem).map(|(_, renamed)| *renamed);
    if let Some(renamed) = find(architecture.tensors, stem) {
        return Some(format!("{renamed}.{kind}"));
    }
    let (layer, stem) = stem.strip_prefix("blk.")?.split_once('.')?;
    let layer: usize = layer.parse().ok()?;
    Some(format!("{}.{layer}.{}.{kind}", architecture.layer, find(architecture.in_layer, stem)?))
}

/// What is not read may change what is computed.
fn refuse_unknown_keys(gguf: &Gguf, architecture: &Architecture) -> Result<(), LoadError> {
    let prefix = format!("{}.", architecture.name);
    let known = |key: &str| architecture.fields.iter().any(|(name, _)| *name == key) || BESIDE.contains(&key);
    let keys = gguf.meta.fields().map(|(key, value)| (key, short(value)));
    let lists = gguf.lists.iter().map(|(key, list)| (key.as_str(), format!("a list of {}", list.len())));
    match keys.chain(lists).find(|(key, _)| key.strip_prefix(&prefix).is_some_and(|key| !known(key))) {
        Some((key, value)) => Err(gguf.meta.refuse(key, format!("is not understood (value {value})"))),
        None => Ok(()),
    }
}

/// The config.json that the file stands for.
fn config(gguf: &Gguf, architecture: &Architecture) -> Result<Map<String, Value>, LoadError> {
    let meta = &gguf.meta;
    let mut config: Map<String, Value> =
        serde_json::from_str(architecture.fixed).map_err(|error| LoadError::file(meta.file(), format!("{}: {error}", architecture.name)))?;
    let needed = architecture.fields.len() - architecture.optional;
    for (index, (key, field)) in architecture.fields.iter().enumerate() {
        let key = format!("{}.{key}", architecture.name);
        match meta.get(&key) {
            Some(value) => drop(config.insert((*field).to_owned(), value.clone())),
            None if gguf.lists.contains_key(&key) => return Err(meta.refuse(&key, "differs from layer to layer, which is not computed")),
            None if index < needed => return Err(meta.refuse(&key, "is missing")),
            None => {}
        }
    }
    for (dimensions, field) in architecture.sizes {
        let value = match dimensions {
            Dimensions::Has(tensor) => json!(gguf.tensors.has(tensor)),
            Dimensions::Rows(tensor) => {
                let rows = gguf.tensors.shape(tensor).and_then(|shape| shape.first());
                json!(rows.ok_or_else(|| LoadError::tensor(meta.file(), *tensor, "is missing"))?)
            }
        };
        config.insert((*field).to_owned(), value);
    }
    heads(gguf, architecture, &mut config)?;
    rotation(gguf, architecture, &mut config)?;
    Ok(config)
}

/// Heads are as wide for values as for keys, and turned as a whole; where their width is not named it is the network's divided among them.
fn heads(gguf: &Gguf, architecture: &Architecture, config: &mut Map<String, Value>) -> Result<(), LoadError> {
    let width = |field: &str| config.get(field).and_then(Value::as_u64);
    let head_dim = match (width("head_dim"), width("hidden_size"), width("num_attention_heads")) {
        (Some(head_dim), _, _) => head_dim,
        (None, Some(width), Some(heads)) if heads > 0 && width % heads == 0 => width / heads,
        // The page has a sentence for it.
        _ => return Ok(()),
    };
    if architecture.fields.iter().any(|(_, field)| *field == "head_dim") {
        config.insert("head_dim".to_owned(), head_dim.into());
    }
    for key in ["attention.value_length", "rope.dimension_count"] {
        let key = format!("{}.{key}", architecture.name);
        if let Some(other) = gguf.meta.usize(&key)?.filter(|other| *other as u64 != head_dim) {
            return Err(gguf.meta.refuse(&key, format!("must be {head_dim}, as a head has so many dimensions, but is {other}")));
        }
    }
    Ok(())
}

/// `rope.scaling.*`, and Llama 3's factors, which are one for each pair as LongRoPE's are.
fn rotation(gguf: &Gguf, architecture: &Architecture, config: &mut Map<String, Value>) -> Result<(), LoadError> {
    let meta = &gguf.meta;
    let key = |key: &str| format!("{}.rope.scaling.{key}", architecture.name);
    let number = |name: &str| meta.f64(&key(name))?.ok_or_else(|| meta.refuse(&key(name), "is missing"));
    let scaling = match meta.str(&key("type"))? {
        None | Some("none") => None,
        Some("linear") => Some(json!({"rope_type": "linear", "factor": number("factor")?})),
        Some("yarn") => {
            let trained = meta.usize(&key("original_context_length"))?;
            let trained = trained.ok_or_else(|| meta.refuse(&key("original_context_length"), "is missing"))?;
            Some(json!({"rope_type": "yarn", "factor": number("factor")?, "original_max_position_embeddings": trained}))
        }
        Some(other) => return Err(meta.refuse(&key("type"), format!("`{other}` is not computed from GGUF files; known: none, linear, yarn"))),
    };
    let factors = factors(gguf)?;
    match (scaling, factors) {
        (Some(_), Some(_)) => return Err(meta.refuse(&key("type"), format!("is there, and so is `{ROPE_FACTORS}`: both together are unclear"))),
        (Some(scaling), None) => drop(config.insert("rope_scaling".to_owned(), scaling)),
        (None, Some(factors)) => {
            let factors = json!({"rope_type": "longrope", "short_factor": factors, "long_factor": factors, "attention_factor": 1.});
            config.insert("rope_scaling".to_owned(), factors);
        }
        (None, None) => {}
    }
    Ok(())
}

fn factors(gguf: &Gguf) -> Result<Option<Vec<f64>>, LoadError> {
    let Some(shape) = gguf.tensors.shape(ROPE_FACTORS) else { return Ok(None) };
    let weight = gguf.tensors.get(ROPE_FACTORS, shape)?;
    if weight.stored() != Stored::F32 {
        return Err(weight.refuse(format!("is stored as {:?}, not as F32", weight.stored())));
    }
    Ok(Some(weight.bytes().as_chunks().0.iter().map(|number| f64::from(f32::from_le_bytes(*number))).collect()))
}

/// The maps after pooling, each as wide as what arrives.
fn dense(gguf: &Gguf, width: usize) -> Result<Vec<Weight>, LoadError> {
    let (mut maps, mut width) = (Vec::new(), width);
    for name in DENSE {
        let Some(shape) = gguf.tensors.shape(name) else { continue };
        let out = shape.first().copied().unwrap_or(0);
        maps.push(gguf.tensors.get(name, &[out, width])?);
        width = out;
    }
    Ok(maps)
}
