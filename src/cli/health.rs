//! `vecmill health`: asks a running server whether it is ready, so that a container without curl can be probed.

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::Empty;
use hyper::{StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use std::process::ExitCode;
use std::time::Duration;

/// Flags of `vecmill health`.
#[derive(Debug, Clone, clap::Args)]
pub struct Flags {
    /// Address of the server, without a path. Plain HTTP only.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8000")]
    pub url: String,
    /// How many seconds to wait for the answer.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout_s: u64,
}

/// Exit code 0 if `GET /health/ready` answers 200, 1 for any other status.
///
/// # Errors
/// No server there, or no answer in time.
pub async fn run(flags: Flags) -> anyhow::Result<ExitCode> {
    let uri: Uri = format!("{}/health/ready", flags.url.trim_end_matches('/')).parse().with_context(|| format!("--url {}", flags.url))?;
    ensure!(uri.scheme_str() == Some("http") && uri.host().is_some(), "--url {}: must be http://HOST:PORT", flags.url);
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let answer = tokio::time::timeout(Duration::from_secs(flags.timeout_s), client.get(uri)).await;
    let status =
        answer.with_context(|| format!("no answer within {} s", flags.timeout_s))?.with_context(|| format!("no server at {}", flags.url))?.status();
    println!("{}", if status == StatusCode::OK { "ready" } else { "not ready" });
    Ok(if status == StatusCode::OK { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
