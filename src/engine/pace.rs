//! How fast a model runs on this machine: measured at warm-up, followed while it serves. Sizes batches and estimates waits.

use super::compute::Compute;
use super::pipeline::ComputeError;
use super::profile::{Found, Profile};
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
/// A batch this much larger than the budget was computed before the budget counts as one that the device's memory takes.
const HEADROOM: (usize, usize) = (4, 3);
/// How much of the past a new batch leaves in the running rate.
const KEEP: f64 = 0.9;

/// A model's speed in tokens per second.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    warm: f64,
    tokens: f64,
    seconds: f64,
    /// What the device's memory takes with headroom, where that was tried.
    most_tokens: Option<usize>,
}

impl Pace {
    /// From one measured batch.
    pub fn of(tokens: usize, took: Duration) -> Self {
        let (tokens, seconds) = (tokens.max(1) as f64, took.as_secs_f64().max(1e-6));
        Self { warm: tokens / seconds, tokens, seconds, most_tokens: None }
    }

    /// The same with an end to the budget.
    pub fn within(self, most_tokens: usize) -> Self {
        Self { most_tokens: Some(most_tokens), ..self }
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

    /// The budget that makes batches of about `BATCH_TARGET`; what the operator set goes first. `overtaken`: bulk ones may take longer, for short requests
    /// can overtake them, and so many tokens at least are worth it.
    pub fn budget(&self, tokens: Option<usize>, texts: Option<usize>, overtaken: Option<usize>) -> Budget {
        let aimed = (self.warm * BATCH_TARGET.as_secs_f64()) as usize;
        let (least, most) = BUDGET_TOKENS;
        let most = self.most_tokens.map_or(most, |own| own.clamp(least, most));
        let bulk = overtaken.map_or(aimed, |worth| (aimed * BULK_FACTOR).max(worth));
        Budget {
            tokens: tokens.unwrap_or(aimed.clamp(least, most)),
            bulk_tokens: tokens.unwrap_or(bulk.clamp(least, most)),
            texts: texts.unwrap_or(BUDGET_TEXTS),
        }
    }
}

/// Whether a model still computes a small batch that it has computed before. If not, it is the device that fails and not a text.
pub fn still_computes(model: &dyn Compute) -> bool {
    run(model, 1, 8).is_ok()
}

/// Runs a model until its weights are warm, its rate is known, and, on a device with memory of its own, a budget that fits into that; what an
/// earlier start found is tried first.
///
/// # Errors
/// A model that fails on the smallest batch, or for another reason than memory.
pub fn warm_up(model: &dyn Compute, profile: &Profile) -> Result<Pace, ComputeError> {
    run(model, 1, 8)?;
    let Some(name) = model.profile() else { return measure(model) };
    if let Some(found) = profile.find(&name) {
        match run(model, found.most_tokens.div_ceil(PROBE_TOKENS), PROBE_TOKENS) {
            // At the rate of then: a single first batch also pays for what is made ready once.
            Ok(_) => return Ok(Pace::of(found.tokens_per_s as usize, Duration::from_secs(1)).within(found.most_tokens)),
            Err(error) => tracing::warn!(%error, tokens = found.most_tokens, "the budget of an earlier start does not hold; it is measured again"),
        }
        profile.forget(&name);
    }
    let pace = hold(model, measure(model)?)?;
    if let Some(most_tokens) = pace.most_tokens {
        profile.keep(&name, Found { most_tokens, tokens_per_s: pace.warm });
    }
    Ok(pace)
}

/// Ends the budget where the device's memory does, with headroom.
fn hold(model: &dyn Compute, pace: Pace) -> Result<Pace, ComputeError> {
    let (more, than) = HEADROOM;
    let least = BUDGET_TOKENS.0;
    let mut tokens = pace.budget(None, None, None).tokens;
    loop {
        match run(model, (tokens * more / than).div_ceil(PROBE_TOKENS), PROBE_TOKENS) {
            Ok(_) => return Ok(pace.within(tokens)),
            Err(ComputeError::OutOfMemory(_)) if tokens > least => tokens = (tokens / 2).max(least),
            Err(error) => return Err(error),
        }
    }
}

/// The rate of ever larger batches, until one takes long enough or is too large for the device.
fn measure(model: &dyn Compute) -> Result<Pace, ComputeError> {
    let (mut texts, mut held) = (1, None);
    loop {
        let (tokens, mut took) = match (run(model, texts, PROBE_TOKENS), held) {
            (Ok(measured), _) => measured,
            (Err(ComputeError::OutOfMemory(_)), Some((tokens, took))) => return Ok(Pace::of(tokens, took)),
            (Err(error), _) => return Err(error),
        };
        if took >= ENOUGH || tokens >= BUDGET_TOKENS.1 {
            // The best of a few: what else the machine does while we start says nothing about the model.
            for _ in 1..PROBES {
                took = took.min(run(model, texts, PROBE_TOKENS)?.1);
            }
            if took >= ENOUGH || tokens >= BUDGET_TOKENS.1 {
                return Ok(Pace::of(tokens, took));
            }
        }
        (texts, held) = (texts * 2, Some((tokens, took)));
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
        assert_eq!(pace.budget(None, None, None), Budget { tokens, bulk_tokens: tokens, texts });
        assert_eq!(pace.budget(None, None, Some(512)), Budget { tokens, bulk_tokens: BULK_FACTOR * tokens, texts });
        // A slow model's bulk batch keeps all threads busy all the same.
        assert_eq!(pace.budget(None, None, Some(4096)), Budget { tokens, bulk_tokens: 4096, texts });
        assert_eq!(pace.budget(Some(64), Some(4), Some(512)), Budget { tokens: 64, bulk_tokens: 64, texts: 4 });
        assert_eq!(Pace::of(1, Duration::from_secs(1)).budget(None, None, None).tokens, 64);
        assert_eq!(Pace::of(1_000_000, Duration::from_micros(1)).budget(None, None, None).tokens, 32_768);
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

    /// A device whose memory ends at so many tokens, and that computes at a fixed rate.
    struct Device {
        memory_tokens: usize,
        asked: std::cell::RefCell<Vec<usize>>,
    }

    impl Compute for Device {
        fn dim(&self) -> usize {
            1
        }
        fn longest(&self) -> usize {
            512
        }
        fn profile(&self) -> Option<String> {
            Some("made up".to_owned())
        }
        fn encode(&self, batch: &Packed) -> Result<Vec<f32>, ComputeError> {
            self.asked.borrow_mut().push(batch.tokens());
            let full = || ComputeError::OutOfMemory(candle_core::Error::Msg("made up".into()));
            if batch.tokens() > self.memory_tokens { Err(full()) } else { Ok(vec![0.; batch.texts()]) }
        }
        fn encode_f32(&self, batch: &Packed) -> Result<Vec<f32>, ComputeError> {
            self.encode(batch)
        }
    }

    fn device(memory_tokens: usize) -> Device {
        Device { memory_tokens, asked: Default::default() }
    }

    #[test]
    fn the_budget_leaves_headroom_in_the_devices_memory() {
        let budget = |memory_tokens| warm_up(&device(memory_tokens), &Profile::default()).unwrap().budget(None, None, None).tokens;
        // Too fast to end by time: the largest budget, where the memory takes a third more than that.
        assert_eq!(budget(50_000), 32_768);
        assert_eq!(budget(40_000), 16_384);
        assert_eq!(budget(1000), 512);
        assert!(matches!(warm_up(&device(4), &Profile::default()), Err(ComputeError::OutOfMemory(_))));
    }

    #[test]
    fn the_next_start_takes_the_budget_that_held_unless_it_no_longer_does() {
        let dir = tempfile::tempdir().unwrap();
        let profile = Profile::at(Some(dir.path().join("budgets.json")));
        warm_up(&device(40_000), &profile).unwrap();
        let next = device(40_000);
        assert_eq!(warm_up(&next, &profile).unwrap().budget(None, None, None).tokens, 16_384);
        assert_eq!(next.asked.into_inner(), [8, 16_384]);
        // Another process now holds half of the memory.
        let smaller = device(10_000);
        assert_eq!(warm_up(&smaller, &profile).unwrap().budget(None, None, None).tokens, 4096);
        assert_eq!(profile.find("made up").map(|found| found.most_tokens), Some(4096));
    }
}
