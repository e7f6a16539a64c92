//! Leaf: what goes over the wire. Request and response types, the parser, the float writer, and the table of faults. No axum.

pub mod accounting;
pub mod batch;
pub mod envelope;
pub mod fault;
pub mod files;
pub mod keys;
pub mod listing;
pub mod object;
pub mod openai;
pub mod request;
pub mod response;
mod scalar;
pub mod schema;

pub use fault::{Detail, Fault, echo};
pub use request::{EmbedRequest, Encoding};

/// What to do with a text longer than the model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Truncate {
    /// Refuse the request and say how long the text is.
    #[default]
    None,
    /// Keep the text's beginning.
    End,
    /// Keep the text's end (drop its head).
    Start,
}

/// `meta` of the native envelope.
#[derive(Debug, Clone, Copy, serde::Serialize, utoipa::ToSchema)]
pub struct Meta<'a> {
    /// The same as the `X-Request-ID` header.
    pub request_id: &'a str,
}
