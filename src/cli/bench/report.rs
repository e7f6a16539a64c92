//! What a load test found: counts, throughput and latency percentiles, as a table for people and as JSON for scripts.

use super::Flags;
use super::client::Outcome;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// The longest latency told apart, in microseconds: an hour.
const LONGEST_US: u64 = 3_600_000_000;

/// The percentiles reported, with their names.
const PERCENTILES: [(&str, f64); 4] = [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9)];

/// One rate, or one number of clients, for one duration.
pub struct Step {
    /// Requests per second asked for; `None` in a closed loop.
    rate: Option<f64>,
    /// Clients; `None` in an open loop.
    concurrency: Option<u32>,
    duration: Duration,
    ok: u64,
    busy: u64,
    errors: BTreeMap<String, u64>,
    wrong: BTreeMap<String, u64>,
    /// Requests that were due while too many others were under way: the generator's limit, not the server's.
    pub unsent: u64,
    /// Of the answers that arrived within the window.
    requests_in_window: u64,
    texts_in_window: u64,
    tokens_in_window: u64,
    accepted_us: Histogram<u64>,
    busy_us: Histogram<u64>,
    /// How long after the window's end the last request ended.
    pub drain: Duration,
}

impl Step {
    /// An empty open-loop step.
    pub fn open(rate: f64, duration: Duration) -> anyhow::Result<Self> {
        Self::new(Some(rate), None, duration)
    }

    /// An empty closed-loop step.
    pub fn closed(clients: u32, duration: Duration) -> anyhow::Result<Self> {
        Self::new(None, Some(clients), duration)
    }

    fn new(rate: Option<f64>, concurrency: Option<u32>, duration: Duration) -> anyhow::Result<Self> {
        let latencies = Histogram::new_with_bounds(1, LONGEST_US, 3)?;
        Ok(Self {
            rate,
            concurrency,
            duration,
            ok: 0,
            busy: 0,
            errors: BTreeMap::new(),
            wrong: BTreeMap::new(),
            unsent: 0,
            requests_in_window: 0,
            texts_in_window: 0,
            tokens_in_window: 0,
            accepted_us: latencies.clone(),
            busy_us: latencies,
            drain: Duration::ZERO,
        })
    }

    /// Notes one request. `measured`: it was due in the window; `in_time`: its answer arrived in the window.
    ///
    /// Throughput counts answers by when they came, latencies by when requests were due, and wrong answers always.
    pub fn record(&mut self, outcome: Outcome, latency: Duration, measured: bool, in_time: bool) {
        if let (Outcome::Ok { texts, tokens }, true) = (&outcome, in_time) {
            self.requests_in_window += 1;
            self.texts_in_window += texts;
            self.tokens_in_window += tokens;
        }
        let us = u64::try_from(latency.as_micros()).unwrap_or(LONGEST_US);
        match outcome {
            Outcome::Wrong(why) => *self.wrong.entry(why).or_default() += 1,
            _ if !measured => {}
            Outcome::Ok { .. } => {
                self.ok += 1;
                self.accepted_us.saturating_record(us);
            }
            Outcome::Busy => {
                self.busy += 1;
                self.busy_us.saturating_record(us);
            }
            Outcome::Failed(why) => *self.errors.entry(why).or_default() += 1,
        }
    }

    fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    fn wrongs(&self) -> u64 {
        self.wrong.values().sum()
    }

    fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.duration.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    fn json(&self) -> Value {
        json!({
            "rate": self.rate,
            "concurrency": self.concurrency,
            "duration_s": self.duration.as_secs_f64(),
            "sent": self.ok + self.busy + self.failed() + self.wrongs(),
            "ok": self.ok,
            "rejected_429": self.busy,
            "errors": self.errors,
            "wrong": self.wrong,
            "unsent": self.unsent,
            "requests_per_s": round(self.per_second(self.requests_in_window)),
            "texts_per_s": round(self.per_second(self.texts_in_window)),
            "tokens_per_s": round(self.per_second(self.tokens_in_window)),
            "drain_s": round(self.drain.as_secs_f64()),
            "latency_ms": { "accepted": latencies(&self.accepted_us), "rejected_429": latencies(&self.busy_us) },
        })
    }

    fn text(&self, out: &mut String) {
        let load = match (self.rate, self.concurrency) {
            (Some(rate), _) => format!("{rate} requests/s"),
            (None, clients) => format!("{} clients", clients.unwrap_or_default()),
        };
        let per_second = [self.requests_in_window, self.texts_in_window, self.tokens_in_window].map(|n| self.per_second(n));
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "{load} for {:?}: {} ok, {} busy (429), {} failed, {} wrong",
            self.duration,
            self.ok,
            self.busy,
            self.failed(),
            self.wrongs()
        );
        let _ = writeln!(out, "  answered  {:.1} requests/s, {:.1} texts/s, {:.0} tokens/s", per_second[0], per_second[1], per_second[2]);
        for (name, histogram) in [("accepted", &self.accepted_us), ("busy", &self.busy_us)] {
            if !histogram.is_empty() {
                let _ = write!(out, "  {name:<9} ms:");
                for (percentile, at) in PERCENTILES {
                    let _ = write!(out, " {percentile} {:.2}", histogram.value_at_percentile(at) as f64 / 1e3);
                }
                let _ = writeln!(out, " max {:.2}", histogram.max() as f64 / 1e3);
            }
        }
        for (what, counts) in [("failed", &self.errors), ("wrong", &self.wrong)] {
            for (why, count) in counts {
                let _ = writeln!(out, "  {what} {count} x {why}");
            }
        }
        if self.unsent > 0 {
            let _ = writeln!(out, "  unsent {}: --max-in-flight requests were under way; the rate was not reached", self.unsent);
        }
    }
}

/// All steps of a run, and what was asked for.
pub struct Report {
    asked: Value,
    steps: Vec<Step>,
}

impl Report {
    /// An empty report on what the flags ask for. The key is not part of it.
    pub fn new(flags: &Flags) -> Self {
        let workload = match &flags.texts {
            Some(path) => json!({ "file": path.file_name().map(|name| name.to_string_lossy()) }),
            None => json!({ "tokens_approx": flags.tokens_approx, "lengths": flags.lengths, "distinct": flags.distinct }),
        };
        let asked = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "url": flags.url,
            "model": flags.model,
            "seed": flags.seed,
            "texts": workload,
            "texts_per_request": flags.texts_per_request,
            "truncate": flags.truncate,
            "dimensions": flags.dimensions,
            "encoding_format": flags.encoding_format,
            "checked": flags.check,
            "warmup_s": flags.warmup.as_secs_f64(),
        });
        Self { asked, steps: Vec::new() }
    }

    /// Adds a step that has ended.
    pub fn push(&mut self, step: Step) {
        self.steps.push(step);
    }

    /// True if no answer was wrong and every step had a right one.
    pub fn good(&self) -> bool {
        self.steps.iter().all(|step| step.ok > 0 && step.wrong.is_empty())
    }

    /// The report as one JSON object: what was asked, and `steps`.
    ///
    /// # Errors
    /// None that is known; the writer's own.
    pub fn json(&self) -> anyhow::Result<String> {
        let mut whole = self.asked.clone();
        whole["steps"] = self.steps.iter().map(Step::json).collect();
        Ok(serde_json::to_string_pretty(&whole)?)
    }

    /// The report for people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for step in &self.steps {
            step.text(&mut out);
        }
        out
    }
}

/// The percentiles in milliseconds; `null` where nothing was counted.
fn latencies(histogram: &Histogram<u64>) -> Value {
    if histogram.is_empty() {
        return Value::Null;
    }
    let mut all: serde_json::Map<String, Value> =
        PERCENTILES.iter().map(|(name, at)| ((*name).to_owned(), json!(histogram.value_at_percentile(*at) as f64 / 1e3))).collect();
    all.insert("max".to_owned(), json!(histogram.max() as f64 / 1e3));
    Value::Object(all)
}

/// Three decimals are more than any of these figures is worth.
fn round(x: f64) -> f64 {
    (x * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_of_accepted_and_refused_requests_are_kept_apart() {
        let mut step = Step::open(10.0, Duration::from_secs(2)).unwrap();
        for ms in 1..=100 {
            step.record(Outcome::Ok { texts: 2, tokens: 10 }, Duration::from_millis(ms), true, true);
        }
        step.record(Outcome::Busy, Duration::from_millis(500), true, true);
        step.record(Outcome::Failed("503 MODEL_UNAVAILABLE".into()), Duration::ZERO, true, true);
        let json = step.json();
        assert_eq!((&json["sent"], &json["ok"], &json["rejected_429"]), (&json!(102), &json!(100), &json!(1)));
        assert_eq!(json["errors"]["503 MODEL_UNAVAILABLE"], 1);
        assert_eq!((&json["texts_per_s"], &json["tokens_per_s"]), (&json!(100.0), &json!(500.0)));
        let p50 = json["latency_ms"]["accepted"]["p50"].as_f64().unwrap();
        assert!((49.9..=50.1).contains(&p50), "{p50}");
        assert!(json["latency_ms"]["rejected_429"]["p50"].as_f64().unwrap() >= 500.0);
    }

    #[test]
    fn warm_up_counts_for_nothing_but_wrong_answers() {
        let mut step = Step::closed(1, Duration::from_secs(1)).unwrap();
        step.record(Outcome::Ok { texts: 1, tokens: 1 }, Duration::ZERO, false, false);
        step.record(Outcome::Busy, Duration::ZERO, false, false);
        step.record(Outcome::Wrong("x".into()), Duration::ZERO, false, false);
        assert_eq!((step.ok, step.busy, step.wrongs(), step.texts_in_window), (0, 0, 1, 0));
        assert_eq!(step.json()["latency_ms"]["accepted"], Value::Null);
    }

    #[test]
    fn a_late_answer_has_a_latency_but_is_no_throughput() {
        let mut step = Step::open(1.0, Duration::from_secs(1)).unwrap();
        step.record(Outcome::Ok { texts: 3, tokens: 3 }, Duration::from_secs(5), true, false);
        assert_eq!((step.ok, step.texts_in_window), (1, 0));
    }
}
