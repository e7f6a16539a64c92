//! `vecmill serve`: binds, loads, serves, drains. The life and death of the server.

use super::start;
use crate::api;
use crate::config::{self, Env, Resolved, Said};
use crate::engine::Engine;
use crate::service::Service;
use crate::service::access::Access;
use crate::service::books::Books;
use crate::service::jobs::Lines;
use crate::service::keyfile::KeyFile;
use crate::service::registry::Registry;
use crate::store::Store;
use crate::telemetry;
use anyhow::{Context, anyhow};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, oneshot};

/// The flags of `vecmill serve`.
pub type Args = Said;

/// How often the keys file is looked at.
const KEYS_INTERVAL: Duration = Duration::from_millis(500);
/// How often the certificate is looked at.
const TLS_INTERVAL: Duration = Duration::from_millis(500);
/// How long the device may take to finish after the last answer is out.
const DEVICE_GRACE: Duration = Duration::from_secs(5);

/// Serves until a signal or a failure ends it.
pub fn run(args: Args, env: &Env) -> anyhow::Result<()> {
    let resolved = config::serve(args, env)?;
    telemetry::init(&resolved.log)?;
    telemetry::install_metrics();
    tracing::info!(configuration = %resolved.summary(), "starting");
    start::run(resolved.threads, serve(resolved))
}

async fn serve(resolved: Resolved) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listener = TcpListener::bind(resolved.listen).with_context(|| format!("cannot listen on {}", resolved.listen))?;
    let address = listener.local_addr()?;
    let books = Arc::new(open_books(&resolved).await?);
    let tls = resolved.tls.clone().map(api::TlsWatch::open).transpose()?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let registry = Registry::new(resolved.models.iter().map(start::place).collect())?.with_aliases(resolved.aliases.clone());
    let devices = start::choose(&resolved.devices)?;
    let engine = Engine::start(resolved.engine.clone(), &start::names(&devices)).context("cannot start the device thread")?;
    let service = Arc::new(Service::new(resolved.service.clone(), registry, engine)?);

    let (failed, mut loading_failed) = oneshot::channel();
    let (loaded, may_work) = oneshot::channel();
    let loader = service.clone();
    let (models, hub) = (resolved.models.clone(), resolved.hub.clone());
    let budgets = resolved.budget_bytes();
    tokio::spawn(async move {
        match start::load_all(&loader, models, &devices, &hub, budgets).await {
            Ok(()) => {
                let _ = loaded.send(());
                // The one line on stdout: whoever started us waits for it.
                println!("listening on {scheme}://{address}");
            }
            Err(error) => drop(failed.send(error)),
        }
    });

    let stop = Arc::new(Notify::new());
    let stopped = stop.clone();
    let api = Arc::new(api::Api::new(service.clone(), books.clone(), resolved.api));
    let working = tokio::spawn(work(books.clone(), api.lines(), may_work));
    let stopped = async move { stopped.notified().await };
    let mut server = match tls {
        None => tokio::spawn(api::serve(listener, api, stopped)),
        Some(watch) => {
            let tls = watch.tls();
            tokio::spawn(watch_tls(watch));
            tokio::spawn(api::serve_tls(listener, api, tls, stopped))
        }
    };
    let (keys, usage) = (books.clone(), books.clone());
    let watching = tokio::spawn(async move { keys.keys.watch().await });
    tokio::spawn(async move { usage.usage.run().await });
    tokio::select! {
        Ok(error) = &mut loading_failed => return Err(error),
        () = service.engine().ended() => return Err(anyhow!("the device thread has ended; see the log")),
        result = &mut server => return result.context("the listener ended")?.context("the listener failed"),
        _ = terminate.recv() => tracing::info!("SIGTERM: finishing what is admitted"),
        _ = interrupt.recv() => tracing::info!("interrupted: finishing what is admitted; again to stop at once"),
    }
    // Jobs stop first: what is not written down is done again by the next server, and live requests have the device to themselves.
    working.abort();
    books.jobs.release().await;
    stop.notify_one();
    tokio::select! {
        result = &mut server => result.context("the listener ended")?.context("the listener failed")?,
        () = service.engine().ended() => return Err(anyhow!("the device thread has ended; see the log")),
        _ = interrupt.recv() => return Err(anyhow!("interrupted twice")),
    }
    service.engine().stop();
    let _ = tokio::time::timeout(DEVICE_GRACE, service.engine().ended()).await;
    books.usage.flush().await;
    // It would find the store closed and say so.
    watching.abort();
    books.store.close().await;
    tracing::info!("stopped");
    Ok(())
}

/// Opens the store and what is kept in it, and decides who may come in.
async fn open_books(resolved: &Resolved) -> anyhow::Result<Books> {
    let store = Store::open(&resolved.store).await.context("--data-dir or --store names another place; --store memory keeps nothing")?;
    let open = resolved.open_to_all(store.has_had_keys().await?)?;
    let access = match &resolved.keys {
        Some(path) => {
            let (file, access) = KeyFile::open(path)?;
            let access = Arc::new(access);
            tokio::spawn(watch_keys(file, access.clone()));
            access
        }
        None if open => {
            tracing::warn!(address = %resolved.listen, "no keys are configured: everyone who reaches this address is served");
            Arc::new(Access::open_to_all())
        }
        None => Arc::new(Access::keys(Vec::new())),
    };
    Ok(Books::open(store, access, resolved.books).await?)
}

/// Follows the keys file for as long as the server lives.
async fn watch_keys(mut file: KeyFile, access: Arc<Access>) {
    let mut ticks = tokio::time::interval(KEYS_INTERVAL);
    loop {
        ticks.tick().await;
        // A look at a local file; it may be slow where the file lies on a network, but nothing waits for this task.
        match tokio::task::block_in_place(|| file.reload(&access)) {
            Ok(true) => tracing::info!("the keys file was read again"),
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "the old keys stay in force"),
        }
    }
}

/// Follows the certificate and its key for as long as the server lives.
async fn watch_tls(mut watch: api::TlsWatch) {
    let mut ticks = tokio::time::interval(TLS_INTERVAL);
    let mut last = String::new();
    loop {
        ticks.tick().await;
        match tokio::task::block_in_place(|| watch.reload()) {
            Ok(true) => tracing::info!("new connections get the new certificate"),
            Ok(false) => continue,
            Err(error) if error.to_string() == last => continue,
            Err(error) => {
                tracing::error!(%error, "the old certificate stays in force");
                last = error.to_string();
                continue;
            }
        }
        last.clear();
    }
}

/// Runs batch jobs from the time all models are there.
async fn work(books: Arc<Books>, lines: Arc<dyn Lines>, may_work: oneshot::Receiver<()>) {
    if may_work.await.is_ok() {
        books.jobs.clone().run(lines).await;
    }
}
