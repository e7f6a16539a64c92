//! A rolling window: how much was used in the last minute. Pure; the caller tells the time. Never lets more through than the limit in any window.
//!
//! Token buckets (GCRA, as the well-kept crates have it) let up to twice the limit through in a window that begins with a burst; a log of
//! every event is exact and grows with the limit. Here events are counted in steps of 100 ms, each kept until a whole window after its end:
//! no window ever holds more than the limit, room comes back at most one step late, and a window never takes more than 601 entries.

use std::collections::VecDeque;

/// The window's length.
pub const WINDOW_MS: u64 = 60_000;
/// What is counted together.
const STEP_MS: u64 = 100;

/// What was used in the last `WINDOW_MS`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Window {
    /// `(step, amount)`, oldest first.
    steps: VecDeque<(u64, u64)>,
    used: u64,
}

impl Window {
    /// As text, for servers that count together.
    pub fn write(&self) -> String {
        let steps: Vec<String> = self.steps.iter().map(|(step, amount)| format!("{step}:{amount}")).collect();
        steps.join(" ")
    }

    /// From text; `None` if it is not a window's.
    pub fn read(text: &str) -> Option<Self> {
        let step = |text: &str| text.split_once(':').and_then(|(step, amount)| Some((step.parse().ok()?, amount.parse().ok()?)));
        let steps: VecDeque<(u64, u64)> = text.split_whitespace().map(step).collect::<Option<_>>()?;
        let used = steps.iter().map(|(_, amount)| amount).sum();
        Some(Self { steps, used })
    }

    /// What counts at `now_ms`.
    pub fn used(&mut self, now_ms: u64) -> u64 {
        while let Some(&(step, amount)) = self.steps.front().filter(|(step, _)| leaves_ms(*step) <= now_ms) {
            self.steps.pop_front();
            self.used -= amount;
            debug_assert!(leaves_ms(step) <= now_ms);
        }
        self.used
    }

    /// Counts `amount`; gives the step it was counted in.
    pub fn add(&mut self, now_ms: u64, amount: u64) -> u64 {
        // A clock that goes back a little must not break the order.
        let step = (now_ms / STEP_MS).max(self.steps.back().map_or(0, |(step, _)| *step));
        match self.steps.back_mut() {
            Some((last, sum)) if *last == step => *sum += amount,
            _ => self.steps.push_back((step, amount)),
        }
        self.used += amount;
        step
    }

    /// Takes back what was counted in `step`, if it still counts.
    pub fn take_back(&mut self, step: u64, amount: u64) {
        if let Some((_, sum)) = self.steps.iter_mut().find(|(own, sum)| *own == step && *sum >= amount) {
            *sum -= amount;
            self.used -= amount;
        }
    }

    /// Milliseconds until `amount` more fits under `limit`; 0 = now. An `amount` over the limit itself is treated as the limit.
    pub fn wait_ms(&mut self, now_ms: u64, amount: u64, limit: u64) -> u64 {
        let amount = amount.min(limit);
        let mut over = (self.used(now_ms) + amount).saturating_sub(limit);
        for (step, sum) in &self.steps {
            if over == 0 {
                break;
            }
            over = over.saturating_sub(*sum);
            if over == 0 {
                return leaves_ms(*step).saturating_sub(now_ms);
            }
        }
        0
    }

    /// Milliseconds until the oldest of what counts leaves.
    pub fn oldest_leaves_ms(&mut self, now_ms: u64) -> u64 {
        self.used(now_ms);
        let oldest = self.steps.iter().find(|(_, sum)| *sum > 0);
        oldest.map_or(0, |(step, _)| leaves_ms(*step).saturating_sub(now_ms))
    }
}

/// When a step's last moment is a whole window ago.
fn leaves_ms(step: u64) -> u64 {
    (step + 1) * STEP_MS + WINDOW_MS
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn room_comes_back_when_what_was_counted_leaves() {
        let mut window = Window::default();
        assert_eq!((window.used(0), window.wait_ms(0, 2, 2)), (0, 0));
        window.add(50, 2);
        assert_eq!((window.wait_ms(50, 1, 2), window.oldest_leaves_ms(50)), (60_050, 60_050));
        assert_eq!((window.used(60_099), window.used(60_100)), (2, 0));
        let step = window.add(60_200, 1);
        window.add(60_900, 1);
        assert_eq!(window.wait_ms(61_000, 2, 2), 60_000, "both must leave");
        window.take_back(step, 1);
        window.take_back(step, 1);
        assert_eq!((window.used(61_000), window.wait_ms(61_000, 1, 2)), (1, 0));
        assert_eq!((Window::read(""), Window::read("1:x"), Window::read("1")), (Some(Window::default()), None, None));
    }

    proptest! {
        #[test]
        fn no_window_holds_more_than_the_limit(limit in 1u64..20, events in prop::collection::vec((0u64..9_000, 1u64..4), 1..200)) {
            let (mut window, mut now, mut accepted) = (Window::default(), 0, Vec::new());
            for (pause, amount) in events {
                now += pause;
                let amount = amount.min(limit);
                let wait = window.wait_ms(now, amount, limit);
                if wait == 0 {
                    window.add(now, amount);
                    accepted.push((now, amount));
                } else {
                    prop_assert!(wait <= WINDOW_MS + STEP_MS);
                    prop_assert_eq!(window.clone().wait_ms(now + wait, amount, limit), 0, "the wait is long enough");
                    prop_assert!(window.clone().wait_ms(now + wait - 1, amount, limit) > 0, "and no longer than needed");
                }
            }
            for (start, _) in &accepted {
                let inside: u64 = accepted.iter().filter(|(at, _)| (*start..*start + WINDOW_MS).contains(at)).map(|(_, amount)| amount).sum();
                prop_assert!(inside <= limit, "{inside} of {limit} from {start}");
            }
            prop_assert!(window.steps.len() <= 602);
            prop_assert_eq!(Window::read(&window.write()), Some(window));
        }
    }
}
