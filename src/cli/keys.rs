//! `vecmill keys`: makes API keys. Only their hash ever stands in a file.

use crate::service::keyfile::sha256_hex;
use rand::distr::{Alphanumeric, SampleString};

/// Make API keys for --keys FILE
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print a new key and the stanza for the keys file; the key itself is shown only here
    Generate {
        /// Name of the key, for logs and lists
        #[arg(long, default_value = "default")]
        name: String,
        /// The user it belongs to
        #[arg(long, default_value = "default")]
        user: String,
        /// The tenant the user belongs to
        #[arg(long, default_value = "default")]
        tenant: String,
    },
}

/// Characters of a key after `sgk_`: about 238 bits.
const KEY_CHARS: usize = 40;

/// Runs the command; prints to stdout.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let Command::Generate { name, user, tenant } = &args.command;
    // The thread-local generator is seeded by the operating system and cryptographically strong.
    let key = format!("sgk_{}", Alphanumeric.sample_string(&mut rand::rng(), KEY_CHARS));
    println!("# The key, shown only here: {key}");
    print!("{}", stanza(&key, name, user, tenant));
    Ok(())
}

fn stanza(key: &str, name: &str, user: &str, tenant: &str) -> String {
    let text = |value: &str| toml::Value::String(value.to_owned()).to_string();
    format!("[[key]]\nname = {}\nsha256 = \"{}\"\nuser = {}\ntenant = {}\n", text(name), sha256_hex(key), text(user), text(tenant))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::keyfile::KeyFile;

    #[test]
    fn the_stanza_lets_the_key_in() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.toml");
        std::fs::write(&path, stanza("sgk_x", "a \"quoted\" name", "u", "t")).unwrap();
        let (_, access) = KeyFile::open(&path).unwrap();
        assert_eq!(access.authenticate("sgk_x").unwrap().name, "a \"quoted\" name");
    }
}
