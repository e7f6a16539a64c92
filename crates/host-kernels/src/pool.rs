//! Threads that stay: work is offered to all of them at once, and the caller works along until everything is done.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use std::thread::JoinHandle;

/// How often a thread looks for work before it sleeps: about a tenth of a millisecond, longer than from one operation of a text to the next and
/// short enough that an idle server burns nothing.
const SPINS: u32 = 20_000;

/// Beside the count of the threads in a round: others may still enter.
const OPEN: usize = 1 << (usize::BITS - 1);

/// Work for any thread: the number of the part to do.
type Work<'a> = dyn Fn(usize) + Sync + 'a;

/// Who computes: the calling thread alone, or with others.
pub struct Team {
    pool: Option<Pool>,
}

impl Team {
    /// Only the calling thread.
    pub fn alone() -> Self {
        Self { pool: None }
    }

    /// The calling thread and `threads - 1` others.
    pub fn of(threads: usize) -> Self {
        Self::settled(threads, |_| {})
    }

    /// The same; each of the others first calls `settle` with its number, from 1 on: to stay on some of the cores, say.
    pub fn settled(threads: usize, settle: impl Fn(usize) + Send + Sync + 'static) -> Self {
        Self { pool: (threads > 1).then(|| Pool::new(threads - 1, Arc::new(settle))) }
    }

    /// How many compute.
    pub fn threads(&self) -> usize {
        self.pool.as_ref().map_or(1, |pool| pool.threads.len() + 1)
    }

    /// Does `work(0)` to `work(parts - 1)`, each once, in no order, on whichever thread is free. Returns when all is done. A caller that finds the
    /// others at somebody else's work does its own alone.
    ///
    /// # Panics
    /// If a part panics, after the others are done.
    pub fn each(&self, parts: usize, work: &Work) {
        self.each_while(parts, work, &|| {});
    }

    /// The same; `meanwhile` is called again and again by the caller while it waits for the others' last parts. It may use the team.
    ///
    /// # Panics
    /// As `each`.
    pub fn each_while(&self, parts: usize, work: &Work, meanwhile: &dyn Fn()) {
        match &self.pool {
            Some(pool) if parts > 1 => pool.each(parts, work, meanwhile),
            _ => (0..parts).for_each(work),
        }
    }
}

struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// One round at a time.
    turn: Mutex<()>,
}

struct Shared {
    /// Counts rounds; a new number means new work.
    round: AtomicUsize,
    /// The next part to take, and how many there are.
    next: AtomicUsize,
    parts: AtomicUsize,
    /// How many threads are in the round, and whether it is `OPEN`. A thread that comes when all parts are taken is not waited for: where others use
    /// the processor too, it may come late.
    inside: AtomicUsize,
    failed: AtomicBool,
    stop: AtomicBool,
    asleep: Vec<AtomicBool>,
    /// The round's work. Written by the caller before the round begins, read by the threads until they have finished it.
    work: UnsafeCell<*const Work<'static>>,
}

// SAFETY: `work` is written only while no thread is in a round (`inside` is 0) and read only inside one; `inside` orders the two.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer is followed only while the caller of `each` keeps what it points to.
unsafe impl Send for Shared {}

impl Shared {
    /// Takes parts until there are none.
    fn take(&self, work: &Work) {
        let parts = self.parts.load(Ordering::Relaxed);
        loop {
            let part = self.next.fetch_add(1, Ordering::Relaxed);
            if part >= parts {
                return;
            }
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(part))).is_err() {
                self.failed.store(true, Ordering::Relaxed);
            }
        }
    }

    /// A thread's life.
    fn live(&self, index: usize) {
        let mut seen = 0;
        loop {
            self.wait(index, seen);
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            seen = self.round.load(Ordering::Acquire);
            let enter = |inside| (inside & OPEN != 0).then_some(inside + 1);
            if self.inside.fetch_update(Ordering::Acquire, Ordering::Relaxed, enter).is_ok() {
                // SAFETY: the round is open, so the caller has written the work and keeps it until this thread has counted itself off below.
                let work: &Work = unsafe { &**self.work.get() };
                self.take(work);
                self.inside.fetch_sub(1, Ordering::Release);
            }
        }
    }

    /// Closes the round, and waits until no thread is in it any more.
    fn wait_for_all(&self, meanwhile: &dyn Fn()) {
        self.inside.fetch_and(!OPEN, Ordering::Relaxed);
        let mut spins = 0;
        while self.inside.load(Ordering::Acquire) != 0 {
            meanwhile();
            spins += 1;
            // Where threads share a core, the one waited for may need this one's turn.
            if spins < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
    }

    fn wait(&self, index: usize, seen: usize) {
        let mut spins = 0;
        while self.round.load(Ordering::Acquire) == seen {
            spins += 1;
            if spins < SPINS {
                std::hint::spin_loop();
                continue;
            }
            // The caller looks here after it has begun a round; so either it sees the sleeper or the sleeper sees the round.
            self.asleep[index].store(true, Ordering::SeqCst);
            if self.round.load(Ordering::SeqCst) == seen {
                std::thread::park();
            }
            self.asleep[index].store(false, Ordering::SeqCst);
        }
    }
}

impl Pool {
    fn new(others: usize, settle: Arc<dyn Fn(usize) + Send + Sync>) -> Self {
        let shared = Arc::new(Shared {
            round: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            parts: AtomicUsize::new(0),
            inside: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            asleep: (0..others).map(|_| AtomicBool::new(false)).collect(),
            work: UnsafeCell::new(&|_| {}),
        });
        let start = |index: usize| {
            let (shared, settle) = (shared.clone(), settle.clone());
            let life = move || {
                settle(index + 1);
                shared.live(index);
            };
            std::thread::Builder::new().name(format!("compute-{}", index + 1)).spawn(life)
        };
        // A machine that gives fewer threads computes with fewer.
        let threads = (0..others).map_while(|index| start(index).ok()).collect();
        Self { shared, threads, turn: Mutex::new(()) }
    }

    fn each(&self, parts: usize, work: &Work, meanwhile: &dyn Fn()) {
        let _turn = match self.turn.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(turn)) => turn.into_inner(),
            Err(TryLockError::WouldBlock) => return (0..parts).for_each(work),
        };
        let shared = &self.shared;
        // SAFETY: only the lifetime changes. No thread follows the pointer after this function returns: it waits for `inside` to be 0.
        let work_forever: *const Work<'static> = unsafe { std::mem::transmute::<*const Work<'_>, *const Work<'static>>(work) };
        // SAFETY: no round is running, so no thread reads it.
        unsafe { *shared.work.get() = work_forever };
        shared.parts.store(parts, Ordering::Relaxed);
        shared.next.store(0, Ordering::Relaxed);
        shared.failed.store(false, Ordering::Relaxed);
        shared.inside.store(OPEN, Ordering::Release);
        shared.round.fetch_add(1, Ordering::SeqCst);
        for (thread, asleep) in self.threads.iter().zip(&shared.asleep) {
            if asleep.load(Ordering::SeqCst) {
                thread.thread().unpark();
            }
        }
        shared.take(work);
        // The work must not be left before all threads have: `meanwhile` may panic.
        let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| shared.wait_for_all(meanwhile)));
        if let Err(panic) = waited {
            shared.wait_for_all(&|| {});
            std::panic::resume_unwind(panic);
        }
        assert!(!shared.failed.load(Ordering::Relaxed), "a part of a computation panicked");
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.round.fetch_add(1, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_is_not_there_is_not_waited_for() {
        let gate = Arc::new(Mutex::new(()));
        let shut = gate.lock().unwrap();
        let theirs = gate.clone();
        let team = Team::settled(2, move |_| drop(theirs.lock()));
        for _ in 0..3 {
            let done = AtomicUsize::new(0);
            team.each(7, &|_| {
                done.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(done.load(Ordering::Relaxed), 7);
        }
        drop(shut);
    }

    #[test]
    fn every_part_is_done_once_round_after_round() {
        for threads in [1, 2, 5] {
            let team = Team::of(threads);
            assert_eq!(team.threads(), threads);
            for parts in (0..200).map(|round| round % 17) {
                let done: Vec<AtomicUsize> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
                team.each(parts, &|part| {
                    done[part].fetch_add(1, Ordering::Relaxed);
                });
                assert!(done.iter().all(|count| count.load(Ordering::Relaxed) == 1), "{threads} threads, {parts} parts");
            }
        }
    }

    #[test]
    fn each_of_the_others_settles_once() {
        let (settled, news) = std::sync::mpsc::channel();
        let team = Team::settled(4, move |number| settled.send(number).unwrap_or_default());
        // Ends when the last thread has let go of its end of the channel.
        drop(team);
        let mut numbers: Vec<usize> = news.iter().collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [1, 2, 3]);
    }

    #[test]
    fn a_part_that_panics_fails_the_round_and_not_the_next() {
        let team = Team::of(3);
        let fails = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| team.each(8, &|part| assert!(part != 5, "told to"))));
        assert!(fails.is_err());
        let sum = AtomicUsize::new(0);
        team.each(8, &|part| {
            sum.fetch_add(part, Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), 28);
    }

    #[test]
    fn a_caller_that_waits_may_use_the_team_and_may_panic() {
        let team = Team::of(3);
        let (calls, sum) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let caller = std::thread::current().id();
        // The others hold their parts until the caller has come to wait.
        let slow = |_| {
            while std::thread::current().id() != caller && calls.load(Ordering::Relaxed) == 0 {
                std::thread::yield_now();
            }
        };
        for _ in 0..5 {
            calls.store(0, Ordering::Relaxed);
            team.each_while(9, &slow, &|| {
                calls.fetch_add(1, Ordering::Relaxed);
                team.each(5, &|part| {
                    sum.fetch_add(part, Ordering::Relaxed);
                });
            });
        }
        assert_eq!(sum.into_inner() % 10, 0);
        calls.store(0, Ordering::Relaxed);
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            team.each_while(9, &slow, &|| {
                calls.fetch_add(1, Ordering::Relaxed);
                panic!("told to");
            })
        }));
        let after = AtomicUsize::new(0);
        team.each(8, &|_| {
            after.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(after.into_inner(), 8);
        // Whether the caller had to wait at all is up to the machine.
        assert_eq!(told.is_err(), calls.load(Ordering::Relaxed) > 0);
    }

    #[test]
    fn teams_can_be_called_from_many_threads() {
        let team = Team::of(2);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let sum = AtomicUsize::new(0);
                        team.each(10, &|part| {
                            sum.fetch_add(part, Ordering::Relaxed);
                        });
                        assert_eq!(sum.into_inner(), 45);
                    }
                });
            }
        });
    }
}
