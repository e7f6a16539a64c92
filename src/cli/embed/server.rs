//! The service behind `vecmill embed`: one model, one client, no deadline worth the name.

use super::super::start;
use super::{Flags, Normalize};
use crate::config::{Models, ServeModel};
use crate::engine::{self, Engine};
use crate::hub;
use crate::service::registry::{Registry, Settings};
use crate::service::{self, Caller, EmbedCall, Embedded, Service};
use crate::wire::Fault;
use anyhow::Context;
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
    dimensions: Option<usize>,
    input_type: Option<String>,
}

impl Server {
    /// Obtains, loads and warms up the model.
    pub async fn start(flags: &Flags, models: Models) -> anyhow::Result<Self> {
        let Models { hub, load, devices, threads } = models;
        let devices = start::choose(&devices)?;
        let what = hub::parse(&flags.model)?;
        let settings =
            Settings { truncate: flags.truncate.unwrap_or_default(), as_the_model: flags.normalize == Normalize::Model, ..Settings::default() };
        let model = ServeModel { slug: what.slug(), what, settings, load };
        let budgets = engine::Options { max_batch_tokens: None, max_batch_texts: None, max_queue_tokens: TOKENS };
        let engine = Engine::start(budgets, &start::names(&devices))?;
        let options = service::Options {
            max_texts: usize::MAX,
            max_request_tokens: TOKENS,
            deadline: DEADLINE,
            max_ingest_bytes: TOKENS * 8,
            tokenizer_threads: threads.div_ceil(2),
        };
        let service = Arc::new(Service::new(options, Registry::new(vec![start::place(&model)])?, engine)?);
        start::load_all(&service, vec![model], &devices, &hub, 0).await?;
        Ok(Self { service, dimensions: flags.dimensions, input_type: flags.input_type.clone() })
    }

    /// Embeds all texts or none.
    pub async fn embed(self, texts: Vec<String>) -> Result<Embedded, Fault> {
        let model = self.service.models().first().context("no model").map_err(|_| Fault::Internal)?.clone();
        let caller = Caller { client: 0, weight: 1, bulk: true, pass: None, deadline: Instant::now() + DEADLINE };
        let call = EmbedCall { model, texts, dimensions: self.dimensions, truncate: None, input_type: self.input_type, expect_space: None };
        self.service.embed(call, caller).await
    }
}
