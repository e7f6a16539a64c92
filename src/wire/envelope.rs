//! The native envelope around any data, and the pages of listings: `data.items`, `pagination`, and an opaque cursor.

use super::{Detail, Fault, Meta};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;

/// The body of a success.
pub fn native_ok(data: &impl Serialize, request_id: &str) -> Vec<u8> {
    to_json(&Ok { status: "ok", data, meta: Meta { request_id } })
}

/// The body of a listing; `next` is where the following page begins.
pub fn native_list<T: Serialize>(items: &[T], next: Option<&str>, request_id: &str) -> Vec<u8> {
    let cursor = next.map(write_cursor);
    let pagination = Pagination { has_more: cursor.is_some(), next_cursor: cursor.as_deref() };
    to_json(&List { status: "ok", data: Items { items }, pagination, meta: ListMeta { pagination, request_id } })
}

/// Which part of a listing is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageQuery {
    /// 1 to 1000.
    pub limit: usize,
    /// What the cursor stood for.
    pub after: Option<String>,
}

const MAX_LIMIT: usize = 1000;
const DEFAULT_LIMIT: usize = 100;

impl PageQuery {
    /// Reads `limit` and `cursor`; of one given twice the last counts, other parameters are not looked at.
    ///
    /// # Errors
    /// `Fault::Validation` with every parameter at fault.
    pub fn parse<'a>(parameters: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, Fault> {
        let (mut limit, mut after) = (Some(DEFAULT_LIMIT), Some(None));
        for (name, value) in parameters {
            match name {
                "limit" => limit = value.trim().parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit)),
                "cursor" => after = read_cursor(value).map(Some),
                _ => {}
            }
        }
        let mut faults = Vec::new();
        if limit.is_none() {
            faults.push(Detail::new("limit", format!("must be a whole number from 1 to {MAX_LIMIT}")));
        }
        if after.is_none() {
            faults.push(Detail::new("cursor", "is not a cursor of this listing"));
        }
        match (limit, after) {
            (Some(limit), Some(after)) => Result::Ok(Self { limit, after }),
            _ => Err(Fault::Validation(faults)),
        }
    }
}

fn write_cursor(after: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("after:{after}"))
}

fn read_cursor(cursor: &str) -> Option<String> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
    // PostgreSQL takes no NUL in a text.
    text.strip_prefix("after:").filter(|after| !after.contains('\0')).map(str::to_owned)
}

/// What is written here are strings and numbers under string keys: this serialisation has no way to fail.
fn to_json(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).unwrap_or_default()
}

#[derive(Serialize)]
struct Ok<'a, T> {
    status: &'static str,
    data: &'a T,
    meta: Meta<'a>,
}

#[derive(Serialize)]
struct List<'a, T> {
    status: &'static str,
    data: Items<'a, T>,
    pagination: Pagination<'a>,
    meta: ListMeta<'a>,
}

#[derive(Serialize)]
struct Items<'a, T> {
    items: &'a [T],
}

#[derive(Clone, Copy, Serialize)]
struct Pagination<'a> {
    has_more: bool,
    next_cursor: Option<&'a str>,
}

#[derive(Serialize)]
struct ListMeta<'a> {
    #[serde(flatten)]
    pagination: Pagination<'a>,
    request_id: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_page_leads_to_the_next() {
        let body: Value = serde_json::from_slice(&native_list(&[1, 2], Some("2"), "req_1")).unwrap();
        let cursor = body["pagination"]["next_cursor"].as_str().unwrap().to_owned();
        let pages = json!({"has_more": true, "next_cursor": cursor});
        let meta = json!({"has_more": true, "next_cursor": cursor, "request_id": "req_1"});
        assert_eq!(body, json!({"status": "ok", "data": {"items": [1, 2]}, "pagination": pages, "meta": meta}));
        assert_eq!(PageQuery::parse([("cursor", cursor.as_str())]).unwrap(), PageQuery { limit: 100, after: Some("2".to_owned()) });
        let last: Value = serde_json::from_slice(&native_list::<u8>(&[], None, "req_1")).unwrap();
        assert_eq!(last["pagination"], json!({"has_more": false, "next_cursor": null}));
    }

    #[test]
    fn parameters_are_checked_together() {
        assert_eq!(PageQuery::parse([("limit", "0"), ("limit", "1000"), ("x", "y")]).unwrap().limit, 1000);
        let faults = PageQuery::parse([("limit", "1001"), ("cursor", "no cursor!")]).unwrap_err();
        assert_eq!(faults.details().iter().map(|detail| detail.field.as_ref()).collect::<Vec<_>>(), ["limit", "cursor"]);
        assert!(PageQuery::parse([("cursor", write_cursor("a\0b").as_str())]).is_err(), "what no store can look for");
    }
}
