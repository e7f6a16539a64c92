//! The work on jobs: look through new ones, then segment after segment, line after line, beside live traffic.

use super::gathered::Gathered;
use super::scan::{Scan, text_of};
use super::{JobOwner, JobRow, Jobs};
use crate::store;
use crate::store::segments::{Claim, Fate, LEASE_MS};
use crate::wire::Fault;
use crate::wire::batch::Line;
use crate::wire::files::ENDPOINTS;
use futures_util::FutureExt as _;
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

/// How often a server with nothing to do looks whether another one has got a job, or fallen silent.
const POLL: Duration = Duration::from_secs(1);
/// How long a server waits that the store has failed (a full disk, say) before it goes on where it was.
pub(super) const PAUSE: Duration = Duration::from_secs(5);
/// What has been computed is written down this often, or when it has grown this large.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);
const WRITE_BYTES: usize = 1 << 20;
/// No more lines are begun while this much waits for a write to end.
const MOST_UNWRITTEN_BYTES: usize = 4 << 20;
/// Lines being computed hold at most this many bulk batches of the device's, by the guess below: enough to keep it busy.
const BATCHES_IN_FLIGHT: usize = 8;
/// A guess that is high for tokens, since most lines are half envelope; lines are admitted by it before they are tokenised.
const BYTES_PER_TOKEN: usize = 4;

/// Who answers lines: the same path as live requests.
pub trait Lines: Send + Sync + 'static {
    /// Answers one line; waits where a client would be told to. `None` if there was no answer before the deadline.
    fn answer(&self, call: LineCall) -> Pin<Box<dyn Future<Output = Option<LineAnswer>> + Send + '_>>;

    /// Tokens that the device computes at a time.
    fn batch_tokens(&self) -> usize;
}

/// One line to be answered.
pub struct LineCall {
    pub line: Line,
    pub owner: Arc<JobOwner>,
    pub request_id: String,
    pub deadline: Instant,
}

/// What the request would have been answered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LineAnswer {
    pub status: u16,
    pub body: Vec<u8>,
    /// The model that was used, if one was.
    pub model: Option<String>,
    pub texts: usize,
    pub tokens: usize,
    pub took: Duration,
}

/// One task that works on jobs, under a name of its own.
pub(super) struct Worker {
    jobs: Arc<Jobs>,
    lines: Arc<dyn Lines>,
    name: String,
    /// Shared by this server's workers, in tokens.
    room: Arc<Semaphore>,
    most: usize,
}

/// The workers of this server.
pub(super) fn workers(jobs: &Arc<Jobs>, lines: &Arc<dyn Lines>, count: usize) -> Vec<Worker> {
    let most = (lines.batch_tokens() * BATCHES_IN_FLIGHT).clamp(1024, u32::MAX as usize / 2);
    let room = Arc::new(Semaphore::new(most));
    let worker = |n| {
        // A store of one server keeps its claims over a restart; where there may be others, a name is never used again.
        let name = if jobs.store.shared() { format!("worker_{}", uuid::Uuid::now_v7().simple()) } else { format!("local_{n}") };
        jobs.workers.lock().unwrap_or_else(PoisonError::into_inner).push(name.clone());
        Worker { jobs: jobs.clone(), lines: lines.clone(), name, room: room.clone(), most }
    };
    (0..count).map(worker).collect()
}

impl Worker {
    /// Works for ever.
    pub(super) async fn run(&self) {
        let (jobs, name) = (self.jobs.clone(), self.name.clone());
        let renewing = async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(LEASE_MS.unsigned_abs() / 4));
            loop {
                ticks.tick().await;
                if let Err(error) = jobs.store.renew(&name).await {
                    tracing::warn!(%error, "the claim on a job cannot be renewed");
                }
            }
        };
        let working = async {
            loop {
                match self.step().await {
                    Ok(true) => {}
                    Ok(false) => drop(tokio::time::timeout(POLL, self.jobs.wake.notified()).await),
                    Err(error) => {
                        tracing::error!(event = "job_paused", %error, "jobs pause and go on where they were");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        };
        tokio::select! {
            () = renewing => {}
            () = working => {}
        }
    }

    /// One piece of work; false if there is none.
    async fn step(&self) -> store::Result<bool> {
        if let Some(job) = self.jobs.store.claim_validation(&self.name).await? {
            self.look_through(&job).await?;
            return Ok(true);
        }
        match self.jobs.store.claim_segment(&self.name).await? {
            Some(claim) => self.segment(claim).await.map(|()| true),
            None => Ok(false),
        }
    }

    async fn look_through(&self, job: &JobRow) -> store::Result<()> {
        let (store, options) = (&self.jobs.store, &self.jobs.options);
        let mut scan = Scan::new(options.max_lines, options.max_line_bytes, &job.endpoint);
        let mut reader = self.jobs.read(&job.input_file_id);
        while let Some(bytes) = reader.next().await? {
            if !scan.feed(&bytes) {
                break;
            }
        }
        match scan.end() {
            Ok(scanned) => {
                if store.start_job(&job.id, &self.name, scanned.lines, &scanned.segments).await? {
                    tracing::info!(event = "job_started", job = job.id, lines = scanned.lines, user_id = job.owner.user);
                    self.jobs.wake.notify_waiters();
                }
                Ok(())
            }
            Err(faults) => {
                tracing::info!(event = "job_failed", job = job.id, faults = faults.len(), user_id = job.owner.user);
                // Strings and numbers only: this serialisation has no way to fail.
                store.refuse_job(&job.id, &self.name, &serde_json::to_string(&faults).unwrap_or_default()).await
            }
        }
    }

    async fn segment(&self, claim: Claim) -> store::Result<()> {
        let bytes = self.jobs.store.file_range(&claim.job.input_file_id, claim.next_byte, claim.end_byte).await?;
        let waiting = split(&bytes, &claim);
        let owner = Arc::new(claim.job.owner.clone());
        let deadline = deadline(&claim);
        let mut gathered = Gathered::new(&claim);
        if bytes.len() as i64 != claim.end_byte - claim.next_byte {
            tracing::error!(event = "job_input_lost", job = claim.job.id, "the input file of a job is no longer whole");
            gathered.progress.void = 1;
        }
        let mut run =
            Run { worker: self, owner, waiting, running: JoinSet::new(), begun: BTreeMap::new(), done: BTreeMap::new(), gathered, claim, deadline };
        drop(bytes);
        run.finish().await
    }
}

fn deadline(claim: &Claim) -> Instant {
    Instant::now() + Duration::from_millis(claim.left_ms.max(0).unsigned_abs())
}

/// A line that has not been answered.
struct Waiting {
    /// Its number in the file, and where the next one begins.
    number: i64,
    next_byte: i64,
    text: Vec<u8>,
}

/// The lines of what is left of a segment; the last one reaches to its end.
fn split(bytes: &[u8], claim: &Claim) -> VecDeque<Waiting> {
    let (mut lines, mut at, mut number) = (VecDeque::new(), claim.next_byte, claim.next_line);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let start = at;
        at += line.len() as i64;
        let text = text_of(line, start);
        if !text.is_empty() {
            lines.push_back(Waiting { number, next_byte: at, text: text.to_vec() });
            number += 1;
        }
    }
    if let Some(last) = lines.back_mut() {
        last.next_byte = claim.end_byte;
    }
    lines
}

/// A segment under way.
struct Run<'a> {
    worker: &'a Worker,
    claim: Claim,
    owner: Arc<JobOwner>,
    deadline: Instant,
    waiting: VecDeque<Waiting>,
    running: JoinSet<Done>,
    /// What is running: by number, where the next line begins, and the id.
    begun: BTreeMap<i64, (i64, String)>,
    /// By number: answered, but one before it is not.
    done: BTreeMap<i64, Done>,
    gathered: Gathered,
}

/// A line that has been answered, or not in time.
pub(super) struct Done {
    pub(super) number: i64,
    pub(super) next_byte: i64,
    pub(super) custom_id: String,
    pub(super) answer: Option<LineAnswer>,
}

/// The end of a write; never if there is none.
async fn ended(writing: &mut Option<Writing>) -> store::Result<Option<Claim>> {
    match writing {
        Some(writing) => writing.await,
        None => std::future::pending().await,
    }
}

/// What was gathered, being written down: the claim to go on with.
type Writing = Pin<Box<dyn Future<Output = store::Result<Option<Claim>>> + Send>>;

impl Run<'_> {
    async fn finish(&mut self) -> store::Result<()> {
        let mut write_at = Instant::now() + WRITE_INTERVAL;
        // One write at a time, beside which lines go on being answered: a slow disk must not leave the device idle.
        let mut writing: Option<Writing> = None;
        loop {
            if self.claim.fate != Fate::Run {
                self.give_up().await;
            } else if self.gathered.bytes() < MOST_UNWRITTEN_BYTES {
                self.admit().await;
            }
            self.gather();
            let over = self.waiting.is_empty() && self.running.is_empty();
            let due = over || self.gathered.bytes() >= WRITE_BYTES || (Instant::now() >= write_at && self.gathered.lines > 0);
            if due && writing.is_none() {
                writing = Some(self.write(over));
                write_at = Instant::now() + WRITE_INTERVAL;
            }
            tokio::select! {
                written = ended(&mut writing) => {
                    let Some(next) = written? else { return Ok(()) };
                    (self.deadline, self.claim, writing) = (deadline(&next), next, None);
                }
                Some(joined) = self.running.join_next() => match joined {
                    Ok(done) => {
                        self.begun.remove(&done.number);
                        self.done.insert(done.number, done);
                    }
                    // A task that was ended from outside, as at a shutdown: the line is done again by whoever goes on.
                    Err(_) => return Ok(()),
                },
                () = tokio::time::sleep_until(write_at.into()), if writing.is_none() => if self.gathered.lines == 0 {
                    // Nothing to write: the job may have been cancelled all the same.
                    let (fate, _) = self.worker.jobs.store.fate(&self.claim.job.id).await?;
                    self.claim.fate = fate;
                    write_at = Instant::now() + WRITE_INTERVAL;
                }
            }
        }
    }

    /// Begins to write down what was gathered; `over` if it is the segment's last.
    fn write(&mut self, over: bool) -> Writing {
        if over {
            self.gathered.progress.next_byte = self.claim.end_byte;
        }
        let (jobs, name, claim, progress) = (self.worker.jobs.clone(), self.worker.name.clone(), self.claim.clone(), self.gathered.take());
        Box::pin(async move { jobs.store.advance(&claim, &name, &progress, jobs.ending()).await })
    }

    /// Sends lines to be answered as long as there is room for them.
    async fn admit(&mut self) {
        while let Some(line) = self.waiting.front() {
            let tokens = (line.text.len() / BYTES_PER_TOKEN).clamp(1, self.worker.most);
            let room = self.worker.room.clone();
            let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
            let permit = match room.clone().try_acquire_many_owned(tokens) {
                Ok(permit) => permit,
                // There is something else to wait for.
                Err(_) if !self.running.is_empty() || self.gathered.lines > 0 => return,
                Err(_) => match room.acquire_many_owned(tokens).await {
                    Ok(permit) => permit,
                    Err(_) => return,
                },
            };
            if let Some(line) = self.waiting.pop_front() {
                self.start(line, permit);
            }
        }
    }

    fn start(&mut self, waiting: Waiting, permit: OwnedSemaphorePermit) {
        let (lines, owner, deadline) = (self.worker.lines.clone(), self.owner.clone(), self.deadline);
        let request_id = format!("req_{}_{}", self.claim.job.id.trim_start_matches("batch_"), waiting.number);
        // The scan has found it good.
        let line = Line::parse(&waiting.text).unwrap_or_default();
        let custom_id = line.custom_id.clone();
        let is_openai = ENDPOINTS.contains(&line.url.as_str());
        self.begun.insert(waiting.number, (waiting.next_byte, custom_id.clone()));
        self.running.spawn(async move {
            let call = LineCall { line, owner, request_id: request_id.clone(), deadline };
            // A panic costs its own line only.
            let answer = AssertUnwindSafe(async { lines.answer(call).await }).catch_unwind().await.unwrap_or_else(|_| {
                let fault = Fault::Internal;
                let body = if is_openai { fault.openai_body() } else { fault.native_body(&request_id) };
                Some(LineAnswer { status: fault.http_status(), body, ..LineAnswer::default() })
            });
            drop(permit);
            Done { number: waiting.number, next_byte: waiting.next_byte, custom_id, answer }
        });
    }

    /// Takes the lines that are not done as not run.
    async fn give_up(&mut self) {
        self.running.shutdown().await;
        let begun = std::mem::take(&mut self.begun).into_iter().map(|(number, (next_byte, custom_id))| (number, next_byte, custom_id));
        let waiting = self.waiting.drain(..).map(|line| (line.number, line.next_byte, Line::parse(&line.text).unwrap_or_default().custom_id));
        for (number, next_byte, custom_id) in begun.chain(waiting) {
            self.done.insert(number, Done { number, next_byte, custom_id, answer: None });
        }
    }

    /// Moves answers that are next in line into what is to be written.
    fn gather(&mut self) {
        while let Some(done) = self.done.remove(&self.gathered.progress.next_line) {
            self.gathered.add(&self.claim, &self.owner, done);
        }
    }
}
