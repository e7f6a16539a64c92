//! `POST /v1/inference/embed`: texts in, vectors out, in the order of the checks that the contract names. The OpenAI layer takes the same way.

use super::resolve;
use crate::api::embedder::{Ask, Embedder, Found};
use crate::api::observe::Seen;
use crate::api::{Api, Shared, auth, body, reply};
use crate::service::access::MODELS_USE;
use crate::service::usage::Used;
use crate::service::{Embedded, Timing};
use crate::telemetry;
use crate::wire::request::{self, Limits};
use crate::wire::response::{Unwritable, Vectors, native_embed};
use crate::wire::schema::{EmbedAnswer, EmbedBody};
use crate::wire::{EmbedRequest, Encoding, Fault, echo};
use axum::Extension;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use std::sync::Arc;

const EMBEDDING_SPACE: HeaderName = HeaderName::from_static("x-embedding-space");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Work on more bytes than this leaves the threads that keep all connections going.
const OFF_THREAD_BYTES: usize = 256 << 10;

/// How a layer reads requests and writes answers.
pub(in crate::api) struct Form {
    pub(in crate::api) parse: fn(&[u8], &Api) -> Result<EmbedRequest, Fault>,
    /// True if reading even a short body may take long.
    pub(in crate::api) slow_parse: bool,
    pub(in crate::api) write: Write,
}

/// From vectors, their encoding, the model's name as sent, and the request's id.
type Write = fn(&Vectors, Encoding, &str, &str) -> Result<Vec<u8>, Unwritable>;

/// Text to vectors: answered whole or refused whole, in the order of the texts.
#[utoipa::path(post, path = "/v1/inference/embed", tag = "Native", operation_id = "embed", request_body = EmbedBody,
    responses((status = 200, description = "The vectors", body = EmbedAnswer)))]
pub(in crate::api) async fn embed(api: Shared, Extension(seen): Extension<Seen>, request: Request) -> Result<Response, Fault> {
    let parse = |body: &[u8], api: &Api| request::parse(body, limits(api), |model| embeds_empty(&*api.embedder, model));
    answer(api, seen, request, Form { parse, slow_parse: false, write: native_embed }).await
}

/// What a request may hold here.
pub(in crate::api) fn limits(api: &Api) -> Limits {
    Limits { max_texts: api.options.max_texts }
}

/// True if the model that a client calls `name` embeds empty texts.
pub(in crate::api) fn embeds_empty(embedder: &dyn Embedder, name: &str) -> bool {
    embedder.find(name).is_some_and(|found| found.embeds_empty)
}

/// Answers an embedding request in the given form.
pub(in crate::api) async fn answer(api: Shared, seen: Seen, request: Request, form: Form) -> Result<Response, Fault> {
    let key = auth::enter(&api, &seen, request.headers(), Some(MODELS_USE)).await?;
    let body::Held { bytes, hold } = body::read(&api, request).await?;
    let asked = parse(&api, bytes, &form).await?;
    let found = resolve(&api, key.as_deref(), &asked.model).inspect(|found| seen.note_model(&found.slug))?;
    let input_type = input_type(&asked, &found)?;
    let caller = auth::caller(&api, &seen, key.as_deref());
    let EmbedRequest { model, texts, dimensions, encoding, truncate, expect_space, .. } = asked;
    let dimensions = dimensions.or(found.preset.dimensions);
    let ask = Ask { slug: found.slug.clone(), texts, dimensions, truncate, input_type, expect_space };
    let running = InFlight::new(&found.slug);
    let embedded = api.embedder.embed(ask, caller).await?;
    drop((running, hold));
    account(&found.slug, key.as_ref().map_or(auth::DEFAULT, |key| &key.tenant), &embedded);
    let tokens = embedded.items.iter().map(|item| item.tokens).sum();
    api.books.usage.note(key.as_deref(), &found.slug, Used { texts: embedded.items.len(), tokens, took: seen.arrived.elapsed() });
    // What was revoked while it was computed is not given out.
    if key.as_ref().is_some_and(|key| !api.books.access.holds(key)) {
        return Err(Fault::AuthInvalid);
    }
    let (timing, space) = (embedded.timing, HeaderValue::from_str(&embedded.space).ok());
    let body = write(embedded, encoding, model, seen.id, form.write).await?;
    let mut response = reply::json(body);
    response.headers_mut().insert(SERVER_TIMING, server_timing(&timing));
    response.headers_mut().extend(space.map(|space| (EMBEDDING_SPACE, space)));
    Ok(response)
}

async fn parse(api: &Arc<Api>, bytes: Vec<u8>, form: &Form) -> Result<EmbedRequest, Fault> {
    let (api, parse) = (api.clone(), form.parse);
    let size = if form.slow_parse { usize::MAX } else { bytes.len() };
    off_thread(size, move || parse(&bytes, &api)).await?
}

async fn write(embedded: Embedded, encoding: Encoding, model: String, request_id: Arc<str>, write: Write) -> Result<Vec<u8>, Fault> {
    let bytes = embedded.vectors.len() * 12;
    let written = off_thread(bytes, move || {
        let original_tokens: Vec<_> = embedded.items.iter().map(|item| item.original_tokens).collect();
        let prompt_tokens = embedded.items.iter().map(|item| item.tokens).sum();
        let vectors = Vectors { values: &embedded.vectors, dim: embedded.dim, original_tokens: &original_tokens, prompt_tokens };
        write(&vectors, encoding, &model, &request_id)
    });
    written.await?.map_err(|error| Fault::Backend { reason: error.to_string() })
}

/// Runs short work here and long work on a thread of its own.
pub(in crate::api) async fn off_thread<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Fault> {
    if bytes <= OFF_THREAD_BYTES {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(|_| Fault::Internal)
}

/// The prompt named by the field or by the model's name, which may both say the same; else the one that the name stands for.
pub(in crate::api) fn input_type(asked: &EmbedRequest, found: &Found) -> Result<Option<String>, Fault> {
    match (&asked.input_type, &found.input_type) {
        (Some(field), Some(name)) if field != name => {
            Err(Fault::field("input_type", format!("contradicts the model's name, which ends in `:{}`", echo(name))))
        }
        (field, name) => Ok(field.as_ref().or(name.as_ref()).or(found.preset.prompt.as_ref()).cloned()),
    }
}

fn server_timing(timing: &Timing) -> HeaderValue {
    let ms = |time: std::time::Duration| time.as_secs_f64() * 1e3;
    let Timing { tokenize, queue, inference } = timing;
    let text = format!("tokenize;dur={:.3}, queue;dur={:.3}, inference;dur={:.3}", ms(*tokenize), ms(*queue), ms(*inference));
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""))
}

pub(in crate::api) fn account(slug: &str, tenant: &str, embedded: &Embedded) {
    let tokens: usize = embedded.items.iter().map(|item| item.tokens).sum();
    let cut = embedded.items.iter().filter(|item| item.original_tokens.is_some()).count();
    telemetry::TOKENS_TOTAL.add([slug, "input", tenant], tokens as u64);
    telemetry::TRUNCATED.add([slug], cut as u64);
    telemetry::TOKENIZE_SECONDS.observe([slug], embedded.timing.tokenize.as_secs_f64());
    telemetry::QUEUE_SECONDS.observe([slug], embedded.timing.queue.as_secs_f64());
    telemetry::INFERENCE_SECONDS.observe([slug], embedded.timing.inference.as_secs_f64());
}

/// Counts a request as running on its model until dropped.
struct InFlight<'a>(&'a str);

impl<'a> InFlight<'a> {
    fn new(slug: &'a str) -> Self {
        telemetry::BACKEND_INFLIGHT.move_by([slug], 1.0);
        Self(slug)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        telemetry::BACKEND_INFLIGHT.move_by([self.0], -1.0);
    }
}
