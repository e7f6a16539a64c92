//! Files and batches in OpenAI's forms: what is asked for and how they are shown.

use super::batch::{FileFault, WINDOWS, Window};
use super::object::Object;
use super::{Detail, Fault};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// The endpoints that a batch may name.
pub const ENDPOINTS: [&str; 2] = ["/v1/embeddings", "/oai/v1/embeddings"];
/// What files may be for; only batches read them.
pub const PURPOSES: [&str; 6] = ["batch", "assistants", "fine-tune", "vision", "user_data", "evals"];

/// What `expires_after[seconds]` may be, from the file's making on.
pub const EXPIRES_S: std::ops::RangeInclusive<u32> = 3600..=2_592_000;
/// The only `expires_after[anchor]`.
pub const ANCHOR: &str = "created_at";

const MAX_METADATA_PAIRS: usize = 16;
const MAX_METADATA_KEY: usize = 64;
const MAX_METADATA_VALUE: usize = 512;

/// A file.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct FileObject {
    pub id: String,
    pub object: &'static str,
    pub bytes: i64,
    /// Unix seconds, as all times here.
    pub created_at: i64,
    #[schema(required = true)]
    pub expires_at: Option<i64>,
    pub filename: String,
    pub purpose: String,
    pub status: &'static str,
}

/// The answer to a deletion.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct FileDeleted<'a> {
    pub id: &'a str,
    pub object: &'static str,
    pub deleted: bool,
}

/// A batch.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct BatchObject {
    pub id: String,
    pub object: &'static str,
    pub endpoint: String,
    #[schema(required = true)]
    pub errors: Option<Errors>,
    pub input_file_id: String,
    pub completion_window: String,
    pub status: String,
    #[schema(required = true)]
    pub output_file_id: Option<String>,
    #[schema(required = true)]
    pub error_file_id: Option<String>,
    pub created_at: i64,
    #[schema(required = true)]
    pub in_progress_at: Option<i64>,
    pub expires_at: i64,
    #[schema(required = true)]
    pub finalizing_at: Option<i64>,
    #[schema(required = true)]
    pub completed_at: Option<i64>,
    #[schema(required = true)]
    pub failed_at: Option<i64>,
    #[schema(required = true)]
    pub expired_at: Option<i64>,
    #[schema(required = true)]
    pub cancelling_at: Option<i64>,
    #[schema(required = true)]
    pub cancelled_at: Option<i64>,
    pub request_counts: super::batch::RequestCounts,
    pub usage: Usage,
    #[schema(required = true)]
    pub metadata: Option<Value>,
}

/// Faults of a whole file.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = BatchErrors)]
pub struct Errors {
    pub object: &'static str,
    pub data: Vec<FileFault>,
}

/// Tokens of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
#[schema(as = BatchUsage)]
pub struct Usage {
    pub input_tokens: i64,
    pub input_tokens_details: Cached,
    pub output_tokens: i64,
    pub output_tokens_details: Reasoning,
    pub total_tokens: i64,
}

/// Nothing is cached.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, ToSchema)]
pub struct Cached {
    pub cached_tokens: i64,
}

/// Nothing reasons.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, ToSchema)]
pub struct Reasoning {
    pub reasoning_tokens: i64,
}

/// A listing.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Listing<T> {
    pub object: &'static str,
    pub data: Vec<T>,
    #[schema(required = true)]
    pub first_id: Option<String>,
    #[schema(required = true)]
    pub last_id: Option<String>,
    pub has_more: bool,
}

/// The body of `POST /batches`.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchRequest {
    pub input_file_id: String,
    pub endpoint: String,
    pub window: Window,
    pub metadata: Option<Map<String, Value>>,
    /// How long the results are kept, in seconds.
    pub keep_s: Option<u32>,
}

impl BatchRequest {
    /// Reads the body.
    ///
    /// # Errors
    /// `Validation` with every field at fault.
    pub fn parse(body: &[u8]) -> Result<Self, Fault> {
        let mut object = Object::parse(body)?;
        let (input_file_id, endpoint, window) =
            (object.required_text("input_file_id"), object.required_text("endpoint"), object.required_text("completion_window"));
        if !endpoint.is_empty() && !ENDPOINTS.contains(&endpoint.as_str()) {
            object.fault("endpoint", format!("must be {}", ENDPOINTS.join(" or ")));
        }
        let known = WINDOWS.iter().find(|known| known.name == window).copied();
        if known.is_none() && !window.is_empty() {
            object.fault("completion_window", "must be 24h, 4h or 1h");
        }
        let metadata = object.take("metadata").and_then(|value| {
            let metadata = metadata(value);
            if metadata.is_none() {
                let limits = format!("{MAX_METADATA_PAIRS} pairs, keys of {MAX_METADATA_KEY} and values of {MAX_METADATA_VALUE} characters");
                object.fault("metadata", format!("must be an object of strings: at most {limits}"));
            }
            metadata
        });
        let keep_s = object.take("output_expires_after").and_then(|value| {
            let seconds = keep_s(&value);
            if seconds.is_none() {
                let range = format!("from {} to {}", EXPIRES_S.start(), EXPIRES_S.end());
                object.fault("output_expires_after", format!("must be an object with anchor = \"created_at\" and seconds {range}"));
            }
            seconds
        });
        object.finish(Self { input_file_id, endpoint, window: known.unwrap_or(WINDOWS[0]), metadata, keep_s })
    }
}

fn keep_s(value: &Value) -> Option<u32> {
    let seconds = value["seconds"].as_u64().and_then(|seconds| u32::try_from(seconds).ok()).filter(|seconds| EXPIRES_S.contains(seconds));
    seconds.filter(|_| value["anchor"] == ANCHOR)
}

fn metadata(value: Value) -> Option<Map<String, Value>> {
    let Value::Object(pairs) = value else { return None };
    let short = |text: &str, most: usize| text.chars().count() <= most;
    let fine = |(key, value): (&String, &Value)| short(key, MAX_METADATA_KEY) && value.as_str().is_some_and(|value| short(value, MAX_METADATA_VALUE));
    (pairs.len() <= MAX_METADATA_PAIRS && pairs.iter().all(fine)).then_some(pairs)
}

/// Which part of a listing is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListingQuery {
    pub limit: usize,
    pub after: Option<String>,
    pub oldest_first: bool,
    pub purpose: Option<String>,
}

impl ListingQuery {
    /// Reads the parameters; of one given twice the last counts, others are not looked at.
    ///
    /// # Errors
    /// `Validation` with every parameter at fault.
    pub fn parse<'a>(parameters: impl IntoIterator<Item = (&'a str, &'a str)>, default_limit: usize, max_limit: usize) -> Result<Self, Fault> {
        let mut query = Self { limit: default_limit, after: None, oldest_first: false, purpose: None };
        let mut faults = Vec::new();
        for (name, value) in parameters {
            match name {
                "limit" => match value.parse() {
                    Ok(limit) if (1..=max_limit).contains(&limit) => query.limit = limit,
                    _ => faults.push(Detail::new("limit", format!("must be a whole number from 1 to {max_limit}"))),
                },
                "after" => query.after = Some(value.to_owned()).filter(|after| !after.is_empty()),
                "order" if matches!(value, "asc" | "desc") => query.oldest_first = value == "asc",
                "order" => faults.push(Detail::new("order", "must be asc or desc")),
                "purpose" => query.purpose = Some(value.to_owned()),
                _ => {}
            }
        }
        if faults.is_empty() { Ok(query) } else { Err(Fault::Validation(faults)) }
    }
}

/// The body of an object.
pub fn to_json(object: &impl Serialize) -> Vec<u8> {
    // Strings and numbers under string keys: this serialisation has no way to fail.
    serde_json::to_vec(object).unwrap_or_default()
}

/// The body of a listing whose `items` are one more than asked for if there are more.
pub fn listing<T: Serialize>(mut items: Vec<T>, limit: usize, id: impl Fn(&T) -> String) -> Vec<u8> {
    let has_more = items.len() > limit;
    items.truncate(limit);
    let (first_id, last_id) = (items.first().map(&id), items.last().map(&id));
    to_json(&Listing { object: "list", data: items, first_id, last_id, has_more })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields(body: &Value) -> Vec<String> {
        BatchRequest::parse(body.to_string().as_bytes()).unwrap_err().details().iter().map(|detail| detail.field.to_string()).collect()
    }

    #[test]
    fn a_batch_request_is_checked_field_by_field() {
        let good = json!({"input_file_id": "file-1", "endpoint": "/v1/embeddings", "completion_window": "24h", "metadata": {"a": "b"}});
        let parsed = BatchRequest::parse(good.to_string().as_bytes()).unwrap();
        assert_eq!((parsed.input_file_id.as_str(), parsed.window.hours, parsed.metadata.unwrap().len()), ("file-1", 24, 1));
        assert_eq!(fields(&json!({})), ["input_file_id", "endpoint", "completion_window"]);
        let bad = json!({"input_file_id": "f", "endpoint": "/v1/chat/completions", "completion_window": "2h", "metadata": {"a": 1}});
        assert_eq!(fields(&bad), ["endpoint", "completion_window", "metadata"]);
        let many: Map<String, Value> = (0..17).map(|n| (n.to_string(), json!("x"))).collect();
        assert!(metadata(Value::Object(many)).is_none() && metadata(json!({"k": "x".repeat(513)})).is_none());
    }

    #[test]
    fn a_listing_names_its_ends() {
        let list: Value = serde_json::from_slice(&listing(vec!["a", "b", "c"], 2, |id| (*id).to_owned())).unwrap();
        assert_eq!(list, json!({"object": "list", "data": ["a", "b"], "first_id": "a", "last_id": "b", "has_more": true}));
        let query = |pairs: &[(&'static str, &'static str)]| ListingQuery::parse(pairs.iter().copied(), 20, 100);
        assert_eq!(query(&[("order", "asc"), ("after", "")]).unwrap(), ListingQuery { limit: 20, after: None, oldest_first: true, purpose: None });
        assert_eq!(query(&[("limit", "101"), ("order", "up")]).unwrap_err().details().len(), 2);
    }
}
