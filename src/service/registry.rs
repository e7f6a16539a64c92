//! The models being served: slugs, short names, their settings, and what is known of each once it is loaded.

use super::alias::Alias;
use super::golden::Fidelity;
use super::space::Space;
use super::tokenizer::TextEncoder;
use crate::card::Card;
use crate::engine::Ready;
use crate::engine::load::ModelInfo;
use crate::wire::Truncate;
use std::sync::{Arc, OnceLock};

/// What the operator decided for one model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings {
    /// What happens to a text longer than the model takes, unless the request says otherwise.
    pub truncate: Truncate,
    /// Raises or lowers the model's own limit in tokens, up to its position table.
    pub max_tokens: Option<usize>,
    /// Declares (or denies) that the model is trained for shorter vectors.
    pub matryoshka: Option<Matryoshka>,
    /// Only the listed sizes instead of any.
    pub matryoshka_strict: bool,
    /// Before a vector is cut, a layer norm over the whole of it.
    pub mrl_layer_norm: bool,
    /// Leave vectors as modules.json makes them instead of scaling them to unit length.
    pub as_the_model: bool,
    /// The prompt of requests that name none.
    pub default_prompt: Option<String>,
    /// Embed an empty text (as bare special tokens) instead of refusing it.
    pub embed_empty: bool,
}

/// Which shorter sizes a model is trained for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Matryoshka {
    /// None: `dimensions` must be the native size.
    Denied,
    /// Any size.
    Any,
    /// These sizes; others only without `matryoshka_strict`.
    Sizes(Vec<usize>),
}

/// A model being served.
pub struct Model {
    /// The name it is listed under.
    pub slug: String,
    pub card: Option<&'static Card>,
    pub settings: Settings,
    loaded: OnceLock<Loaded>,
}

/// What exists once the weights are in place and warm.
pub struct Loaded {
    pub engine: Ready,
    pub info: ModelInfo,
    pub encoder: Arc<TextEncoder>,
    /// How near it comes to its reference; `None` if there are no goldens for it.
    pub fidelity: Option<Fidelity>,
    /// Where its vectors lie.
    pub space: Space,
}

/// What `input_type` chooses: a text that goes before the input, and a set of the network's low-rank deltas.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Role<'a> {
    pub prompt: &'a str,
    pub adapter: Option<usize>,
}

/// A prompt that a model does not have; holds the names that it has.
#[derive(Debug, PartialEq, Eq)]
pub struct NoSuchPrompt(pub Vec<String>);

impl Model {
    /// A model whose weights are still on their way.
    pub fn new(slug: String, card: Option<&'static Card>, settings: Settings) -> Self {
        Self { slug, card, settings, loaded: OnceLock::new() }
    }

    /// What there is to know once it is loaded.
    pub fn loaded(&self) -> Option<&Loaded> {
        self.loaded.get()
    }

    /// Makes it servable. The second call changes nothing.
    pub fn set_loaded(&self, loaded: Loaded) {
        let _ = self.loaded.set(loaded);
    }

    /// Its name for people.
    pub fn display_name(&self) -> &str {
        self.card.map_or(&self.slug, |card| &card.display_name)
    }

    /// The role that an input is embedded in. `query` and `document` are always accepted, and mean nothing where the model has none.
    pub fn role<'a>(&'a self, info: &'a ModelInfo, input_type: Option<&str>) -> Result<Role<'a>, NoSuchPrompt> {
        let own = |name: &str| {
            let prompt = info.prompts.get(name)?;
            Some(Role { prompt, adapter: info.adapters.get(name).copied() })
        };
        let name = input_type.or(self.settings.default_prompt.as_deref()).or(info.default_prompt_name.as_deref());
        let Some(name) = name else { return Ok(Role::default()) };
        let mapped = match name {
            "query" => self.card.and_then(|card| card.prompts.query.as_deref()),
            "document" => self.card.and_then(|card| card.prompts.document.as_deref()),
            _ => None,
        };
        if let Some(role) = mapped.and_then(own).or_else(|| own(name)) {
            return Ok(role);
        }
        // Common other names for the same two roles.
        let synonym = match name {
            "document" => ["passage", "corpus", "retrieval.passage"].iter().find_map(|name| own(name)),
            "query" => own("retrieval.query"),
            _ => return Err(NoSuchPrompt(self.prompt_names(info))),
        };
        Ok(synonym.unwrap_or_default())
    }

    /// Every name that `input_type` may have.
    pub fn prompt_names(&self, info: &ModelInfo) -> Vec<String> {
        let mut names = vec!["query".to_owned(), "document".to_owned()];
        names.extend(info.prompts.keys().filter(|name| !matches!(name.as_str(), "query" | "document")).cloned());
        names
    }

    /// Which shorter sizes it gives: what the operator says, else its card, else its config.json.
    pub fn matryoshka(&self, info: &ModelInfo) -> Matryoshka {
        let by_card = || self.card.map(|card| &card.matryoshka).filter(|sizes| !sizes.is_empty());
        let sizes = || by_card().or(info.matryoshka.as_ref()).cloned().map(Matryoshka::Sizes);
        match &self.settings.matryoshka {
            // Declared fit by the operator; which sizes it is trained for, card or checkpoint may still know.
            Some(Matryoshka::Any) => sizes().unwrap_or(Matryoshka::Any),
            Some(said) => said.clone(),
            None => sizes().unwrap_or(Matryoshka::Denied),
        }
    }

    /// Refuses settings that the model cannot obey: a default prompt it does not have, sizes it does not give.
    ///
    /// # Errors
    /// The sentence that says which setting and why.
    pub fn check(&self, info: &ModelInfo) -> Result<(), String> {
        if let Some(name) = &self.settings.default_prompt
            && self.role(info, Some(name)).is_err()
        {
            return Err(format!("default_prompt {name:?} is not a prompt of this model; it has {}", self.prompt_names(info).join(", ")));
        }
        match self.matryoshka(info) {
            Matryoshka::Sizes(sizes) => match sizes.iter().find(|size| !(1..=info.dimensions).contains(*size)) {
                Some(size) => Err(format!("matryoshka lists {size}, but this model's vectors have 1 to {} values", info.dimensions)),
                None => Ok(()),
            },
            Matryoshka::Any if self.settings.matryoshka_strict => {
                Err("matryoshka_strict needs a list of sizes, and neither the configuration, a card nor config.json has one".to_owned())
            }
            Matryoshka::Any | Matryoshka::Denied => Ok(()),
        }
    }

    /// The size of the vectors of a request that asks for `wanted`, or the sentence that refuses it.
    pub fn dimensions(&self, info: &ModelInfo, native: usize, wanted: Option<usize>) -> Result<usize, String> {
        let Some(wanted) = wanted.filter(|wanted| *wanted != native) else { return Ok(native) };
        if wanted == 0 || wanted > native {
            return Err(format!("must be between 1 and {native}, the size of this model's vectors; got {wanted}"));
        }
        match self.matryoshka(info) {
            Matryoshka::Denied => {
                Err(format!("this model is not trained for shorter vectors (Matryoshka): leave it out or send {native}; got {wanted}"))
            }
            Matryoshka::Sizes(sizes) if self.settings.matryoshka_strict && !sizes.contains(&wanted) => {
                Err(format!("must be one of {sizes:?} or {native} for this model; got {wanted}"))
            }
            Matryoshka::Any | Matryoshka::Sizes(_) => Ok(wanted),
        }
    }
}

/// A model found by the name that a client sent.
#[derive(Clone)]
pub struct Found {
    pub model: Arc<Model>,
    /// The prompt that stood behind the slug: `SLUG:query`.
    pub input_type: Option<String>,
    /// What a request means that does not say so itself.
    pub preset: Preset,
}

/// What an alias stands for besides its model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preset {
    /// Name of a prompt.
    pub prompt: Option<String>,
    /// Vector size; `None` = native.
    pub dimensions: Option<usize>,
}

/// All models being served, in the order of the command line.
#[derive(Default)]
pub struct Registry {
    models: Vec<Arc<Model>>,
    aliases: Vec<Alias>,
}

/// Two models under one name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("two models are named {0:?}; give one of them another slug: --model SLUG=WHAT")]
pub struct DuplicateSlug(pub String);

impl Registry {
    /// Refuses two models under one slug.
    pub fn new(models: Vec<Model>) -> Result<Self, DuplicateSlug> {
        for (index, model) in models.iter().enumerate() {
            if models[..index].iter().any(|other| other.slug == model.slug) {
                return Err(DuplicateSlug(model.slug.clone()));
            }
        }
        Ok(Self { models: models.into_iter().map(Arc::new).collect(), aliases: Vec::new() })
    }

    /// The same models under more names. Whoever configures them has checked that each names a model here and hides none.
    pub fn with_aliases(self, aliases: Vec<Alias>) -> Self {
        Self { aliases, ..self }
    }

    /// All models, in order.
    pub fn models(&self) -> &[Arc<Model>] {
        &self.models
    }

    /// All aliases, in order of their names.
    pub fn aliases(&self) -> &[Alias] {
        &self.aliases
    }

    /// By slug, by a card's repo id or short name, by an alias, or by any of them with `:PROMPT` behind it.
    pub fn find(&self, name: &str) -> Option<Found> {
        if let Some((model, preset)) = self.meant(name) {
            return Some(Found { model, input_type: None, preset });
        }
        let (name, prompt) = name.rsplit_once(':')?;
        let (model, preset) = self.meant(name)?;
        // The prompt that the client names is the one, whatever the alias stands for.
        Some(Found { model, input_type: Some(prompt.to_owned()), preset: Preset { prompt: None, ..preset } })
    }

    fn meant(&self, name: &str) -> Option<(Arc<Model>, Preset)> {
        if let Some(model) = self.named(name) {
            return Some((model, Preset::default()));
        }
        let alias = self.aliases.iter().find(|alias| alias.name == name)?;
        Some((self.named(&alias.slug)?, Preset { prompt: alias.prompt.clone(), dimensions: alias.dimensions }))
    }

    fn named(&self, name: &str) -> Option<Arc<Model>> {
        let by_slug = self.models.iter().find(|model| model.slug == name);
        let by_card = || self.models.iter().find(|model| model.card.is_some_and(|card| card.name == name));
        by_slug.or_else(by_card).cloned()
    }
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
