//! `vecmill doctor`: everything that is decided about a model, and the file or option that decided it.

use super::prepare::{Prepared, prepare};
use super::start;
use crate::config::{self, Env, ModelSaid};
use crate::engine::load::Decision;
use crate::engine::memory;
use crate::exec::Need;
use crate::hub;
use crate::service::decisions;
use crate::service::golden::Fidelity;
use crate::service::registry::{Model, Settings};
use crate::service::space::Space;
use serde::Serialize;
use std::io::{Write, stdout};
use std::path::Path;

/// Flags of `vecmill doctor`.
#[derive(Debug, Clone, clap::Args)]
pub struct Flags {
    /// The model: a card's name, a directory, a bundle, a GGUF file, or owner/name on the hub.
    #[arg(long, value_name = "WHAT")]
    pub model: String,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub model_options: ModelSaid,
}

/// What is printed with `--json`; its form is stable.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    slug: String,
    directory: String,
    decisions: Vec<Decision>,
    /// `null` without goldens.
    fidelity: Option<Fidelity>,
    notes: Vec<String>,
}

/// Loads the model as `serve` would and prints what was decided.
///
/// # Errors
/// What `serve` would refuse, with the file and the field.
pub fn run(flags: &Flags, env: &Env) -> anyhow::Result<()> {
    let models = config::resolve_models(&flags.model_options, env)?;
    let flags = flags.clone();
    start::run(models.threads, async move { tokio::task::spawn_blocking(move || examine(&flags, &models, &mut stdout())).await? })
}

fn examine(flags: &Flags, models: &config::Models, out: &mut dyn Write) -> anyhow::Result<()> {
    let what = hub::parse(&flags.model)?;
    let files = hub::obtain(&what, &models.hub, &*hub::for_stderr())?;
    let Prepared { loaded, fidelity, .. } = prepare(&files, &start::on_one_device(models)?)?;
    let model = Model::new(what.slug(), what.card(), Settings::default());
    let mut decisions = decisions::all(&model, &loaded.info);
    let space = Space::new(&hub::weights_digest(&files, &models.hub, &hub::Silent)?, &model, &loaded.info);
    decisions.push(Decision::new(
        "space",
        space.fingerprint(loaded.info.dimensions),
        "weights, stages, prompts, size, length and class of number type together",
    ));
    decisions.push(memory_expected(loaded.info.need));
    let notes = decisions::notes(&model, &loaded.info, fidelity.is_some());
    let report = Report { model: what.said(), slug: model.slug.clone(), directory: files.root.display().to_string(), decisions, fidelity, notes };
    if flags.json {
        serde_json::to_writer_pretty(&mut *out, &report)?;
        writeln!(out)?;
        return Ok(());
    }
    print(&report, out)
}

/// What a start counts of the model, budgets of `serve` left out.
fn memory_expected(need: Need) -> Decision {
    let mib = |bytes: usize| bytes.div_ceil(1 << 20);
    let Need { weights, working, loading } = need;
    let allowed =
        memory::allowance(Path::new("/")).map_or_else(|| "unknown".to_owned(), |most| format!("{} MiB by {}", most.bytes >> 20, most.source));
    let from = format!("weights {}, activations {}, while loading {}; allowed: {allowed}", mib(weights), mib(working), mib(loading));
    Decision::new("memory_mib", mib(weights + working + loading), from)
}

fn print(report: &Report, out: &mut dyn Write) -> anyhow::Result<()> {
    writeln!(out, "{} (slug {}) in {}\n", report.model, report.slug, report.directory)?;
    let width = |of: fn(&Decision) -> usize| report.decisions.iter().map(of).max().unwrap_or(0).min(48);
    let (what, value) = (width(|decision| decision.what.len()), width(|decision| decision.value.chars().count()));
    for decision in &report.decisions {
        writeln!(out, "{:what$}  {:value$}  {}", decision.what, decision.value, decision.from)?;
    }
    if let Some(Fidelity { texts, goldens, min_cosine, max_abs, .. }) = &report.fidelity {
        writeln!(out, "\ngoldens hold: {texts} texts of {goldens}, min cosine {min_cosine:.9}, max abs error {max_abs:.3e}")?;
    }
    writeln!(out)?;
    report.notes.iter().try_for_each(|note| writeln!(out, "- {note}"))?;
    Ok(())
}
