//! The thread that writes: windows in order, what is refused, a checkpoint after each, and the progress.

use super::part::Part;
use super::progress::Progress;
use super::window::Done;
use super::write::{Format, refusal};
use anyhow::{Context, bail};
use arrow_array::BooleanArray;
use arrow_select::filter::filter_record_batch;
use std::io::Write;
use tokio::sync::{mpsc, oneshot};

/// What becomes of a row that has no vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum OnError {
    /// The run ends, with the row's number and the reason; the rows before it are kept.
    Fail,
    /// The row keeps its place without a vector: the error in JSON lines, null in Parquet, zeros in npy and safetensors.
    Null,
    /// The row is left out.
    Skip,
}

/// Where the bytes go.
pub enum Target {
    /// A file that can be gone on with.
    Part(Part),
    /// A pipe or the like: what is written is gone.
    Stream(Box<dyn Write + Send>),
}

/// What a run has done, those before it included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Rows done.
    pub rows: u64,
    /// Those that were refused.
    pub refused: u64,
    /// Tokens computed.
    pub tokens: u64,
}

/// The writer.
pub struct Sink {
    pub format: Box<dyn Format>,
    pub target: Target,
    pub on_error: OnError,
    /// Refusals that the output does not hold, as JSON lines.
    pub refusals: Box<dyn Write + Send>,
    pub progress: Progress,
    pub summary: Summary,
}

impl Sink {
    /// Writes in a thread of its own what the channel brings, until it ends; then `finish` must say whether that was all.
    ///
    /// # Errors
    /// No thread.
    pub fn start(self) -> anyhow::Result<Writer> {
        let (windows, mut received) = mpsc::channel(1);
        let (told, result) = oneshot::channel();
        let thread = std::thread::Builder::new().name("embed-writer".to_owned());
        let mut sink = self;
        thread
            .spawn(move || {
                let mut all = || {
                    while let Some(done) = received.blocking_recv() {
                        sink.window(done)?;
                    }
                    Ok(())
                };
                let written = all();
                // Whoever sends must learn of it now, not after a window more.
                drop(received);
                let _ = told.send(written.map(|()| sink));
            })
            .context("cannot start the writer")?;
        Ok(Writer { windows, result })
    }

    fn window(&mut self, mut done: Done) -> anyhow::Result<()> {
        let failed = (self.on_error == OnError::Fail).then(|| done.rows.iter().position(Result::is_err)).flatten();
        let failure = failed.map(|row| (done.places[row].index, done.rows[row].clone().err().unwrap_or_default()));
        if let Some(row) = failed {
            keep(&mut done, |at| at < row)?;
        }
        if !done.rows.is_empty() {
            self.write(done)?;
        }
        match failure {
            None => Ok(()),
            Some((index, reason)) => {
                bail!("row {} (index {index}): {reason}. Rows before it are kept; --on-error null or skip goes on behind it", index + 1)
            }
        }
    }

    fn write(&mut self, mut done: Done) -> anyhow::Result<()> {
        let last = done.places.last().map(|place| (place.index + 1, place.chain));
        for (place, row) in done.places.iter().zip(&done.rows) {
            match row {
                Ok(row) => self.summary.tokens += row.tokens.tokens as u64,
                Err(reason) => {
                    self.summary.refused += 1;
                    if self.on_error == OnError::Skip || !self.format.holds_refusals() {
                        let line = refusal(place, reason)?;
                        self.progress.suspend(|| self.refusals.write_all(&line)).context("cannot tell what was refused")?;
                    }
                }
            }
        }
        if self.on_error == OnError::Skip {
            let vectors: Vec<bool> = done.rows.iter().map(Result::is_ok).collect();
            keep(&mut done, |at| vectors[at])?;
        }
        let mut bytes = Vec::new();
        self.format.append(&done, &mut bytes)?;
        let Some((rows, chain)) = last else { return Ok(()) };
        self.summary.rows = rows;
        let Summary { refused, tokens, .. } = self.summary;
        let progress = &self.progress;
        match &mut self.target {
            Target::Stream(out) => progress.suspend(|| out.write_all(&bytes).and_then(|()| out.flush())).context("cannot write the output")?,
            Target::Part(part) => {
                part.append(&bytes)?;
                part.commit(|state| {
                    (state.rows, state.refused, state.tokens, state.chain) = (rows, refused, tokens, chain.hex());
                    state.written_rows += done.rows.len() as u64;
                })?;
            }
        }
        progress.reached(done.end, &self.summary);
        Ok(())
    }

    /// All rows have been written: makes the output whole.
    ///
    /// # Errors
    /// Output that cannot be written.
    pub fn finish(mut self) -> anyhow::Result<Summary> {
        if let Target::Part(part) = &mut self.target {
            part.finish(self.format.as_ref())?;
        }
        self.progress.end();
        Ok(self.summary)
    }
}

/// Leaves only the rows for which `keep` holds.
fn keep(done: &mut Done, keep: impl Fn(usize) -> bool) -> anyhow::Result<()> {
    let mut at = 0;
    for table in &mut done.tables {
        let mask: Vec<bool> = (at..at + table.num_rows()).map(&keep).collect();
        at += table.num_rows();
        *table = filter_record_batch(table, &BooleanArray::from(mask))?;
    }
    let mut places = 0..;
    done.places.retain(|_| places.next().is_some_and(&keep));
    let mut rows = 0..;
    done.rows.retain(|_| rows.next().is_some_and(&keep));
    Ok(())
}

/// A writer that is at work.
pub struct Writer {
    pub windows: mpsc::Sender<Done>,
    result: oneshot::Receiver<anyhow::Result<Sink>>,
}

impl Writer {
    /// The end of the channel: waits until what it holds is written.
    ///
    /// # Errors
    /// What stopped the writer.
    pub async fn end(self) -> anyhow::Result<Sink> {
        drop(self.windows);
        self.result.await.context("the writer died")?
    }
}
