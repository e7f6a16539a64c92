//! The bridge between async callers and the device: submit tokens, await vectors. One thread owns the device and all its models.

pub mod compute;
mod device;
pub mod load;
pub mod memory;
mod meter;
mod overtake;
pub mod pace;
mod pending;
pub mod pipeline;
pub mod queue;

pub use compute::Compute;
pub use pending::{Computed, Failure};
pub use pipeline::ComputeError;

use crate::ragged::Tokens;
use pace::Pace;
use pending::{Job, Pending};
use queue::{Budget, Lane, ModelId, Queue, RequestId, Submission};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};

/// How the engine is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Batch budget in tokens; `None` = what the device computes in about 100 ms, for bulk work on a CPU three times that.
    pub max_batch_tokens: Option<usize>,
    /// Batch limit in texts; `None` = 512.
    pub max_batch_texts: Option<usize>,
    /// The most tokens that wait; over that, requests are refused.
    pub max_queue_tokens: usize,
}

/// All texts of one request, ready to compute.
#[derive(Debug)]
pub struct Work {
    pub model: ModelId,
    /// Requests of one client share one turn in the queue.
    pub client: u64,
    /// The client's part of the device relative to others.
    pub weight: u32,
    /// True puts it into the bulk lane whatever its size.
    pub bulk: bool,
    pub deadline: Instant,
    pub texts: Vec<Tokens>,
}

/// Why a request is not admitted.
#[derive(Debug, Clone, PartialEq)]
pub enum Refusal {
    /// The queue has no room, or what waits before this request takes longer than it has.
    Full { retry_after: Duration },
    /// Even an idle server could not compute it in time.
    TooSlow { tokens: usize, tokens_per_s: f64, needs: Duration },
    /// The engine is stopping or its thread has died.
    Stopped,
}

/// A model that is loaded and warm.
#[derive(Debug, Clone, Copy)]
pub struct Ready {
    pub model: ModelId,
    pub dim: usize,
    pub budget: Budget,
    pub tokens_per_s: f64,
}

/// What the queue's ageing bound leaves to the interactive lane while bulk work waits.
const MOST_INTERACTIVE: f64 = queue::INTERACTIVE_RUN as f64 / (queue::INTERACTIVE_RUN + 1) as f64;

type Make = Box<dyn FnOnce() -> anyhow::Result<Box<dyn Compute>> + Send>;

struct Load {
    name: String,
    make: Make,
    budget_tokens: Option<usize>,
    budget_texts: Option<usize>,
    reply: oneshot::Sender<anyhow::Result<Ready>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// What waits is computed, nothing new is taken.
    Stopping,
    Stopped,
}

struct State {
    queue: Queue<Job>,
    loads: VecDeque<Load>,
    phase: Phase,
    /// The interactive lane's part of the device's recent time: 0 to `MOST_INTERACTIVE`.
    interactive_share: f64,
    /// By model, as the queue numbers them.
    paces: Vec<Pace>,
    dims: Vec<usize>,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    /// Short requests wait: asked between the operations of a forward pass, too often for the lock.
    hurry: AtomicBool,
    alive: watch::Sender<bool>,
}

impl Shared {
    /// Held for moments, never across a forward pass. Its holders do not panic half-way; poisoning is ignored.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what the queue has become.
    fn queue_changed(&self, state: &State) {
        meter::depth(state.queue.queued_tokens());
        self.hurry.store(state.queue.interactive_waits(), Ordering::Relaxed);
    }
}

/// The engine of one device. Dropping it stops the thread after what waits has been computed.
pub struct Engine {
    shared: Arc<Shared>,
    options: Options,
    next_request: AtomicU64,
}

impl Engine {
    /// Starts the device thread.
    pub fn start(options: Options) -> std::io::Result<Self> {
        let state = State {
            queue: Queue::new(options.max_queue_tokens),
            loads: VecDeque::new(),
            phase: Phase::Running,
            interactive_share: 0.0,
            paces: Vec::new(),
            dims: Vec::new(),
        };
        let shared =
            Arc::new(Shared { state: Mutex::new(state), wake: Condvar::new(), hurry: AtomicBool::new(false), alive: watch::channel(true).0 });
        let thread = shared.clone();
        std::thread::Builder::new().name("device".to_owned()).spawn(move || device::run(thread))?;
        meter::device_up(true);
        Ok(Self { shared, options, next_request: AtomicU64::new(0) })
    }

    /// Loads a model on the device thread, warms it up and measures it. `name` labels its metrics.
    pub async fn load(&self, name: &str, make: impl FnOnce() -> anyhow::Result<Box<dyn Compute>> + Send + 'static) -> anyhow::Result<Ready> {
        let (reply, answer) = oneshot::channel();
        let Options { max_batch_tokens, max_batch_texts, .. } = self.options;
        let load = Load { name: name.to_owned(), make: Box::new(make), budget_tokens: max_batch_tokens, budget_texts: max_batch_texts, reply };
        {
            let mut state = self.shared.lock();
            anyhow::ensure!(state.phase == Phase::Running, "the engine is stopping");
            state.loads.push_back(load);
        }
        self.shared.wake.notify_one();
        answer.await.map_err(|_| anyhow::anyhow!("the device thread ended while the model was loading"))?
    }

    /// Whether a request of about this size would be refused now; cheap, so that refusals need no tokenising.
    pub fn room(&self, texts: usize, tokens: usize, bulk: bool) -> Result<(), Refusal> {
        let state = self.shared.lock();
        state.queue.room(Lane::of(texts, tokens, bulk), tokens).map_err(|full| Refusal::Full { retry_after: state.time_until_room(full) })
    }

    /// Admits a request whole or refuses it whole.
    pub fn submit(&self, work: Work) -> Result<Ticket, Refusal> {
        let Work { model, client, weight, bulk, deadline, texts } = work;
        let id = self.next_request.fetch_add(1, Ordering::Relaxed);
        let tokens = texts.iter().map(Tokens::len).sum();
        let mut state = self.shared.lock();
        let (Some(&pace), Some(&dim)) = (state.paces.get(model), state.dims.get(model)) else { return Err(Refusal::Stopped) };
        if state.phase != Phase::Running {
            return Err(Refusal::Stopped);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let idle = pace.idle_time_for(tokens);
        if idle > left {
            return Err(Refusal::TooSlow { tokens, tokens_per_s: pace.warm_tokens_per_s(), needs: idle });
        }
        let wait = state.time_until_done(Lane::of(texts.len(), tokens, bulk), pace.time_for(tokens));
        if wait > left {
            return Err(Refusal::Full { retry_after: wait.saturating_sub(left) });
        }
        let (pending, answer) = Pending::new(id, texts.len(), dim);
        let place = |(index, tokens): (usize, Tokens)| {
            let len = tokens.len();
            (Job { pending: pending.clone(), index, tokens }, len)
        };
        let jobs = texts.into_iter().enumerate().map(place).collect();
        let submitted = state.queue.submit(Submission { id, model, client, weight, bulk, deadline, jobs });
        submitted.map_err(|full| Refusal::Full { retry_after: state.time_until_room(full) })?;
        self.shared.queue_changed(&state);
        drop(state);
        self.shared.wake.notify_one();
        Ok(Ticket { answer, shared: self.shared.clone(), id })
    }

    /// Tokens waiting.
    pub fn queued_tokens(&self) -> usize {
        self.shared.lock().queue.queued_tokens()
    }

    /// Takes nothing new; what waits is still computed.
    pub fn stop(&self) {
        let mut state = self.shared.lock();
        if state.phase == Phase::Running {
            state.phase = Phase::Stopping;
        }
        drop(state);
        self.shared.wake.notify_one();
    }

    /// Whether the device thread lives.
    pub fn is_alive(&self) -> bool {
        *self.shared.alive.borrow()
    }

    /// Resolves when the device thread has ended.
    pub async fn ended(&self) {
        let mut alive = self.shared.alive.subscribe();
        // An error means that the sender is gone, and with it the thread.
        let _ = alive.wait_for(|alive| !alive).await;
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
    }
}

impl State {
    /// How long a request of this lane takes that needs `own` time itself, behind what is already there.
    fn time_until_done(&self, lane: Lane, own: Duration) -> Duration {
        let per_model = self.paces.iter().enumerate().map(|(model, pace)| pace.time_for(self.queue.tokens_ahead(lane, model)));
        let work = per_model.fold(own, Duration::saturating_add);
        match lane {
            Lane::Interactive => work,
            // New short requests will overtake it as they have done lately.
            Lane::Bulk => Duration::try_from_secs_f64(work.as_secs_f64() / (1.0 - self.interactive_share)).unwrap_or(Duration::MAX),
        }
    }

    /// Follows how much of the device's time the interactive lane takes, never to the whole: bulk work has its one batch in four.
    fn took(&mut self, lane: Lane, took: Duration) {
        // About the last second counts.
        let weight = took.as_secs_f64().min(1.0);
        let now = if lane == Lane::Interactive { MOST_INTERACTIVE } else { 0.0 };
        self.interactive_share += (now - self.interactive_share) * weight;
    }

    /// How long it takes until as many tokens are gone as a refused request lacks.
    fn time_until_room(&self, full: queue::Full) -> Duration {
        let excess = (full.queued_tokens + full.request_tokens).saturating_sub(full.limit_tokens);
        let slowest = self.paces.iter().min_by(|a, b| a.tokens_per_s().total_cmp(&b.tokens_per_s()));
        slowest.map_or(Duration::from_secs(1), |pace| pace.time_for(excess))
    }
}

/// An admitted request. Dropping it takes what is not computed yet out of the queue.
pub struct Ticket {
    answer: oneshot::Receiver<Result<Computed, Failure>>,
    shared: Arc<Shared>,
    id: RequestId,
}

impl Ticket {
    /// Waits for the vectors, but not beyond the deadline.
    pub async fn wait_until(mut self, deadline: Instant) -> Result<Computed, Failure> {
        match tokio::time::timeout_at(deadline.into(), &mut self.answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Failure::Dead),
            Err(_) => Err(Failure::Deadline),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.answer.close();
        let mut state = self.shared.lock();
        let left = state.queue.cancel(self.id);
        self.shared.queue_changed(&state);
        drop(state);
        drop(left);
    }
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
