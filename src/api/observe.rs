//! Seen from outside: each request's id, trace, log line and metrics.

use super::connection::Connection;
use super::dialect::Dialect;
use super::reply;
use crate::service::access::Key;
use crate::service::limits::{Pass, Standing};
use crate::telemetry;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use tracing::Instrument;

/// The header of the request's id, in both directions.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// An id that a client or proxy made up is taken over up to this length.
const MAX_ID_LEN: usize = 128;

/// What is known of a request, for its handlers to use and to add to.
#[derive(Clone)]
pub(super) struct Seen {
    /// `meta.request_id`.
    pub(super) id: Arc<str>,
    /// Whose forms its answer takes.
    pub(super) dialect: Dialect,
    /// When its head had arrived.
    pub(super) arrived: Instant,
    /// Whom it came from, as the connection has it: what headers say of it is not believed.
    pub(super) address: Option<IpAddr>,
    /// Filled in as it becomes known.
    notes: Arc<Notes>,
}

#[derive(Default)]
struct Notes {
    slug: OnceLock<String>,
    key: OnceLock<Arc<Key>>,
    pass: OnceLock<Arc<Pass>>,
    exceeded: OnceLock<Standing>,
}

impl Seen {
    fn new(headers: &HeaderMap, path: &str, address: Option<IpAddr>) -> Self {
        let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()).filter(|id| is_id(id));
        let id = given.map_or_else(|| format!("req_{}", uuid::Uuid::now_v7().simple()), str::to_owned);
        Self { id: id.into(), dialect: Dialect::of(path), arrived: Instant::now(), address, notes: Arc::default() }
    }

    /// Notes the slug of the model it is for. Only slugs from the configuration, for this becomes a label.
    pub(super) fn note_model(&self, slug: &str) {
        let _ = self.notes.slug.set(slug.to_owned());
    }

    /// Notes whose key it came with.
    pub(super) fn note_key(&self, key: Option<&Arc<Key>>) {
        if let Some(key) = key {
            let _ = self.notes.key.set(key.clone());
        }
    }

    /// Notes that it was counted against its caller's limits.
    pub(super) fn note_pass(&self, pass: Pass) {
        let _ = self.notes.pass.set(Arc::new(pass));
    }

    /// What it was counted against; `None` if its caller is under no limit.
    pub(super) fn pass(&self) -> Option<&Arc<Pass>> {
        self.notes.pass.get()
    }

    /// Notes which limit turned it away.
    pub(super) fn note_exceeded(&self, standing: Standing) {
        let _ = self.notes.exceeded.set(standing);
    }
}

/// The rate limit's state, on every answer to a caller that is under one.
const RATE_LIMIT: [HeaderName; 3] = [
    HeaderName::from_static("x-scaigrid-ratelimit-limit"),
    HeaderName::from_static("x-scaigrid-ratelimit-remaining"),
    HeaderName::from_static("x-scaigrid-ratelimit-reset"),
];

/// Settles the request with its limits: one that was turned away does not count; and tells the caller where it stands.
async fn settle(seen: &Seen, response: &mut Response) {
    if response.status() == StatusCode::TOO_MANY_REQUESTS
        && let Some(pass) = seen.pass()
    {
        pass.take_back().await;
    }
    let standing = seen.notes.exceeded.get().copied().or_else(|| seen.pass().and_then(|pass| pass.standing()));
    if let Some(Standing { limit, remaining, reset_s }) = standing {
        for (name, value) in RATE_LIMIT.into_iter().zip([limit, remaining, reset_s]) {
            response.headers_mut().insert(name, value.into());
        }
    }
}

fn is_id(id: &str) -> bool {
    (1..=MAX_ID_LEN).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
}

/// The trace id of a `traceparent` header, if it is one (W3C Trace Context, any version but ff).
fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get("traceparent")?.to_str().ok()?;
    let mut parts = value.split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |part: &str, len: usize| part.len() == len && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let known = hex(version, 2) && version != "ff" && (version != "00" || parts.next().is_none());
    let valid = hex(trace, 32) && hex(parent, 16) && hex(flags, 2) && trace.contains(|c| c != '0') && parent.contains(|c| c != '0');
    (known && valid).then_some(trace)
}

/// True for the paths of probes and scrapers, which come every few seconds for ever and tell nothing about the service's use.
pub(super) fn is_probe(path: &str) -> bool {
    matches!(path.trim_end_matches('/'), "/health" | "/health/ready" | "/metrics")
}

/// The code of a fault, left on its answer for the log and the metrics.
#[derive(Debug, Clone, Copy)]
pub(super) struct Code(pub(super) &'static str);

/// Gives each request its id and reports how it went.
pub(super) async fn observe(mut request: Request, next: Next) -> Response {
    let connection = request.extensions().get::<Connection>().cloned();
    let address = connection.as_ref().and_then(|connection| connection.peer);
    let seen = Seen::new(request.headers(), request.uri().path(), address);
    request.extensions_mut().insert(seen.clone());
    let probe = is_probe(request.uri().path());
    let named = Named::of(&request);
    let span = tracing::info_span!(
        "request",
        request_id = %seen.id,
        trace_id = named.trace_id.as_deref(),
        method = %named.method,
        route = named.route(),
    );
    let mut report = Report { seen: &seen, answered: false, probe };
    telemetry::IN_FLIGHT.move_by([], 1.0);
    let mut response = next.run(request).instrument(span).await;
    report.answered = true;
    if let Ok(id) = HeaderValue::from_str(&seen.id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    // What was refused before its body was read cannot be followed by another request: the client is told, and does not find out by a broken one.
    if connection.is_some_and(|connection| connection.left_unread()) {
        response.headers_mut().extend(HeaderMap::from_iter(reply::CLOSE));
    }
    settle(&seen, &mut response).await;
    if !probe {
        account(&seen, &named, &response);
    }
    response
}

/// Notices also those requests whose client leaves: then the future is dropped, and nothing after its `await` runs.
struct Report<'a> {
    seen: &'a Seen,
    answered: bool,
    probe: bool,
}

impl Drop for Report<'_> {
    fn drop(&mut self) {
        telemetry::IN_FLIGHT.move_by([], -1.0);
        if !self.answered && !self.probe {
            telemetry::CANCELLED.add([], 1);
            tracing::info!(event = "cancelled", request_id = %self.seen.id, "the client left");
        }
    }
}

/// What a request asked for, as far as the log may tell.
struct Named {
    method: Method,
    route: Option<MatchedPath>,
    trace_id: Option<String>,
}

impl Named {
    fn of(request: &Request) -> Self {
        let trace_id = trace_id(request.headers()).map(str::to_owned);
        Self { method: request.method().clone(), route: request.extensions().get::<MatchedPath>().cloned(), trace_id }
    }

    /// Its row in the route table, never the path itself.
    fn route(&self) -> &str {
        self.route.as_ref().map_or("-", MatchedPath::as_str)
    }
}

fn account(seen: &Seen, named: &Named, response: &Response) {
    let took = seen.arrived.elapsed();
    let status = response.status();
    let slug = seen.notes.slug.get().map(String::as_str);
    telemetry::REQUESTS.add([slug.unwrap_or("none"), status.as_str(), seen.dialect.name()], 1);
    if let Some(slug) = slug {
        telemetry::REQUEST_SECONDS.observe([slug, slug], took.as_secs_f64());
    }
    let code = response.extensions().get::<Code>().map(|code| code.0);
    if let Some(code) = code {
        telemetry::REJECTIONS.add([&code.to_ascii_lowercase()], 1);
    }
    let key = seen.notes.key.get();
    // Outside of the span, whose fields stand in an object of their own: programs look for the request's id beside its user.
    tracing::info!(
        event = "request",
        request_id = %seen.id,
        trace_id = named.trace_id.as_deref(),
        method = %named.method,
        route = named.route(),
        status = status.as_u16(),
        code,
        model = slug,
        tenant_id = key.map(|key| key.tenant.as_str()),
        user_id = key.map(|key| key.user.as_str()),
        duration_ms = took.as_secs_f64() * 1e3,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn an_inbound_id_is_taken_over_only_if_well_formed() {
        assert_eq!(&*Seen::new(&headers("x-request-id", "abc-1_2.3:4"), "/", None).id, "abc-1_2.3:4");
        for bad in ["", "a b", "a\"b", "<b>", &"a".repeat(129)] {
            let id = Seen::new(&headers("x-request-id", bad), "/", None).id;
            assert!(id.starts_with("req_") && id.len() == 36, "{bad:?} gave {id}");
        }
    }

    #[test]
    fn a_traceparent_is_believed_only_if_it_is_one() {
        let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        assert_eq!(trace_id(&headers("traceparent", &format!("00-{trace}-{parent}-01"))), Some(trace));
        assert_eq!(trace_id(&headers("traceparent", &format!("01-{trace}-{parent}-01-more"))), Some(trace));
        let zeros = "0".repeat(32);
        for bad in [
            format!("ff-{trace}-{parent}-01"),
            format!("00-{trace}-{parent}-01-more"),
            format!("00-{zeros}-{parent}-01"),
            format!("00-{trace}-{parent}"),
            format!("00-{}-{parent}-01", trace.to_uppercase()),
            "nonsense".to_owned(),
        ] {
            assert_eq!(trace_id(&headers("traceparent", &bad)), None, "{bad}");
        }
    }
}
