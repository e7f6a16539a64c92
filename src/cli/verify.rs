//! `vecmill verify`: every golden text of a model, computed on this machine and compared with its reference.

use super::prepare::Prepared;
use super::start;
use crate::config::{self, Env, ModelSaid};
use crate::hub;
use crate::service::golden::{Fidelity, GoldenSet};
use anyhow::anyhow;
use serde::Serialize;
use std::io::{Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

/// How many of the texts that come out worst are printed.
const WORST: usize = 5;

/// Flags of `vecmill verify`.
#[derive(Debug, Clone, clap::Args)]
pub struct Flags {
    /// The model: a card's name, a directory, a bundle, a GGUF file, or owner/name on the hub.
    #[arg(long, value_name = "WHAT")]
    pub model: String,
    /// Compare with these goldens instead of the model's own: a golden.json, with its .safetensors beside it.
    #[arg(long, value_name = "FILE")]
    pub against: Option<PathBuf>,
    /// Print JSON, with every text.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub model_options: ModelSaid,
}

/// What is printed with `--json`; its form is stable.
#[derive(Debug, Serialize)]
struct Report<'a> {
    model: String,
    device: String,
    /// Tokens computed, and what the reference computed for the same texts.
    tokens: usize,
    reference_tokens: usize,
    #[serde(flatten)]
    fidelity: &'a Fidelity,
}

/// Computes all goldens and prints how near they come; exit code 1 if they do not hold.
///
/// # Errors
/// A model that cannot be loaded, or has no goldens.
pub fn run(flags: &Flags, env: &Env) -> anyhow::Result<ExitCode> {
    let models = config::resolve_models(&flags.model_options, env)?;
    let flags = flags.clone();
    start::run(models.threads, async move { tokio::task::spawn_blocking(move || verify(&flags, models, &mut stdout())).await? })
}

fn verify(flags: &Flags, models: config::Models, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let what = hub::parse(&flags.model)?;
    let files = hub::obtain(&what, &models.hub, &*hub::for_stderr())?;
    let goldens = match &flags.against {
        Some(path) => hub::goldens_at(path)?,
        None => files.goldens()?.ok_or_else(|| {
            anyhow!(
                "{} has no goldens, neither in its folder golden/ nor with a card; scripts/golden.py makes them, and --against FILE names others",
                what.said()
            )
        })?,
    };
    let goldens = GoldenSet::parse(&goldens)?;
    let prepared = Prepared::load(&files, &start::on_one_device(&models)?)?;
    let fidelity = goldens.check(&goldens.all(), prepared.subject())?;
    let count = |tokens: fn(&crate::service::golden::Line) -> usize| fidelity.lines.iter().map(tokens).sum();
    let report = Report {
        model: what.said(),
        device: prepared.loaded.info.device.to_string(),
        tokens: count(|line| line.tokens),
        reference_tokens: count(|line| line.reference_tokens),
        fidelity: &fidelity,
    };
    if flags.json {
        serde_json::to_writer_pretty(&mut *out, &report)?;
        writeln!(out)?;
    } else {
        print(&report, out)?;
    }
    Ok(if fidelity.holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(report: &Report, out: &mut dyn Write) -> anyhow::Result<()> {
    let fidelity = report.fidelity;
    let same = fidelity.texts - fidelity.token_mismatches;
    let rows = [
        ("model", report.model.clone()),
        ("goldens", fidelity.goldens.clone()),
        ("computed", format!("{} on {}", fidelity.dtype, report.device)),
        ("texts", fidelity.texts.to_string()),
        ("tokens", format!("{} (reference: {}), the same count in {same} of {} texts", report.tokens, report.reference_tokens, fidelity.texts)),
        ("max abs error", format!("{:.3e}", fidelity.max_abs)),
        ("min cosine", format!("{:.9}", fidelity.min_cosine)),
        ("mean cosine", format!("{:.9}", fidelity.mean_cosine)),
        ("threshold", fidelity.threshold.to_string()),
        ("result", if fidelity.holds { "holds" } else { "MISSED" }.to_owned()),
    ];
    for (name, value) in rows {
        writeln!(out, "{name:<14} {value}")?;
    }
    writeln!(out, "\nthe farthest from the reference:\n{:>6} {:>8} {:>12} {:>10}  text", "text", "tokens", "cosine", "max abs")?;
    let mut lines: Vec<_> = fidelity.lines.iter().collect();
    lines.sort_by(|a, b| a.cosine.total_cmp(&b.cosine));
    for line in lines.into_iter().take(WORST) {
        writeln!(out, "{:>6} {:>8} {:>12.9} {:>10.3e}  {:?}", line.index, line.tokens, line.cosine, line.max_abs, line.text)?;
    }
    Ok(())
}
