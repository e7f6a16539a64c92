//! The service behind `vecmill embed`: one model, one client, no deadline worth the name.

use super::super::start;
use super::flags::{Flags, Normalize};
use super::window::Limits;
use crate::config::{Models, ServeModel};
use crate::engine::load::Cpu;
use crate::engine::{self, Engine};
use crate::hub;
use crate::service::registry::{Model, Registry, Settings};
use crate::service::{self, Caller, EmbedCall, Embedded, Service};
use crate::wire::Fault;
use anyhow::{Context, anyhow};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Nobody waits at the other end of a file.
const DEADLINE: Duration = Duration::from_secs(24 * 3600);
/// Room for the few chunks that are under way.
const TOKENS: usize = 16 << 20;

/// A service that answers to one command.
#[derive(Clone)]
pub struct Server {
    service: Arc<Service>,
    model: Arc<Model>,
    dimensions: Option<usize>,
    input_type: Option<String>,
    /// The level of the processor that kernels are chosen for: another one rounds otherwise.
    level: &'static str,
}

/// What is known of the vectors before the first one.
pub struct Facts {
    /// Numbers in a vector.
    pub dim: usize,
    pub space: String,
    pub limits: Limits,
    /// What decides the vectors' bits, by name.
    pub identity: Vec<(&'static str, String)>,
}

impl Server {
    /// Obtains, loads and warms up the model.
    ///
    /// # Errors
    /// A model that cannot be had or loaded.
    pub async fn start(flags: &Flags, models: Models) -> anyhow::Result<Self> {
        let Models { hub, load, devices, threads } = models;
        let devices = start::choose(&devices)?;
        let what = hub::parse(&flags.model)?;
        let settings =
            Settings { truncate: flags.truncate.unwrap_or_default(), as_the_model: flags.normalize == Normalize::Model, ..Settings::default() };
        let level = load.cpu.or_else(Cpu::best).map_or("none", |cpu| cpu.level().name());
        let model = ServeModel { slug: what.slug(), what, settings, load };
        let budgets = Some(hub.cache_dir.join("budgets.json"));
        let options = engine::Options { max_batch_tokens: None, max_batch_texts: None, max_queue_tokens: TOKENS, profile: budgets };
        let engine = Engine::start(options, &start::names(&devices))?;
        let options = service::Options {
            max_texts: usize::MAX,
            max_request_tokens: TOKENS,
            deadline: DEADLINE,
            max_ingest_bytes: TOKENS * 8,
            tokenizer_threads: threads.div_ceil(2),
        };
        let service = Arc::new(Service::new(options, Registry::new(vec![start::place(&model)])?, engine)?);
        start::load_all(&service, vec![model], &devices, &hub, 0).await?;
        let model = service.models().first().context("no model")?.clone();
        Ok(Self { service, model, dimensions: flags.dimensions, input_type: flags.input_type.clone(), level })
    }

    /// What every vector will be like.
    ///
    /// # Errors
    /// Flags that the model cannot obey.
    pub fn facts(&self) -> anyhow::Result<Facts> {
        let loaded = self.model.loaded().context("the model is not loaded")?;
        let dim = self.model.dimensions(&loaded.info, loaded.engine.dim, self.dimensions).map_err(|message| anyhow!("--dimensions {message}"))?;
        let role = self.model.role(&loaded.info, self.input_type.as_deref());
        role.map_err(|names| anyhow!("--input-type: this model has no such prompt; it takes {}", names.0.join(", ")))?;
        let (budget, space) = (loaded.engine.budget, loaded.space.fingerprint(dim));
        let identity = vec![
            ("embedding space (weights, pooling, prompts, size)", space.clone()),
            ("dtype", loaded.info.dtype.to_string()),
            ("device", format!("{:?}", loaded.info.device)),
            ("--cpu-level", self.level.to_owned()),
            ("longest text in tokens", loaded.info.max_tokens.to_string()),
        ];
        Ok(Facts { dim, space, limits: Limits::of(budget.bulk_tokens, budget.texts, loaded.engine.tokens_per_s), identity })
    }

    /// The name that the model is listed under.
    pub fn slug(&self) -> &str {
        &self.model.slug
    }

    /// Embeds all texts or none.
    ///
    /// # Errors
    /// What the service says.
    pub async fn embed(self, texts: Vec<String>) -> Result<Embedded, Fault> {
        let caller = Caller { client: 0, weight: 1, bulk: true, pass: None, deadline: Instant::now() + DEADLINE };
        let call =
            EmbedCall { model: self.model, texts, dimensions: self.dimensions, truncate: None, input_type: self.input_type, expect_space: None };
        self.service.embed(call, caller).await
    }
}
