//! The use case: texts in, vectors out. Admit, tokenize, submit, gather. Knows neither HTTP nor tensors.

pub mod access;
pub mod alias;
pub mod books;
pub mod cl100k;
pub mod decisions;
pub mod golden;
mod ingest;
pub mod jobs;
pub mod keybook;
pub mod keyfile;
pub mod limits;
mod pool;
pub mod registry;
pub mod space;
pub mod tokenizer;
pub mod usage;
pub mod vector;
mod window;

use crate::engine::{Engine, Failure, Refusal, Work};
use crate::ragged::Tokens;
use crate::telemetry;
use crate::wire::{Detail, Fault, Truncate, echo};
use alias::Alias;
use books::stored;
use ingest::Ingest;
use pool::{Pool, Urgency};
use registry::{Found, Loaded, Model, Registry, Role};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokenizer::TextEncoder;
use vector::Shape;

/// How much one request and all together may ask.
#[derive(Debug, Clone)]
pub struct Options {
    /// Texts per request.
    pub max_texts: usize,
    /// Tokens of all texts of a request.
    pub max_request_tokens: usize,
    /// From arrival to answer.
    pub deadline: Duration,
    /// Bytes of text being tokenised at once, of all requests.
    pub max_ingest_bytes: usize,
    /// Threads that tokenise.
    pub tokenizer_threads: usize,
}

/// Who asks, as far as fairness and deadlines are concerned.
#[derive(Clone)]
pub struct Caller {
    /// Requests of one client share its turn in the queue. A key's number, or one drawn per request.
    pub client: u64,
    /// Its part of the device relative to other clients.
    pub weight: u32,
    /// True for work that nobody waits for, whatever its size.
    pub bulk: bool,
    /// What its tokens count against, once they are known; `None` = nothing.
    pub pass: Option<Arc<limits::Pass>>,
    /// When the answer is of no use any more.
    pub deadline: Instant,
}

/// A request whose fields have been checked one by one, but not against the model.
#[derive(Clone)]
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
    /// The embedding space that the vectors must lie in; `None` = any.
    pub expect_space: Option<String>,
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
    /// The fingerprint of the embedding space that they lie in.
    pub space: String,
}

/// Faults of one request that are listed one by one; the rest is only counted.
const MAX_DETAILS: usize = 32;
/// A long request is tokenised in pieces of about this size, so that others get their turn.
const PIECE_BYTES: usize = 32 * 1024;
const PIECE_TEXTS: usize = 64;
/// Vectors with more values than this are finished off the async threads.
const INLINE_VALUES: usize = 64 * 1024;

/// The whole service; shared by every handler.
pub struct Service {
    options: Options,
    registry: Registry,
    engine: Engine,
    pool: Pool,
    ingest: Ingest,
}

impl Service {
    /// Starts the tokenizer threads. Models become servable one by one, with `Model::set_loaded`.
    pub fn new(options: Options, registry: Registry, engine: Engine) -> std::io::Result<Self> {
        let pool = Pool::start(options.tokenizer_threads)?;
        let ingest = Ingest::new(options.max_ingest_bytes);
        Ok(Self { options, registry, engine, pool, ingest })
    }

    /// What one request may ask.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// All models, loaded or not.
    pub fn models(&self) -> &[Arc<Model>] {
        self.registry.models()
    }

    /// Other names for them.
    pub fn aliases(&self) -> &[Alias] {
        self.registry.aliases()
    }

    /// The model a client means.
    pub fn find(&self, name: &str) -> Option<Found> {
        self.registry.find(name)
    }

    /// The engine, for those who start and stop it.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Embeds all texts or none. Cancelled by dropping the future.
    pub async fn embed(&self, call: EmbedCall, caller: Caller) -> Result<Embedded, Fault> {
        let model = call.model.clone();
        let loaded = self.loaded(&model)?;
        let plan = plan(&call, loaded)?;
        let space = loaded.space.fingerprint(plan.shape.wanted);
        if let Some(expected) = call.expect_space.filter(|expected| *expected != space) {
            return Err(Fault::SpaceMismatch { expected, actual: space });
        }
        let (texts, bytes) = (call.texts.len(), call.texts.iter().map(String::len).sum::<usize>());
        let guess = guess_tokens(&call.texts, loaded.info.max_tokens).min(self.options.max_request_tokens);
        self.engine.room(texts, guess, caller.bulk).map_err(|refusal| fault_of(refusal, caller.deadline))?;
        let admitted = self.ingest.admit(bytes).map_err(|retry_after_s| Fault::Overloaded { retry_after_s })?;

        let started = Instant::now();
        let (encoder, limit) = (loaded.encoder.clone(), loaded.info.max_tokens);
        let job = Tokenize { encoder, prompt: plan.prompt.into(), adapter: plan.adapter, truncate: plan.truncate, limit };
        let tokens = self.tokenize(job, call.texts).await?;
        drop(admitted);
        let tokenize = started.elapsed();

        let items =
            tokens.iter().map(|tokens| ItemTokens { tokens: tokens.len(), original_tokens: tokens.truncated().then_some(tokens.original_len) });
        let items: Vec<ItemTokens> = items.collect();
        if let Some(pass) = &caller.pass {
            pass.tokens(items.iter().map(|item| item.tokens).sum()).await?;
        }
        let Caller { client, weight, bulk, deadline, .. } = caller;
        let work = Work { model: loaded.engine.model, client, weight, bulk, deadline, texts: tokens };
        let ticket = self.engine.submit(work).map_err(|refusal| fault_of(refusal, deadline))?;
        let computed = ticket.wait_until(deadline).await.map_err(|failure| self.fault_of(failure))?;

        let timing = Timing { tokenize, queue: computed.queue, inference: computed.inference };
        let (vectors, zeros) = if computed.vectors.len() <= INLINE_VALUES {
            vector::finish(computed.vectors, plan.shape)
        } else {
            tokio::task::spawn_blocking(move || vector::finish(computed.vectors, plan.shape)).await.map_err(|_| Fault::Internal)?
        };
        if zeros > 0 {
            telemetry::ZERO_VECTORS.add([&model.slug], zeros as u64);
        }
        Ok(Embedded { vectors, dim: plan.shape.wanted, items, timing, space })
    }

    /// The model's loaded part, or why there is none.
    fn loaded<'a>(&self, model: &'a Model) -> Result<&'a Loaded, Fault> {
        if !self.engine.is_alive() {
            return Err(Fault::ModelUnavailable { reason: "the device thread has ended".into(), retry_after_s: None });
        }
        model.loaded().ok_or(Fault::ModelUnavailable { reason: "the model is loading".into(), retry_after_s: Some(2) })
    }

    /// All texts as tokens, or every text that is too long.
    async fn tokenize(&self, job: Tokenize, texts: Vec<String>) -> Result<Vec<Tokens>, Fault> {
        let count = texts.len();
        let mut pieces = pieces(texts).into_iter();
        let urgency = if pieces.len() == 1 { Urgency::Short } else { Urgency::Piece };
        // No more of one request at a time than there are threads: others come between.
        let mut running = std::collections::VecDeque::new();
        let mut submit_next = || {
            let (job, piece) = (job.clone(), pieces.next()?);
            Some(self.pool.submit(urgency, move || job.run(piece)))
        };
        running.extend((0..self.pool.threads()).map_while(|_| submit_next()));
        let (mut tokens, mut details, mut faults, mut total) = (Vec::with_capacity(count), Vec::new(), 0, 0);
        while let Some(piece) = running.pop_front() {
            for (index, result) in piece.await.map_err(|_| Fault::Internal)? {
                match result {
                    Ok(text) => {
                        total += text.len();
                        tokens.push(text);
                    }
                    Err(message) => {
                        faults += 1;
                        if details.len() < MAX_DETAILS {
                            details.push(Detail::new(field(index), message));
                        }
                    }
                }
            }
            let limit = self.options.max_request_tokens;
            if total > limit {
                return Err(Fault::Validation(vec![Detail::token_sum(format!("has more than {limit} tokens in all, the limit of a request"))]));
            }
            running.extend(submit_next());
        }
        if faults > details.len() {
            details.push(Detail::new("input", format!("{} more texts are too long", faults - details.len())));
        }
        if details.is_empty() { Ok(tokens) } else { Err(Fault::Validation(details)) }
    }

    fn fault_of(&self, failure: Failure) -> Fault {
        match failure {
            Failure::Compute(reason) => Fault::Backend { reason },
            Failure::Deadline => Fault::BackendTimeout { deadline_ms: u64::try_from(self.options.deadline.as_millis()).unwrap_or(u64::MAX) },
            Failure::Dead => Fault::ModelUnavailable { reason: "the device thread has ended".into(), retry_after_s: None },
        }
    }
}

/// What a request means for its model.
struct Plan {
    prompt: String,
    adapter: Option<usize>,
    truncate: Truncate,
    shape: Shape,
}

/// Checks a request against its model; all faults at once.
fn plan(call: &EmbedCall, loaded: &Loaded) -> Result<Plan, Fault> {
    let (model, info, native) = (&call.model, &loaded.info, loaded.engine.dim);
    let mut details = Vec::new();
    if !model.settings.embed_empty {
        let empty = call.texts.iter().enumerate().filter(|(_, text)| text.is_empty()).take(MAX_DETAILS);
        details.extend(empty.map(|(index, _)| Detail::new(field(index), "must not be empty")));
    }
    let wanted = model.dimensions(info, native, call.dimensions).unwrap_or_else(|message| {
        details.push(Detail::new("dimensions", message));
        native
    });
    let role = model.role(info, call.input_type.as_deref()).unwrap_or_else(|names| {
        let name = echo(call.input_type.as_deref().unwrap_or_default());
        details.push(Detail::new("input_type", format!("this model has no prompt {name:?}; it takes {}", names.0.join(", "))));
        Role::default()
    });
    if !details.is_empty() {
        return Err(Fault::Validation(details));
    }
    // What modules.json has already normalised is not divided again: the reference's own bits go out.
    let unit = !model.settings.as_the_model && (wanted < native || !info.normalized);
    let truncate = call.truncate.unwrap_or(model.settings.truncate);
    Ok(Plan {
        prompt: role.prompt.to_owned(),
        adapter: role.adapter,
        truncate,
        shape: Shape { native, wanted, unit, layer_norm: model.settings.mrl_layer_norm },
    })
}

/// What is done to each text of a request.
#[derive(Clone)]
struct Tokenize {
    encoder: Arc<TextEncoder>,
    prompt: Arc<str>,
    adapter: Option<usize>,
    truncate: Truncate,
    limit: usize,
}

impl Tokenize {
    fn run(&self, piece: Vec<(usize, String)>) -> Vec<(usize, Result<Tokens, String>)> {
        let encode = |text: &str| {
            let tokens = self.encoder.encode(text, &self.prompt, self.truncate, self.limit);
            tokens.map(|tokens| Tokens { adapter: self.adapter, ..tokens }).map_err(|error| error.to_string())
        };
        piece.into_iter().map(|(index, text)| (index, encode(&text))).collect()
    }
}

/// The texts in order, cut into pieces of about `PIECE_BYTES`.
fn pieces(texts: Vec<String>) -> Vec<Vec<(usize, String)>> {
    let (mut pieces, mut bytes) = (vec![Vec::new()], 0);
    for (index, text) in texts.into_iter().enumerate() {
        if let Some(piece) = pieces.last_mut() {
            bytes += text.len();
            piece.push((index, text));
            if bytes >= PIECE_BYTES || piece.len() >= PIECE_TEXTS {
                pieces.push(Vec::new());
                bytes = 0;
            }
        }
    }
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

/// The path of one text in the request.
fn field(index: usize) -> String {
    format!("input.{index}")
}

/// A low guess at a request's tokens, enough to refuse it without tokenising while the queue is full. No text counts more than the model takes:
/// what is longer is cut, or refused for its length.
fn guess_tokens(texts: &[String], max_tokens: usize) -> usize {
    const BYTES_PER_TOKEN: usize = 8;
    texts.iter().map(|text| (text.len() / BYTES_PER_TOKEN + 1).min(max_tokens)).sum()
}

/// What a refusal by the engine means for the client.
fn fault_of(refusal: Refusal, deadline: Instant) -> Fault {
    match refusal {
        Refusal::Full { retry_after } => Fault::Overloaded { retry_after_s: whole_seconds(retry_after) },
        Refusal::TooSlow { tokens, tokens_per_s, needs } => {
            let left = deadline.saturating_duration_since(Instant::now()).as_secs();
            let message = format!(
                "has {tokens} tokens, which take about {} s at {tokens_per_s:.0} tokens per second, longer than the {left} s that remain for a \
                 request on this server even when it is idle; send fewer texts per request",
                needs.as_secs()
            );
            Fault::Validation(vec![Detail::new("input", message)])
        }
        Refusal::Stopped => Fault::ModelUnavailable { reason: "the server is shutting down".into(), retry_after_s: Some(1) },
    }
}

/// Seconds to wait, at least one and at most a minute.
fn whole_seconds(wait: Duration) -> u32 {
    wait.as_secs_f64().ceil().clamp(1.0, 60.0) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_never_be_in_time_is_the_requests_own_fault() {
        let deadline = Instant::now() + Duration::from_secs(55);
        let slow = Refusal::TooSlow { tokens: 9000, tokens_per_s: 120.0, needs: Duration::from_secs(75) };
        let fault = fault_of(slow, deadline);
        assert_eq!((fault.http_status(), fault.details()[0].field.as_ref()), (422, "input"));
        for part in ["9000 tokens", "75 s", "120 tokens per second"] {
            assert!(fault.message().contains(part), "{part} in {}", fault.message());
        }
        for (wait, told) in [(0, 1), (2500, 3), (600_000, 60)] {
            let full = fault_of(Refusal::Full { retry_after: Duration::from_millis(wait) }, deadline);
            assert_eq!((full.code(), full.retry_after_s()), ("BACKEND_RATE_LIMITED", Some(told)), "after {wait} ms");
        }
        assert_eq!(fault_of(Refusal::Stopped, deadline).code(), "MODEL_UNAVAILABLE");
    }
}
