//! API keys over HTTP: what is asked for, and how a key is shown. Never its hash; its text only once, when it is made.

use super::Fault;
use super::object::Object;
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

/// The body of `POST /v1/api-keys`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRequest {
    pub name: String,
    /// `None` = the user of the key that makes it.
    pub assigned_user_id: Option<String>,
    pub models: Option<Vec<String>>,
    pub scopes: Option<Vec<String>>,
    pub expires_at: Option<Timestamp>,
    pub requests_per_minute: Option<u32>,
    pub tokens_per_minute: Option<u32>,
}

impl KeyRequest {
    /// Reads the body.
    ///
    /// # Errors
    /// `Validation` with every field at fault.
    pub fn parse(body: &[u8], now: Timestamp) -> Result<Self, Fault> {
        let mut object = Object::parse(body)?;
        let request = Self {
            name: object.required_text("name"),
            assigned_user_id: object.text("assigned_user_id"),
            models: object.texts("models"),
            scopes: object.texts("scopes"),
            expires_at: object.future("expires_at", now),
            requests_per_minute: object.positive("requests_per_minute"),
            tokens_per_minute: object.positive("tokens_per_minute"),
        };
        object.finish(request)
    }
}

/// A key as clients see it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct KeyItem {
    pub id: String,
    pub name: String,
    /// The key itself: only in the answer that makes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Its first characters; null for a key of the keys file, of which only the hash is known.
    #[schema(required = true)]
    pub prefix: Option<String>,
    pub user_id: String,
    pub tenant_id: String,
    #[schema(required = true)]
    pub partner_id: Option<String>,
    pub scopes: Vec<String>,
    /// Null = all.
    #[schema(required = true)]
    pub models: Option<Vec<String>>,
    #[schema(required = true)]
    pub requests_per_minute: Option<u32>,
    #[schema(required = true)]
    pub tokens_per_minute: Option<u32>,
    #[schema(required = true)]
    pub expires_at: Option<Timestamp>,
    /// Null for a key of the keys file.
    #[schema(required = true)]
    pub created_at: Option<Timestamp>,
}

/// What `GET /v1/me` says.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Me {
    /// The user, under both names.
    pub id: String,
    pub user_id: String,
    pub tenant_id: String,
    #[schema(required = true)]
    pub partner_id: Option<String>,
    pub permissions: Vec<String>,
    /// Null on a server that asks for none.
    #[schema(required = true)]
    pub api_key: Option<KeyItem>,
}

/// The answer of `DELETE /v1/api-keys/{id}`.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct KeyDeleted<'a> {
    pub id: &'a str,
    pub deleted: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Result<KeyRequest, Vec<String>> {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        KeyRequest::parse(body.as_bytes(), now).map_err(|fault| fault.details().iter().map(|detail| detail.field.to_string()).collect())
    }

    #[test]
    fn every_field_is_read_and_null_is_as_absent() {
        let body = r#"{"name":"n","assigned_user_id":"u","models":["m"],"scopes":null,"expires_at":"2026-01-02T00:00:00Z","requests_per_minute":5}"#;
        let request = parse(body).unwrap();
        assert_eq!((request.name.as_str(), request.assigned_user_id.as_deref(), request.scopes), ("n", Some("u"), None));
        assert_eq!((request.models, request.requests_per_minute, request.tokens_per_minute), (Some(vec!["m".to_owned()]), Some(5), None));
        assert!(request.expires_at.is_some());
    }

    #[test]
    fn every_field_at_fault_is_named() {
        let body = r#"{"name":"","assigned_user_id":3,"models":"m","scopes":[1],"expires_at":"2025-01-01T00:00:00Z","requests_per_minute":0}"#;
        let fields = parse(body).unwrap_err();
        assert_eq!(fields, ["name", "assigned_user_id", "models", "scopes", "expires_at", "requests_per_minute"]);
        let many = format!("{{\"name\":\"n\",\"x\":[{}1]}}", "1,".repeat(20_000));
        for (body, field) in
            [(many.as_str(), "body"), (r#"{"name":"a\u0000b"}"#, "name"), ("", "body"), ("[]", "body"), ("{}", "name"), (r#"{"name":null}"#, "name")]
        {
            assert_eq!(parse(body).unwrap_err(), [field], "{body}");
        }
    }
}
