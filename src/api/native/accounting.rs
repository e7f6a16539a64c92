//! `GET /v1/accounting/usage` and `/v1/accounting/usage/summary`: who used how much, as far as the key may know.

use crate::api::asked::{self, Call, Parameters};
use crate::api::{Api, auth, reply};
use crate::service::access::{API_KEYS_MANAGE, Key};
use crate::service::usage::{UsageQuery, UsageRow, UsageTotal};
use crate::wire::Fault;
use crate::wire::accounting::{ModelSum, UsageFilter, UsageItem, UsageSum, UsageSummary};
use crate::wire::envelope::{PageQuery, native_list, native_ok};
use crate::wire::schema::{Page, Success};
use axum::response::Response;
use jiff::civil::Date;
use utoipa::IntoParams;

/// Which usage is asked for.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "only the description of the type is used")]
struct Filter {
    /// The first day.
    start_date: Option<Date>,
    /// The last day.
    end_date: Option<Date>,
    model: Option<String>,
    /// Only for keys that manage keys; others see their own user.
    user_id: Option<String>,
}

/// A page of usage, newest day first: one item per key, model and day.
#[utoipa::path(get, path = "/v1/accounting/usage", tag = "Usage", operation_id = "list_usage", params(
    ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "Items of a page; 100 if absent"),
    ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    Filter,
), responses((status = 200, description = "The usage", body = Page<UsageItem>)))]
pub(in crate::api) async fn list(call: Call, parameters: Parameters) -> Result<Response, Fault> {
    let key = call.enter(None).await?;
    let asked = parameters.read()?;
    let (page, filter) = (PageQuery::parse(asked.pairs())?, UsageFilter::parse(asked.pairs())?);
    // One more than asked for tells whether there is more.
    let query = UsageQuery { after: page.after, limit: Some(page.limit + 1), ..visible(key.as_deref(), &filter) };
    let (rows, next) = asked::page(call.api.books.usage.rows(&query).await?, page.limit, UsageRow::place);
    let items: Vec<UsageItem> = rows.into_iter().map(item).collect();
    Ok(reply::json(native_list(&items, next.as_deref(), &call.seen.id)))
}

/// Sums, in all and by model.
#[utoipa::path(get, path = "/v1/accounting/usage/summary", tag = "Usage", operation_id = "sum_usage", params(
    Filter,
), responses((status = 200, description = "The sums", body = Success<UsageSummary>)))]
pub(in crate::api) async fn summary(call: Call, parameters: Parameters) -> Result<Response, Fault> {
    let key = call.enter(None).await?;
    let asked = parameters.read()?;
    let filter = UsageFilter::parse(asked.pairs())?;
    let summary = sum(&call.api, key.as_deref(), filter).await?;
    Ok(reply::json(native_ok(&summary, &call.seen.id)))
}

async fn sum(api: &Api, key: Option<&Key>, filter: UsageFilter) -> Result<UsageSummary, Fault> {
    let sum = |(requests, texts, tokens_in)| UsageSum { requests, texts, tokens_in, tokens_out: 0, cost: "0" };
    let (mut total, mut by_model) = (sum((0, 0, 0)), Vec::new());
    for UsageTotal { model, requests, texts, tokens } in api.books.usage.totals(&visible(key, &filter)).await? {
        total = sum((total.requests + requests, total.texts + texts, total.tokens_in + tokens));
        by_model.push(ModelSum { model, sum: sum((requests, texts, tokens)) });
    }
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
