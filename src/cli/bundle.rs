//! `vecmill bundle`: a model as one file that can be carried anywhere, and the keys that sign such files.

use crate::config::{self, Env, SourceSaid};
use crate::hub;
use crate::hub::bundle::{self, SecretKey};
use std::io::Write;
use std::path::PathBuf;

/// Flags of `vecmill bundle`.
#[derive(Debug, Clone, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Flags {
    #[command(subcommand)]
    command: Option<Command>,
    /// The model: a card's name, a directory, a bundle, or owner/name on the hub.
    #[arg(value_name = "WHAT", required = true)]
    what: Option<String>,
    /// The file to write.
    #[arg(short, long, value_name = "FILE", required = true)]
    output: Option<PathBuf>,
    /// Sign it with the key in this file.
    #[arg(long, value_name = "KEYFILE")]
    sign: Option<PathBuf>,
    #[command(flatten)]
    source: SourceSaid,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Command {
    /// Make a key that signs bundles; prints its public part, for --trust
    Keygen {
        /// The file to write the secret part to; it must not exist
        #[arg(short, long, value_name = "KEYFILE")]
        output: PathBuf,
    },
}

/// Writes a bundle, or a key.
///
/// # Errors
/// A model that cannot be obtained, a file that cannot be written.
pub fn run(flags: &Flags, env: &Env, out: &mut dyn Write) -> anyhow::Result<()> {
    if let Some(Command::Keygen { output }) = &flags.command {
        writeln!(out, "{}", SecretKey::create(output)?.public())?;
        return Ok(());
    }
    let (Some(what), Some(output)) = (&flags.what, &flags.output) else { anyhow::bail!("name a model and a file: vecmill bundle WHAT -o FILE") };
    let key = flags.sign.as_deref().map(SecretKey::read).transpose()?;
    let progress = hub::for_stderr();
    let files = hub::obtain(&hub::parse(what)?, &config::resolve_source(&flags.source, env), &*progress)?;
    bundle::write(&files, output, key.as_ref(), &*progress)?;
    writeln!(out, "{}", output.display())?;
    Ok(())
}
