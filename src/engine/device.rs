//! The device thread: loads models, then takes batch after batch as long as the device is free. It never waits on a client.

use super::compute::Compute;
use super::meter;
use super::pace::{self, Pace};
use super::pending::{Failure, Job, Pending};
use super::pipeline::{ComputeError, Flight};
use super::queue::{Batch, Lane};
use super::{Load, Phase, Ready, Shared};
use crate::kernels::threads;
use crate::ragged::Packed;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

/// What the thread does next.
enum Todo {
    Load(Load),
    Batch(Batch<Job>),
    Stop,
}

/// A model on the device, under the name that its metrics carry.
struct Place {
    name: String,
    compute: Box<dyn Compute>,
}

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
    let mut models: Vec<Place> = Vec::new();
    let mut landing = Landing { shared: &shared, free_since: Instant::now() };
    let mut flying: Option<Flying> = None;
    loop {
        match next(&shared, flying.is_none()) {
            Some(Todo::Batch(batch)) => {
                let Some(model) = models.get(batch.model) else { continue };
                if !model.compute.overlaps() {
                    landing.end(&models, flying.take());
                }
                let started = take_off(model, batch);
                landing.end(&models, flying.take());
                flying = started;
                if !model.compute.overlaps() {
                    landing.end(&models, flying.take());
                }
            }
            Some(Todo::Load(load)) => {
                landing.end(&models, flying.take());
                models.extend(self::load(&shared, load));
            }
            Some(Todo::Stop) => {
                landing.end(&models, flying.take());
                return;
            }
            // Nothing waits, so this thread may.
            None => landing.end(&models, flying.take()),
        }
    }
}

/// Gives what is still wanted of a batch to the device.
fn take_off(model: &Place, batch: Batch<Job>) -> Option<Flying> {
    let jobs: Vec<Job> = batch.jobs.into_iter().filter(|job| !job.pending.is_over()).collect();
    if jobs.is_empty() {
        return None;
    }
    let started = Instant::now();
    Some(Flying { model: batch.model, lane: batch.lane, flight: start(model.compute.as_ref(), &jobs), jobs, started })
}

/// Where batches come back, and since when the device has been free for the one that comes next.
struct Landing<'a> {
    shared: &'a Shared,
    free_since: Instant,
}

impl Landing<'_> {
    /// Awaits a batch, hands out its rows, and takes its time.
    fn end(&mut self, models: &[Place], flying: Option<Flying>) {
        let Some(Flying { model, lane, jobs, started, flight }) = flying else { return };
        let Some(place) = models.get(model) else { return };
        let (texts, tokens) = (jobs.len(), jobs.iter().map(|job| job.tokens.len()).sum());
        land(self.shared, place, jobs, started, flight);
        meter::batch(&place.name, texts, tokens);
        // While the batch before it was computed, this one only waited.
        let took = started.max(self.free_since).elapsed();
        self.free_since = Instant::now();
        let mut state = self.shared.lock();
        state.took(lane, took);
        if let Some(pace) = state.paces.get_mut(model) {
            pace.observe(tokens, took);
        }
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
        meter::depth(state.queue.queued_tokens());
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
            let budget = pace.budget(budget_tokens, budget_texts);
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
fn land(shared: &Shared, model: &Place, mut jobs: Vec<Job>, started: Instant, flight: Result<Flight, ComputeError>) {
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
                land(shared, model, half, started, flight);
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
