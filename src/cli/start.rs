//! From a configuration to models that are loaded and warm: what every command that computes does first.

use super::prepare::{Prepared, prepare};
use crate::config::ServeModel;
use crate::engine::load::Decision;
use crate::engine::{Compute, memory};
use crate::hub;
use crate::kernels::threads;
use crate::service::Service;
use crate::service::alias;
use crate::service::decisions;
use crate::service::golden::Fidelity;
use crate::service::registry::{Loaded, Model};
use crate::service::space::Space;
use crate::telemetry;
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
    let obtained = tokio::task::spawn_blocking(move || {
        let progress = hub::for_stderr();
        let files = hub::obtain(&what, &hub, &*progress)?;
        let digest = hub::weights_digest(&files, &hub, &*progress)?;
        anyhow::Ok((files, digest))
    });
    let (files, digest) = obtained.await??;
    *needed_bytes += memory::weights_bytes(&files.root);
    memory::check(*needed_bytes, memory::allowance(Path::new("/")))?;
    let (tell, told) = oneshot::channel();
    let (on_device, options) = (files.clone(), model.load.clone());
    let ready = service.engine().load(&place.slug, move || -> anyhow::Result<Box<dyn Compute>> {
        let Prepared { loaded, encoder, fidelity, .. } = prepare(&on_device, &options)?;
        let _ = tell.send((loaded.info.clone(), encoder, fidelity));
        Ok(Box::new(loaded))
    });
    let ready = ready.await?;
    let (info, encoder, fidelity) = told.await.context("the loader gave no description")?;
    for Decision { what, value, from } in decisions::all(place, &info) {
        tracing::info!(model = place.slug, what, value, from, "decided");
    }
    report(&place.slug, fidelity.as_ref());
    place.check(&info).map_err(|sentence| anyhow!(sentence))?;
    let space = Space::new(&digest, place, &info);
    tracing::info!(model = place.slug, space = space.fingerprint(info.dimensions), weights = digest, "embedding space");
    let loaded = Loaded { engine: ready, info, encoder: Arc::new(encoder), fidelity, space };
    check_names(service, place, &loaded)?;
    Ok(loaded)
}

/// How near the model comes to its reference, for the log and the metrics.
fn report(slug: &str, fidelity: Option<&Fidelity>) {
    let Some(fidelity) = fidelity else {
        tracing::info!(model = slug, "no goldens: nothing shows on this machine that the model computes what its reference does");
        return;
    };
    let Fidelity { goldens, texts, min_cosine, max_abs, .. } = fidelity;
    tracing::info!(model = slug, goldens, texts, min_cosine, max_abs, "the goldens hold");
    telemetry::GOLDEN_COSINE.set([slug], *min_cosine);
    telemetry::GOLDEN_ERROR.set([slug], f64::from(*max_abs));
}

/// Refuses aliases that ask of a model what it does not have; warns where a hosted model's name leads to another size.
fn check_names(service: &Service, place: &Model, loaded: &Loaded) -> anyhow::Result<()> {
    let aliases = service.aliases().iter().filter(|alias| alias.slug == place.slug);
    let mut names = vec![(place.slug.as_str(), loaded.engine.dim)];
    for alias in aliases {
        alias.check(place, loaded).map_err(|sentence| anyhow!(sentence))?;
        names.push((&alias.name, alias.dimensions.unwrap_or(loaded.engine.dim)));
    }
    for warning in names.into_iter().filter_map(|(name, size)| alias::size_warning(name, size)) {
        tracing::warn!(event = "alias_size", model = place.slug, "{warning}");
    }
    Ok(())
}
