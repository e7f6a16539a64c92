//! For probes and scrapers: is the process there, can it answer, and how is it doing. No key, no envelope.

use super::Shared;
use super::embedder::ModelState;
use crate::telemetry;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::collections::BTreeMap;

/// `GET /health`: the process serves.
pub(super) async fn live() -> Response {
    super::reply::json(br#"{"status":"ok"}"#.to_vec())
}

#[derive(serde::Serialize)]
struct Readiness {
    status: &'static str,
    checks: BTreeMap<&'static str, String>,
}

/// `GET /health/ready`: 200 if it can answer requests now, else 503.
pub(super) async fn ready(api: Shared) -> Response {
    let mut checks: BTreeMap<_, _> = api.embedder.checks().into_iter().collect();
    let server = if api.lifecycle.draining() { "draining" } else { "ok" };
    checks.insert("server", server.to_owned());
    let well = checks.values().all(|state| state == "ok");
    let (code, status) = if well { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "not_ready") };
    // Strings only: this serialisation has no way to fail.
    let body = serde_json::to_vec(&Readiness { status, checks }).unwrap_or_default();
    (code, super::reply::json(body)).into_response()
}

/// `GET /metrics`: Prometheus' text format.
pub(super) async fn metrics(api: Shared) -> Response {
    for model in api.embedder.list() {
        let failed = api.embedder.find(&model.slug).is_some_and(|found| found.state == ModelState::Failed);
        telemetry::BACKEND_HEALTH.set([&model.slug], f64::from(u8::from(model.healthy)));
        telemetry::CIRCUIT_BREAKER.set([&model.slug], f64::from(u8::from(failed)));
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], telemetry::render()).into_response()
}
