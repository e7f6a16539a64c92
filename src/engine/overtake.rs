//! Short requests overtake bulk work half-way: between two operations of its forward pass they are computed first.
//!
//! A bulk batch takes some 300 ms, and of a slow model seconds, many times what a short request takes. So between operations the device thread looks
//! whether one waits; if so it is computed there and then, on the thread's own (or on all threads, where these are idle too), and the bulk batch goes on
//! where it was: its numbers do not change.

use super::Shared;
use super::device::{self, Models};
use super::pending::Failure;
use super::queue::INTERACTIVE_RUN;
use crate::exec::between;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What overtook a batch so far.
pub(super) struct Overtaken {
    started: Instant,
    time: Cell<Duration>,
}

impl Default for Overtaken {
    fn default() -> Self {
        Self { started: Instant::now(), time: Cell::default() }
    }
}

impl Overtaken {
    /// How long it took.
    pub(super) fn time(&self) -> Duration {
        self.time.get()
    }

    fn own(&self) -> Duration {
        self.started.elapsed().saturating_sub(self.time())
    }

    /// In a batch that has had at least a quarter of the time there is room for more.
    fn has_room(&self) -> bool {
        self.time() <= self.own() * INTERACTIVE_RUN
    }

    /// In batches as long as the overtaken one.
    fn in_batches(&self) -> u32 {
        let ratio = self.time().as_secs_f64() / self.own().as_secs_f64().max(1e-6);
        ratio.ceil().min(f64::from(INTERACTIVE_RUN)) as u32
    }
}

/// Runs bulk work that may be overtaken, and tells by how many batches of its own length it was.
pub(super) fn during(shared: &Arc<Shared>, models: &Models, work: impl FnOnce(&Overtaken)) -> u32 {
    let overtaken = Rc::new(Overtaken::default());
    let (shared, models, seen) = (shared.clone(), models.clone(), overtaken.clone());
    between::with(Rc::new(move || turn(&shared, &models, &seen)), || work(&overtaken));
    overtaken.in_batches()
}

/// At one point of a forward pass.
fn turn(shared: &Shared, models: &Models, overtaken: &Overtaken) {
    if !shared.hurry.load(Ordering::Relaxed) || !overtaken.has_room() {
        return;
    }
    let started = Instant::now();
    let mut state = shared.lock();
    let next = state.queue.next_interactive(started);
    next.expired.iter().for_each(|job| job.fail(&Failure::Deadline));
    shared.queue_changed(&state);
    drop(state);
    if let Some(batch) = next.batch {
        let left = device::run_batch(shared, models, batch, &Overtaken::default());
        // If this device has failed, the batch that was overtaken will show it; another one takes these.
        shared.lock().returned.extend(left);
    }
    overtaken.time.set(overtaken.time() + started.elapsed());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overtaken_work_keeps_a_quarter_of_the_time() {
        let unit = Duration::from_secs(10);
        let since = |own: u32, others: u32| Overtaken { started: Instant::now() - unit * (own + others), time: Cell::new(unit * others) };
        assert!(since(0, 0).has_room());
        assert!(since(1, 2).has_room());
        assert!(!since(1, 4).has_room());
        assert_eq!([since(1, 0), since(4, 1), since(1, 4)].map(|overtaken| overtaken.in_batches()), [0, 1, INTERACTIVE_RUN]);
    }
}
