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
use tower_http::catch_panic::CatchPanicLayer;

mod auth;
mod body;
mod connection;
pub mod embedder;
mod health;
mod lifecycle;
mod lines;
mod live;
mod native;
mod observe;
mod openai;
mod reply;
mod server;
mod stream;

pub use embedder::Embedder;
pub use server::serve;

/// What HTTP may cost, and how long it may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// A request body longer than this is answered 413.
    pub max_body_bytes: usize,
    /// Request bodies, and the texts read from them, may fill this much memory together; a body that no longer fits is answered 429.
    pub max_held_bytes: usize,
    /// Texts in one request.
    pub max_texts: usize,
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
    /// How long running requests may go on after a shutdown was asked for.
    pub drain_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_body_bytes: 32 << 20,
            max_held_bytes: 256 << 20,
            max_texts: 2048,
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
}

impl Api {
    /// What answers the lines of batch jobs: the same path as live requests.
    pub fn lines(&self) -> Arc<dyn Lines> {
        Arc::new(lines::ApiLines { embedder: self.embedder.clone(), max_texts: self.options.max_texts })
    }

    /// An API in front of `embedder`, with the server's books.
    pub fn new(embedder: Arc<dyn Embedder>, books: Arc<Books>, options: Options) -> Self {
        let held = body::HeldBytes::new(options.max_held_bytes);
        Self { embedder, books, options, lifecycle: lifecycle::Lifecycle::default(), held }
    }
}

type Shared = axum::extract::State<Arc<Api>>;

/// The routes, each with and without a slash at its end, and the stack around them.
pub fn router(api: Arc<Api>) -> Router {
    let routes: [(&str, MethodRouter<Arc<Api>>); 15] = [
        ("/v1/inference/embed", only_post(native::embed::embed)),
        ("/v1/models", only_get(native::models::list)),
        ("/v1/inference/batch", get(native::batch::list).post(native::batch::submit).fallback(|| async { reply::wrong_method("GET, HEAD, POST") })),
        ("/v1/inference/batch/{id}", only_get(native::batch::status)),
        ("/v1/inference/batch/{id}/cancel", only_post(native::batch::cancel)),
        ("/v1/inference/batch/{id}/output", only_get(native::results::output)),
        ("/v1/inference/batch/{id}/errors", only_get(native::results::errors)),
        ("/v1/accounting/usage", only_get(native::accounting::list)),
        ("/v1/accounting/usage/summary", only_get(native::accounting::summary)),
        ("/v1/me", only_get(native::keys::me)),
        ("/v1/api-keys", get(native::keys::list).post(native::keys::create).fallback(|| async { reply::wrong_method("GET, HEAD, POST") })),
        ("/v1/api-keys/{id}", delete(native::keys::delete).fallback(|| async { reply::wrong_method("DELETE") })),
        ("/health", only_get(health::live)),
        ("/health/ready", only_get(health::ready)),
        ("/metrics", only_get(health::metrics)),
    ];
    let router = routes.into_iter().fold(Router::new(), |router, (path, method)| {
        let with_slash = format!("{path}/");
        router.route(path, method.clone()).route(&with_slash, method)
    });
    let router = openai_routes().into_iter().fold(router, |router, (path, method)| router.route(&path, method));
    router
        // One rule for `a%2Fb` and `a/b`: a wildcard takes raw slashes, and is percent-decoded.
        .route("/v1/models/{*slug}", only_get(native::models::get))
        .fallback(reply::no_such_route)
        // Innermost. Shutting down: nothing new; else count what runs, so that the shutdown can wait for it.
        .layer(from_fn_with_state(api.clone(), lifecycle::gate))
        // A panic costs its own request only.
        .layer(CatchPanicLayer::custom(reply::panicked))
        // Faults become the envelope of their path.
        .layer(from_fn(reply::render))
        // Outermost. Request id, trace, log line, metrics.
        .layer(from_fn(observe::observe))
        .with_state(api)
}

/// Files and batches, under the layer's own path and under `/v1`, where no native path has their names.
fn openai_routes() -> Vec<(String, MethodRouter<Arc<Api>>)> {
    let under = |base: &str| {
        let files = get(openai::files::list).post(openai::files::create).layer(DefaultBodyLimit::disable());
        let batches = get(openai::batches::list).post(openai::batches::create);
        let file = get(openai::files::retrieve).delete(openai::files::delete);
        [
            (format!("{base}/files"), files.fallback(|| async { reply::wrong_method("GET, HEAD, POST") })),
            (format!("{base}/files/{{id}}"), file.fallback(|| async { reply::wrong_method("GET, HEAD, DELETE") })),
            (format!("{base}/files/{{id}}/content"), only_get(openai::files::content)),
            (format!("{base}/batches"), batches.fallback(|| async { reply::wrong_method("GET, HEAD, POST") })),
            (format!("{base}/batches/{{id}}"), only_get(openai::batches::retrieve)),
            (format!("{base}/batches/{{id}}/cancel"), only_post(openai::batches::cancel)),
        ]
    };
    ["/oai/v1", "/v1"].into_iter().flat_map(under).collect()
}

fn only_get<H: Handler<T, Arc<Api>>, T: 'static>(handler: H) -> MethodRouter<Arc<Api>> {
    get(handler).fallback(|| async { reply::wrong_method("GET, HEAD") })
}

fn only_post<H: Handler<T, Arc<Api>>, T: 'static>(handler: H) -> MethodRouter<Arc<Api>> {
    post(handler).fallback(|| async { reply::wrong_method("POST") })
}
