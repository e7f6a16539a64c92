//! One page per architecture: `config.json` and the checkpoint's names -> a `Network`. Computes nothing, knows no batch, device or pooling.

mod bert;
pub mod json;
#[allow(dead_code, reason = "the pages that need the rest arrive one by one")]
mod parts;
#[allow(dead_code, reason = "the pages that need it arrive one by one")]
mod rope;

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

const PAGES: &[Page] = &[Page { name: "bert", model_type: "bert", class_prefix: "Bert", code: NATIVE, describe: bert::describe }];

/// The architectures that can be loaded; the parity test has checkpoints for each.
pub fn architectures() -> impl Iterator<Item = &'static str> {
    PAGES.iter().map(|page| page.name)
}

/// Describes the network of a checkpoint and names its architecture.
///
/// # Errors
/// An architecture without a page, a field that is missing or not understood, a tensor that is missing or has another shape.
pub fn describe(config: &Json, weights: &WeightTable) -> Result<(&'static str, Network), LoadError> {
    let page = page_of(config)?;
    if config.get("quantization_config").is_some() {
        return Err(config.refuse("quantization_config", "quantised checkpoints are not read"));
    }
    Ok((page.name, (page.describe)(config, weights)?))
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
