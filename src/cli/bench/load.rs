//! When requests leave: at Poisson times whatever the server does (open loop), or one after the other from N clients (closed loop).

use super::Flags;
use super::client::Target;
use super::report::Step;
use anyhow::{Context, anyhow};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// The measured part of a step; what was due before it is warm-up, and answers after it do not count as throughput.
#[derive(Clone, Copy)]
struct Window {
    start: Instant,
    end: Instant,
}

/// Shared by all requests of a step.
struct Run {
    target: Arc<Target>,
    window: Window,
    step: Mutex<Step>,
    /// The number of the next text.
    next: AtomicUsize,
}

impl Run {
    fn new(target: &Arc<Target>, flags: &Flags, step: Step) -> Arc<Self> {
        let start = Instant::now() + flags.warmup;
        Arc::new(Self {
            target: target.clone(),
            window: Window { start, end: start + flags.duration },
            step: Mutex::new(step),
            next: AtomicUsize::new(0),
        })
    }

    /// One request that was due at `due`: send, judge, record.
    async fn send(&self, due: Instant, numbers: Vec<usize>) {
        let outcome = self.target.ask(&numbers).await;
        let now = Instant::now();
        let in_time = self.window.start <= now && now < self.window.end;
        let measured = due >= self.window.start;
        self.record(|step| step.record(outcome, now - due, measured, in_time));
    }

    /// The numbers of the texts of one request: as many as one of `sizes` says. All texts take their turn, so that a server which computes equal texts
    /// under way only once gains nothing by it.
    fn draw(&self, rng: &mut Xoshiro256PlusPlus, sizes: &[u32]) -> Vec<usize> {
        let size = sizes[rng.random_range(0..sizes.len())] as usize;
        let first = self.next.fetch_add(size, Ordering::Relaxed);
        (0..size).map(|at| first.wrapping_add(at) % self.target.pool()).collect()
    }

    fn record(&self, note: impl FnOnce(&mut Step)) {
        note(&mut self.step.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn finish(self: Arc<Self>) -> anyhow::Result<Step> {
        let drain = Instant::now().saturating_duration_since(self.window.end);
        let run = Arc::into_inner(self).ok_or_else(|| anyhow!("a request outlived its step"))?;
        let mut step = run.step.into_inner().unwrap_or_else(PoisonError::into_inner);
        step.drain = drain;
        Ok(step)
    }
}

/// Requests at `rate` per second on average, at times that do not depend on the answers; returns when all have ended.
///
/// # Errors
/// A pacing thread that cannot be started, or that died.
pub async fn open(target: &Arc<Target>, flags: &Flags, rate: f64) -> anyhow::Result<Step> {
    let run = Run::new(target, flags, Step::open(rate, flags.duration)?);
    let room = Arc::new(Semaphore::new(flags.max_in_flight as usize));
    // A thread of its own: the runtime's timer counts whole milliseconds, which would be part of every latency.
    let pacer = {
        let (run, room, flags, runtime) = (run.clone(), room.clone(), flags.clone(), tokio::runtime::Handle::current());
        std::thread::Builder::new().name("bench-pacer".to_owned()).spawn(move || pace(&run, &room, &flags, rate, &runtime))
    };
    let pacer = pacer.context("cannot start the pacing thread")?;
    tokio::task::spawn_blocking(move || pacer.join()).await?.map_err(|_| anyhow!("the pacing thread died"))?;
    // Every request holds one permit until it has ended.
    let _all = room.acquire_many(flags.max_in_flight).await?;
    run.finish()
}

/// Draws arrival times, waits for each, and lets a request go.
fn pace(run: &Arc<Run>, room: &Arc<Semaphore>, flags: &Flags, rate: f64, runtime: &tokio::runtime::Handle) {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(flags.seed);
    let mut due = Instant::now();
    loop {
        due += Duration::from_secs_f64(-(1.0 - rng.random::<f64>()).ln() / rate);
        if due >= run.window.end {
            return;
        }
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let numbers = run.draw(&mut rng, &flags.texts_per_request);
        match room.clone().try_acquire_owned() {
            Ok(permit) => {
                let run = run.clone();
                runtime.spawn(async move {
                    run.send(due, numbers).await;
                    // Before the permit: whoever holds all permits may take the run apart.
                    drop(run);
                    drop(permit);
                });
            }
            Err(_) => run.record(|step| step.unsent += u64::from(due >= run.window.start)),
        }
    }
}

/// `clients` clients, each with one request under way at any time.
///
/// # Errors
/// A client that died.
pub async fn closed(target: &Arc<Target>, flags: &Flags, clients: u32) -> anyhow::Result<Step> {
    let run = Run::new(target, flags, Step::closed(clients, flags.duration)?);
    let mut tasks = JoinSet::new();
    for client in 0..u64::from(clients) {
        let (run, sizes) = (run.clone(), flags.texts_per_request.clone());
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(flags.seed.wrapping_add(client));
        tasks.spawn(async move {
            while Instant::now() < run.window.end {
                let numbers = run.draw(&mut rng, &sizes);
                run.send(Instant::now(), numbers).await;
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.context("a client died")?;
    }
    run.finish()
}
