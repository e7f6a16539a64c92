//! The API on a real listener with an embedder that computes nothing: it answers by rule, and misbehaves when a text tells it to.

use sha2::{Digest, Sha256};
use std::future::{Future, pending};
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use vecmill::api::embedder::{Ask, Embedder, Found, ModelState};
use vecmill::api::{Api, Options, Tls};
use vecmill::service::access::{Access, Key, Origin};
use vecmill::service::books::Books;
use vecmill::service::limits;
use vecmill::service::registry::Preset;
use vecmill::service::{Caller, Embedded, ItemTokens, Timing};
use vecmill::store::{Place, Store};
use vecmill::wire::listing::{ModelExtra, ModelItem, SupportedDimensions};
use vecmill::wire::{Detail, Fault, Truncate};

/// Native size of every model here.
pub const DIM: usize = 8;
/// The longest text, in tokens; a text has one token per word and two special ones.
pub const MAX_TOKENS: usize = 16;
/// Tokens in one request, for all models but `fake/empty`.
pub const MAX_REQUEST_TOKENS: usize = 100;

/// The embedding space of every model here.
pub const SPACE: &str = "fa4efa4efa4efa4e";

const MODELS: [&str; 6] = ["fake/plain", "fake/mrl", "fake/empty", "fake/loading", "fake/failed", "fake/secret"];

/// What happened inside, told to the test.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A `!hang` request has begun.
    Began,
    /// It was given up.
    Dropped,
}

/// An embedder without a model.
pub struct Fake {
    events: Mutex<Sender<Event>>,
    /// `!hang` requests end when this turns true.
    go_on: watch::Receiver<bool>,
}

impl Embedder for Fake {
    fn embed(&self, ask: Ask, caller: Caller) -> Pin<Box<dyn Future<Output = Result<Embedded, Fault>> + Send + '_>> {
        Box::pin(self.answer(ask, caller))
    }

    fn find(&self, name: &str) -> Option<Found> {
        let known = |name: &str| MODELS.iter().find(|slug| **slug == name || slug.rsplit('/').next() == Some(name));
        let (slug, input_type) = match known(name) {
            Some(slug) => (slug, None),
            None => name.rsplit_once(':').and_then(|(slug, prompt)| Some((known(slug)?, Some(prompt.to_owned()))))?,
        };
        Some(Found { slug: (*slug).to_owned(), input_type, preset: Preset::default(), state: state(slug), embeds_empty: *slug == "fake/empty" })
    }

    fn batch_tokens(&self) -> usize {
        64
    }

    fn list(&self) -> Vec<ModelItem> {
        MODELS.iter().map(|slug| item(slug)).collect()
    }

    fn checks(&self) -> Vec<(&'static str, String)> {
        vec![("models", "ok".to_owned())]
    }
}

fn state(slug: &str) -> ModelState {
    match slug {
        "fake/loading" => ModelState::Loading,
        "fake/failed" => ModelState::Failed,
        _ => ModelState::Ready,
    }
}

fn item(slug: &str) -> ModelItem {
    let supported_dimensions = match slug {
        "fake/mrl" => SupportedDimensions::Range { min: 1, max: DIM, trained: vec![4] },
        _ => SupportedDimensions::Sizes(vec![DIM]),
    };
    let extra = ModelExtra { dimensions: Some(DIM), supported_dimensions, normalized: true, ..ModelExtra::default() };
    let healthy = state(slug) == ModelState::Ready;
    ModelItem { slug: slug.to_owned(), display_name: slug.to_owned(), context_window: Some(MAX_TOKENS), healthy, extra }
}

impl Fake {
    async fn answer(&self, ask: Ask, caller: Caller) -> Result<Embedded, Fault> {
        let dim = dimensions(&ask)?;
        if let Some(expected) = ask.expect_space.clone().filter(|expected| expected != SPACE) {
            return Err(Fault::SpaceMismatch { expected, actual: SPACE.to_owned() });
        }
        let items = tokens(&ask)?;
        if let Some(pass) = &caller.pass {
            pass.tokens(items.iter().map(|item| item.tokens).sum()).await?;
        }
        let mut vectors: Vec<f32> = ask.texts.iter().flat_map(|text| vector(text, dim)).collect();
        match ask.texts[0].as_str() {
            "!busy" => return Err(Fault::Overloaded { retry_after_s: 7 }),
            "!late" => return Err(Fault::BackendTimeout { deadline_ms: 55_000 }),
            "!broken" => return Err(Fault::Backend { reason: "out of memory at /dev/secret".to_owned() }),
            "!nan" => vectors[0] = f32::NAN,
            "!panic" => panic!("told to"),
            "!hang" => self.hang().await,
            "!large" => vectors = vec![0.123_456_7; 2 << 20],
            _ => {}
        }
        let items = if ask.texts[0] == "!large" { vec![items[0]; vectors.len() / DIM] } else { items };
        let ms = Duration::from_millis;
        Ok(Embedded { vectors, dim, items, timing: Timing { tokenize: ms(1), queue: ms(2), inference: ms(3) }, space: SPACE.to_owned() })
    }

    async fn hang(&self) {
        struct Told<'a>(&'a Fake, bool);
        impl Drop for Told<'_> {
            fn drop(&mut self) {
                if !self.1 {
                    let _ = self.0.events.lock().unwrap().send(Event::Dropped);
                }
            }
        }
        let mut told = Told(self, false);
        self.events.lock().unwrap().send(Event::Began).unwrap();
        if self.go_on.clone().wait_for(|go| *go).await.is_err() {
            pending::<()>().await;
        }
        told.1 = true;
    }
}

fn dimensions(ask: &Ask) -> Result<usize, Fault> {
    match ask.dimensions {
        None | Some(DIM) => Ok(DIM),
        Some(wanted) if wanted > DIM => Err(Fault::field("dimensions", format!("must be at most {DIM}; got {wanted}"))),
        Some(wanted) if ask.slug == "fake/mrl" => Ok(wanted),
        Some(_) => Err(Fault::field("dimensions", "this model gives its native size only")),
    }
}

fn tokens(ask: &Ask) -> Result<Vec<ItemTokens>, Fault> {
    let whole: Vec<usize> = ask.texts.iter().map(|text| text.split_whitespace().count() + 2).collect();
    let long = whole.iter().enumerate().filter(|(_, tokens)| **tokens > MAX_TOKENS);
    let cuts = matches!(ask.truncate, Some(Truncate::End | Truncate::Start));
    let faults: Vec<_> = long.map(|(i, n)| Detail::new(format!("input.{i}"), format!("{n} tokens; at most {MAX_TOKENS}"))).collect();
    if !faults.is_empty() && !cuts {
        return Err(Fault::Validation(faults));
    }
    if whole.iter().sum::<usize>() > MAX_REQUEST_TOKENS && ask.slug != "fake/empty" {
        return Err(Fault::Validation(vec![Detail::token_sum(format!("more than {MAX_REQUEST_TOKENS} tokens"))]));
    }
    let item = |n: usize| ItemTokens { tokens: n.min(MAX_TOKENS), original_tokens: (n > MAX_TOKENS).then_some(n) };
    Ok(whole.into_iter().map(item).collect())
}

/// The same text gives the same numbers, another text others.
pub fn vector(text: &str, dim: usize) -> Vec<f32> {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().take(dim).map(|byte| f32::from(*byte) / 256.0 - 0.5).collect()
}

/// A key by its text.
pub fn key(token: &str, models: Option<&[&str]>, scopes: &[&str]) -> Key {
    Key {
        id: format!("apikey_{token}"),
        requests_per_minute: None,
        tokens_per_minute: None,
        weight: 1,
        origin: Origin::File,
        name: token.to_owned(),
        user: "u".to_owned(),
        tenant: "t".to_owned(),
        partner: None,
        models: models.map(|models| models.iter().map(|model| (*model).to_owned()).collect()),
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        expires_at: None,
        sha256: Sha256::digest(token.as_bytes()).into(),
    }
}

/// A server on a thread of its own, until dropped.
pub struct Server {
    pub addr: SocketAddr,
    pub events: Receiver<Event>,
    go_on: watch::Sender<bool>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Server {
    /// Open to all.
    pub fn start(options: Options) -> Self {
        Self::with_access(options, Access::open_to_all())
    }

    pub fn with_access(options: Options, access: Access) -> Self {
        Self::open(options, access, limits::Options::default(), None)
    }

    pub fn with_tls(options: Options, access: Access, tls: Option<Tls>) -> Self {
        Self::open(options, access, limits::Options::default(), tls)
    }

    pub fn with_limits(options: Options, access: Access, limits: limits::Options) -> Self {
        Self::open(options, access, limits, None)
    }

    fn open(options: Options, access: Access, limits: limits::Options, tls: Option<Tls>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (sender, events) = channel();
        let (go_on, gate) = watch::channel(false);
        let (stop, stopped) = oneshot::channel();
        let fake = Fake { events: Mutex::new(sender), go_on: gate };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let books = runtime.block_on(async {
            let store = Store::open(&Place::Memory).await.unwrap();
            Arc::new(Books::open(store, Arc::new(access), vecmill::service::books::Options { limits, ..Default::default() }).await.unwrap())
        });
        let jobs = books.jobs.clone();
        let api = Arc::new(Api::new(Arc::new(fake), books, options));
        runtime.spawn(jobs.run(api.lines()));
        let thread = std::thread::spawn(move || {
            let shutdown = async move { drop(stopped.await) };
            let served = runtime.block_on(async {
                match tls {
                    None => vecmill::api::serve(listener, api, shutdown).await,
                    Some(tls) => vecmill::api::serve_tls(listener, api, tls, shutdown).await,
                }
            });
            runtime.shutdown_background();
            served
        });
        Self { addr, events, go_on, stop: Some(stop), thread: Some(thread) }
    }

    /// Waits for what happens next inside.
    pub fn event(&self) -> Event {
        self.events.recv_timeout(Duration::from_secs(60)).expect("nothing happened inside")
    }

    /// Lets all `!hang` requests end well.
    pub fn go_on(&self) {
        self.go_on.send(true).unwrap();
    }

    /// Asks for a shutdown; does not wait for it.
    pub fn begin_shutdown(&mut self) {
        let _ = self.stop.take().map(|stop| stop.send(()));
    }

    /// Waits until the server has ended.
    pub fn join(&mut self) -> std::io::Result<()> {
        self.thread.take().expect("joined once").join().expect("the server does not panic")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.go_on.send(true);
        self.begin_shutdown();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
