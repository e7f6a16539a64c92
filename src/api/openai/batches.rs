//! `/batches`: the same jobs as `/v1/inference/batch`, in OpenAI's forms.

use crate::api::asked::{Call, Id, Parameters};
use crate::api::native::batch::{owner, who};
use crate::api::observe::Seen;
use crate::api::{Shared, auth, body, reply};
use crate::service::access::MODELS_USE;
use crate::service::jobs::{JobRow, NewJob};
use crate::wire::Fault;
use crate::wire::batch::{RequestCounts, Source};
use crate::wire::files::{BatchObject, BatchRequest, Cached, ENDPOINTS, Errors, Listing, ListingQuery, Reasoning, Usage, listing, to_json};
use crate::wire::schema::BatchBody;
use axum::Extension;
use axum::extract::Request;
use axum::response::Response;
use std::time::Duration;

/// Batches in a listing, by default and at most.
const DEFAULT_LIMIT: usize = 20;
const MAX_LIMIT: usize = 100;

/// Takes a batch in.
#[utoipa::path(post, path = "/oai/v1/batches", tag = "OpenAI", operation_id = "openai_create_batch", request_body = BatchBody,
    responses((status = 200, description = "The batch", body = BatchObject)))]
pub(in crate::api) async fn create(api: Shared, Extension(seen): Extension<Seen>, request: Request) -> Result<Response, Fault> {
    let key = auth::enter(&api, &seen, request.headers(), Some(MODELS_USE)).await?;
    let body::Held { bytes, hold: _hold } = body::read(&api, request).await?;
    let asked = BatchRequest::parse(&bytes)?;
    let new = NewJob {
        dialect: "openai",
        owner: owner(key.as_deref()),
        source: Source::File(asked.input_file_id),
        endpoint: asked.endpoint,
        window: asked.window,
        metadata: asked.metadata.map(|metadata| serde_json::Value::Object(metadata).to_string()),
        keep: asked.keep_s.map(|seconds| Duration::from_secs(u64::from(seconds))),
    };
    let job = api.books.jobs.submit(new, &auth::actor(key.as_ref())).await?;
    Ok(reply::json(to_json(&object(&job))))
}

/// The caller's batches, newest first.
#[utoipa::path(get, path = "/oai/v1/batches", tag = "OpenAI", operation_id = "openai_list_batches", params(
    ("limit" = Option<u32>, Query, minimum = 1, maximum = 100),
    ("after" = Option<String>, Query, description = "The last id of the page before"),
),
    responses((status = 200, description = "The caller's batches", body = Listing<BatchObject>)))]
pub(in crate::api) async fn list(call: Call, parameters: Parameters) -> Result<Response, Fault> {
    let key = call.enter(Some(MODELS_USE)).await?;
    let asked = parameters.read()?;
    let query = ListingQuery::parse(asked.pairs(), DEFAULT_LIMIT, MAX_LIMIT)?;
    let (tenant, user) = who(key.as_ref());
    let jobs = call.api.books.jobs.list(tenant, user, "", query.after.as_deref(), query.limit + 1).await?;
    Ok(reply::json(listing(jobs.iter().map(object).collect(), query.limit, |batch: &BatchObject| batch.id.clone())))
}

/// One batch.
#[utoipa::path(get, path = "/oai/v1/batches/{id}", tag = "OpenAI", operation_id = "openai_get_batch", params(("id" = String, Path)),
    responses((status = 200, description = "The batch", body = BatchObject)))]
pub(in crate::api) async fn retrieve(call: Call, Id(id): Id) -> Result<Response, Fault> {
    let key = call.enter(Some(MODELS_USE)).await?;
    let (tenant, user) = who(key.as_ref());
    let job = call.api.books.jobs.get(&id, tenant, user).await?;
    Ok(reply::json(to_json(&object(&job))))
}

/// Asks a batch to end.
#[utoipa::path(post, path = "/oai/v1/batches/{id}/cancel", tag = "OpenAI", operation_id = "openai_cancel_batch", params(("id" = String, Path)),
    responses((status = 200, description = "The batch", body = BatchObject)))]
pub(in crate::api) async fn cancel(call: Call, Id(id): Id) -> Result<Response, Fault> {
    let key = call.enter(Some(MODELS_USE)).await?;
    let (tenant, user) = who(key.as_ref());
    let job = call.api.books.jobs.cancel(&id, tenant, user, &auth::actor(key.as_ref())).await?;
    Ok(reply::json(to_json(&object(&job))))
}

fn object(job: &JobRow) -> BatchObject {
    let time = |ms: Option<i64>| ms.map(|ms| ms / 1000);
    let ended = |status: &str| time(job.times.ended_ms).filter(|_| job.status == status);
    let file = |bytes: i64, id: &String| (job.times.ended_ms.is_some() && bytes > 0).then(|| id.clone());
    let errors = job.errors.as_ref().and_then(|text| serde_json::from_str(text).ok());
    BatchObject {
        id: job.id.clone(),
        object: "batch",
        // A job submitted natively may have lines of any endpoint.
        endpoint: if job.endpoint.is_empty() { ENDPOINTS[0].to_owned() } else { job.endpoint.clone() },
        errors: errors.map(|data| Errors { object: "list", data }),
        input_file_id: job.input_file_id.clone(),
        completion_window: job.completion_window.clone(),
        status: job.status.clone(),
        output_file_id: file(job.output_bytes, &job.output_file_id),
        error_file_id: file(job.error_bytes, &job.error_file_id),
        created_at: job.times.created_ms / 1000,
        in_progress_at: time(job.times.in_progress_ms),
        expires_at: job.times.expires_ms / 1000,
        finalizing_at: time(job.times.finalizing_ms),
        completed_at: ended("completed"),
        failed_at: ended("failed"),
        expired_at: ended("expired"),
        cancelling_at: time(job.times.cancelling_ms),
        cancelled_at: ended("cancelled"),
        request_counts: RequestCounts { total: job.total, completed: job.completed, failed: job.failed },
        usage: Usage {
            input_tokens: job.tokens,
            input_tokens_details: Cached::default(),
            output_tokens: 0,
            output_tokens_details: Reasoning::default(),
            total_tokens: job.tokens,
        },
        metadata: job.metadata.as_ref().and_then(|text| serde_json::from_str(text).ok()),
    }
}
