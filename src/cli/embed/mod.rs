//! `vecmill embed`: a file of texts in, a file of vectors out, without a server. Reads and writes as a stream, in input order.

mod ask;
mod npy;
mod read;
mod server;
mod write;

use super::start;
use crate::config::{self, Env, ModelSaid};
use crate::service::Embedded;
use crate::wire::{Fault, Truncate};
use anyhow::Context;
use ask::{Row, ask};
use indicatif::{ProgressBar, ProgressStyle};
use read::{InputFormat, Line, Lines};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use tokio::sync::mpsc;
use write::{JsonLines, RowWriter};

/// Texts that are handed to the service at once.
const CHUNK_TEXTS: usize = 64;

/// A chunk ends early when its texts reach this many bytes.
const CHUNK_BYTES: usize = 1 << 20;

/// Chunks under way at once: enough to fill batches while the oldest one is finished.
const CHUNKS_IN_FLIGHT: usize = 4;

/// Flags of `vecmill embed`.
#[derive(Debug, Clone, clap::Args)]
pub struct Flags {
    /// The model: a card's name, a directory, a GGUF file, or owner/name on the hub.
    #[arg(long, value_name = "WHAT")]
    pub model: String,
    /// Texts, one a line; `-` = standard input.
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub input: PathBuf,
    /// How the input is written. Without this flag a name ending in .jsonl says jsonl, any other text.
    #[arg(long, value_enum)]
    pub input_format: Option<InputFormat>,
    /// Where the vectors go: .npy by the file's name, else JSON lines; `-` = standard output.
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub output: PathBuf,
    /// What to do with a text longer than the model takes: refuse it, keep its beginning (end is cut), or keep its end (start is cut).
    #[arg(long, value_parser = truncate, value_name = "none|end|start")]
    pub truncate: Option<Truncate>,
    /// Keep this many leading components of each vector.
    #[arg(long, value_name = "N")]
    pub dimensions: Option<usize>,
    /// Name of the model's prompt to put before each text: `query`, `document`, ...
    #[arg(long, value_name = "NAME")]
    pub input_type: Option<String>,
    /// Unit length whatever the model says, or as the model's own modules leave it.
    #[arg(long, value_enum, default_value_t = Normalize::Unit)]
    pub normalize: Normalize,
    #[command(flatten)]
    pub model_options: ModelSaid,
}

/// Embeds the file that the flags name; exit code 1 if a line was refused.
///
/// # Errors
/// What `Job::open`, loading the model and `Job::run` say.
pub fn run(flags: Flags, env: &Env) -> anyhow::Result<ExitCode> {
    let models = config::resolve_models(&flags.model_options, env)?;
    start::run(models.threads, async move {
        let job = Job::open(&flags)?;
        let server = server::Server::start(&flags, models).await?;
        job.run(move |texts| server.clone().embed(texts)).await
    })
}

/// The length of the vectors that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Normalize {
    /// Every vector has length 1.
    Unit,
    /// As modules.json leaves it.
    Model,
}

/// What a run has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Texts embedded.
    pub embedded: u64,
    /// Lines refused.
    pub refused: u64,
    /// Tokens computed.
    pub tokens: u64,
}

/// Input and output, opened before a model is loaded so that a mistyped name is told at once.
pub struct Job {
    input: Box<dyn Read + Send>,
    format: InputFormat,
    output: Box<dyn RowWriter>,
    bar: ProgressBar,
}

impl Job {
    /// Opens what the flags name.
    ///
    /// # Errors
    /// A file that cannot be opened or created.
    pub fn open(flags: &Flags) -> anyhow::Result<Self> {
        let mut bytes = None;
        let input: Box<dyn Read + Send> = if flags.input.as_os_str() == "-" {
            Box::new(io::stdin())
        } else {
            let file = File::open(&flags.input).with_context(|| format!("cannot read {}", flags.input.display()))?;
            bytes = file.metadata().ok().filter(|meta| meta.is_file()).map(|meta| meta.len());
            Box::new(file)
        };
        let format = flags.input_format.unwrap_or_else(|| InputFormat::by_name(&flags.input));
        Ok(Self { input, format, output: open_output(&flags.output)?, bar: progress_bar(bytes) })
    }

    /// Embeds every line with `embed` and writes the results in input order. Exit code 1 if a line was refused.
    ///
    /// A line that is refused does not stop the rest. A fault that would meet every line (an unknown prompt, a model that cannot serve) does.
    ///
    /// # Errors
    /// Such a fault, and input or output that fails.
    pub async fn run<F, Fut>(self, embed: F) -> anyhow::Result<ExitCode>
    where
        F: Fn(Vec<String>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Embedded, Fault>> + Send,
    {
        let start = Instant::now();
        let Self { input, format, mut output, bar } = self;
        let summary = pipe(input, format, output.as_mut(), &bar, embed).await?;
        output.finish().context("cannot finish the output")?;
        bar.finish_and_clear();
        let Summary { embedded, refused, tokens } = summary;
        let seconds = start.elapsed().as_secs_f64();
        eprintln!("{embedded} texts, {tokens} tokens, {refused} refused, {seconds:.1} s, {:.0} tokens/s", tokens as f64 / seconds.max(1e-9));
        Ok(if refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Lines that go to the service together, and how far into the input the last of them ends.
struct Chunk {
    lines: Vec<Line>,
    end_bytes: u64,
}

/// Reads, embeds and writes, with several chunks under way. Memory is bounded by the chunks, not by the input.
async fn pipe<F, Fut>(
    input: Box<dyn Read + Send>,
    format: InputFormat,
    output: &mut dyn RowWriter,
    bar: &ProgressBar,
    embed: F,
) -> anyhow::Result<Summary>
where
    F: Fn(Vec<String>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Embedded, Fault>> + Send,
{
    let (sender, mut chunks) = mpsc::channel(1);
    // A thread, not a blocking task: one that waits for a terminal must not keep the process from ending.
    std::thread::Builder::new()
        .name("embed-reader".to_owned())
        .spawn(move || read_chunks(input, format, &sender))
        .context("cannot start the reader")?;
    let mut summary = Summary::default();
    let mut under_way = VecDeque::new();
    let mut more = true;
    while more || !under_way.is_empty() {
        tokio::select! {
            chunk = chunks.recv(), if more && under_way.len() < CHUNKS_IN_FLIGHT => match chunk {
                None => more = false,
                Some(chunk) => {
                    let chunk: Chunk = chunk.context("cannot read the input")?;
                    let embed = embed.clone();
                    under_way.push_back(tokio::spawn(async move { (ask(&chunk.lines, &embed).await, chunk) }));
                }
            },
            Some(done) = front(&mut under_way) => {
                under_way.pop_front();
                let (rows, chunk) = done.context("embedding a chunk died")?;
                let rows = rows.map_err(|reason| anyhow::anyhow!(reason))?;
                for (line, row) in chunk.lines.iter().zip(rows) {
                    summary.count(&row);
                    bar.suspend(|| output.row(line, row)).context("cannot write the output")?;
                }
                if bar.length().is_some() { bar.set_position(chunk.end_bytes) }
                bar.set_message(summary.rate(bar.elapsed().as_secs_f64()));
            }
        }
    }
    Ok(summary)
}

/// The oldest task's result; nothing, at once, if there is no task.
async fn front<T>(tasks: &mut VecDeque<tokio::task::JoinHandle<T>>) -> Option<Result<T, tokio::task::JoinError>> {
    match tasks.front_mut() {
        Some(task) => Some(task.await),
        None => None,
    }
}

/// Sends the input's lines on in chunks until it ends, fails, or nobody listens any more.
fn read_chunks(input: Box<dyn Read + Send>, format: InputFormat, sender: &mpsc::Sender<io::Result<Chunk>>) {
    let mut lines = Lines::new(BufReader::with_capacity(1 << 16, input), format);
    loop {
        let (mut chunk, mut bytes) = (Vec::new(), 0);
        while chunk.len() < CHUNK_TEXTS && bytes < CHUNK_BYTES {
            match lines.next() {
                Some(Ok(line)) => {
                    bytes += line.text.as_ref().map_or(0, String::len);
                    chunk.push(line);
                }
                Some(Err(e)) => {
                    let _ = sender.blocking_send(Err(e));
                    return;
                }
                None => break,
            }
        }
        if chunk.is_empty() || sender.blocking_send(Ok(Chunk { lines: chunk, end_bytes: lines.bytes() })).is_err() {
            return;
        }
    }
}

impl Summary {
    fn count(&mut self, row: &Result<Row, String>) {
        match row {
            Ok(row) => {
                self.embedded += 1;
                self.tokens += row.tokens.tokens as u64;
            }
            Err(_) => self.refused += 1,
        }
    }

    fn rate(&self, seconds: f64) -> String {
        let per_second = |n: u64| n as f64 / seconds.max(1e-3);
        format!("{} texts, {:.1} texts/s, {:.0} tokens/s", self.embedded + self.refused, per_second(self.embedded), per_second(self.tokens))
    }
}

fn open_output(path: &Path) -> anyhow::Result<Box<dyn RowWriter>> {
    let cannot = || format!("cannot write {}", path.display());
    Ok(if path.as_os_str() == "-" {
        Box::new(JsonLines::new(BufWriter::new(io::stdout())))
    } else if path.extension().is_some_and(|extension| extension == "npy") {
        Box::new(npy::Npy::create(path, Box::new(io::stderr())).with_context(cannot)?)
    } else {
        Box::new(JsonLines::new(BufWriter::new(File::create(path).with_context(cannot)?)))
    })
}

/// A bar over the input's bytes where their number is known, else a counter; nothing at all unless stderr is a terminal.
fn progress_bar(bytes: Option<u64>) -> ProgressBar {
    let (bar, template) = match bytes {
        Some(bytes) => (ProgressBar::new(bytes), "{elapsed_precise} {wide_bar} {percent}% {msg}, {eta} left"),
        None => (ProgressBar::no_length(), "{elapsed_precise} {spinner} {msg}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn truncate(said: &str) -> Result<Truncate, String> {
    match said {
        "none" => Ok(Truncate::None),
        "end" => Ok(Truncate::End),
        "start" => Ok(Truncate::Start),
        _ => Err("must be none, end or start".to_owned()),
    }
}

#[cfg(test)]
mod tests;
