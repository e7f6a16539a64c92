//! The results of a job, read with a key or through a signed link: clients fetch such links as they fetch pre-signed ones, without a header.

use super::batch::who;
use crate::api::asked::{Call, Id, Parameters};
use crate::api::{Api, auth};
use crate::service::access::MODELS_USE;
use crate::service::jobs::JobRow;
use crate::wire::Fault;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use futures_util::stream::try_unfold;
use jiff::Timestamp;
use utoipa::IntoParams;

/// How long a link is good: every look at the job gives a new one.
const LINK_S: i64 = 24 * 3600;

/// The lines that were answered with vectors.
#[utoipa::path(get, path = "/v1/inference/batch/{id}/output", tag = "Batch jobs", operation_id = "batch_output", params(
    ("id" = String, Path), Link,
), responses((status = 200, description = "JSON lines", body = String, content_type = "application/jsonl")))]
pub(in crate::api) async fn output(call: Call, Id(id): Id, link: Parameters) -> Result<Response, Fault> {
    let job = find(&call, (&id, "output"), link).await?;
    stream(&call.api, &job.output_file_id, job.output_bytes).await
}

/// The lines that were not.
#[utoipa::path(get, path = "/v1/inference/batch/{id}/errors", tag = "Batch jobs", operation_id = "batch_errors", params(
    ("id" = String, Path), Link,
), responses((status = 200, description = "JSON lines", body = String, content_type = "application/jsonl")))]
pub(in crate::api) async fn errors(call: Call, Id(id): Id, link: Parameters) -> Result<Response, Fault> {
    let job = find(&call, (&id, "errors"), link).await?;
    stream(&call.api, &job.error_file_id, job.error_bytes).await
}

/// What a signed link brings instead of a key.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "only the description of the type is used")]
struct Link {
    /// Of a signed link, which needs no key.
    expires: Option<String>,
    /// Of a signed link, which needs no key.
    signature: Option<String>,
}

/// The job that a signed link or a key gives the right to read, once it has ended.
async fn find(call: &Call, (id, name): (&str, &str), link: Parameters) -> Result<JobRow, Fault> {
    let jobs = &call.api.books.jobs;
    let link = link.read().ok();
    let part = |wanted: &str| link.as_ref().and_then(|link| link.last(wanted));
    let signed = |(until, signature): (&str, &str)| until.parse().is_ok_and(|until| jobs.signed(&path(id, name), until, signature));
    let job = match part("expires").zip(part("signature")) {
        Some(link) if signed(link) => jobs.get_signed(id).await?,
        Some(_) if !may_be_let_in_without(call) => return Err(auth::refuse(&call.api, &call.seen, Fault::AuthInvalid)),
        _ => {
            let key = call.enter(Some(MODELS_USE)).await?;
            let (tenant, user) = who(key.as_ref());
            jobs.get(id, tenant, user).await?
        }
    };
    job.times.ended_ms.map(|_| job).ok_or(Fault::NotFound { message: "The batch job has not ended yet".into() })
}

/// An old link is no reason to refuse someone with a key, or where nobody needs one.
fn may_be_let_in_without(call: &Call) -> bool {
    call.headers.contains_key(header::AUTHORIZATION) || call.api.books.access.open()
}

/// A file of `bytes` bytes, read as the client takes it.
pub(in crate::api) async fn stream(api: &Api, file: &str, bytes: i64) -> Result<Response, Fault> {
    let mut reader = api.books.jobs.read(file);
    let failed = |_| Fault::ModelUnavailable { reason: "The server's storage does not answer".into(), retry_after_s: Some(5) };
    let first = reader.next().await.map_err(failed)?;
    if first.is_none() {
        return Err(Fault::NotFound { message: "There is no such file, or nothing in it".into() });
    }
    // The first piece is here; the others are read as the client takes them.
    let pieces = try_unfold((first, reader), |(first, mut reader)| async move {
        let piece = match first {
            Some(first) => Some(first),
            None => reader.next().await?,
        };
        Ok::<_, axum::BoxError>(piece.map(|piece| (piece, (None, reader))))
    });
    Ok(jsonl(Body::from_stream(pieces), bytes))
}

/// An answer of JSON lines, `bytes` bytes of them.
pub(in crate::api) fn jsonl(body: Body, bytes: i64) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/jsonl"));
    response.headers_mut().insert(header::CONTENT_LENGTH, bytes.into());
    response
}

/// A link to a job's results that needs no key.
pub(super) fn url(api: &Api, base: &str, id: &str, name: &str) -> String {
    let (path, until) = (path(id, name), Timestamp::now().as_second() + LINK_S);
    format!("{base}{path}?expires={until}&signature={}", api.books.jobs.sign(&path, until))
}

fn path(id: &str, name: &str) -> String {
    format!("/v1/inference/batch/{id}/{name}")
}

/// The server's address as clients see it, without a slash at its end; empty if they do not say.
pub(super) fn base(api: &Api, headers: &HeaderMap) -> String {
    if let Some(url) = &api.options.public_url {
        return url.trim_end_matches('/').to_owned();
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let scheme = if api.options.https { "https" } else { "http" };
    host.map_or_else(String::new, |host| format!("{scheme}://{host}"))
}
