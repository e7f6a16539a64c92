//! One page per architecture: `config.json` and the checkpoint's names -> a `Network`. Computes nothing, knows no batch, device or pooling.

mod albert;
mod bert;
mod deberta_v2;
mod decoder;
mod distilbert;
mod electra;
mod eurobert;
mod gemma;
pub mod gguf;
mod gte;
mod jina_bert;
mod jina_v3;
pub mod json;
mod llama;
mod modernbert;
mod mpnet;
mod nomic;
mod parts;
mod postnorm;
mod qwen;
mod roberta;
mod rope;
mod rotated;
mod static_embedding;
mod t5;

use crate::network::{LoadError, Network, WeightTable};
use json::Json;

/// One architecture that can be described.
struct Page {
    /// The name that it is listed under, and its folder in the tests. For most it is the `model_type`.
    name: &'static str,
    /// `model_type` of its config.json.
    model_type: &'static str,
    /// What its `architectures` begin with: another class under the same `model_type` is another network.
    class_prefix: &'static str,
    /// Classes of code that comes with checkpoints (`auto_map`) and that this page stands for. Such code may compute anything, so a class that
    /// no page names is refused; a page that names some and reads a checkpoint without any code says so with an empty name.
    code: &'static [&'static str],
    describe: fn(&Json, &WeightTable) -> Result<Network, LoadError>,
}

/// Checkpoints without code of their own.
const NATIVE: &[&str] = &[""];

#[rustfmt::skip]
const PAGES: &[Page] = &[
    Page { name: "bert", model_type: "bert", class_prefix: "Bert", code: NATIVE, describe: bert::describe },
    Page { name: "roberta", model_type: "roberta", class_prefix: "Roberta", code: NATIVE, describe: roberta::describe },
    Page { name: "xlm-roberta", model_type: "xlm-roberta", class_prefix: "XLMRoberta", code: NATIVE, describe: roberta::describe_multilingual },
    Page { name: "camembert", model_type: "camembert", class_prefix: "Camembert", code: NATIVE, describe: roberta::describe_multilingual },
    Page { name: "distilbert", model_type: "distilbert", class_prefix: "DistilBert", code: NATIVE, describe: distilbert::describe },
    Page { name: "mpnet", model_type: "mpnet", class_prefix: "MPNet", code: NATIVE, describe: mpnet::describe },
    Page { name: "electra", model_type: "electra", class_prefix: "Electra", code: NATIVE, describe: electra::describe },
    Page { name: "albert", model_type: "albert", class_prefix: "Albert", code: NATIVE, describe: albert::describe },
    Page { name: "modernbert", model_type: "modernbert", class_prefix: "ModernBert", code: NATIVE, describe: modernbert::describe },
    Page { name: "nomic_bert", model_type: "nomic_bert", class_prefix: "NomicBert", code: &["", "NomicBertModel"], describe: nomic::describe },
    Page { name: "jina_bert", model_type: "bert", class_prefix: "JinaBert", code: &["", "JinaBertModel"], describe: jina_bert::describe },
    Page { name: "new", model_type: "new", class_prefix: "New", code: &["", "NewModel"], describe: gte::describe },
    Page { name: "gte", model_type: "gte", class_prefix: "Gte", code: &["", "GteModel"], describe: gte::describe },
    Page { name: "eurobert", model_type: "eurobert", class_prefix: "EuroBert", code: &["", "EuroBertModel"], describe: eurobert::describe },
    Page { name: "t5", model_type: "t5", class_prefix: "T5", code: NATIVE, describe: t5::describe },
    Page { name: "t5", model_type: "mt5", class_prefix: "MT5", code: NATIVE, describe: t5::describe_mt5 },
    Page { name: "deberta-v2", model_type: "deberta-v2", class_prefix: "DebertaV2", code: NATIVE, describe: deberta_v2::describe },
    JINA_V3,
    Page { model_type: "xlm-roberta", class_prefix: "XLMRoberta", code: &["XLMRobertaLoRA"], describe: jina_v3::describe_hub, ..JINA_V3 },
    STATIC,
    Page { name: "qwen3", model_type: "qwen3", class_prefix: "Qwen3", code: NATIVE, describe: qwen::qwen3 },
    Page { name: "qwen2", model_type: "qwen2", class_prefix: "Qwen2", code: &["", "Qwen2Model"], describe: qwen::qwen2 },
    Page { name: "mistral", model_type: "mistral", class_prefix: "Mistral", code: NATIVE, describe: llama::mistral },
    Page { name: "llama", model_type: "llama", class_prefix: "Llama", code: NATIVE, describe: llama::llama },
    Page { name: "llama_bidirec", model_type: "llama_bidirec", class_prefix: "LlamaBidirec", code: &["", "LlamaBidirectionalModel"], describe: llama::llama_bidirec },
    Page { name: "gemma3_text", model_type: "gemma3_text", class_prefix: "Gemma3", code: NATIVE, describe: gemma::gemma3 },
];

const JINA_V3: Page = Page {
    name: "jina_embeddings_v3",
    model_type: "jina_embeddings_v3",
    class_prefix: "JinaEmbeddingsV3",
    code: NATIVE,
    describe: jina_v3::describe,
};

/// Also what sentence-transformers' StaticEmbedding module holds, which needs no config.json.
const STATIC: Page =
    Page { name: "static_embedding", model_type: "model2vec", class_prefix: "StaticModel", code: NATIVE, describe: static_embedding::describe };

/// The architectures that can be loaded, each once; the parity test has checkpoints for each.
pub fn architectures() -> impl Iterator<Item = &'static str> {
    let first = |(index, page): &(usize, &Page)| PAGES[..*index].iter().all(|other| other.name != page.name);
    PAGES.iter().enumerate().filter(first).map(|(_, page)| page.name)
}

/// Describes the network of a checkpoint and names its architecture.
///
/// # Errors
/// An architecture without a page, a field that is missing or not understood, a tensor that is missing or has another shape.
pub fn describe(config: &Json, weights: &WeightTable) -> Result<(&'static str, Network), LoadError> {
    let untyped = config.get("model_type").is_none() && config.get("architectures").is_none();
    // The oldest model2vec checkpoints say nothing of their kind but by the name of their only tensor.
    let page = if untyped && weights.has("embeddings") { &STATIC } else { page_of(config)? };
    if config.get("quantization_config").is_some() {
        return Err(config.refuse("quantization_config", "quantised checkpoints are not read"));
    }
    Ok((page.name, (page.describe)(config, weights)?))
}

/// Describes a table of static embeddings, which needs no config.json, and names its architecture.
///
/// # Errors
/// Tensors that are missing, do not fit each other or are not understood.
pub fn describe_table(weights: &WeightTable) -> Result<(&'static str, Network), LoadError> {
    Ok((STATIC.name, static_embedding::table(weights)?))
}

/// The page for a config.json: by its type, its class, and the class of the code that it brings.
fn page_of(config: &Json) -> Result<&'static Page, LoadError> {
    let known = || architectures().collect::<Vec<_>>().join(", ");
    let class = config.list("architectures")?.and_then(|list| list.first()).and_then(|value| value.as_str());
    let code = config.object("auto_map")?.and_then(|map| map.get("AutoModel")).and_then(|code| code.as_str());
    // `owner/repo--file.Class`.
    let code_class = code.map_or("", |code| code.rsplit('.').next().unwrap_or(code));
    let (field, named, of_kind): (_, _, Vec<_>) = match (config.str("model_type")?, class) {
        (Some(model_type), _) => ("model_type", model_type, PAGES.iter().filter(|page| page.model_type == model_type).collect()),
        (None, Some(class)) => ("architectures", class, PAGES.iter().filter(|page| class.starts_with(page.class_prefix)).collect()),
        (None, None) => return Err(config.refuse("model_type", "is missing, and so is `architectures`: nothing says which network this is")),
    };
    if of_kind.is_empty() {
        return Err(config.refuse(field, format!("`{named}` is not an architecture that is served; known: {}", known())));
    }
    let with_code: Vec<_> = of_kind.into_iter().filter(|page| page.code.contains(&code_class)).collect();
    if with_code.is_empty() {
        let what = if code_class.is_empty() {
            "the model has no code of its own, but its type needs it".to_owned()
        } else {
            format!("the model brings its own code (`{code_class}`), which is not run")
        };
        return Err(config.refuse("auto_map", what));
    }
    let fits = |page: &&&Page| class.is_none_or(|class| class.starts_with(page.class_prefix));
    match (with_code.iter().find(fits), class) {
        (Some(page), _) => Ok(page),
        (None, class) => Err(config.refuse("architectures", format!("`{}` is not a network of type `{named}`", class.unwrap_or_default()))),
    }
}
