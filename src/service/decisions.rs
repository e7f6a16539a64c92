//! What the operator, the card and the checkpoint together decide about a model being served: what the loader could not know.

use super::registry::{Matryoshka, Model, Role};
use crate::engine::load::{Decision, ModelInfo};

/// The loader's decisions, then those of the service.
pub fn all(model: &Model, info: &ModelInfo) -> Vec<Decision> {
    let settings = &model.settings;
    let table = |said: bool, else_from: &str| if said { format!("[models.{:?}]", model.slug) } else { else_from.to_owned() };
    let card_sizes = model.card.is_some_and(|card| !card.matryoshka.is_empty());
    let sizes = match model.matryoshka(info) {
        Matryoshka::Denied => format!("only {}", info.dimensions),
        Matryoshka::Any => format!("1 to {}", info.dimensions),
        Matryoshka::Sizes(sizes) if settings.matryoshka_strict => format!("only {sizes:?} and {}", info.dimensions),
        Matryoshka::Sizes(sizes) => format!("1 to {} (trained for {sizes:?})", info.dimensions),
    };
    let sizes_from = match (&settings.matryoshka, card_sizes, &info.matryoshka) {
        (Some(_), ..) => table(true, ""),
        (None, true, _) => "the card".to_owned(),
        (None, false, Some(_)) => "config.json".to_owned(),
        (None, false, None) => "not declared by operator, card or config.json".to_owned(),
    };
    let role = |name: &str| described(model.role(info, Some(name)).unwrap_or_default(), info);
    let mapped = |by_card: bool| if by_card { "the card" } else { "the checkpoint's prompts; empty where it has none of that name" };
    let default = settings.default_prompt.as_deref().or(info.default_prompt_name.as_deref()).unwrap_or("none");
    let default_from =
        if info.default_prompt_name.is_some() { "config_sentence_transformers.json" } else { "neither operator nor checkpoint names one" };
    let length = if settings.as_the_model { "as the model's modules leave it" } else { "unit length" };
    let cut = if settings.mrl_layer_norm { "the first values, after a layer norm over all" } else { "the first values" };
    let mut decisions = info.decisions.clone();
    decisions.extend([
        Decision::new("supported_dimensions", sizes, sizes_from),
        Decision::new("vector_length", length, table(settings.as_the_model, "the default")),
        Decision::new("cut", cut, table(settings.mrl_layer_norm, "the default")),
        Decision::new("query_prompt", role("query"), mapped(model.card.is_some_and(|card| card.prompts.query.is_some()))),
        Decision::new("document_prompt", role("document"), mapped(model.card.is_some_and(|card| card.prompts.document.is_some()))),
        Decision::new("prompt_unless_named", default, table(settings.default_prompt.is_some(), default_from)),
        Decision::new("truncate", format!("{:?}", settings.truncate).to_lowercase(), table(settings.truncate != Default::default(), "the default")),
    ]);
    decisions
}

/// The text that goes before, and the task whose deltas are added.
fn described(role: Role, info: &ModelInfo) -> String {
    let task = info.adapters.iter().find(|(_, adapter)| Some(**adapter) == role.adapter);
    task.map_or_else(|| format!("{:?}", role.prompt), |(task, _)| format!("{:?} and the deltas of {task}", role.prompt))
}

/// What whoever uses the model should know, in sentences.
pub fn notes(model: &Model, info: &ModelInfo, proven: bool) -> Vec<String> {
    let mut notes = Vec::new();
    if !proven {
        notes.push(
            "There are no goldens: nothing shows on this machine that it computes what its reference does (scripts/golden.py makes them).".to_owned(),
        );
    }
    if model.matryoshka(info) == Matryoshka::Denied {
        notes.push(format!("`dimensions` other than {} is refused: the model is not declared fit for shorter vectors.", info.dimensions));
    }
    let (query, document) = (model.role(info, Some("query")), model.role(info, Some("document")));
    if query == document {
        notes.push("Queries and documents are embedded alike.".to_owned());
    } else {
        notes.push("Queries and documents have different prompts: send `input_type`, or vectors that should meet will not.".to_owned());
    }
    if info.max_tokens < info.position_limit {
        notes.push(format!(
            "Texts over {} tokens are too long, though its position table reaches {}: `max_tokens` may be raised.",
            info.max_tokens, info.position_limit
        ));
    }
    if info.license.is_none() {
        notes.push("Its licence is not stated: find out before you rely on it.".to_owned());
    }
    notes
}
