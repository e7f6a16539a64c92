//! One page per architecture: `config.json` and the checkpoint's names -> a `Network`. Computes nothing, knows no batch, device or pooling.

mod bert;
pub mod json;

use crate::network::{Activation, LoadError, Network, WeightTable};
use json::Json;

/// One architecture that can be described.
struct Page {
    /// `model_type` of its config.json.
    model_type: &'static str,
    /// What its `architectures` begin with: another class under the same `model_type` is another network.
    class_prefix: &'static str,
    describe: fn(&Json, &WeightTable) -> Result<Network, LoadError>,
}

const PAGES: &[Page] = &[Page { model_type: "bert", class_prefix: "Bert", describe: bert::describe }];

/// The `model_type`s that can be loaded; the parity test has a checkpoint for each.
pub fn architectures() -> impl Iterator<Item = &'static str> {
    PAGES.iter().map(|page| page.model_type)
}

/// Describes the network of a checkpoint and names its architecture.
///
/// # Errors
/// An architecture without a page, a field that is missing or not understood, a tensor that is missing or has another shape.
pub fn describe(config: &Json, weights: &WeightTable) -> Result<(&'static str, Network), LoadError> {
    let known = || architectures().collect::<Vec<_>>().join(", ");
    let class = config.list("architectures")?.and_then(|list| list.first()).and_then(|value| value.as_str());
    let page = match (config.str("model_type")?, class) {
        (Some(model_type), _) => PAGES
            .iter()
            .find(|page| page.model_type == model_type)
            .ok_or_else(|| config.refuse("model_type", format!("`{model_type}` is not an architecture that is served; known: {}", known())))?,
        (None, Some(class)) => PAGES
            .iter()
            .find(|page| class.starts_with(page.class_prefix))
            .ok_or_else(|| config.refuse("architectures", format!("`{class}` is not an architecture that is served; known: {}", known())))?,
        (None, None) => return Err(config.refuse("model_type", "is missing, and so is `architectures`: nothing says which network this is")),
    };
    if let Some(class) = class.filter(|class| !class.starts_with(page.class_prefix)) {
        return Err(config.refuse("architectures", format!("`{class}` is not a network of type `{}`", page.model_type)));
    }
    // Code that comes with the weights may compute anything under a known model_type (Jina's ALiBi models call themselves bert).
    if config.object("auto_map")?.is_some_and(|map| map.contains_key("AutoModel")) {
        return Err(config.refuse("auto_map", "the model brings its own code (AutoModel), which is not run"));
    }
    if config.get("quantization_config").is_some() {
        return Err(config.refuse("quantization_config", "quantised checkpoints are not read"));
    }
    Ok((page.model_type, (page.describe)(config, weights)?))
}

/// The function that a `hidden_act` names (transformers, `activations.py`).
fn activation(config: &Json, field: &str, default: &str) -> Result<Activation, LoadError> {
    let name = config.str(field)?.unwrap_or(default);
    match name {
        "gelu" | "gelu_python" => Ok(Activation::Gelu),
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_python_tanh" | "gelu_fast" | "gelu_accurate" => Ok(Activation::GeluTanh),
        "relu" => Ok(Activation::Relu),
        "silu" | "swish" => Ok(Activation::Silu),
        "tanh" => Ok(Activation::Tanh),
        "sigmoid" => Ok(Activation::Sigmoid),
        "linear" => Ok(Activation::Identity),
        _ => {
            Err(config
                .refuse(field, format!("`{name}` is not an activation that is computed; known: gelu, gelu_new, relu, silu, tanh, sigmoid, linear")))
        }
    }
}

/// A size that must be there (or have a default) and be at least one.
fn size(config: &Json, field: &str, default: usize) -> Result<usize, LoadError> {
    match config.usize(field)?.unwrap_or(default) {
        0 => Err(config.refuse(field, "must be at least 1, but is 0")),
        size => Ok(size),
    }
}
