//! The device thread: loads models, then takes batch after batch as long as the device is free. It never waits on a client.

use super::compute::Compute;
use super::meter;
use super::overtake::{self, Overtaken};
use super::pace::{self, Pace};
use super::pending::{Failure, Job, Pending};
use super::pipeline::{ComputeError, Flight};
use super::queue::{Batch, Lane};
use super::{Load, Phase, Ready, Shared};
use crate::kernels::threads;
use crate::ragged::Packed;
use std::cell::RefCell;
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
    name: String,
    compute: Box<dyn Compute>,
}

/// The models of the device, by the queue's numbers. Loads come between batches, so that a batch may borrow them from beginning to end.
pub(super) type Models = Rc<RefCell<Vec<Place>>>;

/// A batch that was given to the device.
struct Flying {
    /// The model's number.
    model: usize,
    lane: Lane,
    jobs: Vec<Job>,
    started: Instant,
    flight: Result<Flight, ComputeError>,
}

/// The thread's whole life. However it ends, nobody is left waiting.
///
/// A device that computes beside this thread is given the next batch before the last one is awaited, so that it never waits for us.
pub(super) fn run(shared: Arc<Shared>) {
    let _last_words = LastWords(shared.clone());
    threads::compute_after_answers();
    let models: Models = Rc::default();
    let mut landing = Landing { shared: &shared, models: models.clone(), free_since: Instant::now() };
    let mut flying: Option<Flying> = None;
    loop {
        match next(&shared, flying.is_none()) {
            Some(Todo::Batch(batch)) => {
                let overlaps = models.borrow().get(batch.model).is_some_and(|model| model.compute.overlaps());
                if overlaps {
                    let started = take_off(&models.borrow(), batch);
                    landing.end(flying.take());
                    flying = started;
                } else {
                    landing.end(flying.take());
                    here(&shared, &models, batch);
                }
            }
            Some(Todo::Load(load)) => {
                landing.end(flying.take());
                let loaded = self::load(&shared, load);
                models.borrow_mut().extend(loaded);
            }
            Some(Todo::Stop) => {
                landing.end(flying.take());
                return;
            }
            // Nothing waits, so this thread may.
            None => landing.end(flying.take()),
        }
    }
}

/// Computes a batch on this thread; bulk work may be overtaken on the way.
fn here(shared: &Arc<Shared>, models: &Models, batch: Batch<Job>) {
    if batch.lane == Lane::Interactive {
        return run_batch(shared, &models.borrow(), batch, &Overtaken::default());
    }
    let overtaken = overtake::during(shared, models, |overtaken| run_batch(shared, &models.borrow(), batch, overtaken));
    shared.lock().queue.overtaken(overtaken);
}

/// Computes what is still wanted of a batch, and takes its time without what overtook it.
pub(super) fn run_batch(shared: &Shared, models: &[Place], batch: Batch<Job>, overtaken: &Overtaken) {
    let Some(Flying { model, lane, jobs, started, flight }) = take_off(models, batch) else { return };
    let tokens = land(shared, models, model, jobs, started, flight);
    account(shared, model, lane, tokens, started.elapsed().saturating_sub(overtaken.time()));
}

/// Gives what is still wanted of a batch to the device.
fn take_off(models: &[Place], batch: Batch<Job>) -> Option<Flying> {
    let model = models.get(batch.model)?;
    let jobs: Vec<Job> = batch.jobs.into_iter().filter(|job| !job.pending.is_over()).collect();
    if jobs.is_empty() {
        return None;
    }
    let started = Instant::now();
    Some(Flying { model: batch.model, lane: batch.lane, flight: start(model.compute.as_ref(), &jobs), jobs, started })
}

/// Where batches come back that were computed beside this thread, and since when the device has been free for the one that comes next.
struct Landing<'a> {
    shared: &'a Shared,
    models: Models,
    free_since: Instant,
}

impl Landing<'_> {
    /// Awaits a batch, hands out its rows, and takes its time.
    fn end(&mut self, flying: Option<Flying>) {
        let Some(Flying { model, lane, jobs, started, flight }) = flying else { return };
        let tokens = land(self.shared, &self.models.borrow(), model, jobs, started, flight);
        // While the batch before it was computed, this one only waited.
        let took = started.max(self.free_since).elapsed();
        self.free_since = Instant::now();
        account(self.shared, model, lane, tokens, took);
    }
}

/// Awaits a batch and hands out its rows; its tokens.
fn land(shared: &Shared, models: &[Place], model: usize, jobs: Vec<Job>, started: Instant, flight: Result<Flight, ComputeError>) -> usize {
    let Some(model) = models.get(model) else { return 0 };
    let (texts, tokens) = (jobs.len(), jobs.iter().map(|job| job.tokens.len()).sum());
    hand_out(shared, model, jobs, started, flight);
    meter::batch(&model.name, texts, tokens);
    tokens
}

/// Remembers how long a batch took.
fn account(shared: &Shared, model: usize, lane: Lane, tokens: usize, took: Duration) {
    let mut state = shared.lock();
    state.took(lane, took);
    if let Some(pace) = state.paces.get_mut(model) {
        pace.observe(tokens, took);
    }
}

/// Takes the next thing to do. With `wait` there is always one in the end; without it, nothing if nothing waits. Loads go first: nothing is served
/// before all models are there.
fn next(shared: &Shared, wait: bool) -> Option<Todo> {
    let mut state = shared.lock();
    loop {
        if let Some(load) = state.loads.pop_front() {
            return Some(Todo::Load(load));
        }
        let next = state.queue.next(Instant::now());
        next.expired.iter().for_each(|job| job.pending.fail(Failure::Deadline));
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
fn load(shared: &Shared, load: Load) -> Option<Place> {
    let Load { name, make, budget_tokens, budget_texts, profile, reply } = load;
    let made = catch_unwind(AssertUnwindSafe(|| -> anyhow::Result<(Box<dyn Compute>, Pace)> {
        let model = make()?;
        let pace = pace::warm_up(model.as_ref(), &profile)?;
        Ok((model, pace))
    }))
    .unwrap_or_else(|panic| Err(anyhow::anyhow!("loading panicked: {}", text_of(panic.as_ref()))));
    match made {
        Ok((model, pace)) => {
            let budget = pace.budget(budget_tokens, budget_texts, model.can_be_overtaken());
            let mut state = shared.lock();
            let id = state.queue.add_model(budget);
            state.paces.push(pace);
            state.dims.push(model.dim());
            drop(state);
            let _ = reply.send(Ok(Ready { model: id, dim: model.dim(), budget, tokens_per_s: pace.warm_tokens_per_s() }));
            Some(Place { name, compute: model })
        }
        Err(error) => {
            let _ = reply.send(Err(error));
            None
        }
    }
}

/// Awaits texts that are computed together; if that fails, computes them in halves, down to the single text, whose request then fails alone.
fn hand_out(shared: &Shared, model: &Place, mut jobs: Vec<Job>, started: Instant, flight: Result<Flight, ComputeError>) {
    let result = flight.and_then(|flight| finish(flight, jobs.len() * model.compute.dim()));
    let took = started.elapsed();
    let mut last: Option<&Arc<Pending>> = None;
    for job in &jobs {
        // Texts of one request mostly lie side by side; counted twice is better than a table per batch.
        if last.is_none_or(|last| !Arc::ptr_eq(last, &job.pending)) {
            job.pending.spent(took);
        }
        last = Some(&job.pending);
    }
    match result {
        Ok(vectors) => deliver(shared, model, &jobs, &vectors),
        Err(error) if jobs.len() > 1 => {
            tracing::warn!(texts = jobs.len(), error = why(&error), "batch failed; it is split and tried again");
            let rest = jobs.split_off(jobs.len() / 2);
            for half in [jobs, rest] {
                let (started, flight) = (Instant::now(), start(model.compute.as_ref(), &half));
                hand_out(shared, model, half, started, flight);
            }
        }
        Err(error) => jobs.iter().for_each(|job| give_up(shared, &job.pending, why(&error))),
    }
}

/// Gives texts to the device; a panic is an error like any other.
fn start(model: &dyn Compute, jobs: &[Job]) -> Result<Flight, ComputeError> {
    let batch = Packed::new(jobs.iter().map(|job| &job.tokens));
    let result = catch_unwind(AssertUnwindSafe(|| model.start(&batch)));
    result.unwrap_or_else(|panic| Err(panicked(panic.as_ref())))
}

/// The right number of values or an error, panics included.
fn finish(flight: Flight, expected: usize) -> Result<Vec<f32>, ComputeError> {
    let result = catch_unwind(AssertUnwindSafe(|| flight.finish()));
    let vectors = result.unwrap_or_else(|panic| Err(panicked(panic.as_ref())))?;
    if vectors.len() != expected {
        return Err(failed(format!("{} values came out instead of {expected}", vectors.len())));
    }
    Ok(vectors)
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> ComputeError {
    failed(format!("the computation panicked: {}", text_of(panic)))
}

/// Hands each row to its request; a row with NaN or infinity is computed again in f32 first.
fn deliver(shared: &Shared, model: &Place, jobs: &[Job], vectors: &[f32]) {
    let dim = model.compute.dim();
    for (job, row) in jobs.iter().zip(vectors.chunks_exact(dim.max(1))) {
        if row.iter().all(|value| value.is_finite()) {
            job.pending.put(job.index, row);
            continue;
        }
        let again = catch_unwind(AssertUnwindSafe(|| model.compute.encode_f32(&Packed::new([&job.tokens]))));
        match again {
            Ok(Ok(row)) if row.len() == dim && row.iter().all(|value| value.is_finite()) => {
                meter::repair(&model.name);
                tracing::warn!(tokens = job.tokens.len(), "a non-finite vector was computed again in f32");
                job.pending.put(job.index, &row);
            }
            _ => {
                tracing::error!(tokens = job.tokens.len(), "a vector is not finite, not even in f32");
                give_up(shared, &job.pending, "the model gives no finite vector for one of the texts".to_owned());
            }
        }
    }
}

/// Fails a request and takes the rest of its texts out of the queue.
fn give_up(shared: &Shared, pending: &Pending, reason: String) {
    tracing::error!(%reason, "a request failed");
    pending.fail(Failure::Compute(reason));
    shared.lock().queue.cancel(pending.id);
}

/// A failure that no operation reported itself.
fn failed(reason: String) -> ComputeError {
    ComputeError::Failed(candle_core::Error::Msg(reason))
}

/// An error with its cause, on one line.
fn why(error: &ComputeError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// The message of a panic, if it has one.
fn text_of(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// Runs when the thread ends, by return or by panic: every waiting request is answered and the end is announced.
struct LastWords(Arc<Shared>);

impl Drop for LastWords {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.phase = Phase::Stopped;
        state.queue.clear().iter().for_each(|job| job.pending.fail(Failure::Dead));
        // Dropping a load drops its reply channel, which tells whoever waits for it.
        state.loads.clear();
        drop(state);
        self.0.alive.send_replace(false);
        meter::device_up(false);
    }
}
