//! For probes and scrapers: is the process there, can it answer, and how is it doing. No key, no envelope.

use super::Shared;
use super::embedder::ModelState;
use crate::telemetry;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::collections::BTreeMap;

/// `GET /health`: the process serves.
#[utoipa::path(get, path = "/health", tag = "Health", operation_id = "health", security(()), responses(Alive))]
pub(super) async fn live() -> Response {
    super::reply::json(br#"{"status":"ok"}"#.to_vec())
}

/// Whether requests can be answered now.
#[derive(serde::Serialize, utoipa::ToSchema)]
pub(super) struct Readiness {
    /// `ready` or `not_ready`.
    status: &'static str,
    /// Each part by its name: `ok`, or what is the matter with it.
    #[schema(value_type = BTreeMap<String, String>)]
    checks: BTreeMap<&'static str, String>,
}

/// The process serves.
#[derive(utoipa::IntoResponses, utoipa::ToSchema)]
#[response(status = 200, description = "The process serves")]
#[allow(dead_code, reason = "only the description of the type is used")]
struct Alive {
    /// `ok`.
    status: &'static str,
}

/// `GET /health/ready`: 200 if it can answer requests now, else 503.
#[utoipa::path(get, path = "/health/ready", tag = "Health", operation_id = "ready", security(()), responses(
    (status = 200, description = "Every model is warm", body = Readiness),
    (status = 503, description = "Loading, failed or shutting down", body = Readiness),
))]
pub(super) async fn ready(api: Shared) -> Response {
    let mut checks: BTreeMap<_, _> = api.embedder.checks().into_iter().collect();
    let server = if api.lifecycle.draining() { "draining" } else { "ok" };
    checks.insert("server", server.to_owned());
    checks.insert("storage", api.books.check().await.to_owned());
    let well = checks.values().all(|state| state == "ok");
    let (code, status) = if well { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "not_ready") };
    // Strings only: this serialisation has no way to fail.
    let body = serde_json::to_vec(&Readiness { status, checks }).unwrap_or_default();
    (code, super::reply::json(body)).into_response()
}

/// `GET /metrics`: Prometheus' text format.
#[utoipa::path(get, path = "/metrics", tag = "Health", operation_id = "metrics", security(()), responses(
    (status = 200, description = "Prometheus' text format", body = String, content_type = "text/plain; version=0.0.4; charset=utf-8"),
))]
pub(super) async fn metrics(api: Shared) -> Response {
    for model in api.embedder.list() {
        let failed = api.embedder.find(&model.slug).is_some_and(|found| found.state == ModelState::Failed);
        telemetry::BACKEND_HEALTH.set([&model.slug], f64::from(u8::from(model.healthy)));
        telemetry::CIRCUIT_BREAKER.set([&model.slug], f64::from(u8::from(failed)));
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], telemetry::render()).into_response()
}
