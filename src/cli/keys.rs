//! `vecmill keys`: makes API keys, for the keys file or in the store. Only their hash is ever kept.

use super::start;
use crate::config::{self, Env, StoreSaid};
use crate::service::access::{Access, Origin};
use crate::service::keybook::{KeyBook, NewKey, draw};
use crate::service::keyfile::sha256_hex;
use crate::store::Store;
use crate::store::audit::Actor;
use anyhow::anyhow;
use jiff::Timestamp;
use std::sync::Arc;

/// Make API keys: in the server's store, or for --keys FILE
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print a new key and the stanza for the keys file; the key itself is shown only here
    Generate {
        #[command(flatten)]
        owner: Owner,
    },
    /// Make a key in the store, in force at once on every server that uses it; prints the key, which is shown only here
    Create(Box<Create>),
    /// List the keys in the store
    List {
        #[command(flatten)]
        store: StoreSaid,
    },
    /// Revoke a key in the store: within a second every server refuses it
    Revoke {
        /// Its id, as `vecmill keys list` shows it
        id: String,
        #[command(flatten)]
        store: StoreSaid,
    },
}

#[derive(Debug, clap::Args)]
struct Owner {
    /// Name of the key, for logs and lists
    #[arg(long, default_value = "default")]
    name: String,
    /// The user it belongs to
    #[arg(long, default_value = "default")]
    user: String,
    /// The tenant the user belongs to
    #[arg(long, default_value = "default")]
    tenant: String,
}

#[derive(Debug, clap::Args)]
struct Create {
    #[command(flatten)]
    owner: Owner,
    /// The partner the tenant belongs to
    #[arg(long)]
    partner: Option<String>,
    /// Only these models, by slug [default: all]
    #[arg(long, value_delimiter = ',')]
    models: Option<Vec<String>>,
    /// What it may do: models:use, models:list, api_keys:manage [default: the first two]
    #[arg(long, value_delimiter = ',')]
    scopes: Option<Vec<String>>,
    /// From when on it is refused, such as 2030-01-01T00:00:00Z [default: never]
    #[arg(long, value_name = "TIME")]
    expires_at: Option<Timestamp>,
    /// Requests it may make in a minute
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    requests_per_minute: Option<u32>,
    /// Tokens it may embed in a minute
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    tokens_per_minute: Option<u32>,
    /// Its part of the device relative to other keys
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=1000))]
    weight: u32,
    #[command(flatten)]
    store: StoreSaid,
}

/// Runs the command; prints to stdout.
pub fn run(args: Args, env: &Env) -> anyhow::Result<()> {
    match args.command {
        Command::Generate { owner } => {
            let key = draw();
            println!("# The key, shown only here: {key}");
            print!("{}", stanza(&key, &owner.name, &owner.user, &owner.tenant));
            Ok(())
        }
        Command::Create(create) => start::run(1, async { create.run(env).await }),
        Command::List { store } => start::run(1, async { list(&store, env).await }),
        Command::Revoke { id, store } => start::run(1, async {
            open(&store, env).await?.revoke(&id, None, &actor("default")).await.map_err(|fault| anyhow!("{}", fault.message()))?;
            println!("revoked {id}");
            Ok(())
        }),
    }
}

impl Create {
    async fn run(self, env: &Env) -> anyhow::Result<()> {
        let new = NewKey {
            name: self.owner.name,
            user: self.owner.user,
            tenant: self.owner.tenant.clone(),
            partner: self.partner,
            models: self.models,
            scopes: self.scopes,
            expires_at: self.expires_at,
            requests_per_minute: self.requests_per_minute,
            tokens_per_minute: self.tokens_per_minute,
            weight: self.weight,
        };
        let book = open(&self.store, env).await?;
        let (key, text) = book.create(new, &actor(&self.owner.tenant)).await.map_err(|fault| anyhow!("{}", fault.message()))?;
        // The key alone on stdout, for scripts.
        eprintln!("{} is in force; the key is shown only here:", key.id);
        println!("{text}");
        Ok(())
    }
}

async fn list(store: &StoreSaid, env: &Env) -> anyhow::Result<()> {
    let book = open(store, env).await?;
    println!("{:<39}  {:<10}  {:<20}  {:<16}  {:<16}  EXPIRES", "ID", "PREFIX", "NAME", "USER", "TENANT");
    for key in book.list(None) {
        let prefix = match &key.origin {
            Origin::Store { prefix, .. } => prefix.as_str(),
            Origin::File => "-",
        };
        let expires = key.expires_at.map_or_else(|| "never".to_owned(), |end| end.to_string());
        println!("{:<39}  {prefix:<10}  {:<20}  {:<16}  {:<16}  {expires}", key.id, key.name, key.user, key.tenant);
    }
    Ok(())
}

async fn open(store: &StoreSaid, env: &Env) -> anyhow::Result<KeyBook> {
    let store = Store::open(&config::resolve_store(store, env)?).await?;
    Ok(KeyBook::open(store, Arc::new(Access::keys(Vec::new())), false).await?)
}

fn actor(tenant: &str) -> Actor {
    Actor { id: "cli".to_owned(), tenant: tenant.to_owned() }
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
