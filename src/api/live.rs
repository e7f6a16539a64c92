//! The real service behind the handlers: what it knows of its models, in the words of the wire.

use super::embedder::{Ask, Embedder, Found, ModelState};
use crate::service::registry::{Matryoshka, Model};
use crate::service::{Caller, EmbedCall, Embedded, Service};
use crate::wire::Fault;
use crate::wire::listing::{Fidelity, ModelExtra, ModelItem, SupportedDimensions};
use std::future::Future;
use std::pin::Pin;

impl Embedder for Service {
    fn embed(&self, ask: Ask, caller: Caller) -> Pin<Box<dyn Future<Output = Result<Embedded, Fault>> + Send + '_>> {
        let Ask { slug, texts, dimensions, truncate, input_type, expect_space } = ask;
        Box::pin(async move {
            let Some(found) = self.find(&slug) else { return Err(Fault::ModelNotFound { model: slug }) };
            Service::embed(self, EmbedCall { model: found.model, texts, dimensions, truncate, input_type, expect_space }, caller).await
        })
    }

    fn find(&self, name: &str) -> Option<Found> {
        let found = Service::find(self, name)?;
        let state = if found.model.loaded().is_none() {
            ModelState::Loading
        } else if self.engine().is_alive() {
            ModelState::Ready
        } else {
            ModelState::Failed
        };
        let embeds_empty = found.model.settings.embed_empty;
        Some(Found { slug: found.model.slug.clone(), input_type: found.input_type, preset: found.preset, state, embeds_empty })
    }

    fn batch_tokens(&self) -> usize {
        self.models().iter().filter_map(|model| model.loaded()).map(|loaded| loaded.engine.budget.bulk_tokens).max().unwrap_or(0)
    }

    fn list(&self) -> Vec<ModelItem> {
        let alive = self.engine().is_alive();
        let models = self.models().iter().map(|model| item(model, alive));
        let aliases = self.aliases().iter().filter_map(|alias| {
            let model = self.find(&alias.slug)?.model;
            let own = item(&model, alive);
            let dimensions = alias.dimensions.or(own.extra.dimensions);
            let space = model.loaded().zip(dimensions).map(|(loaded, dimensions)| loaded.space.fingerprint(dimensions));
            let extra = ModelExtra { alias_of: Some(own.slug), dimensions, space, ..own.extra };
            Some(ModelItem { slug: alias.name.clone(), extra, ..own })
        });
        models.chain(aliases).collect()
    }

    fn checks(&self) -> Vec<(&'static str, String)> {
        let loading: Vec<_> = self.models().iter().filter(|model| model.loaded().is_none()).map(|model| model.slug.as_str()).collect();
        let models = if loading.is_empty() { "ok".to_owned() } else { format!("loading {}", loading.join(", ")) };
        let device = if self.engine().is_alive() { "ok" } else { "its thread has ended" };
        vec![("models", models), ("device", device.to_owned())]
    }
}

fn item(model: &Model, alive: bool) -> ModelItem {
    let loaded = model.loaded();
    let license = model.card.map(|card| card.license.clone()).or_else(|| loaded?.info.license.clone());
    let extra = loaded.map(|loaded| {
        let (info, native) = (&loaded.info, loaded.engine.dim);
        let supported_dimensions = match model.matryoshka(info) {
            Matryoshka::Denied => SupportedDimensions::Sizes(vec![native]),
            Matryoshka::Sizes(mut sizes) if model.settings.matryoshka_strict => {
                // The native size is always taken.
                sizes.retain(|size| *size != native);
                sizes.push(native);
                SupportedDimensions::Sizes(sizes)
            }
            Matryoshka::Sizes(trained) => SupportedDimensions::Range { min: 1, max: native, trained },
            Matryoshka::Any => SupportedDimensions::Range { min: 1, max: native, trained: Vec::new() },
        };
        ModelExtra {
            dimensions: Some(native),
            supported_dimensions,
            max_input_tokens: Some(info.max_tokens),
            normalized: info.normalized || !model.settings.as_the_model,
            prompts: model.prompt_names(info),
            dtype: Some(info.dtype.to_string()),
            license: license.clone(),
            space: Some(loaded.space.fingerprint(native)),
            fidelity: loaded.fidelity.as_ref().map(|found| Fidelity { texts: found.texts, max_abs: found.max_abs, min_cosine: found.min_cosine }),
            alias_of: None,
        }
    });
    ModelItem {
        slug: model.slug.clone(),
        display_name: model.display_name().to_owned(),
        context_window: loaded.map(|loaded| loaded.info.max_tokens),
        healthy: loaded.is_some() && alive,
        extra: extra.unwrap_or_else(|| ModelExtra { license, ..ModelExtra::default() }),
    }
}
