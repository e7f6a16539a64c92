//! The device thread: loads models, then takes batch after batch as long as the device is free. It never waits on a client.

use super::compute::Compute;
use super::meter;
use super::overtake::{self, Overtaken};
use super::pace::{self, Pace};
use super::pending::{Failure, Job, Pending};
use super::pipeline::ComputeError;
use super::queue::{Batch, Lane};
use super::{Load, Phase, Ready, Shared};
use crate::kernels::threads;
use crate::ragged::Packed;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

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

/// The thread's whole life. However it ends, nobody is left waiting.
pub(super) fn run(shared: Arc<Shared>) {
    let _last_words = LastWords(shared.clone());
    threads::compute_after_answers();
    let models: Models = Rc::default();
    loop {
        match next(&shared) {
            Todo::Load(load) => {
                let loaded = self::load(&shared, load);
                models.borrow_mut().extend(loaded);
            }
            Todo::Batch(batch) if batch.lane == Lane::Bulk => {
                let overtaken = overtake::during(&shared, &models, |overtaken| run_batch(&shared, &models, batch, overtaken));
                shared.lock().queue.overtaken(overtaken);
            }
            Todo::Batch(batch) => run_batch(&shared, &models, batch, &Overtaken::default()),
            Todo::Stop => return,
        }
    }
}

/// Computes what is still wanted of a batch, and takes its time without what overtook it.
pub(super) fn run_batch(shared: &Shared, models: &Models, batch: Batch<Job>, overtaken: &Overtaken) {
    let models = models.borrow();
    let Some(model) = models.get(batch.model) else { return };
    let jobs: Vec<Job> = batch.jobs.into_iter().filter(|job| !job.pending.is_over()).collect();
    let (texts, tokens) = (jobs.len(), jobs.iter().map(|job| job.tokens.len()).sum());
    if texts == 0 {
        return;
    }
    let started = Instant::now();
    compute(shared, model, jobs);
    meter::batch(&model.name, texts, tokens);
    let took = started.elapsed().saturating_sub(overtaken.time());
    let mut state = shared.lock();
    state.took(batch.lane, took);
    if let Some(pace) = state.paces.get_mut(batch.model) {
        pace.observe(tokens, took);
    }
}

/// Waits for work. Loads go first: nothing is served before all models are there.
fn next(shared: &Shared) -> Todo {
    let mut state = shared.lock();
    loop {
        if let Some(load) = state.loads.pop_front() {
            return Todo::Load(load);
        }
        let next = state.queue.next(Instant::now());
        next.expired.iter().for_each(|job| job.pending.fail(Failure::Deadline));
        shared.queue_changed(&state);
        if let Some(batch) = next.batch {
            return Todo::Batch(batch);
        }
        if state.phase == Phase::Stopping {
            return Todo::Stop;
        }
        state = shared.wake.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
    }
}

/// Loads a model and measures it; a panic in a loader is an error like any other.
fn load(shared: &Shared, load: Load) -> Option<Place> {
    let Load { name, make, budget_tokens, budget_texts, reply } = load;
    let made = catch_unwind(AssertUnwindSafe(|| -> anyhow::Result<(Box<dyn Compute>, Pace)> {
        let model = make()?;
        let pace = pace::warm_up(model.as_ref())?;
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

/// Computes texts together; if that fails, in halves, down to the single text, whose request then fails alone.
fn compute(shared: &Shared, model: &Place, mut jobs: Vec<Job>) {
    let started = Instant::now();
    let result = encode(model.compute.as_ref(), &jobs);
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
            compute(shared, model, jobs);
            compute(shared, model, rest);
        }
        Err(error) => jobs.iter().for_each(|job| give_up(shared, &job.pending, why(&error))),
    }
}

/// One forward pass: the right number of values or an error, panics included.
fn encode(model: &dyn Compute, jobs: &[Job]) -> Result<Vec<f32>, ComputeError> {
    let batch = Packed::new(jobs.iter().map(|job| &job.tokens));
    let expected = jobs.len() * model.dim();
    let result = catch_unwind(AssertUnwindSafe(|| model.encode(&batch)));
    let vectors = result.unwrap_or_else(|panic| Err(failed(format!("the computation panicked: {}", text_of(panic.as_ref())))))?;
    if vectors.len() != expected {
        return Err(failed(format!("{} values came out instead of {expected}", vectors.len())));
    }
    Ok(vectors)
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
