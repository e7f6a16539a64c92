//! What was decided about a model while it was loaded, and which file or option decided it: recorded once, for the log and for `doctor`.

use super::info::ModelInfo;
use super::{Options, faster_dtypes};
use crate::engine::pipeline::Pipeline;
use crate::engine::pipeline::modules::Modules;
use serde::Serialize;
use std::path::Path;

/// One decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// What was decided: `pooling`, `max_tokens`, ...
    pub what: &'static str,
    /// How.
    pub value: String,
    /// The file (below the model's directory), the option, or the rule that decided it.
    pub from: String,
}

impl Decision {
    /// A decision.
    pub fn new(what: &'static str, value: impl ToString, from: impl Into<String>) -> Self {
        Self { what, value: value.to_string(), from: from.into() }
    }
}

/// What the loader saw besides the finished facts.
pub struct Seen<'a> {
    pub root: &'a Path,
    pub encoder: &'a Path,
    pub modules: Option<&'a Modules>,
    /// The encoder is a table of static embeddings.
    pub table: bool,
    pub options: &'a Options,
    /// The file or option that `max_tokens` is from.
    pub max_tokens_from: &'a str,
    /// The file or rule that the end of the positions is from.
    pub positions_from: &'a str,
}

/// Every decision of the loader, in the order in which a text meets them.
pub fn decide(info: &ModelInfo, pipeline: &Pipeline, seen: &Seen) -> Vec<Decision> {
    let file = |path: &Path| path.strip_prefix(seen.root).unwrap_or(path).display().to_string();
    let encoder = |name: &str| file(&seen.encoder.join(name));
    let below = |from: &str| from.strip_prefix(&format!("{}/", seen.root.display())).unwrap_or(from).to_owned();
    let pooling_from = match (seen.modules, seen.table) {
        (Some(_), true) => "modules.json (StaticEmbedding)".to_owned(),
        (Some(modules), false) => modules.pooling_dir().map_or_else(|| "modules.json".to_owned(), |dir| file(&dir.join("config.json"))),
        (None, true) => "config.json, as model2vec (there is no modules.json)".to_owned(),
        (None, false) => "--pooling (there is no modules.json)".to_owned(),
    };
    let network = if seen.table && seen.modules.is_some() { "modules.json (StaticEmbedding)".to_owned() } else { encoder("config.json") };
    let width = if seen.table { "the table's width".to_owned() } else { network.clone() };
    let tokenizer = if seen.encoder.join("tokenizer.json").exists() { "tokenizer.json" } else { "vocab.txt" };
    let stages = pipeline.stages();
    let after = if stages.after.is_empty() { "nothing".to_owned() } else { stages.after.join(", ") };
    let length = if info.normalized { "unit length (Normalize)" } else { "as the modules leave it" };
    let modules = match (seen.modules, seen.table) {
        (Some(_), _) => "modules.json",
        (None, true) => "config.json, as model2vec",
        (None, false) => "no modules.json",
    };
    let prompts = "config_sentence_transformers.json";
    let tasks: Vec<&str> = info.adapters.keys().map(String::as_str).collect();
    let sizes = |sizes: &Vec<usize>| format!("{sizes:?}");
    let mut decisions = vec![
        Decision::new("architecture", info.architecture, network),
        Decision::new("hidden_size", info.hidden_size, width.clone()),
        Decision::new("tokenizer", tokenizer, encoder(tokenizer)),
        Decision::new("max_tokens", info.max_tokens, below(seen.max_tokens_from)),
        Decision::new("position_limit", info.position_limit, below(seen.positions_from)),
        Decision::new("prompts", names(info), prompts),
        Decision::new("default_prompt", info.default_prompt_name.as_deref().unwrap_or("none"), prompts),
        Decision::new("pooling", &stages.pooling, pooling_from),
        Decision::new("after_pooling", after, modules),
        Decision::new("model_length", length, modules),
        Decision::new("dimensions", info.dimensions, if info.dimensions == info.hidden_size { width } else { modules.to_owned() }),
        Decision::new("matryoshka", info.matryoshka.as_ref().map_or_else(|| "not declared".to_owned(), sizes), encoder("config.json")),
    ];
    if info.text.do_lower_case {
        decisions.insert(3, Decision::new("do_lower_case", true, encoder("sentence_bert_config.json")));
    }
    if !tasks.is_empty() {
        decisions.push(Decision::new("adapters", tasks.join(", "), encoder("config.json")));
    }
    decisions.extend(running(info, pipeline, seen.options));
    decisions
}

/// How it runs here.
pub fn running(info: &ModelInfo, pipeline: &Pipeline, options: &Options) -> [Decision; 4] {
    let dtype = match options.dtype {
        Some(_) => "--dtype, the model's table, or auto after its goldens held",
        None if faster_dtypes(options).is_empty() => "auto: f32, the fastest that this processor computes exactly",
        None => "auto: f32, as no goldens show that a faster type holds",
    };
    let level = if options.cpu.is_some() { "by --cpu-level" } else { "the best of this processor" };
    [
        Decision::new("device", info.device, options.device_from.clone()),
        Decision::new("dtype", info.dtype, dtype),
        match pipeline.fused() {
            Ok(cpu) => Decision::new("executor", "host", format!("fused {} kernels at the level {}, {level}", info.dtype, cpu.level())),
            Err(reason) => Decision::new("executor", "tensor", format!("not the fused one: {reason}")),
        },
        Decision::new("weights_mib", info.weight_bytes.div_ceil(1 << 20), "the encoder's tensors in this dtype"),
    ]
}

fn names(info: &ModelInfo) -> String {
    let quoted: Vec<String> = info.prompts.iter().map(|(name, text)| format!("{name} = {text:?}")).collect();
    if quoted.is_empty() { "none".to_owned() } else { quoted.join(", ") }
}
