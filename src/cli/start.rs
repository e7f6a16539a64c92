//! From a configuration to models that are loaded and warm: what every command that computes does first.

use crate::config::ServeModel;
use crate::engine::{Compute, load, memory};
use crate::hub;
use crate::kernels::threads;
use crate::service::Service;
use crate::service::registry::{Loaded, Model};
use crate::service::tokenizer::TextEncoder;
use anyhow::{Context, anyhow};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Runs `command` on an async runtime, with Candle limited to `threads`.
pub fn run<T>(threads: usize, command: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    // Before any thread exists: Candle reads this once.
    threads::limit(threads);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the async runtime")?;
    let result = runtime.block_on(command);
    // A download or a load that is under way must not keep a finished command alive.
    runtime.shutdown_background();
    result
}

/// The place of a model in the registry, before it is loaded.
pub fn place(model: &ServeModel) -> Model {
    Model::new(model.slug.clone(), model.what.card(), model.settings.clone())
}

/// Fetches, loads and warms up all models, one after the other.
pub async fn load_all(service: &Arc<Service>, models: Vec<ServeModel>, hub: &hub::Options, budget_bytes: u64) -> anyhow::Result<()> {
    let mut needed_bytes = budget_bytes;
    for (place, model) in service.models().to_vec().into_iter().zip(models) {
        let slug = place.slug.clone();
        let loaded = load_one(service, &place, model, hub, &mut needed_bytes).await.with_context(|| format!("model {slug}"))?;
        let (info, ready) = (&loaded.info, &loaded.engine);
        tracing::info!(
            model = slug, dimensions = ready.dim, max_tokens = info.max_tokens, dtype = %info.dtype, batch_tokens = ready.budget.tokens,
            tokens_per_s = ready.tokens_per_s.round(), "ready"
        );
        place.set_loaded(loaded);
    }
    Ok(())
}

async fn load_one(service: &Arc<Service>, place: &Model, model: ServeModel, hub: &hub::Options, needed_bytes: &mut u64) -> anyhow::Result<Loaded> {
    let (what, hub) = (model.what.clone(), hub.clone());
    let files = tokio::task::spawn_blocking(move || hub::obtain(&what, &hub, &*hub::for_stderr())).await??;
    *needed_bytes += memory::weights_bytes(&files.root);
    memory::check(*needed_bytes, memory::allowance(Path::new("/")))?;
    let (tell, info) = oneshot::channel();
    let (on_device, options) = (files.clone(), model.load.clone());
    let ready = service.engine().load(&place.slug, move || -> anyhow::Result<Box<dyn Compute>> {
        let loaded = load::load(&on_device, &options)?;
        let _ = tell.send(loaded.info.clone());
        Ok(Box::new(loaded))
    });
    let ready = ready.await?;
    let info = info.await.context("the loader gave no description")?;
    let encoder = tokio::task::spawn_blocking({
        let info = info.clone();
        move || TextEncoder::load(&info)
    });
    let encoder = encoder.await??;
    if let Some(name) = &model.settings.default_prompt
        && place.role(&info, Some(name)).is_err()
    {
        return Err(anyhow!("default_prompt {name:?} is not a prompt of this model; it has {}", place.prompt_names(&info).join(", ")));
    }
    Ok(Loaded { engine: ready, info, encoder: Arc::new(encoder) })
}
