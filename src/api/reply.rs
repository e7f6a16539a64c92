//! Answers: faults in the envelope of their path, JSON bodies, and what is said where there is no route.

use super::dialect::Dialect;
use super::observe::{Code, Seen};
use crate::wire::Fault;
use axum::Extension;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::any::Any;

const JSON: (HeaderName, HeaderValue) = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));

/// Tells OpenAI's clients what the status alone does not.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// Ends the connection after the answer.
pub(super) const CLOSE: [(HeaderName, HeaderValue); 1] = [(header::CONNECTION, HeaderValue::from_static("close"))];

/// A JSON body that is already written.
pub(super) fn json(body: Vec<u8>) -> Response {
    ([JSON], body).into_response()
}

/// A fault on its way out. `render` gives it its body, for only there the request's id and dialect are known.
impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// The one place where faults become bytes.
pub(super) async fn render(Extension(seen): Extension<Seen>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let Some(fault) = response.extensions_mut().remove::<Fault>() else { return response };
    if let Fault::Backend { reason } = &fault {
        tracing::error!(event = "backend_error", reason, "a request failed");
    }
    let body = match seen.dialect {
        Dialect::Native => fault.native_body(&seen.id),
        Dialect::OpenAi => {
            *response.status_mut() = StatusCode::from_u16(fault.openai_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            if fault.openai_retry_is_vain() {
                response.headers_mut().insert(SHOULD_RETRY, HeaderValue::from_static("false"));
            }
            fault.openai_body()
        }
    };
    write_headers(response.headers_mut(), &fault);
    *response.body_mut() = Body::from(body);
    response.extensions_mut().insert(Code(fault.code()));
    response
}

fn write_headers(headers: &mut HeaderMap, fault: &Fault) {
    let (name, value) = JSON;
    headers.insert(name, value);
    // Of the body that is being replaced.
    headers.remove(header::CONTENT_LENGTH);
    if let Some(seconds) = fault.retry_after_s() {
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    if let Some(allow) = fault.allow() {
        headers.insert(header::ALLOW, HeaderValue::from_static(allow));
    }
    if fault.http_status() == 401 {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if fault.ends_connection() {
        headers.extend(CLOSE);
    }
}

/// A panic in a handler. Its words are not logged here: they may hold a piece of the input.
pub(super) fn panicked(_: Box<dyn Any + Send>) -> Response {
    tracing::error!(event = "panic", "a handler panicked");
    Fault::Internal.into_response()
}

/// The path exists, the method does not.
pub(super) fn wrong_method(allow: &'static str) -> Fault {
    Fault::MethodNotAllowed { allow }
}

/// Parts of the hosted service that a client may expect here.
const HOSTED_ONLY: [&str; 9] =
    ["/v1/inference/", "/v1/auth", "/v1/backends", "/v1/modules", "/v1/providers", "/v1/sessions", "/v1/tenants", "/v1/users", "/v1/webhooks"];

/// No such path.
pub(super) async fn no_such_route(uri: Uri) -> Fault {
    let path = uri.path();
    let hosted = HOSTED_ONLY.iter().any(|prefix| path.starts_with(prefix));
    let message = if hosted {
        "This server serves embeddings only: POST /v1/inference/embed, GET /v1/models"
    } else if Dialect::of(path) == Dialect::OpenAi {
        "This server serves embeddings only: POST /oai/v1/embeddings, GET /oai/v1/models"
    } else {
        "No such path; there are POST /v1/inference/embed and GET /v1/models"
    };
    Fault::NotFound { message: message.into() }
}
