//! The lines of batch jobs, answered as the endpoint they name would answer them, in the bulk lane.

use super::dialect::Dialect;
use super::embedder::{Ask, Embedder};
use super::native::{embed, resolve_within};
use super::openai::embeddings;
use crate::service::cl100k;
use crate::service::jobs::{LineAnswer, LineCall, Lines};
use crate::service::{Caller, Embedded};
use crate::wire::batch::Line;
use crate::wire::request::{self, Body, Limits};
use crate::wire::response::{Vectors, native_embed, openai_embeddings};
use crate::wire::{EmbedRequest, Fault};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The urls that a line may have.
pub(super) const URLS: [&str; 3] = ["/v1/inference/embed", "/v1/embeddings", "/oai/v1/embeddings"];
/// How long a line waits when the server is busy, at most, before it tries again.
const MOST_WAIT: Duration = Duration::from_secs(5);

/// Answers lines with an embedder.
pub(super) struct ApiLines {
    pub(super) embedder: Arc<dyn Embedder>,
    pub(super) max_texts: usize,
    /// Token ids in one line, of all its token arrays.
    pub(super) max_token_ids: usize,
}

impl Lines for ApiLines {
    fn answer(&self, call: LineCall) -> Pin<Box<dyn Future<Output = Option<LineAnswer>> + Send + '_>> {
        Box::pin(async move {
            let began = Instant::now();
            loop {
                let fault = match self.embed(&call).await {
                    Ok(answer) => return Some(LineAnswer { took: began.elapsed(), ..answer }),
                    Err(fault) => fault,
                };
                match wait(&fault) {
                    // Where a client would be told to come again, the line does.
                    Some(wait) if call.deadline > Instant::now() + wait => tokio::time::sleep(wait).await,
                    Some(_) => return None,
                    None if matches!(fault, Fault::BackendTimeout { .. }) => return None,
                    None => {
                        let (status, body) = match is_openai(&call.line.url) {
                            true => (fault.openai_status(), fault.openai_body()),
                            false => (fault.http_status(), fault.native_body(&call.request_id)),
                        };
                        return Some(LineAnswer { status, body, ..LineAnswer::default() });
                    }
                }
            }
        })
    }

    fn batch_tokens(&self) -> usize {
        self.embedder.batch_tokens()
    }
}

/// Whether a line's answer has OpenAI's form.
fn is_openai(url: &str) -> bool {
    Dialect::of(url) == Dialect::OpenAi
}

/// How long to wait before another try; `None` if another try would end the same way.
fn wait(fault: &Fault) -> Option<Duration> {
    match fault {
        Fault::Overloaded { .. } | Fault::ModelUnavailable { .. } => {
            let wait = Duration::from_secs(u64::from(fault.retry_after_s().unwrap_or(1)));
            Some(wait.min(MOST_WAIT))
        }
        _ => None,
    }
}

impl ApiLines {
    async fn embed(&self, call: &LineCall) -> Result<LineAnswer, Fault> {
        let line = &call.line;
        if line.method != "POST" {
            return Err(Fault::field("method", "must be POST"));
        }
        if !URLS.contains(&line.url.as_str()) {
            return Err(Fault::field("url", format!("must be {}", URLS.join(" or "))));
        }
        if !line.has_body {
            return Err(Fault::field("body", "is missing; send the request's JSON object"));
        }
        let asked = self.parse(line).await?;
        let found = resolve_within(&*self.embedder, call.owner.models.as_deref(), &asked.model)?;
        let input_type = embed::input_type(&asked, &found)?;
        let EmbedRequest { model, texts, dimensions, encoding, truncate, expect_space, .. } = asked;
        let dimensions = dimensions.or(found.preset.dimensions);
        let ask = Ask { slug: found.slug.clone(), texts, dimensions, truncate, input_type, expect_space };
        let caller = Caller { client: call.owner.client, weight: call.owner.weight, bulk: true, pass: None, deadline: call.deadline };
        let embedded = self.embedder.embed(ask, caller).await?;
        embed::account(&found.slug, &call.owner.tenant, &embedded);
        let body = write(&embedded, |vectors| match is_openai(&line.url) {
            true => openai_embeddings(vectors, encoding, &model),
            false => native_embed(vectors, encoding, &model, &call.request_id),
        })?;
        let tokens = embedded.items.iter().map(|item| item.tokens).sum();
        Ok(LineAnswer { status: 200, body, model: Some(found.slug), texts: embedded.items.len(), tokens, took: Duration::ZERO })
    }

    async fn parse(&self, line: &Line) -> Result<EmbedRequest, Fault> {
        let limits = Limits { max_texts: self.max_texts };
        if !is_openai(&line.url) {
            return request::parse(Body::OfLine(&line.text), limits, |model| embed::embeds_empty(&*self.embedder, model));
        }
        if cl100k::is_loaded() {
            return embeddings::read(Body::OfLine(&line.text), limits, self.max_token_ids, &*self.embedder);
        }
        // Loading the vocabulary takes long; whether it is needed shows only while the line is read.
        let (text, max_ids, embedder) = (line.text.clone(), self.max_token_ids, self.embedder.clone());
        embed::off_thread(usize::MAX, move || embeddings::read(Body::OfLine(&text), limits, max_ids, &*embedder)).await?
    }
}

fn write<E: std::error::Error>(embedded: &Embedded, write: impl FnOnce(&Vectors) -> Result<Vec<u8>, E>) -> Result<Vec<u8>, Fault> {
    let original_tokens: Vec<_> = embedded.items.iter().map(|item| item.original_tokens).collect();
    let prompt_tokens = embedded.items.iter().map(|item| item.tokens).sum();
    let vectors = Vectors { values: &embedded.vectors, dim: embedded.dim, original_tokens: &original_tokens, prompt_tokens };
    write(&vectors).map_err(|error| Fault::Backend { reason: error.to_string() })
}
