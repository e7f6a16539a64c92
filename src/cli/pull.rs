//! `vecmill pull`: fetch a model now, so that a later start needs no network.

use crate::hub;
use anyhow::Context as _;
use std::io::Write;
use std::path::PathBuf;

/// Fetches and verifies a model.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The name of a known model (see `vecmill models`), a directory, or owner/name on the hub.
    #[arg(value_name = "WHAT")]
    pub what: String,
    /// Also copy the model's files into this directory: a plain directory that `--model DIR` loads, here or on another machine.
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
}

/// Obtains the model and prints the directory it is in.
///
/// # Errors
/// What [`hub::parse`], [`hub::obtain`] and [`hub::place`] report.
pub fn run(args: &Args, options: &hub::Options, out: &mut dyn Write) -> anyhow::Result<()> {
    let progress = hub::for_stderr();
    let what = hub::parse(&args.what)?;
    let files = hub::obtain(&what, options, &*progress)?;
    let at = match &args.to {
        Some(dir) => {
            hub::place(&files, dir, &*progress).with_context(|| format!("{} is here, in {}", args.what, files.root.display()))?;
            dir
        }
        None => &files.root,
    };
    writeln!(out, "{}", at.display())?;
    Ok(())
}
