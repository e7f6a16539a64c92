//! How fast a model runs on this machine: measured at warm-up, followed while it serves. Sizes batches and estimates waits.

use super::compute::Compute;
use super::pipeline::ComputeError;
use super::queue::Budget;
use crate::ragged::{Packed, Tokens};
use std::time::{Duration, Instant};

/// A batch should take about this long, so that nobody waits much longer for the device.
pub const BATCH_TARGET: Duration = Duration::from_millis(100);
/// A bulk batch takes this many times as long where short requests can overtake it: the larger it is, the less its last part, in which threads run
/// out of work one after the other, counts.
const BULK_FACTOR: usize = 3;
/// Warm-up stops growing its batch when one takes this long.
const ENOUGH: Duration = Duration::from_millis(60);
/// The length of a warm-up text, if the model takes that much.
const PROBE_TOKENS: usize = 128;
/// How often the last batch of the warm-up is measured.
const PROBES: usize = 3;
/// Bounds of the token budget that follows from the measured rate.
const BUDGET_TOKENS: (usize, usize) = (64, 32_768);
/// The default limit of texts per batch: many tiny texts cost more than their tokens say.
const BUDGET_TEXTS: usize = 512;
/// How much of the past a new batch leaves in the running rate.
const KEEP: f64 = 0.9;

/// A model's speed in tokens per second.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    warm: f64,
    tokens: f64,
    seconds: f64,
}

impl Pace {
    /// From one measured batch.
    pub fn of(tokens: usize, took: Duration) -> Self {
        let (tokens, seconds) = (tokens.max(1) as f64, took.as_secs_f64().max(1e-6));
        Self { warm: tokens / seconds, tokens, seconds }
    }

    /// Takes one more batch into the running rate; large batches weigh more.
    pub fn observe(&mut self, tokens: usize, took: Duration) {
        self.tokens = self.tokens * KEEP + tokens as f64;
        self.seconds = self.seconds * KEEP + took.as_secs_f64().max(1e-6);
    }

    /// Tokens per second at warm-up, on an idle device.
    pub fn warm_tokens_per_s(&self) -> f64 {
        self.warm
    }

    /// Tokens per second lately.
    pub fn tokens_per_s(&self) -> f64 {
        self.tokens / self.seconds
    }

    /// How long this many tokens take at the recent rate.
    pub fn time_for(&self, tokens: usize) -> Duration {
        Duration::try_from_secs_f64(tokens as f64 / self.tokens_per_s()).unwrap_or(Duration::MAX)
    }

    /// How long this many tokens take on an idle device.
    pub fn idle_time_for(&self, tokens: usize) -> Duration {
        Duration::try_from_secs_f64(tokens as f64 / self.warm).unwrap_or(Duration::MAX)
    }

    /// The budget that makes batches of about `BATCH_TARGET`, bulk ones longer if they can be overtaken; what the operator set goes first.
    pub fn budget(&self, tokens: Option<usize>, texts: Option<usize>, overtaken: bool) -> Budget {
        let aimed = (self.warm * BATCH_TARGET.as_secs_f64()) as usize;
        let (least, most) = BUDGET_TOKENS;
        let factor = if overtaken { BULK_FACTOR } else { 1 };
        Budget {
            tokens: tokens.unwrap_or(aimed.clamp(least, most)),
            bulk_tokens: tokens.unwrap_or((aimed * factor).clamp(least, most)),
            texts: texts.unwrap_or(BUDGET_TEXTS),
        }
    }
}

/// Runs a model until its weights are warm and its rate is known.
pub fn warm_up(model: &dyn Compute) -> Result<Pace, ComputeError> {
    run(model, 1, 8)?;
    let mut texts = 1;
    loop {
        let (tokens, mut took) = run(model, texts, PROBE_TOKENS)?;
        if took >= ENOUGH || tokens >= BUDGET_TOKENS.1 {
            // The best of a few: what else the machine does while we start says nothing about the model.
            for _ in 1..PROBES {
                took = took.min(run(model, texts, PROBE_TOKENS)?.1);
            }
            if took >= ENOUGH || tokens >= BUDGET_TOKENS.1 {
                return Ok(Pace::of(tokens, took));
            }
        }
        texts *= 2;
    }
}

/// One batch of `texts` made-up texts: its tokens and its time.
fn run(model: &dyn Compute, texts: usize, len: usize) -> Result<(usize, Duration), ComputeError> {
    let len = len.min(model.longest()).max(1);
    // The first ids of a vocabulary exist in every model; which ones does not change the time.
    let text = Tokens::whole((0..len as u32).map(|id| id % 8).collect());
    let batch = Packed::new(std::iter::repeat_n(&text, texts));
    let started = Instant::now();
    model.encode(&batch)?;
    Ok((batch.tokens(), started.elapsed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_aims_at_the_target_within_bounds() {
        let pace = Pace::of(1000, Duration::from_millis(100));
        let (tokens, texts) = (1000, BUDGET_TEXTS);
        assert_eq!(pace.budget(None, None, false), Budget { tokens, bulk_tokens: tokens, texts });
        assert_eq!(pace.budget(None, None, true), Budget { tokens, bulk_tokens: BULK_FACTOR * tokens, texts });
        assert_eq!(pace.budget(Some(64), Some(4), true), Budget { tokens: 64, bulk_tokens: 64, texts: 4 });
        assert_eq!(Pace::of(1, Duration::from_secs(1)).budget(None, None, false).tokens, 64);
        assert_eq!(Pace::of(1_000_000, Duration::from_micros(1)).budget(None, None, false).tokens, 32_768);
    }

    #[test]
    fn the_running_rate_follows_and_the_warm_rate_stays() {
        let mut pace = Pace::of(1000, Duration::from_secs(1));
        (0..100).for_each(|_| pace.observe(1000, Duration::from_secs(2)));
        assert!((pace.tokens_per_s() - 500.0).abs() < 1.0, "{}", pace.tokens_per_s());
        assert_eq!(pace.warm_tokens_per_s(), 1000.0);
        assert_eq!(pace.idle_time_for(2000), Duration::from_secs(2));
        assert_eq!(pace.time_for(usize::MAX).max(Duration::from_secs(1)), pace.time_for(usize::MAX));
    }
}
