//! Batch jobs on the wire: the submission, the lines of input and output, and the job as clients see it.

use super::object::{MAX_NAME_CHARS, Object};
use super::scalar::Scalar;
use super::{Fault, echo};
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use jiff::Timestamp;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::Map;
use utoipa::ToSchema;

/// Where the lines of a job come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The file of this id.
    File(String),
    /// An `http`, `https` or `file` address.
    Url(String),
    /// In the submission itself.
    Inline(Vec<u8>),
}

/// The body of `POST /v1/inference/batch`.
#[derive(Debug, Clone, PartialEq)]
pub struct SubmitRequest {
    pub source: Source,
    pub window: Window,
    pub metadata: Option<Map<String, Value>>,
}

/// How long a job may take from its submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub name: &'static str,
    pub hours: u32,
}

/// Every window there is; the first is the default.
pub const WINDOWS: [Window; 3] = [Window { name: "24h", hours: 24 }, Window { name: "4h", hours: 4 }, Window { name: "1h", hours: 1 }];

/// The longest metadata, as JSON.
const MAX_METADATA_BYTES: usize = 16 << 10;
/// The standard alphabet, padded or not.
const LENIENT: GeneralPurpose = GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));
/// What a file that is here is called in a submission.
const FILE_SCHEME: &str = "scaigrid://file/";
/// What may be fetched where the operator allows it.
const FETCHED: [&str; 3] = ["https://", "http://", "file:///"];
/// Signed addresses are long.
const MAX_URL_BYTES: usize = 8192;

impl SubmitRequest {
    /// Reads the body.
    ///
    /// # Errors
    /// `Validation` with every field at fault.
    pub fn parse(body: &[u8], max_inline_bytes: usize) -> Result<Self, Fault> {
        let mut object = Object::parse(body)?;
        let (url, inline) = (object.take("input_file_url"), object.take("input_file_base64"));
        let source = match (url, inline) {
            (Some(url), None) => file(&url).map_err(|message| ("input_file_url", message)),
            (None, Some(text)) => decode(&text, max_inline_bytes).map_err(|message| ("input_file_base64", message)),
            _ => Err(("input_file_url", "give exactly one of input_file_url and input_file_base64".to_owned())),
        };
        let source = source.unwrap_or_else(|(field, message)| {
            object.fault(field, message);
            Source::Inline(Vec::new())
        });
        let window = window(&mut object, "endpoint_completion_window");
        let metadata = metadata(&mut object);
        object.finish(Self { source, window, metadata })
    }
}

fn window(object: &mut Object, name: &'static str) -> Window {
    let Some(value) = object.take(name) else { return WINDOWS[0] };
    let known = WINDOWS.iter().find(|window| value.as_str() == Some(window.name));
    known.copied().unwrap_or_else(|| {
        object.fault(name, "must be 24h, 4h or 1h");
        WINDOWS[0]
    })
}

fn metadata(object: &mut Object) -> Option<Map<String, Value>> {
    match object.take("metadata")? {
        Value::Object(metadata) if Value::Object(metadata.clone()).to_string().len() <= MAX_METADATA_BYTES => Some(metadata),
        _ => {
            object.fault("metadata", format!("must be an object of at most {MAX_METADATA_BYTES} bytes"));
            None
        }
    }
}

fn file(url: &Value) -> Result<Source, String> {
    let url = url.as_str().filter(|url| url.len() <= MAX_URL_BYTES).ok_or_else(|| format!("must be a string of at most {MAX_URL_BYTES} bytes"))?;
    if let Some(id) = url.strip_prefix(FILE_SCHEME) {
        // No id has control characters, and PostgreSQL takes no NUL in a text.
        let fine = !id.is_empty() && id.len() <= MAX_NAME_CHARS && !id.chars().any(char::is_control);
        return fine.then(|| Source::File(id.to_owned())).ok_or_else(|| format!("must be {FILE_SCHEME}FILE_ID"));
    }
    if FETCHED.iter().any(|scheme| url.starts_with(scheme)) {
        return Ok(Source::Url(url.to_owned()));
    }
    Err(format!("must be {FILE_SCHEME}FILE_ID, or an address that begins with {}; object stores are not read", FETCHED.join(", ")))
}

fn decode(text: &Value, max_bytes: usize) -> Result<Source, String> {
    let text = text.as_str().ok_or("must be a string")?;
    let text: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let bytes = LENIENT.decode(text).map_err(|error| format!("is not base64: {error}"))?;
    match bytes.len() {
        0 => Err("is empty".to_owned()),
        len if len > max_bytes => Err(format!("holds {len} bytes, more than the {max_bytes} that fit into a submission; upload a file")),
        _ => Ok(Source::Inline(bytes)),
    }
}

/// Code and sentence of lines, and of a job, whose window has closed.
pub const EXPIRED: (&str, &str) = ("batch_expired", "This request could not be executed before the completion window expired.");
/// Of lines whose job was cancelled.
pub const CANCELLED: (&str, &str) = ("batch_cancelled", "The batch was cancelled before this request was executed.");
/// Of lines, and of a job, whose key was revoked, removed or has expired.
pub const KEY_ENDED: (&str, &str) = ("api_key_ended", "The API key that this batch was submitted with is no longer valid.");

/// A fault of a whole input file, or the reason why a job ended early.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileFault {
    pub code: String,
    pub message: String,
    /// From 1; null if it is not one line's.
    #[schema(required = true)]
    pub line: Option<i64>,
    #[schema(required = true)]
    pub param: Option<String>,
}

/// A line of input. Its body is left where it is: it may be long, and what is wrong in it is wrong with this line alone.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Line {
    pub custom_id: String,
    /// Empty if missing, or no text.
    pub method: String,
    pub url: String,
    pub has_body: bool,
    /// The whole line.
    pub text: Vec<u8>,
}

impl Line {
    /// Reads what must be right in every line for the job to run at all: that it is an object, and its `custom_id`; and the method and url.
    ///
    /// # Errors
    /// The code and the sentence of the fault.
    pub fn parse(text: &[u8]) -> Result<Self, (&'static str, String)> {
        #[derive(Deserialize)]
        struct Head<'a> {
            #[serde(borrow)]
            custom_id: Option<Scalar<'a>>,
            #[serde(borrow)]
            method: Option<Scalar<'a>>,
            #[serde(borrow)]
            url: Option<Scalar<'a>>,
            body: Option<IgnoredAny>,
        }
        let head: Head =
            serde_json::from_slice(text).map_err(|error| ("invalid_json_line", format!("is not a JSON object: {}", echo(&error.to_string()))))?;
        let custom_id = match head.custom_id {
            Some(Scalar::Str(id)) if !id.is_empty() => id.into_owned(),
            None | Some(Scalar::Null) => return Err(("missing_required_parameter", "custom_id is missing".to_owned())),
            Some(_) => return Err(("invalid_custom_id", "custom_id must be a string that is not empty".to_owned())),
        };
        let word = |value: Option<Scalar>| match value {
            Some(Scalar::Str(word)) => word.into_owned(),
            _ => String::new(),
        };
        Ok(Self { custom_id, method: word(head.method), url: word(head.url), has_body: head.body.is_some(), text: text.to_vec() })
    }
}

/// A line of output: the answer that the request would have had, whole.
pub fn answer_line(id: &str, custom_id: &str, status: u16, request_id: &str, body: &[u8]) -> Vec<u8> {
    let (id, custom_id, request_id) = (Value::from(id), Value::from(custom_id), Value::from(request_id));
    let mut line =
        format!(r#"{{"id":{id},"custom_id":{custom_id},"response":{{"status_code":{status},"request_id":{request_id},"body":"#).into_bytes();
    line.extend_from_slice(body);
    line.extend_from_slice(b"},\"error\":null}\n");
    line
}

/// A line of output for a request that was never run.
pub fn void_line(id: &str, custom_id: &str, code: &str, message: &str) -> Vec<u8> {
    let line = serde_json::json!({"id": id, "custom_id": custom_id, "response": null, "error": {"code": code, "message": message}});
    format!("{line}\n").into_bytes()
}

/// A job as native clients see it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct JobItem {
    pub id: String,
    pub batch_id: String,
    pub object: &'static str,
    pub status: String,
    pub endpoint_completion_window: String,
    #[schema(required = true)]
    pub metadata: Option<Value>,
    pub request_counts: RequestCounts,
    pub usage: JobUsage,
    pub input_file_id: String,
    #[schema(required = true)]
    pub output_file_id: Option<String>,
    #[schema(required = true)]
    pub output_file_url: Option<String>,
    #[schema(required = true)]
    pub error_file_id: Option<String>,
    #[schema(required = true)]
    pub error_file_url: Option<String>,
    #[schema(required = true)]
    pub errors: Option<Vec<FileFault>>,
    #[schema(required = true)]
    pub created_at: Option<Timestamp>,
    #[schema(required = true)]
    pub in_progress_at: Option<Timestamp>,
    #[schema(required = true)]
    pub finalizing_at: Option<Timestamp>,
    #[schema(required = true)]
    pub completed_at: Option<Timestamp>,
    #[schema(required = true)]
    pub failed_at: Option<Timestamp>,
    #[schema(required = true)]
    pub expired_at: Option<Timestamp>,
    #[schema(required = true)]
    pub cancelling_at: Option<Timestamp>,
    #[schema(required = true)]
    pub cancelled_at: Option<Timestamp>,
    #[schema(required = true)]
    pub expires_at: Option<Timestamp>,
}

/// Lines of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct RequestCounts {
    pub total: i64,
    pub completed: i64,
    pub failed: i64,
}

/// Tokens of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct JobUsage {
    pub prompt_tokens: i64,
    pub total_tokens: i64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(body: &Value) -> Result<SubmitRequest, Vec<String>> {
        let parsed = SubmitRequest::parse(body.to_string().as_bytes(), 8);
        parsed.map_err(|fault| fault.details().iter().map(|detail| detail.field.to_string()).collect())
    }

    #[test]
    fn a_submission_names_one_source() {
        let inline = parse(&json!({"input_file_base64": "e30K\n  ZQ", "endpoint_completion_window": "1h", "metadata": {"a": 1}})).unwrap();
        assert_eq!((inline.source, inline.window.hours), (Source::Inline(b"{}\ne".to_vec()), 1));
        let file = parse(&json!({"input_file_url": "scaigrid://file/file-1"})).unwrap();
        assert_eq!((file.source, file.window.name, file.metadata), (Source::File("file-1".to_owned()), "24h", None));
        let url = parse(&json!({"input_file_url": "https://h/x?y"})).unwrap();
        assert_eq!(url.source, Source::Url("https://h/x?y".to_owned()));
        for (body, fields) in [
            (json!({}), vec!["input_file_url"]),
            (json!({"input_file_url": "scaigrid://file/x", "input_file_base64": "e30K"}), vec!["input_file_url"]),
            (json!({"input_file_url": "s3://b/x"}), vec!["input_file_url"]),
            (json!({"input_file_url": format!("https://{}", "x".repeat(9000))}), vec!["input_file_url"]),
            (json!({"input_file_url": "scaigrid://file/"}), vec!["input_file_url"]),
            (json!({"input_file_url": "scaigrid://file/a\0b"}), vec!["input_file_url"]),
            (
                json!({"input_file_base64": "***", "endpoint_completion_window": "2h", "metadata": []}),
                vec!["input_file_base64", "endpoint_completion_window", "metadata"],
            ),
            (json!({"input_file_base64": ""}), vec!["input_file_base64"]),
            (json!({"input_file_base64": "MTIzNDU2Nzg5"}), vec!["input_file_base64"]),
        ] {
            assert_eq!(parse(&body).unwrap_err(), fields, "{body}");
        }
    }

    #[test]
    fn lines_are_read_as_far_as_they_go() {
        for body in ["{\"x\":[1,2]}", "\"\\ud800\"", "1e999", &("[".repeat(500) + &"]".repeat(500)), "null"] {
            let line = Line::parse(format!("{{\"custom_id\":\"a\",\"body\":{body}}}").as_bytes()).unwrap();
            assert_eq!((line.custom_id.as_str(), line.has_body), ("a", body != "null"), "{body}");
        }
        for (line, code) in [
            ("{", "invalid_json_line"),
            ("[]", "invalid_json_line"),
            ("{}", "missing_required_parameter"),
            (r#"{"custom_id":"a","custom_id":"b"}"#, "invalid_json_line"),
            (r#"{"custom_id":[]}"#, "invalid_custom_id"),
            (r#"{"custom_id":""}"#, "invalid_custom_id"),
        ] {
            assert_eq!(Line::parse(line.as_bytes()).unwrap_err().0, code, "{line}");
        }
        let long = Line::parse(format!("\"{}\"", "x".repeat(100_000)).as_bytes()).unwrap_err();
        assert!(long.0 == "invalid_json_line" && long.1.len() < 400, "{} bytes", long.1.len());
        let line = Line::parse(br#"{"custom_id":"a","method":"POST","url":3,"body":{"model":"m"}}"#).unwrap();
        assert_eq!((line.method.as_str(), line.url.as_str()), ("POST", ""));
    }

    #[test]
    fn a_line_of_output_is_one_line_of_json() {
        let line = answer_line("batch_req_1", "a\"\n", 200, "req_1", br#"{"x":1}"#);
        let expected = json!({"id": "batch_req_1", "custom_id": "a\"\n", "response": {"status_code": 200, "request_id": "req_1", "body": {"x": 1}}, "error": null});
        assert_eq!(serde_json::from_slice::<Value>(&line).unwrap(), expected);
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        let void = void_line("batch_req_1", "a\n", "batch_expired", "m");
        assert_eq!(void.iter().filter(|byte| **byte == b'\n').count(), 1);
    }
}
