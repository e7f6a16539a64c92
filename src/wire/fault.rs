//! Every way a request can fail, in one table: fault -> status, code, whether to retry. Both dialects render from here.

use std::borrow::Cow;

/// One field of a request that cannot be accepted, and why: `details[]` of the error envelope.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Detail {
    /// Dotted path of the field, with list indices: `input.3`.
    pub field: Cow<'static, str>,
    /// What is wrong with it, with the value and the limit.
    pub message: String,
}

impl Detail {
    /// A fault of one field.
    pub fn new(field: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
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
    /// A defect of ours: a panic in the handler.
    Internal,
}
