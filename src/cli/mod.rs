//! The command line: one file per command, with its flags.

pub mod bench;
pub mod embed;
pub mod health;
pub mod keys;
pub mod models;
pub mod pull;
pub mod serve;

use crate::config::{ConfigError, Env};
use clap::Parser;
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
    Embed(Box<embed::Args>),
    /// Fetch a model and verify it
    Pull(pull::Args),
    /// List the models known by name
    Models(models::Args),
    Keys(keys::Args),
    /// Load a running server and measure it
    Bench(Box<bench::Args>),
    /// Ask a server whether it is ready; the exit code says so (for container health checks)
    Health(health::Args),
}

/// Runs the command that argv names.
pub fn main(env: &Env) -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(args) => serve::run(*args, env),
        Command::Embed(args) => return embed::run(*args, env),
        Command::Pull(args) => pull::run(&args, env),
        Command::Models(args) => models::run(&args, env),
        Command::Keys(args) => keys::run(&args),
        Command::Bench(args) => bench::run(*args),
        Command::Health(args) => health::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            // 2 = the words were wrong, as clap says it; 1 = it went wrong.
            ExitCode::from(if error.is::<ConfigError>() { 2 } else { 1 })
        }
    }
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
