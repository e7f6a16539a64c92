//! `GET /v1/accounting/usage` and `/v1/accounting/usage/summary`: who used how much, as far as the key may know.

use crate::api::observe::Seen;
use crate::api::{Api, Shared, auth, reply};
use crate::service::access::{API_KEYS_MANAGE, Key};
use crate::service::usage::{UsageQuery, UsageRow};
use crate::wire::Fault;
use crate::wire::accounting::{ModelSum, UsageFilter, UsageItem, UsageSum, UsageSummary};
use crate::wire::envelope::{PageQuery, native_list, native_ok};
use crate::wire::schema::{Page, Success};
use axum::Extension;
use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::http::HeaderMap;
use axum::response::Response;
use std::collections::BTreeMap;

type Parameters = Result<Query<Vec<(String, String)>>, QueryRejection>;

/// A page of usage, newest day first: one item per key, model and day.
#[utoipa::path(get, path = "/v1/accounting/usage", tag = "Usage", operation_id = "list_usage", params(
    ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "Items of a page; 100 if absent"),
    ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ("start_date" = Option<Date>, Query, description = "The first day"),
    ("end_date" = Option<Date>, Query, description = "The last day"),
    ("model" = Option<String>, Query),
    ("user_id" = Option<String>, Query, description = "Only for keys that manage keys; others see their own user"),
), responses((status = 200, description = "The usage", body = Page<UsageItem>)))]
pub(in crate::api) async fn list(
    api: Shared,
    Extension(seen): Extension<Seen>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    let key = auth::enter(&api, &seen, &headers, None).await?;
    let Query(parameters) = parameters.map_err(|_| Fault::field("query", "is not a query string"))?;
    let pairs = || parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let (page, filter) = (PageQuery::parse(pairs())?, UsageFilter::parse(pairs())?);
    // One more than asked for tells whether there is more.
    let query = UsageQuery { after: page.after, limit: Some(page.limit + 1), ..visible(key.as_deref(), &filter) };
    let mut rows = api.books.usage.rows(&query).await?;
    let more = rows.len() > page.limit;
    rows.truncate(page.limit);
    let next = rows.last().filter(|_| more).map(UsageRow::place);
    let items: Vec<UsageItem> = rows.into_iter().map(item).collect();
    Ok(reply::json(native_list(&items, next.as_deref(), &seen.id)))
}

/// Sums, in all and by model.
#[utoipa::path(get, path = "/v1/accounting/usage/summary", tag = "Usage", operation_id = "sum_usage", params(
    ("start_date" = Option<Date>, Query, description = "The first day"),
    ("end_date" = Option<Date>, Query, description = "The last day"),
    ("model" = Option<String>, Query),
    ("user_id" = Option<String>, Query, description = "Only for keys that manage keys; others see their own user"),
), responses((status = 200, description = "The sums", body = Success<UsageSummary>)))]
pub(in crate::api) async fn summary(
    api: Shared,
    Extension(seen): Extension<Seen>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    let key = auth::enter(&api, &seen, &headers, None).await?;
    let Query(parameters) = parameters.map_err(|_| Fault::field("query", "is not a query string"))?;
    let filter = UsageFilter::parse(parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())))?;
    let summary = sum(&api, key.as_deref(), filter).await?;
    Ok(reply::json(native_ok(&summary, &seen.id)))
}

async fn sum(api: &Api, key: Option<&Key>, filter: UsageFilter) -> Result<UsageSummary, Fault> {
    let rows = api.books.usage.rows(&visible(key, &filter)).await?;
    let (mut total, mut by_model) = (UsageSum { cost: "0", ..UsageSum::default() }, BTreeMap::new());
    for row in rows {
        let model: &mut UsageSum = by_model.entry(row.model).or_insert(UsageSum { cost: "0", ..UsageSum::default() });
        for sum in [&mut total, model] {
            sum.requests += row.requests;
            sum.texts += row.texts;
            sum.tokens_in += row.tokens;
        }
    }
    let by_model = by_model.into_iter().map(|(model, sum)| ModelSum { model, sum }).collect();
    Ok(UsageSummary { start_date: filter.start_date, end_date: filter.end_date, total, by_model })
}

/// A key that manages keys sees its tenant, any other its own user.
fn visible(key: Option<&Key>, filter: &UsageFilter) -> UsageQuery {
    let (tenant, own) = key.map_or((auth::DEFAULT, None), |key| (&key.tenant, (!key.has_scope(API_KEYS_MANAGE)).then(|| key.user.clone())));
    UsageQuery {
        tenant: Some(tenant.to_owned()),
        user: own.or_else(|| filter.user_id.clone()),
        model: filter.model.clone(),
        from: filter.start_date.map(|day| day.to_string()),
        to: filter.end_date.map(|day| day.to_string()),
        ..UsageQuery::default()
    }
}

fn item(row: UsageRow) -> UsageItem {
    UsageItem {
        id: format!("usage_{}", row.place()),
        created_at: format!("{}T00:00:00Z", row.day),
        date: row.day,
        backend_id: row.model.clone(),
        model: row.model,
        api_key_id: row.key_id,
        api_key_name: row.key_name,
        user_id: row.user,
        tenant_id: row.tenant,
        requests: row.requests,
        texts: row.texts,
        tokens_in: row.tokens,
        tokens_out: 0,
        cost: "0",
        latency_ms: row.busy_ms / row.requests.max(1),
    }
}
