//! A device's thread: loads models, then takes batch after batch as long as the device is free. It never waits on a client.

use super::compute::Compute;
use super::flight::{self, Flying};
use super::meter;
use super::overtake::{self, Overtaken};
use super::pace::{self, Pace};
use super::pending::{Failure, Job};
use super::queue::{Batch, Lane, ModelId};
use super::{Facts, Load, Phase, Shared};
use crate::kernels::threads;
use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the thread does next.
enum Todo {
    Load(Load),
    Batch(Batch<Job>),
    Stop,
}

/// A model on the device, under the name that its metrics carry.
pub(super) struct Place {
    pub(super) id: ModelId,
    pub(super) name: String,
    pub(super) compute: Box<dyn Compute>,
}

/// The models of the device. Loads come between batches, so that a batch may borrow them from beginning to end.
pub(super) type Models = Rc<RefCell<HashMap<ModelId, Place>>>;

/// Batches, or what is left of them, that a device could not compute: it has failed. Empty if it has not.
pub(super) type Left = Vec<Batch<Job>>;

/// The thread's whole life. However it ends, nobody is left waiting.
///
/// A device that computes beside this thread is given the next batch before the last one is awaited, so that it never waits for us.
pub(super) fn run(shared: Arc<Shared>, index: usize, name: &str) {
    let _last_words = LastWords { shared: shared.clone(), index, name };
    threads::compute_after_answers();
    let models: Models = Rc::default();
    let mut landing = Landing { shared: &shared, models: models.clone(), free_since: Instant::now() };
    let mut flying: Option<Flying> = None;
    loop {
        let mut left = match next(&shared, index, flying.is_none()) {
            Some(Todo::Batch(batch)) if models.borrow().get(&batch.model).is_some_and(|model| model.compute.overlaps()) => {
                let started = flight::take_off(&models.borrow(), batch);
                let left = landing.end(flying.take());
                flying = started;
                left
            }
            Some(Todo::Batch(batch)) => {
                let mut left = landing.end(flying.take());
                if left.is_empty() {
                    here(&shared, &models, batch)
                } else {
                    left.push(batch);
                    left
                }
            }
            Some(Todo::Load(load)) => {
                let left = landing.end(flying.take());
                let loaded = self::load(load);
                models.borrow_mut().extend(loaded);
                left
            }
            Some(Todo::Stop) => {
                let left = landing.end(flying.take());
                return give_back(&shared, index, left);
            }
            // Nothing waits, so this thread may.
            None => landing.end(flying.take()),
        };
        if !left.is_empty() {
            tracing::error!(device = name, "this device does not even compute what it has computed before: it is given up");
            left.extend(flying.take().map(Flying::into_batch));
            return give_back(&shared, index, left);
        }
    }
}

/// Computes a batch on this thread; bulk work may be overtaken on the way.
fn here(shared: &Arc<Shared>, models: &Models, batch: Batch<Job>) -> Left {
    if batch.lane == Lane::Interactive {
        return run_batch(shared, models, batch, &Overtaken::default());
    }
    let mut left = Left::new();
    let overtaken = overtake::during(shared, models, |overtaken| left = run_batch(shared, models, batch, overtaken));
    shared.lock().queue.overtaken(overtaken);
    left
}

/// Computes what is still wanted of a batch, and takes its time without what overtook it.
pub(super) fn run_batch(shared: &Shared, models: &Models, batch: Batch<Job>, overtaken: &Overtaken) -> Left {
    let models = models.borrow();
    let Some(flying) = flight::take_off(&models, batch) else { return Left::new() };
    let (model, lane, started) = (flying.model, flying.lane, flying.started);
    match flight::land(shared, &models, flying) {
        Ok(tokens) => account(shared, model, lane, tokens, started.elapsed().saturating_sub(overtaken.time())),
        Err(rest) => return vec![rest],
    }
    Left::new()
}

/// Where batches come back that were computed beside this thread, and since when the device has been free for the one that comes next.
struct Landing<'a> {
    shared: &'a Shared,
    models: Models,
    free_since: Instant,
}

impl Landing<'_> {
    /// Awaits a batch, hands out its rows, and takes its time.
    fn end(&mut self, flying: Option<Flying>) -> Left {
        let Some(flying) = flying else { return Left::new() };
        let (model, lane, started) = (flying.model, flying.lane, flying.started);
        match flight::land(self.shared, &self.models.borrow(), flying) {
            // While the batch before it was computed, this one only waited.
            Ok(tokens) => account(self.shared, model, lane, tokens, started.max(self.free_since).elapsed()),
            Err(rest) => return vec![rest],
        }
        self.free_since = Instant::now();
        Left::new()
    }
}

/// Remembers how long a batch took.
fn account(shared: &Shared, model: ModelId, lane: Lane, tokens: usize, took: Duration) {
    let mut state = shared.lock();
    state.took(lane, took);
    if let Some(Some(facts)) = state.models.get_mut(model) {
        facts.pace.observe(tokens, took);
    }
}

/// Leaves to the other devices what this one could not compute. Where it was the last one, `LastWords` answers for all.
fn give_back(shared: &Shared, index: usize, left: Left) {
    let mut state = shared.lock();
    state.replicas[index].alive = false;
    state.returned.extend(left);
    drop(state);
    shared.wake.notify_all();
}

/// Takes the next thing to do. With `wait` there is always one in the end; without it, nothing if nothing waits. Loads go first: nothing is served
/// before all models are there.
fn next(shared: &Shared, index: usize, wait: bool) -> Option<Todo> {
    let mut state = shared.lock();
    loop {
        if let Some(load) = state.replicas[index].loads.pop_front() {
            return Some(Todo::Load(load));
        }
        if let Some(batch) = state.returned.pop_front() {
            return Some(Todo::Batch(batch));
        }
        let next = state.queue.next(Instant::now());
        next.expired.iter().for_each(|job| job.fail(&Failure::Deadline));
        shared.queue_changed(&state);
        if let Some(batch) = next.batch {
            return Some(Todo::Batch(batch));
        }
        if state.phase == Phase::Stopping {
            return Some(Todo::Stop);
        }
        if !wait {
            return None;
        }
        state = shared.wake.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
    }
}

/// Loads a model and measures it; a panic in a loader is an error like any other.
fn load(load: Load) -> Option<(ModelId, Place)> {
    let Load { model, name, make, profile, reply } = load;
    let made = catch_unwind(AssertUnwindSafe(|| -> anyhow::Result<(Box<dyn Compute>, Pace)> {
        let model = make()?;
        let pace = pace::warm_up(model.as_ref(), &profile)?;
        Ok((model, pace))
    }))
    .unwrap_or_else(|panic| Err(anyhow::anyhow!("loading panicked: {}", flight::text_of(panic.as_ref()))));
    let (facts, place) = match made {
        Ok((compute, pace)) => {
            (Ok(Facts { dim: compute.dim(), pace, overtaken: compute.overtaken() }), Some((model, Place { id: model, name, compute })))
        }
        Err(error) => (Err(error), None),
    };
    let _ = reply.send(facts);
    place
}

/// Runs when a thread ends, by return or by panic. After the last one every waiting request is answered and the end is announced.
struct LastWords<'a> {
    shared: Arc<Shared>,
    index: usize,
    name: &'a str,
}

impl Drop for LastWords<'_> {
    fn drop(&mut self) {
        meter::device_up(self.name, false);
        let mut state = self.shared.lock();
        let replica = &mut state.replicas[self.index];
        replica.alive = false;
        // Dropping a load drops its reply channel, which tells whoever waits for it.
        replica.loads.clear();
        if state.replicas.iter().any(|replica| replica.alive) {
            return;
        }
        state.phase = Phase::Stopped;
        let returned: Vec<Job> = state.returned.drain(..).flat_map(|batch| batch.jobs).collect();
        state.queue.clear().iter().chain(&returned).for_each(|job| job.fail(&Failure::Dead));
        drop(state);
        self.shared.alive.send_replace(false);
    }
}
