//! HTTP: the route table, the stack around it, and the limits of both. Never a tensor, never the store.

use crate::service::books::Books;
use crate::service::jobs::Lines;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{MethodRouter, delete, get, post};
use std::sync::Arc;
use std::time::Duration;
use tower::util::MapRequest;
use tower_http::catch_panic::CatchPanicLayer;

mod asked;
mod auth;
mod body;
mod connection;
mod cors;
mod dialect;
mod docs;
pub mod embedder;
mod health;
pub mod input;
mod lifecycle;
mod lines;
mod live;
mod native;
mod observe;
mod openai;
mod reply;
mod server;
mod stream;
mod tls;

pub use cors::is_origin;
pub use embedder::Embedder;
pub use server::{serve, serve_tls};
pub use tls::{Tls, TlsError, TlsFiles, TlsWatch};

/// What HTTP may cost, and how long it may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// A request body longer than this is answered 413.
    pub max_body_bytes: usize,
    /// Request bodies, and the texts read from them, may fill this much memory together; a body that no longer fits is answered 429.
    pub max_held_bytes: usize,
    /// Texts in one request.
    pub max_texts: usize,
    /// Token ids in one request, of all its token arrays.
    pub max_token_ids: usize,
    /// Hosts whose `/v1/...` is the OpenAI layer.
    pub openai_hosts: Vec<String>,
    /// Origins whose pages may call this server; `*` = any.
    pub cors_origins: Vec<String>,
    /// How long a request may take from its head to its answer.
    pub deadline: Duration,
    /// How long a connection may take to send a request's head; hence also how long it may stay idle between requests.
    pub header_timeout: Duration,
    /// How long a request may take to send its body; longer is answered 408.
    pub body_timeout: Duration,
    /// How long a client may take no byte of its answer before the connection is dropped.
    pub write_timeout: Duration,
    /// How long what a client still sends is read and dropped before its connection is closed, so that it gets to read why.
    pub linger_timeout: Duration,
    /// How much of it is read and dropped.
    pub linger_bytes: usize,
    /// Connections served at once. A few more are answered 429, and any beyond those are closed unanswered.
    pub max_connections: usize,
    /// The server's address as clients see it; `None` = as the request names it.
    pub public_url: Option<String>,
    /// Whether that is HTTPS where the request names it.
    pub https: bool,
    /// Which inputs of jobs are read that lie elsewhere.
    pub inputs: input::Options,
    /// How long running requests may go on after a shutdown was asked for.
    pub drain_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_body_bytes: 32 << 20,
            max_held_bytes: 256 << 20,
            max_texts: 2048,
            max_token_ids: 300_000,
            openai_hosts: Vec::new(),
            cors_origins: Vec::new(),
            // Documented clients give up after 60 s.
            deadline: Duration::from_secs(55),
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(30),
            linger_timeout: Duration::from_secs(30),
            linger_bytes: 128 << 20,
            // Shells commonly allow 1024 file descriptors.
            max_connections: 900,
            public_url: None,
            https: false,
            inputs: input::Options::default(),
            drain_timeout: Duration::from_secs(60),
        }
    }
}

/// What every request shares.
pub struct Api {
    embedder: Arc<dyn Embedder>,
    books: Arc<Books>,
    options: Options,
    lifecycle: lifecycle::Lifecycle,
    held: body::HeldBytes,
    inputs: input::Inputs,
    /// Since when its models are there; Unix seconds.
    created: i64,
}

impl Api {
    /// What answers the lines of batch jobs: the same path as live requests.
    pub fn lines(&self) -> Arc<dyn Lines> {
        let (max_texts, max_token_ids) = (self.options.max_texts, self.options.max_token_ids);
        Arc::new(lines::ApiLines { embedder: self.embedder.clone(), max_texts, max_token_ids })
    }

    /// An API in front of `embedder`, with the server's books.
    pub fn new(embedder: Arc<dyn Embedder>, books: Arc<Books>, options: Options) -> Self {
        let held = body::HeldBytes::new(options.max_held_bytes);
        let created = jiff::Timestamp::now().as_second();
        let inputs = input::Inputs::new(options.inputs.clone());
        Self { embedder, books, options, lifecycle: lifecycle::Lifecycle::default(), held, inputs, created }
    }
}

type Shared = axum::extract::State<Arc<Api>>;

/// A path, the methods it takes as `Allow` names them, and what answers them.
type Route = (&'static str, (&'static str, MethodRouter<Arc<Api>>));

/// THE table. In paths that end in a wildcard one rule serves `a%2Fb` and `a/b`: it takes raw slashes, and is percent-decoded.
fn routes() -> [Route; 35] {
    [
        ("/v1/inference/embed", only_post(native::embed::embed)),
        ("/v1/models", only_get(native::models::list)),
        ("/v1/models/{*slug}", only_get(native::models::get)),
        ("/v1/inference/batch", get_or_post(native::batch::list, native::batch::submit)),
        ("/v1/inference/batch/{id}", only_get(native::batch::status)),
        ("/v1/inference/batch/{id}/cancel", only_post(native::batch::cancel)),
        ("/v1/inference/batch/{id}/output", only_get(native::results::output)),
        ("/v1/inference/batch/{id}/errors", only_get(native::results::errors)),
        ("/v1/accounting/usage", only_get(native::accounting::list)),
        ("/v1/accounting/usage/summary", only_get(native::accounting::summary)),
        ("/v1/me", only_get(native::keys::me)),
        ("/v1/api-keys", get_or_post(native::keys::list, native::keys::create)),
        ("/v1/api-keys/{id}", only_delete(native::keys::delete)),
        ("/oai/v1/embeddings", only_post(openai::embeddings::create)),
        ("/oai/v1/models", only_get(openai::models::list)),
        ("/oai/v1/models/{*id}", only_get(openai::models::retrieve)),
        ("/oai/v1/files", of_any_size(get_or_post(openai::files::list, openai::files::create))),
        ("/oai/v1/files/{id}", get_or_delete(openai::files::retrieve, openai::files::delete)),
        ("/oai/v1/files/{id}/content", only_get(openai::files::content)),
        ("/oai/v1/batches", get_or_post(openai::batches::list, openai::batches::create)),
        ("/oai/v1/batches/{id}", only_get(openai::batches::retrieve)),
        ("/oai/v1/batches/{id}/cancel", only_post(openai::batches::cancel)),
        // No native path has these names; a base URL that ends in /v1 finds them.
        ("/v1/embeddings", only_post(openai::embeddings::create)),
        ("/v1/files", of_any_size(get_or_post(openai::files::list, openai::files::create))),
        ("/v1/files/{id}", get_or_delete(openai::files::retrieve, openai::files::delete)),
        ("/v1/files/{id}/content", only_get(openai::files::content)),
        ("/v1/batches", get_or_post(openai::batches::list, openai::batches::create)),
        ("/v1/batches/{id}", only_get(openai::batches::retrieve)),
        ("/v1/batches/{id}/cancel", only_post(openai::batches::cancel)),
        ("/health", only_get(health::live)),
        ("/health/ready", only_get(health::ready)),
        ("/metrics", only_get(health::metrics)),
        ("/openapi.json", only_get(docs::document)),
        ("/docs", only_get(docs::page)),
        ("/docs/{*file}", only_get(docs::page_file)),
    ]
}

/// Every path of the table with the methods it takes.
pub fn paths() -> Vec<(&'static str, &'static str)> {
    routes().into_iter().map(|(path, (allow, _))| (path, allow)).collect()
}

/// The routes, each with and without a slash at its end, and the stack around them.
pub fn router(api: Arc<Api>) -> Router {
    let router = routes().into_iter().fold(Router::new(), |router, (path, (_, method))| match path.contains("{*") {
        true => router.route(path, method),
        false => router.route(path, method.clone()).route(&format!("{path}/"), method),
    });
    let (hosts, origins) = (api.options.openai_hosts.clone(), api.options.cors_origins.clone());
    let router = router
        .fallback(reply::no_such_route)
        // Innermost. Shutting down: nothing new; else count what runs, so that the shutdown can wait for it.
        .layer(from_fn_with_state(api.clone(), lifecycle::gate))
        // A panic costs its own request only.
        .layer(CatchPanicLayer::custom(reply::panicked))
        // Faults become the envelope of their path.
        .layer(from_fn(reply::render));
    // Browsers' questions, and the headers that let their scripts read answers.
    let router = if origins.is_empty() { router } else { router.layer(cors::layer(&origins)) };
    // Outermost. Request id, trace, log line, metrics.
    let router = router.layer(from_fn(observe::observe)).with_state(api);
    if hosts.is_empty() {
        return router;
    }
    // Before the route is chosen.
    Router::new().fallback_service(MapRequest::new(router, move |request| openai::host::route(&hosts, request)))
}

fn only_get<H: Handler<T, Arc<Api>>, T: 'static>(handler: H) -> (&'static str, MethodRouter<Arc<Api>>) {
    const ALLOW: &str = "GET, HEAD";
    (ALLOW, get(handler).fallback(|| async { reply::wrong_method(ALLOW) }))
}

fn only_post<H: Handler<T, Arc<Api>>, T: 'static>(handler: H) -> (&'static str, MethodRouter<Arc<Api>>) {
    const ALLOW: &str = "POST";
    (ALLOW, post(handler).fallback(|| async { reply::wrong_method(ALLOW) }))
}

fn only_delete<H: Handler<T, Arc<Api>>, T: 'static>(handler: H) -> (&'static str, MethodRouter<Arc<Api>>) {
    const ALLOW: &str = "DELETE";
    (ALLOW, delete(handler).fallback(|| async { reply::wrong_method(ALLOW) }))
}

fn get_or_post<G, GT: 'static, P, PT: 'static>(read: G, write: P) -> (&'static str, MethodRouter<Arc<Api>>)
where
    G: Handler<GT, Arc<Api>>,
    P: Handler<PT, Arc<Api>>,
{
    const ALLOW: &str = "GET, HEAD, POST";
    (ALLOW, get(read).post(write).fallback(|| async { reply::wrong_method(ALLOW) }))
}

fn get_or_delete<G, GT: 'static, D, DT: 'static>(read: G, remove: D) -> (&'static str, MethodRouter<Arc<Api>>)
where
    G: Handler<GT, Arc<Api>>,
    D: Handler<DT, Arc<Api>>,
{
    const ALLOW: &str = "GET, HEAD, DELETE";
    (ALLOW, get(read).delete(remove).fallback(|| async { reply::wrong_method(ALLOW) }))
}

/// For bodies that are not held but go on as they come, within a limit of their own.
fn of_any_size((allow, method): (&'static str, MethodRouter<Arc<Api>>)) -> (&'static str, MethodRouter<Arc<Api>>) {
    (allow, method.layer(DefaultBodyLimit::disable()))
}
