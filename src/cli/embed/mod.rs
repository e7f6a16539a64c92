//! `vecmill embed`: a file of texts in, a file of vectors out, without a server.
//!
//! A thread reads rows (`read`, `reader`), the rows of a window go to the service by length (`window`, `pipe`, `ask`), and a thread writes the
//! windows in the input's order (`sink`, `write`). A file grows beside the one asked for, with a checkpoint after each window (`part`,
//! `checkpoint`), so that a run that was ended goes on where it was.

mod ask;
mod checkpoint;
mod flags;
mod line;
mod part;
mod pipe;
mod progress;
mod read;
mod reader;
mod server;
mod sink;
mod window;
mod write;

pub use flags::Flags;

use super::start;
use crate::config::{self, Env};
use anyhow::{Context, ensure};
use checkpoint::{Identity, ON_ERROR};
use part::{Found, Part};
use progress::Progress;
use read::Input;
use reader::Skip;
use server::{Facts, Server};
use sink::{Sink, Summary, Target};
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;
use write::{Heading, OutputFormat};

/// Embeds the file that the flags name; exit code 1 if a row was refused.
///
/// # Errors
/// What `Job::open`, loading the model and `Job::run` say.
pub fn run(flags: Flags, env: &Env) -> anyhow::Result<ExitCode> {
    let models = config::resolve_models(&flags.model_options, env)?;
    start::run(models.threads, async move {
        let job = Job::open(flags)?;
        let server = Server::start(&job.flags, models).await?;
        job.run(&server).await
    })
}

/// Input and output, opened before a model is loaded so that a mistyped name is told at once.
struct Job {
    flags: Flags,
    input: Input,
    format: OutputFormat,
    target: Target,
}

impl Job {
    /// Opens what the flags name.
    fn open(flags: Flags) -> anyhow::Result<Self> {
        let format = match flags.output_format {
            Some(format) => format,
            None => OutputFormat::by_name(&flags.output)?,
        };
        let input = read::open(&flags.input, flags.input_format, &flags.wanted(format))?;
        let target = open_target(&flags.output, format, flags.restart)?;
        Ok(Self { flags, input, format, target })
    }

    /// What decides the output's bytes.
    fn identity(&self, server: &Server, facts: &Facts) -> Identity {
        let flags = &self.flags;
        let own = [
            ("model", server.slug().to_owned()),
            ("version of vecmill", env!("CARGO_PKG_VERSION").to_owned()),
            ("output format", format!("{:?}", self.format).to_lowercase()),
            ("--embedding-column", flags.embedding_column.clone()),
            ("--truncate", format!("{:?}", flags.truncate.unwrap_or_default()).to_lowercase()),
            ("--input-type", flags.input_type.clone().unwrap_or_else(|| "by default".to_owned())),
            ("--normalize", format!("{:?}", flags.normalize).to_lowercase()),
            (ON_ERROR, format!("{:?}", flags.on_error).to_lowercase()),
        ];
        let all = own.into_iter().chain(facts.identity.iter().cloned()).chain(self.input.identity.iter().cloned());
        all.map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Embeds every row and writes the results in input order. Exit code 1 if a row was refused.
    async fn run(mut self, server: &Server) -> anyhow::Result<ExitCode> {
        let began = Instant::now();
        let facts = server.facts()?;
        let columns = self.input.columns.clone();
        let heading = Heading {
            dim: facts.dim,
            model: server.slug().to_owned(),
            space: facts.space.clone(),
            columns,
            embedding_column: self.flags.embedding_column.clone(),
        };
        let format = self.format.writer(heading)?;
        let identity = self.identity(server, &facts);
        let (mut skip, mut before) = (Skip::default(), Summary::default());
        if let Target::Part(part) = &mut self.target {
            match part.go_on(identity, &format.head())? {
                Found::Begun(done) => skip = done,
                Found::Whole => {
                    eprintln!("{} is whole already", self.flags.output.display());
                    return Ok(ExitCode::SUCCESS);
                }
            }
            let state = part.state();
            before = Summary { rows: state.rows, refused: state.refused, tokens: state.tokens };
            if skip.rows > 0 {
                eprintln!("goes on after the {} rows that are done", skip.rows);
            }
        }
        let progress = Progress::of(self.input.extent, before);
        let refusals = Box::new(io::stderr());
        let sink = Sink { format, target: self.target, on_error: self.flags.on_error, refusals, progress, summary: before };
        let embedder = server.clone();
        let done = embed(self.input.source, skip, sink, facts.limits, move |texts| embedder.clone().embed(texts)).await?;
        Ok(tell(&done, &before, began))
    }
}

/// Reads, embeds and writes all rows after those to skip.
async fn embed<F, Fut>(source: Box<dyn read::Source>, skip: Skip, sink: Sink, limits: window::Limits, embed: F) -> anyhow::Result<Summary>
where
    F: Fn(Vec<String>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<crate::service::Embedded, crate::wire::Fault>> + Send,
{
    let rows = reader::start(source, skip)?;
    let writer = sink.start()?;
    let piped = pipe::pipe(rows, writer.windows.clone(), limits, embed).await;
    // The writer's own error, if there is one, is why the rest ended.
    let sink = writer.end().await?;
    piped?;
    sink.finish()
}

/// The last line, and the exit code.
fn tell(done: &Summary, before: &Summary, began: Instant) -> ExitCode {
    let (rows, tokens, refused) = (done.rows - before.rows, done.tokens - before.tokens, done.refused);
    let embedded = done.rows - done.refused;
    let seconds = began.elapsed().as_secs_f64();
    eprintln!(
        "{embedded} texts, {} tokens, {refused} refused; {rows} rows in {seconds:.1} s, {:.0} tokens/s",
        done.tokens,
        tokens as f64 / seconds.max(1e-9)
    );
    if refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn open_target(path: &Path, format: OutputFormat, restart: bool) -> anyhow::Result<Target> {
    let is_stdout = path.as_os_str() == "-";
    // A pipe or a device cannot be renamed, nor gone on with.
    let is_stream = is_stdout || fs::metadata(path).is_ok_and(|metadata| !metadata.is_file());
    if !is_stream {
        return Part::open(path, restart).map(Target::Part);
    }
    ensure!(format == OutputFormat::Jsonl, "only JSON lines can be written to standard output or a pipe: give --output FILE");
    Ok(Target::Stream(if is_stdout {
        Box::new(io::stdout())
    } else {
        Box::new(File::create(path).with_context(|| format!("cannot write {}", path.display()))?)
    }))
}

#[cfg(test)]
mod tests;
