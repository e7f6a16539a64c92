//! What HTTP needs of the service, as a trait: handlers are tested without a model.

use crate::service::registry::Preset;
use crate::service::{Caller, Embedded};
use crate::wire::listing::ModelItem;
use crate::wire::{Fault, Truncate};
use std::future::Future;
use std::pin::Pin;

/// Turns texts into vectors, and knows which models there are.
pub trait Embedder: Send + Sync + 'static {
    /// Embeds all texts or none. Dropping the future gives the work up.
    fn embed(&self, ask: Ask, caller: Caller) -> Pin<Box<dyn Future<Output = Result<Embedded, Fault>> + Send + '_>>;

    /// The model that a client calls `name`: a slug, a short name, an alias, or any of them with `:PROMPT` behind it.
    fn find(&self, name: &str) -> Option<Found>;

    /// Tokens of a bulk batch, of the model whose are largest.
    fn batch_tokens(&self) -> usize;

    /// All models, as clients see them; aliases are items of their own.
    fn list(&self) -> Vec<ModelItem>;

    /// The parts that must be well for the server to be ready; each `ok`, or what is the matter with it.
    fn checks(&self) -> Vec<(&'static str, String)>;
}

/// A request for one model, its fields checked one by one but not against the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    /// The model's slug, as `Found` has it.
    pub slug: String,
    /// At least one.
    pub texts: Vec<String>,
    /// Wanted size; `None` = native.
    pub dimensions: Option<usize>,
    /// `None` = the model's own policy.
    pub truncate: Option<Truncate>,
    /// Name of the prompt; `None` = the model's default.
    pub input_type: Option<String>,
    /// The embedding space that the vectors must lie in; `None` = any.
    pub expect_space: Option<String>,
}

/// A model found by the name that a client sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The slug it is listed under.
    pub slug: String,
    /// The prompt that stood behind the name.
    pub input_type: Option<String>,
    /// What the name stands for where the request does not say it.
    pub preset: Preset,
    pub state: ModelState,
    /// True if it embeds empty texts instead of refusing them.
    pub embeds_empty: bool,
}

/// Whether a model answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelState {
    Loading,
    Ready,
    Failed,
}
