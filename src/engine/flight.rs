//! One batch on its way through the device: given to it, awaited, its rows handed out. What fails is tried in halves, so that a bad text fails alone.

use super::compute::Compute;
use super::device::Place;
use super::pending::{Failure, Job, Pending};
use super::pipeline::{ComputeError, Flight};
use super::queue::{Batch, Lane, ModelId};
use super::{Shared, meter, pace};
use crate::ragged::Packed;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

/// How often a device is asked again for what it has computed before, until it counts as failed.
const PROBES: usize = 3;

/// A batch that was given to the device.
pub(super) struct Flying {
    pub(super) model: ModelId,
    pub(super) lane: Lane,
    pub(super) started: Instant,
    jobs: Vec<Job>,
    flight: Result<Flight, ComputeError>,
}

impl Flying {
    /// The batch again, for another device.
    pub(super) fn into_batch(self) -> Batch<Job> {
        batch(self.model, self.lane, self.jobs)
    }
}

fn batch(model: ModelId, lane: Lane, jobs: Vec<Job>) -> Batch<Job> {
    Batch { model, lane, tokens: tokens(&jobs), jobs }
}

fn tokens(jobs: &[Job]) -> usize {
    jobs.iter().map(|job| job.tokens.len()).sum()
}

/// Gives what is still wanted of a batch to the device.
pub(super) fn take_off(models: &HashMap<ModelId, Place>, batch: Batch<Job>) -> Option<Flying> {
    let model = models.get(&batch.model)?;
    let jobs: Vec<Job> = batch.jobs.into_iter().filter(|job| !job.is_over()).collect();
    if jobs.is_empty() {
        return None;
    }
    let started = Instant::now();
    Some(Flying { model: batch.model, lane: batch.lane, flight: start(model.compute.as_ref(), &jobs), jobs, started })
}

/// Awaits a batch and hands out its rows; gives its number of tokens. The error is what is left of it when the device has failed.
pub(super) fn land(shared: &Shared, models: &HashMap<ModelId, Place>, flying: Flying) -> Result<usize, Batch<Job>> {
    let Flying { model: id, lane, started, jobs, flight } = flying;
    let Some(model) = models.get(&id) else { return Ok(0) };
    let (texts, tokens) = (jobs.len(), tokens(&jobs));
    hand_out(shared, model, jobs, started, flight).map_err(|jobs| batch(id, lane, jobs))?;
    meter::batch(&model.name, texts, tokens);
    Ok(tokens)
}

/// Awaits texts that are computed together; if that fails, computes them in halves, down to the single text, whose request then fails alone. If it is
/// the device that fails, the error is what has not been computed.
fn hand_out(shared: &Shared, model: &Place, mut jobs: Vec<Job>, started: Instant, flight: Result<Flight, ComputeError>) -> Result<(), Vec<Job>> {
    let result = flight.and_then(|flight| finish(flight, jobs.len() * model.compute.dim()));
    let took = started.elapsed();
    let mut last: Option<&Arc<Pending>> = None;
    for request in jobs.iter().flat_map(Job::requests) {
        // Texts of one request mostly lie side by side; counted twice is better than a table per batch.
        if last.is_none_or(|last| !Arc::ptr_eq(last, request)) {
            request.spent(took);
        }
        last = Some(request);
    }
    match result {
        Ok(vectors) => {
            // Some came while this was being computed.
            let mut state = shared.lock();
            jobs.iter_mut().for_each(|job| state.queue.join_twins(model.id, job));
            shared.queue_changed(&state);
            drop(state);
            deliver(shared, model, &jobs, &vectors);
        }
        Err(error) if jobs.len() > 1 => {
            tracing::warn!(texts = jobs.len(), error = why(&error), "batch failed; it is split and tried again");
            let rest = jobs.split_off(jobs.len() / 2);
            return match again(shared, model, jobs) {
                Ok(()) => again(shared, model, rest),
                Err(mut left) => {
                    left.extend(rest);
                    Err(left)
                }
            };
        }
        Err(error) if !still_computes(model) => {
            tracing::error!(error = why(&error), "the device failed");
            return Err(jobs);
        }
        Err(error) => jobs.iter().for_each(|job| give_up(shared, job, &why(&error))),
    }
    Ok(())
}

fn again(shared: &Shared, model: &Place, half: Vec<Job>) -> Result<(), Vec<Job>> {
    let (started, flight) = (Instant::now(), start(model.compute.as_ref(), &half));
    hand_out(shared, model, half, started, flight)
}

/// Whether it is the text that fails and not the device, which gets a few chances: another process may have its memory for a moment.
fn still_computes(model: &Place) -> bool {
    (0..PROBES).any(|_| catch_unwind(AssertUnwindSafe(|| pace::still_computes(model.compute.as_ref()))).unwrap_or(false))
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
            job.put(row);
            continue;
        }
        let again = catch_unwind(AssertUnwindSafe(|| model.compute.encode_f32(&Packed::new([&job.tokens]))));
        match again {
            Ok(Ok(row)) if row.len() == dim && row.iter().all(|value| value.is_finite()) => {
                meter::repair(&model.name);
                tracing::warn!(tokens = job.tokens.len(), "a non-finite vector was computed again in f32");
                job.put(&row);
            }
            _ => {
                tracing::error!(tokens = job.tokens.len(), "a vector is not finite, not even in f32");
                give_up(shared, job, "the model gives no finite vector for one of the texts");
            }
        }
    }
}

/// Fails the requests that want a text, and takes the rest of their texts out of the queue.
fn give_up(shared: &Shared, job: &Job, reason: &str) {
    for request in job.requests() {
        tracing::error!(%reason, "a request failed");
        request.fail(Failure::Compute(reason.to_owned()));
        shared.lock().queue.cancel(request.id);
    }
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
pub(super) fn text_of(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
