//! Batch jobs: files of requests, worked off beside live traffic by every server of the store, and their results.

mod files;
mod gathered;
mod scan;
mod sign;
mod work;

pub use crate::store::files::{FileQuery, FileRow};
pub use crate::store::jobs::{JobOwner, JobRow};
pub use files::{FileReader, Upload};
pub use work::{LineAnswer, LineCall, Lines};

use super::stored;
use crate::store::audit::Actor;
use crate::store::jobs::JobTimes;
use crate::store::segments::Ending;
use crate::store::{self, Store};
use crate::wire::Fault;
use crate::wire::batch::{Source, Window};
use files::file_id;
use futures_util::FutureExt as _;
use jiff::Timestamp;
use sign::Signer;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// How much a job may ask, and how long its results are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Lines of one job.
    pub max_lines: usize,
    /// Bytes of one file.
    pub max_file_bytes: u64,
    /// Bytes of one line, and of a request's body.
    pub max_line_bytes: usize,
    /// Bytes of lines within a submission.
    pub max_inline_bytes: usize,
    /// How long files are kept.
    pub keep: Duration,
    /// True if a job whose window has closed is called `failed`: for clients that know no `expired`.
    pub expired_is_failed: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_lines: 50_000,
            max_file_bytes: 200_000_000,
            max_line_bytes: 32 << 20,
            max_inline_bytes: 10 << 20,
            keep: Duration::from_secs(30 * 24 * 3600),
            expired_is_failed: false,
        }
    }
}

/// Tasks that work on segments, so that one has its device work queued while another waits for its last lines.
const WORKERS: usize = 2;
/// How often expired files are looked for.
const CLEAN_INTERVAL: Duration = Duration::from_secs(60);

/// A job to be submitted.
pub struct NewJob {
    pub dialect: &'static str,
    pub owner: JobOwner,
    pub source: Source,
    /// See [`JobRow::endpoint`].
    pub endpoint: String,
    pub window: Window,
    /// A JSON object.
    pub metadata: Option<String>,
    /// How long its results are kept; `None` = as long as all.
    pub keep: Option<Duration>,
}

/// The jobs of one store.
pub struct Jobs {
    store: Store,
    options: Options,
    signer: Signer,
    /// Told when there may be something to do.
    wake: Notify,
    /// The names under which this server has worked.
    workers: Mutex<Vec<String>>,
}

impl Jobs {
    /// The jobs of a store; its secret signs links to results.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn open(store: Store, options: Options) -> store::Result<Self> {
        let signer = Signer::new(store.secret().await?);
        Ok(Self { store, options, signer, wake: Notify::new(), workers: Mutex::default() })
    }

    /// What a job may ask.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Takes a job in; it is looked through and run later.
    ///
    /// # Errors
    /// `Validation` on the field that names the file if it is not there.
    pub async fn submit(&self, new: NewJob, actor: &Actor) -> Result<JobRow, Fault> {
        let NewJob { dialect, owner, source, endpoint, window, metadata, keep } = new;
        let field = if dialect == "openai" { "input_file_id" } else { "input_file_url" };
        let no_file = || Fault::field(field, "names no file of yours");
        let input_file_id = match source {
            Source::File(id) => {
                let file = stored(self.store.file(&id, &owner.tenant, &owner.user).await)?;
                file.map(|file| file.id).ok_or_else(no_file)?
            }
            Source::Url(_) => return Err(Fault::field(field, "names no file of this server")),
            Source::Inline(bytes) => {
                let mut upload = self.upload(&owner, "batch.jsonl".to_owned(), "batch").await?;
                upload.push(&bytes).await?;
                upload.finish(actor).await?.id
            }
        };
        let job = JobRow {
            id: format!("batch_{}", uuid::Uuid::now_v7().simple()),
            dialect: dialect.to_owned(),
            owner,
            endpoint,
            completion_window: window.name.to_owned(),
            metadata,
            keep_ms: keep.map(|keep| i64::try_from(keep.as_millis()).unwrap_or(i64::MAX / 4)),
            input_file_id,
            output_file_id: file_id(),
            error_file_id: file_id(),
            output_bytes: 0,
            error_bytes: 0,
            status: "validating".to_owned(),
            errors: None,
            total: 0,
            completed: 0,
            failed: 0,
            tokens: 0,
            times: JobTimes::default(),
        };
        if !stored(self.store.insert_job(&job, i64::from(window.hours) * 3_600_000, actor).await)? {
            return Err(no_file());
        }
        self.wake.notify_waiters();
        self.get(&job.id, &job.owner.tenant, &job.owner.user).await
    }

    /// A job of this user.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn get(&self, id: &str, tenant: &str, user: &str) -> Result<JobRow, Fault> {
        stored(self.store.job(id, tenant, user).await)?.ok_or_else(no_job)
    }

    /// A job whoever asks, for links that are signed.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn get_signed(&self, id: &str) -> Result<JobRow, Fault> {
        stored(self.store.any_job(id).await)?.ok_or_else(no_job)
    }

    /// Jobs of this user, newest first, behind the job `after`; `status` '' = any.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn list(&self, tenant: &str, user: &str, status: &str, after: Option<&str>, limit: usize) -> Result<Vec<JobRow>, Fault> {
        stored(self.store.jobs(tenant, user, status, after.unwrap_or_default(), limit).await)
    }

    /// Asks a job to end; one that has ended stays as it is.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn cancel(&self, id: &str, tenant: &str, user: &str, actor: &Actor) -> Result<JobRow, Fault> {
        stored(self.store.cancel_job(id, tenant, user, actor).await)?;
        self.wake.notify_waiters();
        self.get(id, tenant, user).await
    }

    /// The signature of a path until a Unix time in seconds.
    pub fn sign(&self, path: &str, until_s: i64) -> String {
        self.signer.sign(path, until_s)
    }

    /// True if the signature is this store's and its time has not passed.
    pub fn signed(&self, path: &str, until_s: i64, signature: &str) -> bool {
        Timestamp::now().as_second() < until_s && self.signer.verify(path, until_s, signature)
    }

    /// Gives back what this server's workers had, once they are ended: others need not wait until they seem silent.
    pub async fn release(&self) {
        let names = std::mem::take(&mut *self.workers.lock().unwrap_or_else(PoisonError::into_inner));
        for name in names {
            if let Err(error) = self.store.release(&name).await {
                tracing::warn!(%error, "jobs go on after {} s", crate::store::segments::LEASE_MS / 1000);
            }
        }
    }

    fn keep_ms(&self) -> i64 {
        i64::try_from(self.options.keep.as_millis()).unwrap_or(i64::MAX / 4)
    }

    fn ending(&self) -> Ending {
        Ending { keep_ms: self.keep_ms(), expired_is_failed: self.options.expired_is_failed }
    }

    /// Works on jobs until dropped. What is not written down by then is done again by whoever goes on.
    pub async fn run(self: Arc<Self>, lines: Arc<dyn Lines>) {
        let mut tasks = JoinSet::new();
        let workers = work::workers(&self, &lines, WORKERS);
        for worker in workers {
            tasks.spawn(async move {
                loop {
                    // A defect must not end the work on jobs for good; the panic itself has its place in the log.
                    if AssertUnwindSafe(worker.run()).catch_unwind().await.is_err() {
                        tracing::error!(event = "job_paused", "a worker panicked; it goes on where it was");
                        tokio::time::sleep(work::PAUSE).await;
                    }
                }
            });
        }
        tasks.spawn(async move {
            let mut ticks = tokio::time::interval(CLEAN_INTERVAL);
            loop {
                ticks.tick().await;
                let removed = match self.store.remove_expired_files().await {
                    Ok(_) => self.store.remove_stale_counts().await,
                    Err(error) => Err(error),
                };
                if let Err(error) = removed {
                    tracing::error!(%error, "what has expired cannot be removed from the store");
                }
            }
        });
        while tasks.join_next().await.is_some() {}
    }
}

fn no_file() -> Fault {
    Fault::NotFound { message: "No file of yours has this id".into() }
}

fn no_job() -> Fault {
    Fault::NotFound { message: "No batch job of yours has this id".into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Place;

    #[test]
    fn a_link_ends_at_its_time_however_well_it_is_signed() {
        crate::store::tests::run(async {
            let jobs = Jobs::open(Store::open(&Place::Memory).await.unwrap(), Options::default()).await.unwrap();
            let now = Timestamp::now().as_second();
            let good = |until| jobs.signed("/a", until, &jobs.sign("/a", until));
            assert!(good(now + 600) && !good(now) && !good(now - 600) && !good(i64::MIN));
            assert!(!jobs.signed("/a", now + 600, &jobs.sign("/a", now + 599)));
        });
    }
}
