//! The hosted service's own surface, `/v1/...`: one verb per file, and the model that a request names.

use super::embedder::{Found, ModelState};
use super::{Api, Embedder};
use crate::service::access::Key;
use crate::wire::Fault;

pub(super) mod accounting;
pub(super) mod batch;
pub(super) mod embed;
pub(super) mod keys;
pub(super) mod models;
pub(super) mod results;

/// When a client may try a model again that is still loading.
const RETRY_AFTER_LOADING_S: u32 = 5;

/// The model that a client calls `name`, if it is there (404), open to this key (403) and answering (503).
pub(super) fn resolve(api: &Api, key: Option<&Key>, name: &str) -> Result<Found, Fault> {
    resolve_within(&*api.embedder, key.and_then(|key| key.models.as_deref()), name)
}

/// The same for whoever may use these models (`None` = all).
pub(super) fn resolve_within(embedder: &dyn Embedder, models: Option<&[String]>, name: &str) -> Result<Found, Fault> {
    let found = embedder.find(name).ok_or_else(|| Fault::ModelNotFound { model: name.to_owned() })?;
    if !is_among(embedder, models, &found.slug) {
        return Err(Fault::ModelAccessDenied { model: name.to_owned() });
    }
    match found.state {
        ModelState::Ready => Ok(found),
        ModelState::Loading => {
            Err(Fault::ModelUnavailable { reason: "The model is still loading".into(), retry_after_s: Some(RETRY_AFTER_LOADING_S) })
        }
        ModelState::Failed => Err(Fault::ModelUnavailable { reason: "The model could not be loaded".into(), retry_after_s: None }),
    }
}

/// Keys may name a model by its slug or by any other name it has.
pub(super) fn may_use(embedder: &dyn Embedder, key: Option<&Key>, slug: &str) -> bool {
    is_among(embedder, key.and_then(|key| key.models.as_deref()), slug)
}

fn is_among(embedder: &dyn Embedder, models: Option<&[String]>, slug: &str) -> bool {
    models.is_none_or(|models| models.iter().any(|name| name == slug || embedder.find(name).is_some_and(|found| found.slug == slug)))
}
