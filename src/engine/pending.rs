//! One request while its texts are computed in pieces: gathers the rows, answers once, whole or not at all.

use super::queue::{RequestId, Twin};
use crate::ragged::Tokens;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// The rows of one request, in the order of its texts.
#[derive(Debug)]
pub struct Computed {
    /// `[B, dim]`, row-major; modules.json as it stands.
    pub vectors: Vec<f32>,
    pub dim: usize,
    /// Time from admission to the answer in which none of its texts was being computed.
    pub queue: Duration,
    /// Time of the batches that its texts were part of.
    pub inference: Duration,
}

/// Why an admitted request got no vectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The device could not compute one of its texts, not even alone.
    Compute(String),
    /// Its deadline passed while it waited.
    Deadline,
    /// The device thread is gone.
    Dead,
}

/// The place where a request's rows come together.
pub struct Pending {
    pub id: RequestId,
    state: Mutex<State>,
}

struct State {
    vectors: Vec<f32>,
    dim: usize,
    missing: usize,
    admitted: Instant,
    inference: Duration,
    reply: Option<oneshot::Sender<Result<Computed, Failure>>>,
}

/// Where a row goes.
struct Wanted {
    pending: Arc<Pending>,
    index: usize,
}

/// One text, for the request that asked for it and for those that ask for the same in the meantime.
pub struct Job {
    pub tokens: Tokens,
    digest: u64,
    wanted: Wanted,
    /// By its twins; most texts have none.
    also: Vec<Wanted>,
}

impl Job {
    /// A text of one request; `digest` is that of its ids.
    pub fn new(pending: Arc<Pending>, index: usize, tokens: Tokens, digest: u64) -> Self {
        Self { tokens, digest, wanted: Wanted { pending, index }, also: Vec::new() }
    }

    fn all(&self) -> impl Iterator<Item = &Wanted> {
        std::iter::once(&self.wanted).chain(&self.also)
    }

    /// The requests that wait for it.
    pub fn requests(&self) -> impl Iterator<Item = &Arc<Pending>> {
        self.all().map(|wanted| &wanted.pending)
    }

    /// True if nobody waits for it any more.
    pub fn is_over(&self) -> bool {
        self.requests().all(|request| request.is_over())
    }

    /// Gives its row to all that wait for it.
    pub fn put(&self, row: &[f32]) {
        self.all().for_each(|wanted| wanted.pending.put(wanted.index, row));
    }

    /// Ends all requests that wait for it.
    pub fn fail(&self, failure: &Failure) {
        self.requests().for_each(|request| request.fail(failure.clone()));
    }
}

impl Twin for Job {
    fn digest(&self) -> u64 {
        self.digest
    }

    fn is_twin(&self, other: &Self) -> bool {
        let what = |tokens: &Tokens| (tokens.prompt_len, tokens.adapter);
        self.tokens.ids == other.tokens.ids && what(&self.tokens) == what(&other.tokens)
    }

    fn join(&mut self, twin: Self) {
        self.also.push(twin.wanted);
        self.also.extend(twin.also);
    }
}

impl Pending {
    /// A place for `texts` rows of `dim` values.
    pub fn new(id: RequestId, texts: usize, dim: usize) -> (Arc<Self>, oneshot::Receiver<Result<Computed, Failure>>) {
        let (reply, answer) = oneshot::channel();
        let state =
            State { vectors: vec![0.0; texts * dim], dim, missing: texts, admitted: Instant::now(), inference: Duration::ZERO, reply: Some(reply) };
        (Arc::new(Self { id, state: Mutex::new(state) }), answer)
    }

    /// True if nobody waits for the answer any more, or it has been given.
    pub fn is_over(&self) -> bool {
        self.lock().reply.as_ref().is_none_or(|reply| reply.is_closed())
    }

    /// Counts the time of a batch that holds some of its texts.
    pub fn spent(&self, inference: Duration) {
        self.lock().inference += inference;
    }

    /// Puts the row of one text in its place; the last one sends the answer.
    pub fn put(&self, index: usize, row: &[f32]) {
        let mut state = self.lock();
        let dim = state.dim;
        let Some(place) = state.vectors.get_mut(index * dim..(index + 1) * dim).filter(|place| place.len() == row.len()) else { return };
        place.copy_from_slice(row);
        state.missing = state.missing.saturating_sub(1);
        if state.missing == 0
            && let Some(reply) = state.reply.take()
        {
            let queue = state.admitted.elapsed().saturating_sub(state.inference);
            let computed = Computed { vectors: std::mem::take(&mut state.vectors), dim, queue, inference: state.inference };
            // The client may have left in this very moment; then nobody misses the answer.
            let _ = reply.send(Ok(computed));
        }
    }

    /// Ends the request without vectors. Later rows are ignored.
    pub fn fail(&self, failure: Failure) {
        if let Some(reply) = self.lock().reply.take() {
            let _ = reply.send(Err(failure));
        }
    }

    /// A panic while this lock is held leaves plain numbers behind, never a broken invariant: poisoning is ignored.
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
