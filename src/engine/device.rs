//! A device's thread: loads models, then takes batch after batch as long as the device is free. It never waits on a client.

use super::compute::Compute;
use super::meter;
use super::pace::{self, Pace};
use super::pending::{Failure, Job, Pending};
use super::pipeline::ComputeError;
use super::queue::{Batch, ModelId};
use super::{Facts, Load, Phase, Shared};
use crate::kernels::threads;
use crate::ragged::Packed;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

/// How often a device is asked again for what it has computed before, until it counts as failed.
const PROBES: usize = 3;

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

/// The thread's whole life. However it ends, nobody is left waiting.
pub(super) fn run(shared: Arc<Shared>, index: usize, name: &str) {
    let _last_words = LastWords { shared: shared.clone(), index, name };
    threads::compute_after_answers();
    let mut models: HashMap<ModelId, Place> = HashMap::new();
    loop {
        match next(&shared, index) {
            Todo::Load(load) => models.extend(self::load(load)),
            Todo::Batch(batch) => {
                let Some(model) = models.get(&batch.model) else { continue };
                if let Err(rest) = run_batch(&shared, model, batch) {
                    tracing::error!(device = name, "this device does not even compute what it has computed before: it is given up");
                    return give_back(&shared, index, rest);
                }
            }
            Todo::Stop => return,
        }
    }
}

/// Computes what is still wanted of a batch, and takes its time. The error is what is left of it when the device has failed.
fn run_batch(shared: &Shared, model: &Place, batch: Batch<Job>) -> Result<(), Batch<Job>> {
    let Batch { model: id, lane, jobs, .. } = batch;
    let jobs: Vec<Job> = jobs.into_iter().filter(|job| !job.pending.is_over()).collect();
    let (texts, tokens) = (jobs.len(), jobs.iter().map(|job| job.tokens.len()).sum());
    if texts == 0 {
        return Ok(());
    }
    let started = Instant::now();
    compute(shared, model, jobs).map_err(|jobs| Batch { model: id, lane, tokens, jobs })?;
    meter::batch(&model.name, texts, tokens);
    let took = started.elapsed();
    let mut state = shared.lock();
    state.took(lane, took);
    if let Some(Some(facts)) = state.models.get_mut(id) {
        facts.pace.observe(tokens, took);
    }
    Ok(())
}

/// Leaves to the other devices what this one could not compute. Where it was the last one, `LastWords` answers for all.
fn give_back(shared: &Shared, index: usize, rest: Batch<Job>) {
    let mut state = shared.lock();
    state.replicas[index].alive = false;
    state.returned.push_back(rest);
    drop(state);
    shared.wake.notify_all();
}

/// Waits for work. Loads go first: nothing is served before all models are there.
fn next(shared: &Shared, index: usize) -> Todo {
    let mut state = shared.lock();
    loop {
        if let Some(load) = state.replicas[index].loads.pop_front() {
            return Todo::Load(load);
        }
        if let Some(batch) = state.returned.pop_front() {
            return Todo::Batch(batch);
        }
        let next = state.queue.next(Instant::now());
        next.expired.iter().for_each(|job| job.pending.fail(Failure::Deadline));
        meter::depth(state.queue.queued_tokens());
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
fn load(load: Load) -> Option<(ModelId, Place)> {
    let Load { model, name, make, reply } = load;
    let made = catch_unwind(AssertUnwindSafe(|| -> anyhow::Result<(Box<dyn Compute>, Pace)> {
        let model = make()?;
        let pace = pace::warm_up(model.as_ref())?;
        Ok((model, pace))
    }))
    .unwrap_or_else(|panic| Err(anyhow::anyhow!("loading panicked: {}", text_of(panic.as_ref()))));
    let (facts, place) = match made {
        Ok((compute, pace)) => (Ok(Facts { dim: compute.dim(), pace }), Some((model, Place { name, compute }))),
        Err(error) => (Err(error), None),
    };
    let _ = reply.send(facts);
    place
}

/// Computes texts together; if that fails, in halves, down to the single text, whose request then fails alone. If it is the device that fails, the
/// error is what has not been computed.
fn compute(shared: &Shared, model: &Place, mut jobs: Vec<Job>) -> Result<(), Vec<Job>> {
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
            match compute(shared, model, jobs) {
                Ok(()) => return compute(shared, model, rest),
                Err(mut left) => {
                    left.extend(rest);
                    return Err(left);
                }
            }
        }
        Err(error) if !still_computes(model) => {
            tracing::error!(error = why(&error), "the device failed");
            return Err(jobs);
        }
        Err(error) => jobs.iter().for_each(|job| give_up(shared, &job.pending, why(&error))),
    }
    Ok(())
}

/// Whether it is the text that fails and not the device, which gets a few chances: another process may have its memory for a moment.
fn still_computes(model: &Place) -> bool {
    (0..PROBES).any(|_| catch_unwind(AssertUnwindSafe(|| pace::still_computes(model.compute.as_ref()))).unwrap_or(false))
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
        state.queue.clear().iter().chain(&returned).for_each(|job| job.pending.fail(Failure::Dead));
        drop(state);
        self.shared.alive.send_replace(false);
    }
}
