//! `GET /v1/models` and `GET /v1/models/{slug}`: what is served, as far as the key may know.

use super::may_use;
use crate::api::observe::Seen;
use crate::api::{Shared, auth, reply};
use crate::service::access::MODELS_LIST;
use crate::wire::Fault;
use crate::wire::listing::{ListQuery, native_model, native_models};
use axum::Extension;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query};
use axum::http::HeaderMap;
use axum::response::Response;

type Parameters = Result<Query<Vec<(String, String)>>, QueryRejection>;

/// A page of all models.
pub(in crate::api) async fn list(
    api: Shared,
    Extension(seen): Extension<Seen>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    let key = auth::enter(&api, &seen, &headers, Some(MODELS_LIST)).await?;
    let Query(parameters) = parameters.map_err(|_| Fault::field("query", "is not a query string"))?;
    let query = ListQuery::parse(parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())))?;
    let mut models = if query.any { api.embedder.list() } else { Vec::new() };
    models.retain(|model| may_use(&*api.embedder, key.as_deref(), &model.slug));
    Ok(reply::json(native_models(models, &query.page, &seen.id)))
}

/// One model.
pub(in crate::api) async fn get(
    api: Shared,
    Extension(seen): Extension<Seen>,
    name: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    let key = auth::enter(&api, &seen, &headers, Some(MODELS_LIST)).await?;
    // A path that does not decode to UTF-8 names no model.
    let name = name.map(|Path(name)| name).unwrap_or_default();
    let name = name.trim_end_matches('/');
    let unknown = || Fault::ModelNotFound { model: name.to_owned() };
    let found = api.embedder.find(name).ok_or_else(unknown)?;
    seen.note_model(&found.slug);
    if !may_use(&*api.embedder, key.as_deref(), &found.slug) {
        return Err(Fault::ModelAccessDenied { model: name.to_owned() });
    }
    let model = api.embedder.list().into_iter().find(|model| model.slug == found.slug).ok_or_else(unknown)?;
    Ok(reply::json(native_model(&model, &seen.id)))
}
