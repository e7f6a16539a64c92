//! Our engine as one of the processes that benches/peers/run compares: the service of `vecmill serve` without HTTP.
//!
//! Takes the flags of `serve` and `--workloads FILE`. Says `{"ready": true}`, and the level of its kernels, when the model is warm; then each line on
//! standard input is a command and is answered by one line, as worker.py answers for the peers.

use anyhow::{Context, anyhow};
use clap::Parser;
use serde::Deserialize;
use serde_json::json;
use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use vecmill::cli::start;
use vecmill::config::{self, Env, Resolved, Said};
use vecmill::engine::Engine;
use vecmill::engine::load::Cpu;
use vecmill::service::registry::Registry;
use vecmill::service::{Caller, EmbedCall, Service};
use vecmill::wire::Truncate;

/// The allocator of the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const DEADLINE: Duration = Duration::from_secs(600);

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    said: Said,
    /// Written by workload.py.
    #[arg(long)]
    workloads: PathBuf,
}

/// Texts, and what they come to in tokens.
#[derive(Deserialize)]
struct Workload {
    texts: Vec<String>,
}

/// How texts become requests.
#[derive(Deserialize, Clone, Copy)]
struct Setting {
    /// Texts in a request.
    batch: usize,
    /// Requests under way at once.
    in_flight: usize,
}

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "lowercase")]
enum Command {
    /// All texts, or the first ones, as fast as it goes.
    Encode { workload: String, setting: Setting, first: Option<usize> },
    /// One text at a time.
    Latency { workload: String },
    /// All texts; the vectors go to a file as little-endian f32.
    Vectors { workload: String, setting: Setting, path: PathBuf },
}

fn main() -> anyhow::Result<()> {
    let Line { said, workloads } = Line::parse();
    let workloads: HashMap<String, Workload> = serde_json::from_slice(&std::fs::read(workloads)?)?;
    let resolved = config::serve(said, &Env::default())?;
    start::run(resolved.threads, async move {
        let service = load(&resolved).await?;
        let cpu = resolved.models.first().and_then(|model| model.load.cpu).or_else(Cpu::best);
        answer(json!({ "ready": true, "level": cpu.map(|cpu| cpu.level().name()) }))?;
        for line in std::io::stdin().lock().lines() {
            answer(obey(&service, &workloads, serde_json::from_str(&line?)?).await?)?;
        }
        Ok(())
    })
}

/// The service with its model, loaded and warm, as `serve` has it.
async fn load(resolved: &Resolved) -> anyhow::Result<Arc<Service>> {
    let devices = start::choose(&resolved.devices)?;
    let engine = Engine::start(resolved.engine.clone(), &start::names(&devices))?;
    let registry = Registry::new(resolved.models.iter().map(start::place).collect())?;
    let service = Arc::new(Service::new(resolved.service.clone(), registry, engine)?);
    start::load_all(&service, resolved.models.clone(), &devices, &resolved.hub, 0).await?;
    Ok(service)
}

fn answer(value: serde_json::Value) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{value}")?;
    Ok(out.flush()?)
}

async fn obey(service: &Arc<Service>, workloads: &HashMap<String, Workload>, command: Command) -> anyhow::Result<serde_json::Value> {
    let find = |name: &str| workloads.get(name).with_context(|| format!("no workload {name:?}"));
    match command {
        Command::Encode { workload, setting, first } => {
            let mut texts = find(&workload)?.texts.clone();
            texts.truncate(first.unwrap_or(usize::MAX));
            let began = Instant::now();
            let (_, tokens) = encode(service, texts, setting).await?;
            Ok(json!({ "seconds": began.elapsed().as_secs_f64(), "tokens": tokens }))
        }
        Command::Latency { workload } => {
            let mut ms = Vec::new();
            for text in find(&workload)?.texts.clone() {
                let began = Instant::now();
                embed(service, vec![text]).await?;
                ms.push(began.elapsed().as_secs_f64() * 1e3);
            }
            Ok(json!({ "ms": ms }))
        }
        Command::Vectors { workload, setting, path } => {
            let (vectors, _) = encode(service, find(&workload)?.texts.clone(), setting).await?;
            std::fs::write(&path, vectors.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())?;
            Ok(json!({ "written": path }))
        }
    }
}

/// All vectors in the order of the texts, and the number of tokens.
async fn encode(service: &Arc<Service>, texts: Vec<String>, setting: Setting) -> anyhow::Result<(Vec<f32>, usize)> {
    let room = Arc::new(Semaphore::new(setting.in_flight));
    let mut requests = Vec::new();
    for batch in texts.chunks(setting.batch) {
        let (service, batch, permit) = (service.clone(), batch.to_vec(), room.clone().acquire_owned().await?);
        requests.push(tokio::spawn(async move {
            let embedded = embed(&service, batch).await;
            drop(permit);
            embedded
        }));
    }
    let (mut vectors, mut tokens) = (Vec::new(), 0);
    for request in requests {
        let (of_request, more) = request.await??;
        vectors.extend(of_request);
        tokens += more;
    }
    Ok((vectors, tokens))
}

/// One request: its vectors and tokens.
async fn embed(service: &Service, texts: Vec<String>) -> anyhow::Result<(Vec<f32>, usize)> {
    let model = service.models().first().context("no model")?.clone();
    let call = EmbedCall { model, texts, dimensions: None, truncate: Some(Truncate::None), input_type: None, expect_space: None };
    let caller = Caller { client: 0, weight: 1, bulk: false, pass: None, deadline: Instant::now() + DEADLINE };
    let embedded = service.embed(call, caller).await.map_err(|fault| anyhow!("{fault:?}"))?;
    Ok((embedded.vectors, embedded.items.iter().map(|item| item.tokens).sum()))
}
