//! `vecmill bench`: a load generator that tells how a running server behaves at a given rate, measured as its clients would feel it.
//!
//! The default is an open loop: requests leave at seeded Poisson times whether or not earlier ones have been answered, and latency counts
//! from the time a request was due, so a server that stalls cannot hide the wait of those who came meanwhile.

mod client;
mod load;
mod report;
mod texts;

use anyhow::Context;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Flags of `vecmill bench`.
#[derive(Debug, Clone, clap::Args)]
#[command(group(clap::ArgGroup::new("load").required(true).args(["rate", "concurrency"])))]
pub struct Flags {
    /// Address of the server, without a path. Plain HTTP only.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8000")]
    pub url: String,
    /// Model to ask for.
    #[arg(long, value_name = "SLUG")]
    pub model: String,
    /// API key, if the server wants one.
    #[arg(long, value_name = "KEY", env = "VECMILL_BENCH_KEY", hide_env_values = true)]
    pub key: Option<String>,
    /// Open loop: requests per second. Several rates, separated by commas, are run one after the other.
    #[arg(long, value_name = "R,...", value_delimiter = ',', value_parser = rate)]
    pub rate: Vec<f64>,
    /// Closed loop: this many clients, each sending its next request when it has its answer.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub concurrency: Option<u32>,
    /// How long each step is measured.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub duration: Duration,
    /// Load before the measured part of each step; sent and checked, but not counted.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = duration)]
    pub warmup: Duration,
    /// Texts in a request. Several numbers, separated by commas: each request draws one of them.
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1", value_parser = clap::value_parser!(u32).range(1..))]
    pub texts_per_request: Vec<u32>,
    /// Length of the made-up texts in tokens, about: their mean for skewed lengths.
    #[arg(long, value_name = "N", default_value_t = 124, value_parser = clap::value_parser!(u32).range(3..=100_000))]
    pub tokens_approx: u32,
    /// Lengths of the made-up texts.
    #[arg(long, value_enum, default_value_t = texts::Lengths::Equal)]
    pub lengths: texts::Lengths,
    /// How many different texts are made up. They are sent in turn; the server computes equal ones under way only once, so let there be more than that.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub distinct: u32,
    /// Take the texts from this file, one a line, instead of making them up.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["tokens_approx", "lengths", "distinct"])]
    pub texts: Option<PathBuf>,
    /// The request's `truncate` field.
    #[arg(long, value_parser = ["none", "end", "start"])]
    pub truncate: Option<String>,
    /// The request's `dimensions` field.
    #[arg(long, value_name = "N")]
    pub dimensions: Option<u32>,
    /// The request's `encoding_format` field.
    #[arg(long, value_parser = ["float", "base64"])]
    pub encoding_format: Option<String>,
    /// Compare each vector with the first one seen for the same text: cosine below 0.99999 counts as a wrong answer.
    #[arg(long)]
    pub check: bool,
    /// Give a request up after this long.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub timeout: Duration,
    /// Open loop: requests under way at once; one that finds no room is counted as unsent. Keep it below `ulimit -n`.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub max_in_flight: u32,
    /// Seed of arrival times and texts.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Write the results to this file as JSON; `-` = standard output, in place of the text.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Runs every step and prints the report. The exit code is 1 if an answer was wrong or a step had no answer that was right.
///
/// # Errors
/// An address or text file that cannot be used, or a report that cannot be written. Failing requests are results, not errors.
pub async fn run(flags: Flags) -> anyhow::Result<ExitCode> {
    let pool = match &flags.texts {
        Some(path) => texts::from_file(path)?,
        None => texts::made_up(flags.distinct as usize, flags.tokens_approx as usize, flags.lengths, flags.seed),
    };
    let target = client::Target::new(&flags, pool)?;
    let mut report = report::Report::new(&flags);
    match flags.concurrency {
        Some(clients) => report.push(load::closed(&target, &flags, clients).await?),
        None => {
            for rate in &flags.rate {
                report.push(load::open(&target, &flags, *rate).await?);
            }
        }
    }
    match &flags.json {
        Some(path) if path.as_os_str() == "-" => println!("{}", report.json()?),
        Some(path) => {
            std::fs::write(path, report.json()? + "\n").with_context(|| format!("cannot write {}", path.display()))?;
            print!("{}", report.text());
        }
        None => print!("{}", report.text()),
    }
    Ok(if report.good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `30s`, `500ms`, `1m 30s`: what a person writes for a length of time.
fn duration(said: &str) -> Result<Duration, String> {
    let parsed: jiff::SignedDuration = said.parse().map_err(|e| format!("not a length of time such as 30s or 2m: {e}"))?;
    Duration::try_from(parsed).map_err(|_| "must not be negative".to_owned())
}

/// A rate that a clock can follow.
fn rate(said: &str) -> Result<f64, String> {
    match said.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate <= 1e6 => Ok(rate),
        _ => Err("must be a number of requests per second above 0 and at most 1000000".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        flags: Flags,
    }

    fn parse(args: &[&str]) -> Result<Flags, clap::Error> {
        Line::try_parse_from([&["bench", "--model", "m"], args].concat()).map(|line| line.flags)
    }

    #[test]
    fn times_and_rates_are_read_as_people_write_them() {
        let flags = parse(&["--rate", "5,12.5", "--duration", "1m 30s", "--warmup", "500ms"]).unwrap();
        assert_eq!(flags.rate, [5.0, 12.5]);
        assert_eq!((flags.duration, flags.warmup), (Duration::from_secs(90), Duration::from_millis(500)));
        assert!(parse(&["--rate", "0"]).is_err());
        assert!(parse(&["--rate", "nan"]).is_err());
        assert!(parse(&["--rate", "1", "--duration", "-3s"]).is_err());
    }

    #[test]
    fn exactly_one_kind_of_load_is_asked_for() {
        assert!(parse(&[]).is_err());
        assert!(parse(&["--rate", "1", "--concurrency", "2"]).is_err());
        assert!(parse(&["--concurrency", "2", "--texts-per-request", "1,4,16"]).is_ok());
    }
}
