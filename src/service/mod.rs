//! The use case: texts in, vectors out. Admit, tokenize, submit, gather. Knows neither HTTP nor tensors.

use crate::wire::{Fault, Truncate};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub mod registry;
pub mod tokenizer;
use registry::Model;

/// Who asks, as far as fairness and deadlines are concerned.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// Requests of one client share its turn in the queue. A key's number, or one drawn per request.
    pub client: u64,
    /// When the answer is of no use any more.
    pub deadline: Instant,
}

/// A request whose fields have been checked one by one, but not against the model.
#[derive(Debug, Clone)]
pub struct EmbedCall {
    /// The model asked for.
    pub model: Arc<Model>,
    /// The texts, at least one.
    pub texts: Vec<String>,
    /// Wanted size; `None` = native.
    pub dimensions: Option<usize>,
    /// Overrides the model's own policy.
    pub truncate: Option<Truncate>,
    /// Name of the prompt to put before each text; `None` = the model's default.
    pub input_type: Option<String>,
}

/// How many tokens of one text were embedded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ItemTokens {
    /// Tokens computed, special tokens and prompt included.
    pub tokens: usize,
    /// Tokens of the whole text, if it was cut.
    pub original_tokens: Option<usize>,
}

/// Where the time of a request went.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timing {
    pub tokenize: Duration,
    pub queue: Duration,
    pub inference: Duration,
}

/// The vectors of a request, in the order of its texts.
#[derive(Debug, Clone)]
pub struct Embedded {
    /// `[B, dim]`, row-major.
    pub vectors: Vec<f32>,
    pub dim: usize,
    /// `[B]`.
    pub items: Vec<ItemTokens>,
    pub timing: Timing,
}

/// The whole service; shared by every handler.
pub struct Service {}

impl Service {
    /// Embeds all texts or none. Cancelled by dropping the future.
    pub async fn embed(&self, _call: EmbedCall, _caller: Caller) -> Result<Embedded, Fault> {
        todo!()
    }
}
