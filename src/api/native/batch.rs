//! `/v1/inference/batch`: submit a job, list jobs, see one, cancel one.

use super::results;
use crate::api::asked::{self, Call, Id, Parameters};
use crate::api::observe::Seen;
use crate::api::{Api, Shared, auth, body, reply};
use crate::service::access::{Key, MODELS_USE};
use crate::service::jobs::{JobOwner, JobRow, NewJob};
use crate::wire::Fault;
use crate::wire::batch::{JobItem, JobUsage, RequestCounts, SubmitRequest};
use crate::wire::envelope::{PageQuery, native_list, native_ok};
use crate::wire::schema::{JobBody, Page, Success};
use axum::Extension;
use axum::extract::Request;
use axum::response::Response;
use jiff::Timestamp;
use std::sync::Arc;

/// Every state there is, for the listing's filter.
const STATES: [&str; 8] = ["validating", "in_progress", "finalizing", "cancelling", "completed", "failed", "expired", "cancelled"];

/// Takes a job in.
#[utoipa::path(post, path = "/v1/inference/batch", tag = "Batch jobs", operation_id = "submit_batch", request_body = JobBody,
    responses((status = 200, description = "The job", body = Success<JobItem>)))]
pub(in crate::api) async fn submit(api: Shared, Extension(seen): Extension<Seen>, request: Request) -> Result<Response, Fault> {
    let key = auth::enter(&api, &seen, request.headers(), Some(MODELS_USE)).await?;
    let base = results::base(&api, request.headers());
    // The lines of a submission are held until they are in the store.
    let body::Held { bytes, hold: _hold } = body::read(&api, request).await?;
    let asked = SubmitRequest::parse(&bytes, api.books.jobs.options().max_inline_bytes)?;
    drop(bytes);
    let owner = owner(key.as_deref());
    let source = api.inputs.bring(&api, &owner, asked.source, seen.arrived + api.options.deadline).await?;
    let new = NewJob {
        dialect: "native",
        owner,
        source,
        endpoint: String::new(),
        window: asked.window,
        metadata: asked.metadata.map(|metadata| serde_json::Value::Object(metadata).to_string()),
        keep: None,
    };
    let job = api.books.jobs.submit(new, &auth::actor(key.as_ref())).await?;
    Ok(reply::json(native_ok(&item(&api, &job, &base), &seen.id)))
}

/// A page of the caller's jobs, newest first.
#[utoipa::path(get, path = "/v1/inference/batch", tag = "Batch jobs", operation_id = "list_batches", params(
    ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "Items of a page; 100 if absent"),
    ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ("status" = Option<String>, Query, description = "Only jobs in this state"),
), responses((status = 200, description = "The caller's jobs", body = Page<JobItem>)))]
pub(in crate::api) async fn list(call: Call, parameters: Parameters) -> Result<Response, Fault> {
    let key = call.enter(Some(MODELS_USE)).await?;
    let asked = parameters.read()?;
    let page = PageQuery::parse(asked.pairs())?;
    let status = asked.last("status").unwrap_or_default();
    if !status.is_empty() && !STATES.contains(&status) {
        return Err(Fault::field("status", format!("must be one of {}", STATES.join(", "))));
    }
    let (tenant, user) = who(key.as_ref());
    let jobs = call.api.books.jobs.list(tenant, user, status, page.after.as_deref(), page.limit + 1).await?;
    let (jobs, next) = asked::page(jobs, page.limit, |job| job.id.clone());
    let base = results::base(&call.api, &call.headers);
    let items: Vec<_> = jobs.iter().map(|job| item(&call.api, job, &base)).collect();
    Ok(reply::json(native_list(&items, next.as_deref(), &call.seen.id)))
}

/// One job.
#[utoipa::path(get, path = "/v1/inference/batch/{id}", tag = "Batch jobs", operation_id = "get_batch", params(("id" = String, Path)),
    responses((status = 200, description = "The job", body = Success<JobItem>)))]
pub(in crate::api) async fn status(call: Call, Id(id): Id) -> Result<Response, Fault> {
    let key = call.enter(Some(MODELS_USE)).await?;
    let (tenant, user) = who(key.as_ref());
    let job = call.api.books.jobs.get(&id, tenant, user).await?;
    Ok(reply::json(native_ok(&item(&call.api, &job, &results::base(&call.api, &call.headers)), &call.seen.id)))
}

/// Asks a job to end.
#[utoipa::path(post, path = "/v1/inference/batch/{id}/cancel", tag = "Batch jobs", operation_id = "cancel_batch", params(("id" = String, Path)),
    responses((status = 200, description = "The job", body = Success<JobItem>)))]
pub(in crate::api) async fn cancel(call: Call, Id(id): Id) -> Result<Response, Fault> {
    let key = call.enter(Some(MODELS_USE)).await?;
    let (tenant, user) = who(key.as_ref());
    let job = call.api.books.jobs.cancel(&id, tenant, user, &auth::actor(key.as_ref())).await?;
    Ok(reply::json(native_ok(&item(&call.api, &job, &results::base(&call.api, &call.headers)), &call.seen.id)))
}

/// Tenant and user of the caller.
pub(in crate::api) fn who(key: Option<&Arc<Key>>) -> (&str, &str) {
    key.map_or((auth::DEFAULT, auth::DEFAULT), |key| (&key.tenant, &key.user))
}

/// The caller as the owner of a job or a file.
pub(in crate::api) fn owner(key: Option<&Key>) -> JobOwner {
    let word = |word: Option<&String>| word.map_or_else(|| auth::DEFAULT.to_owned(), String::clone);
    JobOwner {
        key_id: word(key.map(|key| &key.id)),
        key_name: word(key.map(|key| &key.name)),
        user: word(key.map(|key| &key.user)),
        tenant: word(key.map(|key| &key.tenant)),
        models: key.and_then(|key| key.models.clone()),
        client: key.map_or(0, Key::number),
        weight: key.map_or(1, |key| key.weight),
    }
}

fn item(api: &Api, job: &JobRow, base: &str) -> JobItem {
    let time = |ms: Option<i64>| ms.and_then(|ms| Timestamp::from_second(ms / 1000).ok());
    let ended = |status: &str| time(job.times.ended_ms).filter(|_| job.status == status);
    let has = |bytes: i64| job.times.ended_ms.is_some() && bytes > 0;
    let url = |bytes: i64, name: &str| has(bytes).then(|| results::url(api, base, &job.id, name));
    JobItem {
        id: job.id.clone(),
        batch_id: job.id.clone(),
        object: "batch",
        status: job.status.clone(),
        endpoint_completion_window: job.completion_window.clone(),
        metadata: job.metadata.as_ref().and_then(|text| serde_json::from_str(text).ok()),
        request_counts: RequestCounts { total: job.total, completed: job.completed, failed: job.failed },
        usage: JobUsage { prompt_tokens: job.tokens, total_tokens: job.tokens },
        input_file_id: job.input_file_id.clone(),
        output_file_id: has(job.output_bytes).then(|| job.output_file_id.clone()),
        output_file_url: url(job.output_bytes, "output"),
        error_file_id: has(job.error_bytes).then(|| job.error_file_id.clone()),
        error_file_url: url(job.error_bytes, "errors"),
        errors: job.errors.as_ref().and_then(|text| serde_json::from_str(text).ok()),
        created_at: time(Some(job.times.created_ms)),
        in_progress_at: time(job.times.in_progress_ms),
        finalizing_at: time(job.times.finalizing_ms),
        completed_at: ended("completed"),
        failed_at: ended("failed"),
        expired_at: ended("expired"),
        cancelling_at: time(job.times.cancelling_ms),
        cancelled_at: ended("cancelled"),
        expires_at: time(Some(job.times.expires_ms)),
    }
}
