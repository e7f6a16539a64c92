//! The lines of batch jobs, answered as the endpoint they name would answer them, in the bulk lane.

use super::embedder::{Ask, Embedder};
use super::native::{embed, resolve_within};
use crate::service::jobs::{LineAnswer, LineCall, Lines};
use crate::service::{Caller, Embedded};
use crate::wire::request::{self, Limits};
use crate::wire::response::{Vectors, native_embed, openai_embeddings};
use crate::wire::{EmbedRequest, Fault};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The urls that a line may have.
pub(super) const URLS: [&str; 3] = [NATIVE, "/v1/embeddings", "/oai/v1/embeddings"];
/// The one whose answers have the native form.
const NATIVE: &str = "/v1/inference/embed";
/// How long a line waits when the server is busy, at most, before it tries again.
const MOST_WAIT: Duration = Duration::from_secs(5);

/// Answers lines with an embedder.
pub(super) struct ApiLines {
    pub(super) embedder: Arc<dyn Embedder>,
    pub(super) max_texts: usize,
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
                        return Some(LineAnswer { status: fault.http_status(), body: fault.native_body(&call.request_id), ..LineAnswer::default() });
                    }
                }
            }
        })
    }

    fn batch_tokens(&self) -> usize {
        self.embedder.batch_tokens()
    }
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
        if line.body.is_empty() {
            return Err(Fault::field("body", "is missing; send the request's JSON object"));
        }
        let embeds_empty = |model: &str| self.embedder.find(model).is_some_and(|found| found.embeds_empty);
        let asked = request::parse(&line.body, Limits { max_texts: self.max_texts }, embeds_empty)?;
        let found = resolve_within(&*self.embedder, call.owner.models.as_deref(), &asked.model)?;
        let input_type = embed::input_type(&asked, &found)?;
        let EmbedRequest { model, texts, dimensions, encoding, truncate, .. } = asked;
        let ask = Ask { slug: found.slug.clone(), texts, dimensions, truncate, input_type };
        let caller = Caller { client: call.owner.client, weight: call.owner.weight, bulk: true, pass: None, deadline: call.deadline };
        let embedded = self.embedder.embed(ask, caller).await?;
        embed::account(&found.slug, &call.owner.tenant, &embedded);
        let native = line.url == NATIVE;
        let body = write(&embedded, |vectors| match native {
            true => native_embed(vectors, encoding, &model, &call.request_id),
            false => openai_embeddings(vectors, encoding, &model),
        })?;
        let tokens = embedded.items.iter().map(|item| item.tokens).sum();
        Ok(LineAnswer { status: 200, body, model: Some(found.slug), texts: embedded.items.len(), tokens, took: Duration::ZERO })
    }
}

fn write<E: std::error::Error>(embedded: &Embedded, write: impl FnOnce(&Vectors) -> Result<Vec<u8>, E>) -> Result<Vec<u8>, Fault> {
    let original_tokens: Vec<_> = embedded.items.iter().map(|item| item.original_tokens).collect();
    let prompt_tokens = embedded.items.iter().map(|item| item.tokens).sum();
    let vectors = Vectors { values: &embedded.vectors, dim: embedded.dim, original_tokens: &original_tokens, prompt_tokens };
    write(&vectors).map_err(|error| Fault::Backend { reason: error.to_string() })
}
