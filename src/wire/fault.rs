//! Every way a request can fail, in one table: fault -> status, code, whether to retry. Both dialects render from here.

use std::borrow::Cow;

/// One field of a request that cannot be accepted, and why: `details[]` of the error envelope.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct Detail {
    /// Dotted path of the field, with list indices: `input.3`.
    pub field: Cow<'static, str>,
    /// What is wrong with it, with the value and the limit.
    pub message: String,
    /// OpenAI's name for it, where that layer has one.
    #[serde(skip)]
    pub code: Option<&'static str>,
}

impl Detail {
    /// OpenAI's code for more tokens in all than a request may have.
    pub const TOKEN_SUM: &'static str = "max_tokens_per_request";

    /// A fault of one field.
    pub fn new(field: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into(), code: None }
    }

    /// The fault of a request whose texts have too many tokens in all.
    pub fn token_sum(message: impl Into<String>) -> Self {
        Self { code: Some(Self::TOKEN_SUM), ..Self::new("input", message) }
    }
}

/// Why a request is refused or has failed. Facts, not text: `message` makes the sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// No `Authorization` header.
    AuthMissing,
    /// A header that is not `Bearer <key>`, or a key that is unknown, revoked or expired.
    AuthInvalid,
    /// The key lacks a scope.
    InsufficientScope { scope: &'static str },
    /// Fields that cannot be accepted; at least one.
    Validation(Vec<Detail>),
    /// No model of that name is served.
    ModelNotFound { model: String },
    /// The model exists, but not for this key.
    ModelAccessDenied { model: String },
    /// Loading, failed, or draining; `retry_after_s` where waiting helps.
    ModelUnavailable { reason: Cow<'static, str>, retry_after_s: Option<u32> },
    /// The computation failed.
    Backend { reason: String },
    /// Queue and computation together outran the deadline.
    BackendTimeout { deadline_ms: u64 },
    /// The queue is full.
    Overloaded { retry_after_s: u32 },
    /// The key, its user, tenant or partner has used up its requests per minute.
    RateLimited { retry_after_s: u32 },
    /// No such route, or an endpoint of the hosted service that this server does not offer.
    NotFound { message: Cow<'static, str> },
    /// The route exists under other methods.
    MethodNotAllowed { allow: &'static str },
    /// The body is larger than allowed.
    PayloadTooLarge { limit_bytes: u64 },
    /// The client took too long to send its request.
    RequestTimeout { limit_ms: u64 },
    /// A `Content-Encoding` that is not taken.
    UnsupportedMediaType { encoding: String },
    /// The client expects vectors of another embedding space than the model's.
    SpaceMismatch { expected: String, actual: String },
    /// The thing exists, but cannot be changed this way.
    Conflict { message: Cow<'static, str> },
    /// A defect of ours: a panic in the handler.
    Internal,
}

/// The longest piece of a client's own words that a message repeats.
const ECHO_CHARS: usize = 120;

impl Fault {
    /// A fault of one field.
    pub fn field(field: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::Validation(vec![Detail::new(field, message)])
    }

    /// THE table: status on native paths, and the code that clients branch on.
    fn row(&self) -> (u16, &'static str) {
        match self {
            Self::AuthMissing => (401, "AUTH_TOKEN_MISSING"),
            Self::AuthInvalid => (401, "AUTH_TOKEN_INVALID"),
            Self::InsufficientScope { .. } => (403, "AUTH_INSUFFICIENT_SCOPE"),
            Self::Validation(_) => (422, "VALIDATION_ERROR"),
            Self::ModelNotFound { .. } => (404, "MODEL_NOT_FOUND"),
            Self::ModelAccessDenied { .. } => (403, "MODEL_ACCESS_DENIED"),
            Self::ModelUnavailable { .. } => (503, "MODEL_UNAVAILABLE"),
            Self::Backend { .. } => (502, "BACKEND_ERROR"),
            Self::BackendTimeout { .. } => (504, "BACKEND_TIMEOUT"),
            Self::Overloaded { .. } => (429, "BACKEND_RATE_LIMITED"),
            Self::RateLimited { .. } => (429, "RATE_LIMITED"),
            Self::NotFound { .. } => (404, "NOT_FOUND"),
            Self::MethodNotAllowed { .. } => (405, "METHOD_NOT_ALLOWED"),
            Self::PayloadTooLarge { .. } => (413, "PAYLOAD_TOO_LARGE"),
            Self::RequestTimeout { .. } => (408, "REQUEST_TIMEOUT"),
            Self::UnsupportedMediaType { .. } => (415, "UNSUPPORTED_MEDIA_TYPE"),
            Self::SpaceMismatch { .. } => (409, "SPACE_MISMATCH"),
            Self::Conflict { .. } => (409, "CONFLICT"),
            Self::Internal => (500, "INTERNAL_ERROR"),
        }
    }

    /// The HTTP status on native paths.
    pub fn http_status(&self) -> u16 {
        self.row().0
    }

    /// The stable name that clients branch on.
    pub fn code(&self) -> &'static str {
        self.row().1
    }

    /// Whole seconds (at least 1) after which another try makes sense.
    pub fn retry_after_s(&self) -> Option<u32> {
        match self {
            Self::ModelUnavailable { retry_after_s, .. } => *retry_after_s,
            Self::Overloaded { retry_after_s } | Self::RateLimited { retry_after_s } => Some(*retry_after_s),
            _ => None,
        }
        .map(|seconds| seconds.max(1))
    }

    /// The fields at fault.
    pub fn details(&self) -> &[Detail] {
        match self {
            Self::Validation(details) => details,
            _ => &[],
        }
    }

    /// The methods to name in `Allow`.
    pub fn allow(&self) -> Option<&'static str> {
        match self {
            Self::MethodNotAllowed { allow } => Some(allow),
            _ => None,
        }
    }

    /// True where the rest of the request is not waited for, so that the connection cannot serve another one.
    pub fn ends_connection(&self) -> bool {
        matches!(self, Self::PayloadTooLarge { .. } | Self::RequestTimeout { .. })
    }

    /// The sentence for people. Clients must not parse it.
    pub fn message(&self) -> Cow<'static, str> {
        match self {
            Self::AuthMissing => "No API key: send it as `Authorization: Bearer <key>`".into(),
            Self::AuthInvalid => "Invalid or expired authentication token".into(),
            Self::InsufficientScope { scope } => format!("This API key lacks the scope `{scope}`").into(),
            Self::Validation(details) => validation_message(details).into(),
            Self::ModelNotFound { model } => format!("No model `{}` is served here; GET /v1/models lists them", echo(model)).into(),
            Self::ModelAccessDenied { model } => format!("This API key may not use the model `{}`", echo(model)).into(),
            Self::ModelUnavailable { reason, .. } => reason.clone(),
            // The reason may name files and devices of the operator's machine: it goes to the log, not to the client.
            Self::Backend { .. } => "The embedding could not be computed; the server's log has the reason under this request id".into(),
            Self::BackendTimeout { deadline_ms } => format!("The embedding was not ready within {deadline_ms} ms").into(),
            Self::Overloaded { retry_after_s } => format!("The server is busy; try again in {} s", (*retry_after_s).max(1)).into(),
            Self::RateLimited { .. } => "Rate limit exceeded".into(),
            Self::NotFound { message } | Self::Conflict { message } => message.clone(),
            Self::MethodNotAllowed { allow } => format!("This path takes only {allow}").into(),
            Self::PayloadTooLarge { limit_bytes } => format!("The request body is larger than {limit_bytes} bytes").into(),
            Self::RequestTimeout { limit_ms } => format!("The request body did not arrive within {limit_ms} ms").into(),
            Self::UnsupportedMediaType { encoding } => format!("Content-Encoding `{}` is not taken; send the body as it is", echo(encoding)).into(),
            Self::SpaceMismatch { expected, actual } => format!("The model embeds into space `{}`, not `{}`", echo(actual), echo(expected)).into(),
            Self::Internal => "Internal error; the server's log has the reason under this request id".into(),
        }
    }

    /// The body of this fault on native paths: the error envelope, as JSON.
    pub fn native_body(&self, request_id: &str) -> Vec<u8> {
        let message = self.message();
        let error = NativeError { code: self.code(), message: &message, retry_after: self.retry_after_s(), details: self.details() };
        let envelope = NativeEnvelope { status: "error", error, meta: super::Meta { request_id } };
        // Strings and numbers only: this serialisation has no way to fail.
        serde_json::to_vec(&envelope).unwrap_or_default()
    }
}

/// The body of every error on native paths.
#[derive(serde::Serialize, utoipa::ToSchema)]
#[schema(as = NativeFault)]
pub struct NativeEnvelope<'a> {
    /// `error`.
    status: &'static str,
    error: NativeError<'a>,
    meta: super::Meta<'a>,
}

/// What went wrong.
#[derive(serde::Serialize, utoipa::ToSchema)]
pub struct NativeError<'a> {
    /// The stable name to branch on.
    code: &'static str,
    /// For people; not to be parsed.
    message: &'a str,
    /// Seconds to wait before another try, where waiting helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u32>,
    /// Every field at fault.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(value_type = Vec<Detail>, required = false)]
    details: &'a [Detail],
}

fn validation_message(details: &[Detail]) -> String {
    match details {
        [] => "The request cannot be accepted".to_owned(),
        [only] => format!("{}: {}", only.field, only.message),
        [first, rest @ ..] => format!("{}: {} (and {} more, see details)", first.field, first.message, rest.len()),
    }
}

/// A client's own words as far as a message repeats them: an answer must not grow with what was sent.
pub fn echo(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(ECHO_CHARS) {
        None => text.into(),
        Some((end, _)) => format!("{}...", &text[..end]).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn body(fault: &Fault) -> Value {
        serde_json::from_slice(&fault.native_body("req_1")).unwrap()
    }

    #[test]
    fn the_envelope_has_exactly_the_contracts_keys() {
        let fault = Fault::Validation(vec![Detail::new("input.1", "must not be empty")]);
        let expected = json!({
            "status": "error",
            "error": {
                "code": "VALIDATION_ERROR",
                "message": "input.1: must not be empty",
                "details": [{"field": "input.1", "message": "must not be empty"}],
            },
            "meta": {"request_id": "req_1"},
        });
        assert_eq!(body(&fault), expected);
        assert_eq!(body(&Fault::Overloaded { retry_after_s: 30 })["error"]["retry_after"], 30);
        let plain = body(&Fault::AuthMissing);
        assert_eq!(plain["error"].as_object().unwrap().keys().collect::<Vec<_>>(), ["code", "message"]);
    }

    #[test]
    fn waiting_is_never_advised_for_less_than_a_second() {
        assert_eq!(Fault::Overloaded { retry_after_s: 0 }.retry_after_s(), Some(1));
        assert_eq!(Fault::Internal.retry_after_s(), None);
    }

    #[test]
    fn a_clients_words_are_repeated_only_in_part() {
        let message = Fault::ModelNotFound { model: "\u{e9}".repeat(100_000) }.message().into_owned();
        assert!(message.len() < 400, "{} bytes", message.len());
    }

    #[test]
    fn what_broke_inside_stays_inside() {
        let fault = Fault::Backend { reason: "/secret/path".to_owned() };
        assert!(!body(&fault).to_string().contains("secret"));
    }
}
