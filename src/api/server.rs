//! The listener: connections in, and an orderly end.

use super::connection::Door;
use super::{Api, Tls, router};
use crate::telemetry;
use axum::Router;
use axum_server::Handle;
use axum_server::accept::Accept;
use axum_server::service::SendService;
use axum_server::tls_rustls::RustlsAcceptor;
use hyper::body::Incoming;
use hyper_util::rt::TokioTimer;
use std::convert::Infallible;
use std::future::{Future, pending};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// A request's head, and what is read of a body at a time.
const BUFFER_BYTES: usize = 64 << 10;

/// How long answers that are made may take to reach their clients even if the time for running requests is used up.
const LAST_WRITES: Duration = Duration::from_secs(1);

/// Serves until `shutdown` is ready, and then until running requests have ended.
///
/// From then on new requests are answered 503, and readiness is off; the listener closes when nothing runs any more, or at the end of
/// `drain_timeout`.
///
/// # Errors
/// If the listener cannot be used.
pub async fn serve(listener: TcpListener, api: Arc<Api>, shutdown: impl Future<Output = ()>) -> std::io::Result<()> {
    let door = Door::new(&api.options);
    run(listener, door, api, shutdown).await
}

/// The same over TLS.
///
/// # Errors
/// As [`serve`].
pub async fn serve_tls(listener: TcpListener, api: Arc<Api>, tls: Tls, shutdown: impl Future<Output = ()>) -> std::io::Result<()> {
    // Limits on connections and on patience are around the encrypted stream.
    let door = RustlsAcceptor::new(tls.0).handshake_timeout(api.options.header_timeout).acceptor(Door::new(&api.options));
    run(listener, door, api, shutdown).await
}

async fn run<D>(listener: TcpListener, door: D, api: Arc<Api>, shutdown: impl Future<Output = ()>) -> std::io::Result<()>
where
    D: Accept<TcpStream, Router> + Clone + Send + Sync + 'static,
    D::Stream: AsyncRead + AsyncWrite + Unpin + Send,
    D::Service: SendService<hyper::Request<Incoming>> + Send,
    D::Future: Send,
{
    telemetry::install_metrics();
    let handle = Handle::<SocketAddr>::new();
    let mut server = axum_server::from_tcp(listener)?.http1_only().handle(handle.clone()).acceptor(door);
    server.http_builder().http1().timer(TokioTimer::new()).header_read_timeout(api.options.header_timeout).max_buf_size(BUFFER_BYTES);
    let server = server.accept_error_handler(|address, error| match address {
        // One client's connection: a flood of them must not become a flood of log lines.
        Some(address) => tracing::debug!(%address, %error, "a connection was refused"),
        None => tracing::warn!(%error, "the listener cannot accept connections"),
    });
    let serving = server.serve(router(api.clone()).into_make_service());
    tokio::select! {
        served = serving => served,
        never = end(&api, &handle, shutdown) => match never {},
        never = telemetry::upkeep() => match never {},
    }
}

async fn end(api: &Api, handle: &Handle<SocketAddr>, shutdown: impl Future<Output = ()>) -> Infallible {
    shutdown.await;
    let limit = Instant::now() + api.options.drain_timeout;
    tracing::info!(event = "draining", "no new requests; waiting for those that run");
    api.lifecycle.drain(api.options.drain_timeout).await;
    handle.graceful_shutdown(Some(limit.saturating_duration_since(Instant::now()).max(LAST_WRITES)));
    pending().await
}
