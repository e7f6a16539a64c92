//! `vecmill models`: what can be served by name, and what of it is on this machine.

use crate::card::{self, Card};
use crate::hub;
use serde::Serialize;
use std::io::Write;
use std::path::PathBuf;

/// Lists the models this binary knows by name.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Print a JSON array instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// One line of the listing; its JSON form is stable.
#[derive(Debug, Serialize)]
struct Line {
    name: &'static str,
    repo: &'static str,
    revision: Option<&'static str>,
    license: &'static str,
    dimensions: usize,
    matryoshka: &'static [usize],
    size_bytes: u64,
    /// The directory that has all files with the right lengths; null if none has.
    cached: Option<PathBuf>,
}

impl Line {
    fn new(card: &'static Card, options: &hub::Options) -> Self {
        Self {
            name: &card.name,
            repo: &card.repo,
            revision: card.revision.as_deref(),
            license: &card.license,
            dimensions: card.dimensions,
            matryoshka: &card.matryoshka,
            size_bytes: card.size_bytes(),
            cached: hub::cached(card, options),
        }
    }
}

/// Prints the listing.
///
/// # Errors
/// Only those of `out`.
pub fn run(args: &Args, options: &hub::Options, out: &mut dyn Write) -> anyhow::Result<()> {
    let lines: Vec<Line> = card::all().iter().map(|card| Line::new(card, options)).collect();
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &lines)?;
        writeln!(out)?;
        return Ok(());
    }
    let name_width = lines.iter().map(|line| line.name.len()).max().unwrap_or(0).max("NAME".len());
    writeln!(out, "{:name_width$}  {:>10}  {:>9}  {:<12}  CACHED", "NAME", "DIMENSIONS", "SIZE", "LICENCE")?;
    for line in &lines {
        let size = indicatif::HumanBytes(line.size_bytes).to_string();
        let cached = line.cached.as_ref().map_or_else(|| "no".to_owned(), |dir| dir.display().to_string());
        writeln!(out, "{:name_width$}  {:>10}  {size:>9}  {:<12}  {cached}", line.name, line.dimensions, line.license)?;
    }
    Ok(())
}
