//! `vecmill serve`: binds, loads, serves, drains. The life and death of the server.

use crate::api;
use crate::config::{self, Env, Resolved, Said, ServeModel};
use crate::engine::{Compute, Engine, load, memory};
use crate::hub;
use crate::kernels::threads;
use crate::service::Service;
use crate::service::access::Access;
use crate::service::registry::{Loaded, Model, Registry};
use crate::service::tokenizer::TextEncoder;
use crate::telemetry;
use anyhow::{Context, anyhow};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, oneshot};

/// The flags of `vecmill serve`.
pub type Args = Said;

/// How often the keys file is looked at.
const KEYS_INTERVAL: Duration = Duration::from_millis(500);
/// How long the device may take to finish after the last answer is out.
const DEVICE_GRACE: Duration = Duration::from_secs(5);

/// Serves until a signal or a failure ends it.
pub fn run(args: Args, env: &Env) -> anyhow::Result<()> {
    let resolved = config::serve(args, env)?;
    telemetry::init(&resolved.log).map_err(|error| anyhow!("{error}"))?;
    tracing::info!(configuration = %resolved.summary(), "starting");
    // Before any thread exists: Candle reads this once.
    threads::limit(resolved.threads);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the async runtime")?;
    let result = runtime.block_on(serve(resolved));
    // A download or a load that is under way must not keep a finished server alive.
    runtime.shutdown_background();
    result
}

async fn serve(resolved: Resolved) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listener = TcpListener::bind(resolved.listen).with_context(|| format!("cannot listen on {}", resolved.listen))?;
    let address = listener.local_addr()?;
    let access = match &resolved.keys {
        Some(path) => Access::from_file(path)?,
        None => Access::open(),
    };
    if access.is_open() {
        tracing::warn!(%address, "no keys are configured: everyone who reaches this address is served");
    }
    let access = Arc::new(access);
    let models = resolved.models.iter().map(|model| Model::new(model.slug.clone(), model.what.card(), model.settings.clone()));
    let registry = Registry::new(models.collect())?;
    let engine = Engine::start(resolved.engine.clone()).context("cannot start the device thread")?;
    let service = Arc::new(Service::new(resolved.service.clone(), registry, engine)?);

    tokio::spawn(watch_keys(access.clone()));
    let (failed, mut loading_failed) = oneshot::channel();
    let loader = service.clone();
    let (models, hub) = (resolved.models.clone(), resolved.hub.clone());
    let budgets = resolved.budget_bytes();
    tokio::spawn(async move {
        match load_all(&loader, models, hub, budgets).await {
            // The one line on stdout: whoever started us waits for it.
            Ok(()) => println!("listening on http://{address}"),
            Err(error) => drop(failed.send(error)),
        }
    });

    let stop = Arc::new(Notify::new());
    let stopped = stop.clone();
    let state = api::State { service: service.clone(), access };
    let mut server = tokio::spawn(api::serve(listener, state, resolved.api, async move { stopped.notified().await }));
    tokio::select! {
        Ok(error) = &mut loading_failed => return Err(error),
        () = service.engine().ended() => return Err(anyhow!("the device thread has ended; see the log")),
        result = &mut server => return result.context("the listener ended")?.context("the listener failed"),
        _ = terminate.recv() => tracing::info!("SIGTERM: finishing what is admitted"),
        _ = interrupt.recv() => tracing::info!("interrupted: finishing what is admitted; again to stop at once"),
    }
    service.drain();
    stop.notify_one();
    tokio::select! {
        result = &mut server => result.context("the listener ended")?.context("the listener failed")?,
        () = service.engine().ended() => return Err(anyhow!("the device thread has ended; see the log")),
        _ = interrupt.recv() => return Err(anyhow!("interrupted twice")),
    }
    service.engine().stop();
    let _ = tokio::time::timeout(DEVICE_GRACE, service.engine().ended()).await;
    tracing::info!("stopped");
    Ok(())
}

/// Fetches, loads and warms up all models, one after the other.
async fn load_all(service: &Arc<Service>, models: Vec<ServeModel>, hub: hub::Options, budget_bytes: u64) -> anyhow::Result<()> {
    let mut needed_bytes = budget_bytes;
    for (place, model) in service.models().to_vec().into_iter().zip(models) {
        let slug = place.slug.clone();
        let loaded = load_one(service, &place, model, &hub, &mut needed_bytes).await.with_context(|| format!("model {slug}"))?;
        let (info, ready) = (&loaded.info, &loaded.engine);
        tracing::info!(
            model = slug, dimensions = ready.dim, max_tokens = info.max_tokens, dtype = %info.dtype, batch_tokens = ready.budget.tokens,
            tokens_per_s = ready.tokens_per_s.round(), "ready"
        );
        place.set_loaded(loaded);
    }
    Ok(())
}

async fn load_one(
    service: &Arc<Service>,
    place: &Model,
    model: ServeModel,
    hub: &hub::Options,
    needed_bytes: &mut u64,
) -> anyhow::Result<Loaded> {
    let (what, hub) = (model.what.clone(), hub.clone());
    let files = tokio::task::spawn_blocking(move || hub::obtain(&what, &hub, &*hub::progress())).await??;
    *needed_bytes += load::expected_bytes(&files, &model.load)?;
    memory::check(*needed_bytes, memory::allowance(Path::new("/")))?;
    let (tell, info) = oneshot::channel();
    let (on_device, options) = (files.clone(), model.load.clone());
    let ready = service.engine().load(move || -> anyhow::Result<Box<dyn Compute>> {
        let loaded = load::load(&on_device, &options)?;
        let _ = tell.send(loaded.info);
        Ok(Box::new(loaded.pipeline))
    });
    let ready = ready.await?;
    let info = info.await.context("the loader gave no description")?;
    let encoder = tokio::task::spawn_blocking({
        let info = info.clone();
        move || TextEncoder::load(&files, &info)
    });
    let encoder = encoder.await??;
    if let Some(name) = &model.settings.default_prompt
        && place.prompt(&info, Some(name)).is_err()
    {
        return Err(anyhow!("default_prompt {name:?} is not a prompt of this model; it has {}", place.prompt_names(&info).join(", ")));
    }
    Ok(Loaded { engine: ready, info, encoder: Arc::new(encoder) })
}

/// Follows the keys file for as long as the server lives.
async fn watch_keys(access: Arc<Access>) {
    if access.is_open() {
        return;
    }
    let mut ticks = tokio::time::interval(KEYS_INTERVAL);
    loop {
        ticks.tick().await;
        let access = access.clone();
        match tokio::task::spawn_blocking(move || access.reload()).await {
            Ok(Ok(true)) => tracing::info!("the keys file was read again"),
            Ok(Err(error)) => tracing::error!(%error, "the old keys stay in force"),
            _ => {}
        }
    }
}
