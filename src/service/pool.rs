//! A few threads for tokenising, apart from the async runtime and the device: short requests first, long ones a piece at a time.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use tokio::sync::oneshot;

type Task = Box<dyn FnOnce() + Send>;

/// Which tasks go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// All texts of a short request.
    Short,
    /// One piece of a long request.
    Piece,
}

#[derive(Default)]
struct Tasks {
    short: VecDeque<Task>,
    pieces: VecDeque<Task>,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    tasks: Mutex<Tasks>,
    wake: Condvar,
}

/// The threads; dropping the pool ends them when their current task is done.
pub struct Pool {
    shared: Arc<Shared>,
    threads: usize,
}

impl Pool {
    /// Starts `threads` threads (at least one).
    pub fn start(threads: usize) -> std::io::Result<Self> {
        let (shared, threads) = (Arc::new(Shared::default()), threads.max(1));
        for number in 0..threads {
            let shared = shared.clone();
            std::thread::Builder::new().name(format!("tokenizer-{number}")).spawn(move || work(&shared))?;
        }
        Ok(Self { shared, threads })
    }

    /// How many tasks can run at once.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Runs `task` on one of the threads. The channel closes without a value if it panicked; a closed channel keeps the task from starting.
    pub fn submit<T: Send + 'static>(&self, urgency: Urgency, task: impl FnOnce() -> T + Send + 'static) -> oneshot::Receiver<T> {
        let (reply, answer) = oneshot::channel();
        let task: Task = Box::new(move || {
            if !reply.is_closed()
                && let Ok(result) = catch_unwind(AssertUnwindSafe(task))
            {
                let _ = reply.send(result);
            }
        });
        {
            let mut tasks = self.shared.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            match urgency {
                Urgency::Short => tasks.short.push_back(task),
                Urgency::Piece => tasks.pieces.push_back(task),
            }
        }
        self.shared.wake.notify_one();
        answer
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.tasks.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.shared.wake.notify_all();
    }
}

fn work(shared: &Shared) {
    // One piece after at most this many short tasks, so that long requests move on under a flood of short ones.
    const SHORT_RUN: u32 = 8;
    let mut short_run = 0;
    loop {
        let task = {
            let mut tasks = shared.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            loop {
                let piece_due = short_run >= SHORT_RUN && !tasks.pieces.is_empty();
                if !piece_due && let Some(task) = tasks.short.pop_front() {
                    short_run += 1;
                    break task;
                }
                if let Some(task) = tasks.pieces.pop_front() {
                    short_run = 0;
                    break task;
                }
                if tasks.closed {
                    return;
                }
                tasks = shared.wake.wait(tasks).unwrap_or_else(PoisonError::into_inner);
            }
        };
        task();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_panic_costs_one_task_only() {
        let pool = Pool::start(1).unwrap();
        assert!(pool.submit(Urgency::Short, || -> u8 { panic!("in a tokenizer") }).blocking_recv().is_err());
        assert_eq!(pool.submit(Urgency::Short, || 7).blocking_recv(), Ok(7));
    }

    /// A pool whose only thread is held until `go` is sent.
    fn held() -> (Pool, mpsc::Sender<()>) {
        let pool = Pool::start(1).unwrap();
        let ((go, gate), (entered, inside)) = (mpsc::channel::<()>(), mpsc::channel());
        let holding = pool.submit(Urgency::Short, move || {
            entered.send(()).unwrap();
            gate.recv().unwrap();
        });
        inside.recv().unwrap();
        drop(holding);
        (pool, go)
    }

    #[test]
    fn short_requests_overtake_pieces_and_pieces_still_move() {
        let (pool, go) = held();
        let order = Arc::new(Mutex::new(Vec::new()));
        let queue = |name: &'static str, urgency| {
            let order = order.clone();
            pool.submit(urgency, move || order.lock().unwrap().push(name))
        };
        let waiting: Vec<_> =
            [("piece", Urgency::Piece); 2].into_iter().chain([("short", Urgency::Short); 20]).map(|(name, urgency)| queue(name, urgency)).collect();
        go.send(()).unwrap();
        waiting.into_iter().for_each(|task| task.blocking_recv().unwrap());
        let order = order.lock().unwrap();
        assert_eq!((order.len(), order[0]), (22, "short"), "{order:?}");
        let first_piece = order.iter().position(|name| *name == "piece").unwrap();
        assert!(first_piece <= 8, "a piece after at most eight short tasks: {order:?}");
    }

    #[test]
    fn what_nobody_waits_for_is_not_done() {
        let (pool, go) = held();
        let ran = Arc::new(Mutex::new(false));
        let flag = ran.clone();
        drop(pool.submit(Urgency::Short, move || *flag.lock().unwrap() = true));
        let last = pool.submit(Urgency::Short, || ());
        go.send(()).unwrap();
        last.blocking_recv().unwrap();
        assert!(!*ran.lock().unwrap());
    }
}
