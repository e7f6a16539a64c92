//! The command line: one file per command, with its flags.

pub mod bench;
pub mod bundle;
pub mod doctor;
pub mod embed;
pub mod health;
pub mod keys;
pub mod models;
pub mod prepare;
pub mod pull;
pub mod serve;
pub mod start;
pub mod usage;
pub mod verify;

use crate::config::{self, ConfigError, Env, SourceSaid};
use clap::Parser;
use std::io::stdout;
use std::process::ExitCode;

/// Self-hosted text embeddings: open models, exact vectors, the speed of your hardware, no network needed
#[derive(Debug, clap::Parser)]
#[command(name = "vecmill", version, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Serve models over HTTP
    Serve(Box<serve::Args>),
    /// Embed texts from a file, without a server
    Embed(Box<embed::Flags>),
    /// Fetch a model and verify it
    Pull {
        #[command(flatten)]
        args: pull::Args,
        #[command(flatten)]
        source: SourceSaid,
    },
    /// Write a model into one file, with its goldens, hashes and perhaps a signature
    Bundle(Box<bundle::Flags>),
    /// List the models known by name
    Models {
        #[command(flatten)]
        args: models::Args,
        #[command(flatten)]
        source: SourceSaid,
    },
    Keys(keys::Args),
    /// Compute a model's golden texts and compare them with its reference's vectors; the exit code says whether they hold
    Verify(Box<verify::Flags>),
    /// Explain everything that is decided about a model, and the file or option that decided it
    Doctor(Box<doctor::Flags>),
    /// Show who used how much, by key, model and day
    Usage(usage::Flags),
    /// Show who changed what, one JSON object a line
    Audit(usage::AuditFlags),
    /// Load a running server and measure it
    Bench(Box<bench::Flags>),
    /// Ask a server whether it is ready; the exit code says so (for container health checks)
    Health(health::Flags),
}

/// Runs the command that argv names.
pub fn main(env: &Env) -> ExitCode {
    let done = |()| ExitCode::SUCCESS;
    let result = match Cli::parse().command {
        Command::Serve(args) => serve::run(*args, env).map(done),
        Command::Embed(flags) => embed::run(*flags, env),
        Command::Pull { args, source } => pull::run(&args, &config::resolve_source(&source, env), &mut stdout()).map(done),
        Command::Bundle(flags) => bundle::run(&flags, env, &mut stdout()).map(done),
        Command::Models { args, source } => models::run(&args, &config::resolve_source(&source, env), &mut stdout()).map(done),
        Command::Keys(args) => keys::run(args, env).map(done),
        Command::Usage(flags) => usage::run(flags, env, &mut stdout()).map(done),
        Command::Audit(flags) => usage::audit(&flags, env, &mut stdout()).map(done),
        Command::Verify(flags) => verify::run(&flags, env),
        Command::Doctor(flags) => doctor::run(&flags, env).map(done),
        Command::Bench(flags) => start::run(1, bench::run(*flags)),
        Command::Health(flags) => start::run(1, health::run(flags, env)),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        // 2 = the words were wrong, as clap says it; 1 = it went wrong.
        ExitCode::from(if error.is::<ConfigError>() { 2 } else { 1 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
