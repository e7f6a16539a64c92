//! How a long fetch shows that it is alive: bars on a terminal, log lines elsewhere.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Told of every step of [`super::obtain`].
pub trait Progress: Send + Sync {
    /// `done_bytes` of `name` are here, of `total_bytes` if that is known. Called often; equal figures mean finished.
    fn bytes(&self, name: &str, done_bytes: u64, total_bytes: Option<u64>);
    /// A step worth a line: which source is asked, what failed.
    fn note(&self, text: &str);
}

/// Says nothing.
#[derive(Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn bytes(&self, _: &str, _: u64, _: Option<u64>) {}
    fn note(&self, _: &str) {}
}

/// One bar per file on stderr.
#[derive(Debug)]
pub struct Bars {
    all: MultiProgress,
    open: Mutex<HashMap<String, ProgressBar>>,
}

impl Default for Bars {
    fn default() -> Self {
        Self { all: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()), open: Mutex::new(HashMap::new()) }
    }
}

impl Progress for Bars {
    fn bytes(&self, name: &str, done_bytes: u64, total_bytes: Option<u64>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = open.entry(name.to_owned()).or_insert_with(|| {
            let bar = self.all.add(ProgressBar::no_length());
            let template = "{msg:32!} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
            bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_message(name.to_owned());
            bar
        });
        if let Some(total) = total_bytes {
            bar.set_length(total);
        }
        bar.set_position(done_bytes);
        if total_bytes.is_some_and(|total| done_bytes >= total) {
            bar.finish();
            open.remove(name);
        }
    }

    fn note(&self, text: &str) {
        // Above the bars; where there is no terminal this prints nothing, and Lines is used instead.
        let _ = self.all.println(text);
    }
}

/// Log lines: at the start and the end of a file, and at most every five seconds between.
#[derive(Debug, Default)]
pub struct Lines {
    last: Mutex<HashMap<String, Instant>>,
}

/// Files shorter than this get no lines of their own.
const WORTH_A_LINE_BYTES: u64 = 1 << 20;
const LINE_EVERY: Duration = Duration::from_secs(5);

impl Progress for Lines {
    fn bytes(&self, name: &str, done_bytes: u64, total_bytes: Option<u64>) {
        if total_bytes.is_some_and(|total| total < WORTH_A_LINE_BYTES) {
            return;
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let finished = total_bytes.is_some_and(|total| done_bytes >= total);
        let due = last.get(name).is_none_or(|at| at.elapsed() >= LINE_EVERY);
        if finished {
            last.remove(name);
        } else if due {
            last.insert(name.to_owned(), Instant::now());
        }
        if finished || due {
            tracing::info!(file = name, done_bytes, total_bytes, "fetching");
        }
    }

    fn note(&self, text: &str) {
        tracing::info!("{text}");
    }
}

/// Bars if stderr is a terminal, log lines otherwise.
pub fn for_stderr() -> Box<dyn Progress> {
    if std::io::IsTerminal::is_terminal(&std::io::stderr()) { Box::new(Bars::default()) } else { Box::new(Lines::default()) }
}
