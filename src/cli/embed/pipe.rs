//! From rows to vectors: several requests under way at once, windows handed on in order. Memory is bounded by the windows, not by the input.

use super::ask::{Row, ask};
use super::line::Lines;
use super::window::{Chunk, Done, Limits, Window};
use crate::service::Embedded;
use crate::wire::Fault;
use anyhow::{Context, anyhow};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Requests under way at once: enough to fill batches while the oldest one is finished.
const CHUNKS_IN_FLIGHT: usize = 4;
/// Windows that wait for their last answers or for the writer.
const WINDOWS_IN_FLIGHT: usize = 3;
/// When the device has nothing to do and no row comes for this long, those that are there do not wait for a full window.
const STALL: Duration = Duration::from_millis(200);

/// What came of a request: the window's number, the rows, their answers or the reason that holds for every text.
type Answer = (u64, Vec<usize>, Result<Vec<Result<Row, String>>, String>);

/// Windows and requests on their way.
struct Flow {
    building: Window,
    /// In the order of the input; the first one has the number `first`.
    windows: VecDeque<Window>,
    first: u64,
    /// Chunks that are not sent yet, with their window's number.
    pending: VecDeque<(u64, Chunk)>,
    running: JoinSet<Answer>,
    /// Why no more rows come: the input's end, or what went wrong with it.
    end: Option<anyhow::Result<()>>,
}

/// Embeds all rows and hands them on in windows.
///
/// Texts that are refused do not stop the rest. A fault that would meet every text (an unknown prompt, a model that cannot serve) does. Where the
/// input fails, what came before is still handed on.
///
/// # Errors
/// Such a fault, and the input's. Not the writer's: if it takes no more, this ends, and the writer says why.
pub async fn pipe<F, Fut>(mut rows: mpsc::Receiver<anyhow::Result<Lines>>, writer: mpsc::Sender<Done>, limits: Limits, embed: F) -> anyhow::Result<()>
where
    F: Fn(Vec<String>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Embedded, Fault>> + Send,
{
    let mut flow =
        Flow { building: Window::default(), windows: VecDeque::new(), first: 0, pending: VecDeque::new(), running: JoinSet::new(), end: None };
    loop {
        while flow.running.len() < CHUNKS_IN_FLIGHT
            && let Some((number, chunk)) = flow.pending.pop_front()
        {
            let embed = embed.clone();
            flow.running.spawn(async move { (number, chunk.rows, ask(&chunk.texts, &embed).await) });
        }
        while let Some(done) = flow.front() {
            if writer.send(done).await.is_err() {
                return Ok(());
            }
        }
        if flow.windows.is_empty()
            && let Some(end) = flow.end.take()
        {
            return end;
        }
        let wants_more = flow.end.is_none() && flow.pending.is_empty() && flow.windows.len() < WINDOWS_IN_FLIGHT;
        let is_idle = flow.running.is_empty() && !flow.building.is_empty();
        tokio::select! {
            lines = rows.recv(), if wants_more => flow.take(lines, &limits),
            Some(answer) = flow.running.join_next() => {
                let (number, rows, answers) = answer.context("embedding a chunk died")?;
                flow.put(number, &rows, answers.map_err(|reason| anyhow!(reason))?);
            }
            () = tokio::time::sleep(STALL), if is_idle => flow.close(&limits),
        }
    }
}

impl Flow {
    fn take(&mut self, lines: Option<anyhow::Result<Lines>>, limits: &Limits) {
        match lines {
            Some(Ok(lines)) => self.building.take(lines),
            Some(Err(error)) => self.end = Some(Err(error)),
            None => self.end = Some(Ok(())),
        }
        if self.building.is_full(limits) || (self.end.is_some() && !self.building.is_empty()) {
            self.close(limits);
        }
    }

    /// Sends what has been gathered on its way.
    fn close(&mut self, limits: &Limits) {
        let mut window = std::mem::take(&mut self.building);
        let number = self.first + self.windows.len() as u64;
        self.pending.extend(window.cut(limits).into_iter().map(|chunk| (number, chunk)));
        self.windows.push_back(window);
    }

    fn put(&mut self, number: u64, rows: &[usize], answers: Vec<Result<Row, String>>) {
        let at = usize::try_from(number - self.first).unwrap_or(usize::MAX);
        if let Some(window) = self.windows.get_mut(at) {
            window.put(rows, answers);
        }
    }

    /// The oldest window, if it is done.
    fn front(&mut self) -> Option<Done> {
        let window = self.windows.pop_front_if(|window| window.is_done())?;
        self.first += 1;
        Some(window.done())
    }
}
