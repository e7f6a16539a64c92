//! `GET` and `POST /v1/api-keys`, `DELETE /v1/api-keys/{id}`, `GET /v1/me`: keys over HTTP, each within its own tenant.

use crate::api::asked::{self, Call, Id, Parameters};
use crate::api::observe::Seen;
use crate::api::{Api, Shared, auth, body, reply};
use crate::service::access::{API_KEYS_MANAGE, Key, MODELS_LIST, MODELS_USE, Origin};
use crate::service::keybook::NewKey;
use crate::wire::Fault;
use crate::wire::envelope::{PageQuery, native_list, native_ok};
use crate::wire::keys::{KeyDeleted, KeyItem, KeyRequest, Me};
use crate::wire::schema::{KeyBody, Page, Success};
use axum::Extension;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::response::Response;
use jiff::Timestamp;
use std::sync::Arc;

/// The keys of the caller's tenant, in order of their ids.
#[utoipa::path(get, path = "/v1/api-keys", tag = "Keys", operation_id = "list_keys", params(
    ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "Items of a page; 100 if absent"),
    ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
), responses((status = 200, description = "The keys", body = Page<KeyItem>)))]
pub(in crate::api) async fn list(call: Call, parameters: Parameters) -> Result<Response, Fault> {
    let key = manager(&call.api, &call.seen, &call.headers).await?;
    let asked = parameters.read()?;
    let page = PageQuery::parse(asked.pairs())?;
    let mut keys = call.api.books.keys.list(Some(&key.tenant));
    keys.sort_by(|a, b| a.id.cmp(&b.id));
    keys.retain(|key| page.after.as_ref().is_none_or(|after| key.id > *after));
    let (keys, next) = asked::page(keys, page.limit, |key| key.id.clone());
    let items: Vec<_> = keys.iter().map(|key| item(key, None)).collect();
    Ok(reply::json(native_list(&items, next.as_deref(), &call.seen.id)))
}

/// Makes a key; its text is in this answer and nowhere else.
#[utoipa::path(post, path = "/v1/api-keys", tag = "Keys", operation_id = "create_key", request_body = KeyBody,
    responses((status = 200, description = "The key", body = Success<KeyItem>)))]
pub(in crate::api) async fn create(api: Shared, Extension(seen): Extension<Seen>, request: Request) -> Result<Response, Fault> {
    let maker = manager(&api, &seen, request.headers()).await?;
    let body::Held { bytes, hold: _hold } = body::read(&api, request).await?;
    let asked = KeyRequest::parse(&bytes, Timestamp::now())?;
    let new = NewKey {
        name: asked.name,
        user: asked.assigned_user_id.unwrap_or_else(|| maker.user.clone()),
        tenant: maker.tenant.clone(),
        partner: None,
        models: asked.models,
        scopes: asked.scopes,
        expires_at: asked.expires_at,
        requests_per_minute: asked.requests_per_minute,
        tokens_per_minute: asked.tokens_per_minute,
        weight: maker.weight,
    };
    let (key, text) = api.books.keys.create(new.within(&maker)?, &auth::actor(Some(&maker))).await?;
    Ok(reply::json(native_ok(&item(&key, Some(text)), &seen.id)))
}

/// Revokes a key.
#[utoipa::path(delete, path = "/v1/api-keys/{id}", tag = "Keys", operation_id = "delete_key", params(("id" = String, Path)),
    responses((status = 200, description = "It is refused from now on", body = Success<KeyDeleted>)))]
pub(in crate::api) async fn delete(call: Call, Id(id): Id) -> Result<Response, Fault> {
    let key = manager(&call.api, &call.seen, &call.headers).await?;
    call.api.books.keys.revoke(&id, Some(&key.tenant), &auth::actor(Some(&key))).await?;
    Ok(reply::json(native_ok(&KeyDeleted { id: &id, deleted: true }, &call.seen.id)))
}

/// Who the caller is and what it may do.
#[utoipa::path(get, path = "/v1/me", tag = "Keys", operation_id = "me", responses((status = 200, description = "The caller", body = Success<Me>)))]
pub(in crate::api) async fn me(call: Call) -> Result<Response, Fault> {
    let key = call.enter(None).await?;
    let me = match &key {
        Some(key) => Me {
            id: key.user.clone(),
            user_id: key.user.clone(),
            tenant_id: key.tenant.clone(),
            partner_id: key.partner.clone(),
            permissions: key.scopes.clone(),
            api_key: Some(item(key, None)),
        },
        None => Me {
            id: auth::DEFAULT.to_owned(),
            user_id: auth::DEFAULT.to_owned(),
            tenant_id: auth::DEFAULT.to_owned(),
            partner_id: None,
            permissions: vec![MODELS_USE.to_owned(), MODELS_LIST.to_owned()],
            api_key: None,
        },
    };
    Ok(reply::json(native_ok(&me, &call.seen.id)))
}

/// The caller's key, which must be one that manages keys. A server that asks for none has none to manage.
async fn manager(api: &Api, seen: &Seen, headers: &HeaderMap) -> Result<Arc<Key>, Fault> {
    let none = Fault::Conflict { message: "This server asks for no keys; its operator makes the first one with `vecmill keys create`".into() };
    auth::enter(api, seen, headers, Some(API_KEYS_MANAGE)).await?.ok_or(none)
}

fn item(key: &Key, text: Option<String>) -> KeyItem {
    let (prefix, created_at) = match &key.origin {
        Origin::File => (None, None),
        Origin::Store { prefix, created_at } => (Some(prefix.clone()), Some(*created_at)),
    };
    KeyItem {
        id: key.id.clone(),
        name: key.name.clone(),
        key: text,
        prefix,
        user_id: key.user.clone(),
        tenant_id: key.tenant.clone(),
        partner_id: key.partner.clone(),
        scopes: key.scopes.clone(),
        models: key.models.clone(),
        requests_per_minute: key.requests_per_minute,
        tokens_per_minute: key.tokens_per_minute,
        expires_at: key.expires_at,
        created_at,
    }
}
