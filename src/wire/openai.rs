//! The OpenAI layer's own forms: how it tells faults, and how it lists models.

use super::Fault;
use super::listing::ModelItem;
use serde::Serialize;
use std::borrow::Cow;
use utoipa::ToSchema;

/// `type` of everything that the client can change.
const INVALID_REQUEST: &str = "invalid_request_error";
/// `type` of everything that it cannot.
const SERVER: &str = "server_error";

impl Fault {
    /// The HTTP status on the OpenAI layer, whose clients know a field at fault as 400.
    pub fn openai_status(&self) -> u16 {
        match self {
            Self::Validation(_) => 400,
            _ => self.http_status(),
        }
    }

    /// The table of the OpenAI layer: `type`, and `code` where it has one.
    fn openai_row(&self) -> (&'static str, Option<&'static str>) {
        let token_sum = || self.details().first().and_then(|detail| detail.code);
        match self {
            Self::Validation(_) => token_sum().map_or((INVALID_REQUEST, None), |code| (code, Some(code))),
            Self::AuthInvalid => (INVALID_REQUEST, Some("invalid_api_key")),
            Self::InsufficientScope { .. } => (INVALID_REQUEST, Some("auth_insufficient_scope")),
            Self::ModelNotFound { .. } => (INVALID_REQUEST, Some("model_not_found")),
            Self::ModelAccessDenied { .. } => (INVALID_REQUEST, Some("model_access_denied")),
            Self::SpaceMismatch { .. } => (INVALID_REQUEST, Some("space_mismatch")),
            Self::Conflict { .. } => (INVALID_REQUEST, Some("conflict")),
            Self::Overloaded { .. } | Self::RateLimited { .. } => ("rate_limit_exceeded", Some("rate_limit_exceeded")),
            _ if self.http_status() >= 500 => (SERVER, None),
            _ => (INVALID_REQUEST, None),
        }
    }

    /// The parameter at fault: the first one, without its place in a list.
    fn openai_param(&self) -> Option<&str> {
        match self {
            Self::ModelNotFound { .. } => Some("model"),
            _ => {
                let field = self.details().first()?.field.as_ref();
                let name = field.split('.').next().unwrap_or(field);
                // A body that is no JSON object has no parameters.
                (name != "body").then_some(name)
            }
        }
    }

    /// False where OpenAI's clients would try again by the status alone, and in vain.
    pub fn openai_retry_is_vain(&self) -> bool {
        matches!(self, Self::SpaceMismatch { .. } | Self::Conflict { .. } | Self::ModelUnavailable { retry_after_s: None, .. })
    }

    /// The body of this fault on the OpenAI layer.
    pub fn openai_body(&self) -> Vec<u8> {
        let (kind, code) = self.openai_row();
        let message = match self {
            Self::ModelNotFound { model } => format!("The model '{}' does not exist", super::fault::echo(model)).into(),
            _ => self.message(),
        };
        to_json(&Envelope { error: Error { message, kind, param: self.openai_param(), code } })
    }
}

/// The body of every error on this layer.
#[derive(Serialize, ToSchema)]
#[schema(as = OpenAiFault)]
pub struct Envelope<'a> {
    error: Error<'a>,
}

/// All four keys are always there.
#[derive(Serialize, ToSchema)]
#[schema(as = OpenAiError)]
pub struct Error<'a> {
    /// For people; not to be parsed.
    #[schema(value_type = String)]
    message: Cow<'a, str>,
    #[serde(rename = "type")]
    kind: &'static str,
    /// The first parameter at fault.
    #[schema(required = true)]
    param: Option<&'a str>,
    #[schema(required = true)]
    code: Option<&'static str>,
}

/// One model as OpenAI's clients see it.
#[derive(Serialize, ToSchema)]
#[schema(as = OpenAiModel)]
pub struct Model<'a> {
    id: &'a str,
    object: &'static str,
    /// Unix seconds.
    created: i64,
    owned_by: &'static str,
    /// The longest text it takes, in tokens; null until it is loaded.
    #[schema(required = true)]
    context_window: Option<usize>,
}

impl<'a> Model<'a> {
    fn new(item: &'a ModelItem, created: i64) -> Self {
        Self { id: &item.slug, object: "model", created, owned_by: "local", context_window: item.context_window }
    }
}

/// All models as OpenAI's clients see them.
#[derive(Serialize, ToSchema)]
#[schema(as = OpenAiModelList)]
pub struct List<'a> {
    /// `list`.
    object: &'static str,
    data: Vec<Model<'a>>,
}

/// The body of `GET /oai/v1/models`: `models` in order of their slugs; `created` in Unix seconds.
pub fn models(mut models: Vec<ModelItem>, created: i64) -> Vec<u8> {
    models.sort_by(|a, b| a.slug.cmp(&b.slug));
    to_json(&List { object: "list", data: models.iter().map(|item| Model::new(item, created)).collect() })
}

/// The body of `GET /oai/v1/models/{id}`.
pub fn model(item: &ModelItem, created: i64) -> Vec<u8> {
    to_json(&Model::new(item, created))
}

/// Strings and numbers under string keys: this serialisation has no way to fail.
fn to_json(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Detail;
    use serde_json::{Value, json};

    fn error(fault: &Fault) -> Value {
        let body: Value = serde_json::from_slice(&fault.openai_body()).unwrap();
        assert_eq!(body.as_object().unwrap().keys().collect::<Vec<_>>(), ["error"]);
        body["error"].clone()
    }

    #[test]
    fn all_four_keys_are_always_there() {
        let expected =
            json!({"message": "No API key: send it as `Authorization: Bearer <key>`", "type": INVALID_REQUEST, "param": null, "code": null});
        assert_eq!(error(&Fault::AuthMissing), expected);
        let expected = json!({"message": "The model 'x' does not exist", "type": INVALID_REQUEST, "param": "model", "code": "model_not_found"});
        assert_eq!(error(&Fault::ModelNotFound { model: "x".into() }), expected);
    }

    #[test]
    fn each_fault_has_the_contracts_row() {
        let unavailable = |retry_after_s| Fault::ModelUnavailable { reason: "x".into(), retry_after_s };
        let rows = [
            (Fault::AuthInvalid, 401, INVALID_REQUEST, Some("invalid_api_key")),
            (Fault::InsufficientScope { scope: "s" }, 403, INVALID_REQUEST, Some("auth_insufficient_scope")),
            (Fault::ModelAccessDenied { model: "m".into() }, 403, INVALID_REQUEST, Some("model_access_denied")),
            (Fault::field("input", "x"), 400, INVALID_REQUEST, None),
            (Fault::Validation(vec![Detail::token_sum("x")]), 400, "max_tokens_per_request", Some("max_tokens_per_request")),
            (Fault::Overloaded { retry_after_s: 1 }, 429, "rate_limit_exceeded", Some("rate_limit_exceeded")),
            (Fault::RateLimited { retry_after_s: 1 }, 429, "rate_limit_exceeded", Some("rate_limit_exceeded")),
            (unavailable(None), 503, SERVER, None),
            (Fault::Backend { reason: "x".into() }, 502, SERVER, None),
            (Fault::BackendTimeout { deadline_ms: 1 }, 504, SERVER, None),
            (Fault::Internal, 500, SERVER, None),
            (Fault::NotFound { message: "x".into() }, 404, INVALID_REQUEST, None),
            (Fault::MethodNotAllowed { allow: "GET" }, 405, INVALID_REQUEST, None),
            (Fault::PayloadTooLarge { limit_bytes: 1 }, 413, INVALID_REQUEST, None),
            (Fault::RequestTimeout { limit_ms: 1 }, 408, INVALID_REQUEST, None),
            (Fault::UnsupportedMediaType { encoding: "br".into() }, 415, INVALID_REQUEST, None),
        ];
        for (fault, status, kind, code) in rows {
            let body = error(&fault);
            assert_eq!((fault.openai_status(), body["type"].as_str(), body["code"].as_str()), (status, Some(kind), code), "{fault:?}");
        }
        assert!(unavailable(None).openai_retry_is_vain() && !unavailable(Some(1)).openai_retry_is_vain());
    }

    #[test]
    fn the_parameter_is_the_first_at_fault_without_its_place() {
        assert_eq!(error(&Fault::field("input.3", "x"))["param"], "input");
        assert_eq!(error(&Fault::field("body", "x"))["param"], Value::Null);
    }
}
