//! The bridge between async callers and the device: submit tokens, await vectors. One thread per device owns it and all its
//! models; several devices of one kind hold the same models and take from one queue.

pub mod compute;
mod device;
mod flight;
pub mod load;
pub mod memory;
mod meter;
mod overtake;
pub mod pace;
mod pending;
pub mod pipeline;
pub mod profile;
pub mod queue;

pub use crate::kernels::threads::usable as usable_threads;
pub use compute::Compute;
pub use pending::{Computed, Failure};
pub use pipeline::ComputeError;

use crate::ragged::Tokens;
use pace::Pace;
use pending::{Job, Pending};
use profile::Profile;
use queue::{Batch, Budget, Lane, ModelId, Queue, RequestId, Submission};
use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};

/// How the engine is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Batch budget in tokens; `None` = what the device computes in about 100 ms, for bulk work on a CPU three times that, and `exec::busy_tokens` at least.
    pub max_batch_tokens: Option<usize>,
    /// Batch limit in texts; `None` = 512.
    pub max_batch_texts: Option<usize>,
    /// The most tokens that wait; over that, requests are refused.
    pub max_queue_tokens: usize,
    /// Budgets that devices held at earlier starts; `None` = found anew each time.
    pub profile: Option<PathBuf>,
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

/// Loads a model; runs on the thread of the device that it is for.
pub type Make = Box<dyn FnOnce() -> anyhow::Result<Box<dyn Compute>> + Send>;

struct Load {
    model: ModelId,
    name: String,
    make: Make,
    profile: Profile,
    reply: oneshot::Sender<anyhow::Result<Facts>>,
}

/// What is known of a model that is warm.
#[derive(Debug, Clone, Copy)]
struct Facts {
    dim: usize,
    /// Of one device; the slowest where they differ.
    pace: Pace,
    /// Where short requests may come between its operations: the tokens that it is best given at once.
    overtaken: Option<usize>,
}

/// One device, as the others see it.
struct Replica {
    loads: VecDeque<Load>,
    alive: bool,
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
    /// What a device had taken when it failed: the others do it first.
    returned: VecDeque<Batch<Job>>,
    replicas: Vec<Replica>,
    phase: Phase,
    /// The interactive lane's part of the device's recent time: 0 to `MOST_INTERACTIVE`.
    interactive_share: f64,
    /// By model, as the queue numbers them; `None` until every device has it.
    models: Vec<Option<Facts>>,
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

/// The engine of one device, or of several. Dropping it stops the threads after what waits has been computed.
pub struct Engine {
    shared: Arc<Shared>,
    options: Options,
    next_request: AtomicU64,
    /// By what equal texts find each other; random, so that nobody can make different ones meet.
    hasher: RandomState,
}

impl Engine {
    /// Starts a thread for each device; `devices` are their names.
    pub fn start(options: Options, devices: &[String]) -> std::io::Result<Self> {
        let replica = |_: &String| Replica { loads: VecDeque::new(), alive: true };
        let state = State {
            queue: Queue::new(options.max_queue_tokens),
            returned: VecDeque::new(),
            replicas: devices.iter().map(replica).collect(),
            phase: Phase::Running,
            interactive_share: 0.0,
            models: Vec::new(),
        };
        let shared =
            Arc::new(Shared { state: Mutex::new(state), wake: Condvar::new(), hurry: AtomicBool::new(false), alive: watch::channel(true).0 });
        let engine = Self { shared: shared.clone(), options, next_request: AtomicU64::new(0), hasher: RandomState::new() };
        for (index, name) in devices.iter().enumerate() {
            let (shared, own_name) = (shared.clone(), name.clone());
            std::thread::Builder::new().name(format!("device {name}")).spawn(move || device::run(shared, index, &own_name))?;
            meter::device_up(name, true);
        }
        Ok(engine)
    }

    /// Loads a model on every device, warms it up and measures it: `makes` has a loader for each. `name` labels its metrics.
    ///
    /// # Errors
    /// What the first loader that fails says; then no device serves the model.
    pub async fn load(&self, name: &str, makes: Vec<Make>) -> anyhow::Result<Ready> {
        let (model, answers) = self.ask_to_load(name, makes)?;
        let mut facts: Option<Facts> = None;
        let devices = answers.len();
        for answer in answers {
            let one = answer.await.map_err(|_| anyhow::anyhow!("the device thread ended while the model was loading"))??;
            let slowest = facts.filter(|facts| facts.pace.warm_tokens_per_s() < one.pace.warm_tokens_per_s());
            anyhow::ensure!(facts.is_none_or(|facts| facts.dim == one.dim), "the devices give vectors of different sizes");
            facts = Some(slowest.unwrap_or(one));
        }
        let Some(facts) = facts else { anyhow::bail!("the engine has no device") };
        let budget = facts.pace.budget(self.options.max_batch_tokens, self.options.max_batch_texts, facts.overtaken);
        let mut state = self.shared.lock();
        state.queue.set_budget(model, budget);
        if let Some(place) = state.models.get_mut(model) {
            *place = Some(facts);
        }
        Ok(Ready { model, dim: facts.dim, budget, tokens_per_s: facts.pace.warm_tokens_per_s() * devices as f64 })
    }

    /// Gives each device's thread its loader, and the model its number.
    fn ask_to_load(&self, name: &str, makes: Vec<Make>) -> anyhow::Result<(ModelId, Vec<oneshot::Receiver<anyhow::Result<Facts>>>)> {
        let mut state = self.shared.lock();
        anyhow::ensure!(state.phase == Phase::Running && state.replicas.iter().all(|replica| replica.alive), "the engine is stopping");
        anyhow::ensure!(makes.len() == state.replicas.len(), "{} loaders for {} devices", makes.len(), state.replicas.len());
        // Nothing is submitted to it before it has its facts, and then it has its budget.
        let model = state.queue.add_model(Budget { tokens: 1, bulk_tokens: 1, texts: 1 });
        state.models.push(None);
        let profile = Profile::at(self.options.profile.clone());
        let mut answers = Vec::new();
        for (replica, make) in state.replicas.iter_mut().zip(makes) {
            let (reply, answer) = oneshot::channel();
            replica.loads.push_back(Load { model, name: name.to_owned(), make, profile: profile.clone(), reply });
            answers.push(answer);
        }
        drop(state);
        self.shared.wake.notify_all();
        Ok((model, answers))
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
        let tokens: usize = texts.iter().map(Tokens::len).sum();
        let digests: Vec<u64> = texts.iter().map(|text| self.hasher.hash_one(&text.ids)).collect();
        let mut state = self.shared.lock();
        let Some(&Some(Facts { dim, pace, .. })) = state.models.get(model) else { return Err(Refusal::Stopped) };
        if state.phase != Phase::Running {
            return Err(Refusal::Stopped);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let idle = pace.idle_time_for(tokens.div_ceil(state.devices().min(texts.len()).max(1)));
        if idle > left {
            return Err(Refusal::TooSlow { tokens, tokens_per_s: pace.warm_tokens_per_s(), needs: idle });
        }
        let wait = state.time_until_done(Lane::of(texts.len(), tokens, bulk), pace.time_for(tokens));
        if wait > left {
            return Err(Refusal::Full { retry_after: wait.saturating_sub(left) });
        }
        let (pending, answer) = Pending::new(id, texts.len(), dim);
        let place = |(index, (tokens, digest)): (usize, (Tokens, u64))| {
            let len = tokens.len();
            (Job::new(pending.clone(), index, tokens, digest), len)
        };
        let jobs = texts.into_iter().zip(digests).enumerate().map(place).collect();
        let submitted = state.queue.submit(Submission { id, model, client, weight, bulk, deadline, jobs });
        submitted.map_err(|full| Refusal::Full { retry_after: state.time_until_room(full) })?;
        self.shared.queue_changed(&state);
        drop(state);
        // Every idle device: there may be work for all of them.
        self.shared.wake.notify_all();
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
        self.shared.wake.notify_all();
    }

    /// Whether a device thread lives.
    pub fn is_alive(&self) -> bool {
        *self.shared.alive.borrow()
    }

    /// Resolves when the last device thread has ended.
    pub async fn ended(&self) {
        let mut alive = self.shared.alive.subscribe();
        // An error means that the sender is gone, and with it the threads.
        let _ = alive.wait_for(|alive| !alive).await;
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
    }
}

impl State {
    /// How many devices share the work; 1 where none is left, for nobody waits there.
    fn devices(&self) -> usize {
        self.replicas.iter().filter(|replica| replica.alive).count().max(1)
    }

    /// How long a request of this lane takes that needs `own` time itself, behind what is already there.
    fn time_until_done(&self, lane: Lane, own: Duration) -> Duration {
        let known = self.models.iter().enumerate().filter_map(|(model, facts)| Some((model, facts.as_ref()?.pace)));
        let per_model = known.map(|(model, pace)| pace.time_for(self.queue.tokens_ahead(lane, model)));
        let work = per_model.fold(own, Duration::saturating_add) / self.devices() as u32;
        match lane {
            Lane::Interactive => work,
            // New short requests will overtake it as they have done lately.
            Lane::Bulk => Duration::try_from_secs_f64(work.as_secs_f64() / (1.0 - self.interactive_share)).unwrap_or(Duration::MAX),
        }
    }

    /// Follows how much of the device's time the interactive lane takes, never to the whole: bulk work has its one batch in four.
    fn took(&mut self, lane: Lane, took: Duration) {
        // About the last second counts, of all devices together.
        let weight = (took.as_secs_f64() / self.devices() as f64).min(1.0);
        let now = if lane == Lane::Interactive { MOST_INTERACTIVE } else { 0.0 };
        self.interactive_share += (now - self.interactive_share) * weight;
    }

    /// How long it takes until as many tokens are gone as a refused request lacks.
    fn time_until_room(&self, full: queue::Full) -> Duration {
        let excess = (full.queued_tokens + full.request_tokens).saturating_sub(full.limit_tokens);
        let paces = self.models.iter().flatten().map(|facts| facts.pace);
        let slowest = paces.min_by(|a, b| a.tokens_per_s().total_cmp(&b.tokens_per_s()));
        slowest.map_or(Duration::from_secs(1), |pace| pace.time_for(excess) / self.devices() as u32)
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

#[cfg(test)]
#[path = "replicas_tests.rs"]
mod replicas_tests;
