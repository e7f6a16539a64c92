//! Which texts are computed next: two lanes, fair between clients, under limits, equal ones once. Pure: no clock, channel or tensor; generic over the job.

mod waiting;

pub use waiting::Twin;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Instant;
use waiting::{Request, Waiting};

/// A request with at most this many texts and `INTERACTIVE_TOKENS` tokens goes before bulk work.
pub const INTERACTIVE_TEXTS: usize = 16;
/// See `INTERACTIVE_TEXTS`.
pub const INTERACTIVE_TOKENS: usize = 2048;
/// While bulk work waits, at most this many interactive batches run in a row: bulk gets at least one batch in four. Within a bulk batch, interactive
/// ones may take this many times the time that it has had itself.
pub const INTERACTIVE_RUN: u32 = 3;
/// The share of the queue that bulk work may not fill, so that a short query always finds room: one part in eight.
const INTERACTIVE_RESERVE: usize = 8;

/// The lines' clocks run this fast, so that tokens divided by a weight stay whole.
const CLOCK: u64 = 1000;

/// The number of a model, in the order in which they were added.
pub type ModelId = usize;
/// The number of a request; chosen by the caller, never reused.
pub type RequestId = u64;

/// How large a batch of one model may be. A single text larger than that still makes a batch of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Of an interactive batch.
    pub tokens: usize,
    /// Of a bulk batch: more where short requests can overtake it, for larger batches cost less per token.
    pub bulk_tokens: usize,
    pub texts: usize,
}

/// Short requests, which people wait for, and everything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    Interactive,
    Bulk,
}

impl Lane {
    /// The lane of a request of this size; `bulk` leaves no choice.
    pub fn of(texts: usize, tokens: usize, bulk: bool) -> Self {
        if !bulk && texts <= INTERACTIVE_TEXTS && tokens <= INTERACTIVE_TOKENS { Lane::Interactive } else { Lane::Bulk }
    }
}

/// All texts of one request; admitted together or not at all.
#[derive(Debug)]
pub struct Submission<J> {
    pub id: RequestId,
    pub model: ModelId,
    /// Requests of one client share one turn.
    pub client: u64,
    /// The client's part of the device relative to others of its lane; 0 counts as 1.
    pub weight: u32,
    /// True puts it into the bulk lane whatever its size.
    pub bulk: bool,
    /// After this its texts are not worth computing.
    pub deadline: Instant,
    /// Each text with its number of tokens.
    pub jobs: Vec<(J, usize)>,
}

/// The queue has no room for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full {
    pub queued_tokens: usize,
    pub request_tokens: usize,
    pub limit_tokens: usize,
}

/// Texts of one model to be computed together.
#[derive(Debug)]
pub struct Batch<J> {
    pub model: ModelId,
    pub lane: Lane,
    /// Of the texts, each counted once however many want it.
    pub tokens: usize,
    /// Different from each other: twins have joined.
    pub jobs: Vec<J>,
}

/// What `next` found.
#[derive(Debug)]
pub struct Next<J> {
    /// `None` if nothing waits.
    pub batch: Option<Batch<J>>,
    /// Texts whose deadline has passed; they have left the queue.
    pub expired: Vec<J>,
}

/// One client's place in one lane of one model.
struct Turn {
    /// Tokens served so far over the client's weight, on the line's clock; the smallest is served next.
    served: u64,
    /// Breaks ties by arrival.
    arrival: u64,
    requests: VecDeque<RequestId>,
}

/// The waiting requests of one lane of one model, in the order of service (start-time fair queueing over tokens).
#[derive(Default)]
struct Line {
    turns: HashMap<u64, Turn>,
    /// `(served, arrival, client)` of every client with work.
    order: BTreeSet<(u64, u64, u64)>,
    /// The line's clock: what the client served last had got. Newcomers start here, so that the past neither helps nor hurts them.
    now: u64,
    /// When the line last gave a batch, counted in batches.
    last_batch: u64,
    tokens: usize,
}

/// The queue of one device.
pub struct Queue<J> {
    limit_tokens: usize,
    budgets: Vec<Budget>,
    /// `[lane][model]`.
    lines: [Vec<Line>; 2],
    waiting: Waiting<J>,
    queued_tokens: usize,
    queued_texts: usize,
    arrivals: u64,
    batches: u64,
    interactive_run: u32,
}

impl<J: Twin> Queue<J> {
    /// An empty queue that holds at most `limit_tokens`.
    pub fn new(limit_tokens: usize) -> Self {
        Self {
            limit_tokens,
            budgets: Vec::new(),
            lines: [Vec::new(), Vec::new()],
            waiting: Waiting::default(),
            queued_tokens: 0,
            queued_texts: 0,
            arrivals: 0,
            batches: 0,
            interactive_run: 0,
        }
    }

    /// Adds a model and gives its number.
    pub fn add_model(&mut self, budget: Budget) -> ModelId {
        self.budgets.push(budget);
        self.lines.iter_mut().for_each(|lane| lane.push(Line::default()));
        self.budgets.len() - 1
    }

    /// Changes how large a model's batches may be, from the next one on.
    pub fn set_budget(&mut self, model: ModelId, budget: Budget) {
        if let Some(place) = self.budgets.get_mut(model) {
            *place = budget;
        }
    }

    /// Tokens waiting, of all models and lanes.
    pub fn queued_tokens(&self) -> usize {
        self.queued_tokens
    }

    /// Texts waiting, of all models and lanes.
    pub fn queued_texts(&self) -> usize {
        self.queued_texts
    }

    /// The most tokens that may wait.
    pub fn limit_tokens(&self) -> usize {
        self.limit_tokens
    }

    /// Tokens of one model that wait in a lane, and hence before a new request there.
    pub fn tokens_ahead(&self, lane: Lane, model: ModelId) -> usize {
        self.lines[lane as usize].get(model).map_or(0, |line| line.tokens)
    }

    /// Whether a request of this size would be admitted now. An empty queue takes one of any size up to the limit.
    pub fn room(&self, lane: Lane, tokens: usize) -> Result<(), Full> {
        let limit_tokens = match lane {
            Lane::Interactive => self.limit_tokens,
            Lane::Bulk if self.queued_tokens == 0 => self.limit_tokens,
            Lane::Bulk => self.limit_tokens - self.limit_tokens / INTERACTIVE_RESERVE,
        };
        if self.queued_tokens + tokens > limit_tokens {
            return Err(Full { queued_tokens: self.queued_tokens, request_tokens: tokens, limit_tokens });
        }
        Ok(())
    }

    /// Takes in all texts of a request, or none.
    pub fn submit(&mut self, submission: Submission<J>) -> Result<Lane, Full> {
        let Submission { id, model, client, weight, bulk, deadline, mut jobs } = submission;
        // A text may have no token at all (a static model on blanks), but it still takes a place.
        jobs.iter_mut().for_each(|(_, tokens)| *tokens = (*tokens).max(1));
        let tokens = jobs.iter().map(|(_, tokens)| tokens).sum();
        let lane = Lane::of(jobs.len(), tokens, bulk);
        self.room(lane, tokens)?;
        if jobs.is_empty() || model >= self.budgets.len() {
            return Ok(lane);
        }
        self.queued_tokens += tokens;
        self.queued_texts += jobs.len();
        self.arrivals += 1;
        let arrival = self.arrivals;
        self.waiting.insert(id, Request::new(model, weight.max(1), lane, deadline, jobs));
        let line = &mut self.lines[lane as usize][model];
        line.tokens += tokens;
        let now = line.now;
        let turn = line.turns.entry(client).or_insert_with(|| {
            line.order.insert((now, arrival, client));
            Turn { served: now, arrival, requests: VecDeque::new() }
        });
        turn.requests.push_back(id);
        Ok(lane)
    }

    /// Takes a request's waiting texts out: its client left, or one of its texts failed. Gives them back.
    pub fn cancel(&mut self, id: RequestId) -> Vec<J> {
        let Some(request) = self.waiting.remove(id) else { return Vec::new() };
        let (lane, model, jobs) = (request.lane, request.model, request.into_left());
        // Its number stays in the client's turn; whoever comes upon it there finds no request and passes on.
        self.left(lane, model, jobs.len(), jobs.iter().map(|(_, tokens)| tokens).sum());
        jobs.into_iter().map(|(job, _)| job).collect()
    }

    /// Gives a text that is about to be computed, or was, everything that waits for the same; it costs nothing more, so nobody's turn moves on.
    pub fn join_twins(&mut self, model: ModelId, job: &mut J) {
        self.join_twins_of(&[Lane::Interactive, Lane::Bulk], model, job);
    }

    fn join_twins_of(&mut self, lanes: &[Lane], model: ModelId, job: &mut J) {
        for &lane in lanes {
            while let Some(twin) = self.waiting.take_twin(lane, model, job) {
                self.left(lane, model, 1, twin.tokens);
                job.join(twin.job);
            }
        }
    }

    /// Counts what has left a line.
    fn left(&mut self, lane: Lane, model: ModelId, texts: usize, tokens: usize) {
        self.queued_tokens -= tokens;
        self.queued_texts -= texts;
        self.lines[lane as usize][model].tokens -= tokens;
    }

    /// Takes out everything that waits.
    pub fn clear(&mut self) -> Vec<J> {
        self.waiting.ids().into_iter().flat_map(|id| self.cancel(id)).collect()
    }

    /// Whether short requests wait.
    pub fn interactive_waits(&self) -> bool {
        self.lines[Lane::Interactive as usize].iter().any(|line| line.tokens > 0)
    }

    /// The next batch of short requests alone: for a device that stops half-way through bulk work, and answers itself for how often.
    pub fn next_interactive(&mut self, now: Instant) -> Next<J> {
        let mut expired = Vec::new();
        while let Some((lane, model)) = self.longest_waiting(Lane::Interactive) {
            let batch = self.fill(lane, model, now, &mut expired);
            if !batch.jobs.is_empty() {
                self.batches += 1;
                self.lines[lane as usize][model].last_batch = self.batches;
                return Next { batch: Some(batch), expired };
            }
        }
        Next { batch: None, expired }
    }

    /// Counts what overtook the last bulk batch as interactive batches in a row, so that bulk work keeps its part.
    pub fn overtaken(&mut self, batches: u32) {
        self.interactive_run = self.interactive_run.max(batches.min(INTERACTIVE_RUN));
    }

    /// The next batch, and the texts that were found too late for.
    pub fn next(&mut self, now: Instant) -> Next<J> {
        let mut expired = Vec::new();
        loop {
            let Some((lane, model)) = self.choose() else { return Next { batch: None, expired } };
            let batch = self.fill(lane, model, now, &mut expired);
            if batch.jobs.is_empty() {
                continue;
            }
            self.batches += 1;
            self.lines[lane as usize][model].last_batch = self.batches;
            let bulk_waits = self.lines[Lane::Bulk as usize].iter().any(|line| line.tokens > 0);
            self.interactive_run = if lane == Lane::Interactive && bulk_waits { self.interactive_run + 1 } else { 0 };
            return Next { batch: Some(batch), expired };
        }
    }

    /// Whose turn it is: interactive before bulk within the ageing bound; among models, the one that has waited longest for a batch.
    fn choose(&self) -> Option<(Lane, ModelId)> {
        let bulk = self.longest_waiting(Lane::Bulk);
        match self.longest_waiting(Lane::Interactive) {
            Some(interactive) if bulk.is_none() || self.interactive_run < INTERACTIVE_RUN => Some(interactive),
            _ => bulk,
        }
    }

    /// Of a lane, the model that has waited longest for a batch.
    fn longest_waiting(&self, lane: Lane) -> Option<(Lane, ModelId)> {
        let lines = self.lines[lane as usize].iter().enumerate();
        lines.filter(|(_, line)| line.tokens > 0).min_by_key(|(_, line)| line.last_batch).map(|(model, _)| (lane, model))
    }

    /// One text after the other from the client that has had least, until the budget is reached.
    fn fill(&mut self, lane: Lane, model: ModelId, now: Instant, expired: &mut Vec<J>) -> Batch<J> {
        let budget = self.budgets[model];
        // A short request is not made to wait for the end of a bulk batch that wants the same text.
        let (most, twins): (_, &[Lane]) = match lane {
            Lane::Interactive => (budget.tokens, &[Lane::Interactive, Lane::Bulk]),
            Lane::Bulk => (budget.bulk_tokens, &[Lane::Bulk]),
        };
        let mut batch = Batch { model, lane, tokens: 0, jobs: Vec::new() };
        while batch.jobs.len() < budget.texts.max(1) {
            let Some((id, tokens)) = self.peek(lane, model, now, expired) else { break };
            if !batch.jobs.is_empty() && batch.tokens + tokens > most {
                break;
            }
            let Some(mut job) = self.take(lane, model, id) else { break };
            self.join_twins_of(twins, model, &mut job);
            batch.tokens += tokens;
            batch.jobs.push(job);
        }
        batch
    }

    /// The text that is next in a line: its request and size. Drops what is cancelled or expired on the way.
    fn peek(&mut self, lane: Lane, model: ModelId, now: Instant, expired: &mut Vec<J>) -> Option<(RequestId, usize)> {
        loop {
            let line = &mut self.lines[lane as usize][model];
            let &(served, arrival, client) = line.order.first()?;
            let front = line.turns.get(&client).and_then(|turn| turn.requests.front().copied());
            let Some(id) = front else {
                line.order.remove(&(served, arrival, client));
                line.turns.remove(&client);
                continue;
            };
            match self.waiting.get(id) {
                Some(request) if request.deadline > now => return Some((id, request.first_tokens()?)),
                Some(_) => expired.extend(self.cancel(id)),
                None => {
                    if let Some(turn) = line.turns.get_mut(&client) {
                        turn.requests.pop_front();
                    }
                }
            }
        }
    }

    /// Takes the first text of the request that `peek` named and moves its client's turn on by the text's tokens.
    fn take(&mut self, lane: Lane, model: ModelId, id: RequestId) -> Option<J> {
        let weight = self.waiting.get(id)?.weight;
        let taken = self.waiting.take_first(id)?;
        let share = taken.tokens as u64 * CLOCK / u64::from(weight);
        self.left(lane, model, 1, taken.tokens);
        let line = &mut self.lines[lane as usize][model];
        let (served, _, client) = line.order.pop_first()?;
        line.now = served;
        if let Some(turn) = line.turns.get_mut(&client) {
            turn.served = served + share;
            if taken.last {
                turn.requests.pop_front();
            }
            if turn.requests.is_empty() {
                line.turns.remove(&client);
            } else {
                line.order.insert((turn.served, turn.arrival, client));
            }
        }
        Some(taken.job)
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
