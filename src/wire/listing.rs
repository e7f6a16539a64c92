//! What clients may know of the models: the items of `GET /v1/models`, their envelope and its pages.

use super::{Detail, Fault, Meta};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use utoipa::ToSchema;

/// One model, or another name for one, as clients see it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ModelItem {
    pub slug: String,
    pub display_name: String,
    /// The longest text it takes, in tokens, special tokens included; null until it is loaded.
    #[schema(required = true)]
    pub context_window: Option<usize>,
    /// True once it answers; false while it loads, and for good if that failed.
    #[serde(skip)]
    pub healthy: bool,
    /// What hosted listings do not have; harmless to their clients.
    #[serde(flatten)]
    pub extra: ModelExtra,
}

/// The part of an item that only this server has.
#[derive(Debug, Clone, PartialEq, Default, Serialize, ToSchema)]
pub struct ModelExtra {
    /// Vector size where a request does not say one: the native one, but for aliases; null until it is loaded.
    #[schema(required = true)]
    pub dimensions: Option<usize>,
    /// Which values of `dimensions` are taken.
    pub supported_dimensions: SupportedDimensions,
    /// The same as `context_window`, under the name that says it.
    #[schema(required = true)]
    pub max_input_tokens: Option<usize>,
    /// True if answers hold unit vectors.
    pub normalized: bool,
    /// The names that `input_type` takes.
    pub prompts: Vec<String>,
    /// What the model is computed in: `f32`, `bf16`, ...
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dtype: Option<String>,
    /// SPDX name, where the model says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// Fingerprint of the embedding space at the size in `dimensions`: vectors of two spaces do not belong into one index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub space: Option<String>,
    /// How near it came to its reference when it was loaded; absent if there are no goldens for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fidelity: Option<Fidelity>,
    /// The slug of the model that this is another name for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alias_of: Option<String>,
}

/// A model's golden texts, computed here and compared with its reference's vectors.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Fidelity {
    /// How many.
    pub texts: usize,
    /// Largest error of a component.
    pub max_abs: f32,
    pub min_cosine: f64,
}

/// Which vector sizes a client may ask for.
#[derive(Debug, Clone, PartialEq, Default, Serialize, ToSchema)]
#[serde(untagged)]
pub enum SupportedDimensions {
    /// Not known yet.
    #[default]
    Unknown,
    /// These and no others.
    Sizes(Vec<usize>),
    /// Every size of a range; `trained` = those the model's authors name.
    Range { min: usize, max: usize, trained: Vec<usize> },
}

/// One page of a listing, as asked for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Page {
    /// `None` = everything.
    pub limit: Option<usize>,
    /// Start behind this slug.
    pub after: Option<String>,
}

/// Which models are asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct ListQuery {
    pub page: Page,
    /// False if the filters leave out everything that this server can have: other modalities, deprecated models.
    pub any: bool,
}

/// What kinds of model clients may ask for.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[allow(dead_code, reason = "only the description of the type is used")]
pub enum Modality {
    Chat,
    Embedding,
    Image,
    Audio,
}

/// In which states.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[allow(dead_code, reason = "only the description of the type is used")]
pub enum ModelStatus {
    Active,
    Deprecated,
}

const MODALITIES: [&str; 4] = ["chat", "embedding", "image", "audio"];
const STATUSES: [&str; 2] = ["active", "deprecated"];
const MAX_LIMIT: usize = 1000;

impl ListQuery {
    /// Reads query parameters; of one given twice the last counts, unknown ones are ignored.
    ///
    /// # Errors
    /// `Fault::Validation` with every parameter at fault.
    pub fn parse<'a>(parameters: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, Fault> {
        let (mut limit, mut cursor, mut modality, mut status) = (None, None, None, None);
        for (name, value) in parameters {
            match name {
                "limit" => limit = Some(value),
                "cursor" => cursor = Some(value),
                "modality" => modality = Some(value),
                "status" => status = Some(value),
                _ => {}
            }
        }
        let mut faults = Vec::new();
        let limit = limit.and_then(|value| {
            let limit = value.trim().parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
            if limit.is_none() {
                faults.push(Detail::new("limit", format!("must be a whole number from 1 to {MAX_LIMIT}")));
            }
            limit
        });
        let after = cursor.and_then(|value| {
            let after = read_cursor(value);
            if after.is_none() {
                faults.push(Detail::new("cursor", "is not a cursor of this listing"));
            }
            after
        });
        one_of(&mut faults, "modality", modality, &MODALITIES);
        one_of(&mut faults, "status", status, &STATUSES);
        if !faults.is_empty() {
            return Err(Fault::Validation(faults));
        }
        let any = modality.is_none_or(|value| value == "embedding") && status.is_none_or(|value| value == "active");
        Ok(Self { page: Page { limit, after }, any })
    }
}

fn one_of(faults: &mut Vec<Detail>, name: &'static str, value: Option<&str>, known: &[&str]) {
    if value.is_some_and(|value| !known.contains(&value)) {
        faults.push(Detail::new(name, format!("must be one of {}", known.join(", "))));
    }
}

fn write_cursor(slug: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("slug:{slug}"))
}

fn read_cursor(cursor: &str) -> Option<String> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
    text.strip_prefix("slug:").map(str::to_owned)
}

/// The body of `GET /v1/models`: `models` in order of their slugs, from where the page begins.
pub fn native_models(mut models: Vec<ModelItem>, page: &Page, request_id: &str) -> Vec<u8> {
    models.sort_by(|a, b| a.slug.cmp(&b.slug));
    if let Some(after) = &page.after {
        models.retain(|model| model.slug > *after);
    }
    let has_more = page.limit.is_some_and(|limit| models.len() > limit);
    models.truncate(page.limit.unwrap_or(models.len()));
    let next_cursor = models.last().filter(|_| has_more).map(|model| write_cursor(&model.slug));
    let pagination = Pagination { has_more, next_cursor: next_cursor.as_deref() };
    let items = models.iter().map(Item::from).collect();
    to_json(&ListEnvelope { status: "ok", data: Items { items }, pagination, meta: ListMeta { pagination, meta: Meta { request_id } } })
}

/// The body of `GET /v1/models/{slug}`.
pub fn native_model(model: &ModelItem, request_id: &str) -> Vec<u8> {
    to_json(&OneEnvelope { status: "ok", data: Item::from(model), meta: Meta { request_id } })
}

/// Strings and numbers under string keys: this serialisation has no way to fail.
fn to_json(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).unwrap_or_default()
}

/// One item of the native listing.
#[derive(Serialize, ToSchema)]
#[schema(as = Model)]
pub struct Item<'a> {
    #[serde(flatten)]
    #[schema(value_type = ModelItem)]
    model: &'a ModelItem,
    /// `embedding`.
    modality: &'static str,
    /// `active`.
    status: &'static str,
    /// `healthy` or `unhealthy`.
    health_status: &'static str,
    active_backend_count: u32,
    total_backend_count: u32,
}

impl<'a> From<&'a ModelItem> for Item<'a> {
    fn from(model: &'a ModelItem) -> Self {
        let (health_status, active_backend_count) = if model.healthy { ("healthy", 1) } else { ("unhealthy", 0) };
        Self { model, modality: "embedding", status: "active", health_status, active_backend_count, total_backend_count: 1 }
    }
}

/// Where the next page is.
#[derive(Clone, Copy, Serialize, ToSchema)]
pub struct Pagination<'a> {
    has_more: bool,
    /// To be sent as `cursor`; null on the last page.
    #[schema(required = true)]
    next_cursor: Option<&'a str>,
}

/// The items of a page.
#[derive(Serialize, ToSchema)]
#[schema(as = ModelItems)]
pub struct Items<'a> {
    items: Vec<Item<'a>>,
}

/// A page of models.
#[derive(Serialize, ToSchema)]
#[schema(as = ModelList)]
pub struct ListEnvelope<'a> {
    /// `ok`.
    status: &'static str,
    data: Items<'a>,
    pagination: Pagination<'a>,
    meta: ListMeta<'a>,
}

/// Sibling products of the hosted service look for the page's end here.
#[derive(Serialize, ToSchema)]
pub struct ListMeta<'a> {
    #[serde(flatten)]
    pagination: Pagination<'a>,
    #[serde(flatten)]
    meta: Meta<'a>,
}

/// One model.
#[derive(Serialize, ToSchema)]
#[schema(as = OneModel)]
pub struct OneEnvelope<'a> {
    /// `ok`.
    status: &'static str,
    data: Item<'a>,
    meta: Meta<'a>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn model(slug: &str) -> ModelItem {
        let extra = ModelExtra { dimensions: Some(384), normalized: true, ..ModelExtra::default() };
        ModelItem { slug: slug.into(), display_name: slug.to_uppercase(), context_window: Some(256), healthy: true, extra }
    }

    fn page(limit: Option<usize>, cursor: Option<&str>) -> Value {
        let models = ["d", "a/b", "c", "e"].map(model).to_vec();
        let page = Page { limit, after: cursor.map(|cursor| read_cursor(cursor).unwrap()) };
        serde_json::from_slice(&native_models(models, &page, "req_1")).unwrap()
    }

    fn slugs(body: &Value) -> Vec<&str> {
        body["data"]["items"].as_array().unwrap().iter().map(|item| item["slug"].as_str().unwrap()).collect()
    }

    #[test]
    fn an_item_has_the_contracts_keys_and_ours() {
        let body: Value = serde_json::from_slice(&native_model(&model("a/b"), "req_1")).unwrap();
        let expected = json!({
            "slug": "a/b", "display_name": "A/B", "modality": "embedding", "context_window": 256, "status": "active",
            "health_status": "healthy", "active_backend_count": 1, "total_backend_count": 1,
            "dimensions": 384, "supported_dimensions": null, "max_input_tokens": null, "normalized": true, "prompts": [],
        });
        assert_eq!(body, json!({"status": "ok", "data": expected, "meta": {"request_id": "req_1"}}));
    }

    #[test]
    fn pages_follow_each_other_without_gap_or_overlap() {
        let first = page(Some(3), None);
        assert_eq!(slugs(&first), ["a/b", "c", "d"]);
        assert_eq!(first["pagination"]["has_more"], true);
        assert_eq!(first["meta"]["next_cursor"], first["pagination"]["next_cursor"]);
        let second = page(Some(3), first["pagination"]["next_cursor"].as_str());
        assert_eq!(slugs(&second), ["e"]);
        assert_eq!(second["pagination"], json!({"has_more": false, "next_cursor": null}));
        assert_eq!(slugs(&page(None, None)).len(), 4);
        assert_eq!(page(Some(4), None)["pagination"]["has_more"], false);
    }

    #[test]
    fn parameters_are_checked_together() {
        let parse = |query: &[(&'static str, &'static str)]| ListQuery::parse(query.iter().copied());
        assert!(parse(&[("modality", "embedding"), ("status", "active"), ("x", "y")]).unwrap().any);
        assert!(!parse(&[("modality", "chat")]).unwrap().any);
        assert!(!parse(&[("status", "deprecated")]).unwrap().any);
        assert_eq!(parse(&[("limit", "0"), ("limit", "1000")]).unwrap().page.limit, Some(1000));
        let bad = [("limit", "1001"), ("cursor", "nonsense!"), ("modality", "video"), ("status", "gone")];
        let fields: Vec<_> = parse(&bad).unwrap_err().details().iter().map(|detail| detail.field.to_string()).collect();
        assert_eq!(fields, ["limit", "cursor", "modality", "status"]);
        for limit in ["", "0", "-1", "a", "1.5"] {
            assert!(ListQuery::parse([("limit", limit)]).is_err(), "{limit}");
        }
    }
}
