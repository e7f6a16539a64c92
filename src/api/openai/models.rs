//! `GET /oai/v1/models` and `GET /oai/v1/models/{id}`: what is served, as far as the key may know, in OpenAI's form.

use crate::api::asked::Call;
use crate::api::native::models::{visible, visible_one};
use crate::api::reply;
use crate::wire::{Fault, openai};
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::response::Response;

#[utoipa::path(get, path = "/oai/v1/models", tag = "OpenAI", operation_id = "openai_list_models",
    responses((status = 200, description = "The models that the key may use", body = openai::List)))]
/// All models; this listing has no pages.
pub(in crate::api) async fn list(call: Call) -> Result<Response, Fault> {
    Ok(reply::json(openai::models(visible(&call).await?, call.api.created)))
}

#[utoipa::path(get, path = "/oai/v1/models/{id}", tag = "OpenAI", operation_id = "openai_get_model", params(
    ("id" = String, Path, description = "Its slashes may be raw or `%2F`"),
), responses((status = 200, description = "The model", body = openai::Model)))]
/// One model.
pub(in crate::api) async fn retrieve(call: Call, name: Result<Path<String>, PathRejection>) -> Result<Response, Fault> {
    Ok(reply::json(openai::model(&visible_one(&call, name).await?, call.api.created)))
}
