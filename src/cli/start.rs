//! From a configuration to models that are loaded and warm: what every command that computes does first.

use super::prepare::{Prepared, prepare};
use crate::config::{Models, ServeModel};
use crate::engine::load::{self, Choice, Decision, Device, ModelInfo};
use crate::engine::memory::Room;
use crate::engine::{Compute, Make};
use crate::hub;
use crate::kernels::threads;
use crate::service::Service;
use crate::service::alias;
use crate::service::decisions;
use crate::service::golden::Fidelity;
use crate::service::registry::{Loaded, Model};
use crate::service::space::Space;
use crate::service::tokenizer::TextEncoder;
use crate::telemetry;
use anyhow::{Context, anyhow};
use std::sync::{Arc, mpsc};

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

/// Chooses the devices, and says in the log which and why; no name = auto.
///
/// # Errors
/// A named device that cannot be used.
pub fn choose(named: &[Device]) -> anyhow::Result<Choice> {
    let choice = load::choose(named)?;
    tracing::info!(devices = names(&choice).join(","), threads = threads::count(), why = choice.from, "computing");
    Ok(choice)
}

/// The devices' names, as `--device` takes them.
pub fn names(choice: &Choice) -> Vec<String> {
    choice.devices.iter().map(Device::to_string).collect()
}

/// The options to load with on the only device; for commands that compute on one.
///
/// # Errors
/// A device that cannot be used, or several.
pub fn on_one_device(models: &Models) -> anyhow::Result<load::Options> {
    let Choice { devices, from } = load::choose(&models.devices)?;
    match devices[..] {
        [device] => Ok(load::Options { device, device_from: from, room: Room::beside(0), ..models.load.clone() }),
        _ => anyhow::bail!("--device: this command computes on one device at a time"),
    }
}

/// Fetches, loads and warms up all models, one after the other, each on every device.
pub async fn load_all(
    service: &Arc<Service>,
    models: Vec<ServeModel>,
    devices: &Choice,
    hub: &hub::Options,
    budget_bytes: u64,
) -> anyhow::Result<()> {
    let mut taken_bytes = budget_bytes;
    for (place, mut model) in service.models().to_vec().into_iter().zip(models) {
        let slug = place.slug.clone();
        model.load.device_from.clone_from(&devices.from);
        let from = Source { model, hub, devices: &devices.devices };
        let loaded = load_one(service, &place, from, &mut taken_bytes).await.with_context(|| format!("model {slug}"))?;
        let (info, ready) = (&loaded.info, &loaded.engine);
        tracing::info!(
            model = slug, dimensions = ready.dim, max_tokens = info.max_tokens, dtype = %info.dtype, batch_tokens = ready.budget.tokens,
            tokens_per_s = ready.tokens_per_s.round(), "ready"
        );
        place.set_loaded(loaded);
    }
    Ok(())
}

/// What a model is loaded from, and where to.
struct Source<'a> {
    model: ServeModel,
    hub: &'a hub::Options,
    devices: &'a [Device],
}

/// What a device's loader tells of a model.
struct Told {
    info: ModelInfo,
    encoder: TextEncoder,
    fidelity: Option<Fidelity>,
}

async fn load_one(service: &Arc<Service>, place: &Model, from: Source<'_>, taken_bytes: &mut u64) -> anyhow::Result<Loaded> {
    let Source { model, hub, devices } = from;
    let (what, hub) = (model.what.clone(), hub.clone());
    let obtained = tokio::task::spawn_blocking(move || {
        let progress = hub::for_stderr();
        let files = hub::obtain(&what, &hub, &*progress)?;
        let digest = hub::weights_digest(&files, &hub, &*progress)?;
        anyhow::Ok((files, digest))
    });
    let (files, digest) = obtained.await??;
    let room = Room::beside(*taken_bytes);
    let (tell, told) = mpsc::channel();
    let make = |device: &Device| -> Make {
        let (files, tell) = (files.clone(), tell.clone());
        let options = load::Options { device: *device, room, ..model.load.clone() };
        Box::new(move || -> anyhow::Result<Box<dyn Compute>> {
            let Prepared { loaded, encoder, fidelity, .. } = prepare(&files, &options)?;
            let _ = tell.send(Told { info: loaded.info.clone(), encoder, fidelity });
            Ok(Box::new(loaded))
        })
    };
    let ready = service.engine().load(&place.slug, devices.iter().map(make).collect()).await?;
    let told: Vec<Told> = told.try_iter().collect();
    *taken_bytes += told.iter().map(|told| (told.info.need.weights + told.info.need.working) as u64).sum::<u64>();
    let Told { info, encoder, fidelity } = alike(told)?;
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

/// What the devices tell, made one: the worst of their distances to the reference counts.
fn alike(told: Vec<Told>) -> anyhow::Result<Told> {
    let dtype = told.first().map(|told| told.info.dtype);
    if let Some(other) = told.iter().find(|told| Some(told.info.dtype) != dtype) {
        anyhow::bail!("the devices do not hold the goldens in the same number type ({} on {}): say --dtype", other.info.dtype, other.info.device);
    }
    let cosine = |told: &Told| told.fidelity.as_ref().map_or(1.0, |fidelity| fidelity.min_cosine);
    told.into_iter().min_by(|a, b| cosine(a).total_cmp(&cosine(b))).context("the loader gave no description")
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
