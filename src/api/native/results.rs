//! The results of a job, read with a key or through a signed link: clients fetch such links as they fetch pre-signed ones, without a header.

use super::batch::{Id, who};
use crate::api::observe::Seen;
use crate::api::{Api, Shared, auth};
use crate::service::access::MODELS_USE;
use crate::service::jobs::JobRow;
use crate::wire::Fault;
use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use futures_util::stream::try_unfold;
use jiff::Timestamp;

type Parameters = Result<Query<Vec<(String, String)>>, QueryRejection>;

/// How long a link is good: every look at the job gives a new one.
const LINK_S: i64 = 24 * 3600;

/// The lines that were answered with vectors.
#[utoipa::path(get, path = "/v1/inference/batch/{id}/output", tag = "Batch jobs", operation_id = "batch_output", params(
    ("id" = String, Path),
    ("expires" = Option<String>, Query, description = "Of a signed link, which needs no key"),
    ("signature" = Option<String>, Query, description = "Of a signed link, which needs no key"),
), responses((status = 200, description = "JSON lines", body = String, content_type = "application/jsonl")))]
pub(in crate::api) async fn output(
    api: Shared,
    Extension(seen): Extension<Seen>,
    id: Id,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    let job = find(&api, &seen, id, parameters, (&headers, "output")).await?;
    send(&api, &job, &job.output_file_id, job.output_bytes).await
}

/// The lines that were not.
#[utoipa::path(get, path = "/v1/inference/batch/{id}/errors", tag = "Batch jobs", operation_id = "batch_errors", params(
    ("id" = String, Path),
    ("expires" = Option<String>, Query, description = "Of a signed link, which needs no key"),
    ("signature" = Option<String>, Query, description = "Of a signed link, which needs no key"),
), responses((status = 200, description = "JSON lines", body = String, content_type = "application/jsonl")))]
pub(in crate::api) async fn errors(
    api: Shared,
    Extension(seen): Extension<Seen>,
    id: Id,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    let job = find(&api, &seen, id, parameters, (&headers, "errors")).await?;
    send(&api, &job, &job.error_file_id, job.error_bytes).await
}

/// The job that a signed link or a key gives the right to read.
async fn find(api: &Api, seen: &Seen, id: Id, parameters: Parameters, (headers, name): (&HeaderMap, &str)) -> Result<JobRow, Fault> {
    let id = id.map(|Path(id)| id).unwrap_or_default();
    let parameters = parameters.map(|Query(parameters)| parameters).unwrap_or_default();
    let parameter = |wanted: &str| parameters.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    if let (Some(until), Some(signature)) = (parameter("expires"), parameter("signature")) {
        let good = until.parse().is_ok_and(|until| api.books.jobs.signed(&path(&id, name), until, signature));
        return if good { api.books.jobs.get_signed(&id).await } else { Err(auth::refuse(api, seen, Fault::AuthInvalid)) };
    }
    let key = auth::enter(api, seen, headers, Some(MODELS_USE)).await?;
    let (tenant, user) = who(key.as_ref());
    api.books.jobs.get(&id, tenant, user).await
}

async fn send(api: &Api, job: &JobRow, file: &str, bytes: i64) -> Result<Response, Fault> {
    if job.times.ended_ms.is_none() {
        return Err(Fault::NotFound { message: "The batch job has not ended yet".into() });
    }
    stream(api, file, bytes).await
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
    let mut response = Response::new(Body::from_stream(pieces));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/jsonl"));
    response.headers_mut().insert(header::CONTENT_LENGTH, bytes.into());
    Ok(response)
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
