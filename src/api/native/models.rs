//! `GET /v1/models` and `GET /v1/models/{slug}`: what is served, as far as the key may know.

use super::may_use;
use crate::api::asked::{Call, Parameters};
use crate::api::reply;
use crate::service::access::MODELS_LIST;
use crate::wire::Fault;
use crate::wire::listing::{ListEnvelope, ListQuery, Modality, ModelItem, ModelStatus, OneEnvelope, native_model, native_models};
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::response::Response;

/// A page of all models.
#[utoipa::path(get, path = "/v1/models", tag = "Native", operation_id = "list_models", params(
    ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "Items of a page; everything if absent"),
    ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ("modality" = Option<Modality>, Query, description = "Only `embedding` finds anything here"),
    ("status" = Option<ModelStatus>, Query, description = "Only `active` finds anything here"),
), responses((status = 200, description = "The models that the key may use", body = ListEnvelope)))]
pub(in crate::api) async fn list(call: Call, parameters: Parameters) -> Result<Response, Fault> {
    let mut models = visible(&call).await?;
    let asked = parameters.read()?;
    let query = ListQuery::parse(asked.pairs())?;
    if !query.any {
        models.clear();
    }
    Ok(reply::json(native_models(models, &query.page, &call.seen.id)))
}

/// One model.
#[utoipa::path(get, path = "/v1/models/{slug}", tag = "Native", operation_id = "get_model", params(
    ("slug" = String, Path, description = "Its slashes may be raw or `%2F`"),
), responses((status = 200, description = "The model", body = OneEnvelope)))]
pub(in crate::api) async fn get(call: Call, name: Result<Path<String>, PathRejection>) -> Result<Response, Fault> {
    Ok(reply::json(native_model(&visible_one(&call, name).await?, &call.seen.id)))
}

/// The models that the request's key may know of.
pub(in crate::api) async fn visible(call: &Call) -> Result<Vec<ModelItem>, Fault> {
    let (key, api) = (call.enter(Some(MODELS_LIST)).await?, &call.api);
    let mut models = api.embedder.list();
    models.retain(|model| may_use(&*api.embedder, key.as_deref(), model.extra.alias_of.as_deref().unwrap_or(&model.slug)));
    Ok(models)
}

/// The model of the request's path, if its key may know of it.
pub(in crate::api) async fn visible_one(call: &Call, name: Result<Path<String>, PathRejection>) -> Result<ModelItem, Fault> {
    let (key, api) = (call.enter(Some(MODELS_LIST)).await?, &call.api);
    // A path that does not decode to UTF-8 names no model.
    let name = name.map(|Path(name)| name).unwrap_or_default();
    let name = name.trim_end_matches('/');
    let unknown = || Fault::ModelNotFound { model: name.to_owned() };
    let found = api.embedder.find(name).ok_or_else(unknown)?;
    call.seen.note_model(&found.slug);
    if !may_use(&*api.embedder, key.as_deref(), &found.slug) {
        return Err(Fault::ModelAccessDenied { model: name.to_owned() });
    }
    let models = api.embedder.list();
    let by = |slug: &str| models.iter().find(|model| model.slug == slug);
    // `ALIAS:query` is still the alias, with what it stands for.
    let whole = || by(name.rsplit_once(':')?.0);
    by(name).or_else(whole).or_else(|| by(&found.slug)).cloned().ok_or_else(unknown)
}
