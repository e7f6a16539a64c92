//! How far a run is: a bar on a terminal, nothing elsewhere.

use super::read::Extent;
use super::sink::Summary;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};

/// The bar, in the input's own unit; what earlier runs did does not count towards its rate.
pub struct Progress {
    bar: ProgressBar,
    /// What earlier runs did.
    start: Summary,
}

impl Progress {
    /// A bar over the input where its size is known, else a counter. indicatif draws nothing unless stderr is a terminal.
    pub fn of(extent: Extent, done: Summary) -> Self {
        let (bar, template) = match extent {
            Extent::Bytes(size) | Extent::Rows(size) => (ProgressBar::new(size), "{elapsed_precise} {wide_bar} {percent}% {msg}, {eta} left"),
            Extent::Unknown => (ProgressBar::no_length(), "{elapsed_precise} {spinner} {msg}"),
        };
        let bar = match ProgressStyle::with_template(template) {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        };
        Self { bar, start: done }
    }

    /// For those who watch nothing.
    #[cfg(test)]
    pub fn hidden() -> Self {
        Self { bar: ProgressBar::hidden(), start: Summary::default() }
    }

    /// The input is written up to `end`.
    pub fn reached(&self, end: u64, done: &Summary) {
        let is_first = self.bar.position() == 0;
        if self.bar.length().is_some() {
            self.bar.set_position(end);
        }
        if is_first && self.start.rows > 0 {
            // The leap over what was done before is no measure of what is to come.
            self.bar.reset_eta();
        }
        self.bar.set_message(rate(done, &self.start, self.bar.elapsed().as_secs_f64()));
    }

    /// Runs `write` with the bar out of the way.
    pub fn suspend<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bar.suspend(write)
    }

    /// Takes the bar away.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}

fn rate(done: &Summary, start: &Summary, seconds: f64) -> String {
    let per_second = |n: u64| n as f64 / seconds.max(1e-3);
    format!(
        "{} rows, {:.1} rows/s, {:.0} tokens/s",
        HumanCount(done.rows),
        per_second(done.rows - start.rows),
        per_second(done.tokens - start.tokens)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_this_run() {
        let (start, done) = (Summary { rows: 1000, refused: 0, tokens: 5000 }, Summary { rows: 1200, refused: 1, tokens: 7000 });
        assert_eq!(rate(&done, &start, 2.0), "1,200 rows, 100.0 rows/s, 1000 tokens/s");
    }
}
