//! `vecmill health`: one request to `/health/ready`; for container health checks, where no curl is at hand.

use anyhow::{Context, bail};
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// Where to ask.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// host:port of the server
    #[arg(default_value = "127.0.0.1:8000")]
    address: String,
}

/// How long a server may take to answer.
const LIMIT: Duration = Duration::from_secs(5);

/// Succeeds if the server says that it is ready.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let Args { address } = args;
    let resolved = address.to_socket_addrs().with_context(|| format!("{address} is not host:port"))?.next();
    let resolved = resolved.with_context(|| format!("{address} has no address"))?;
    let mut stream = TcpStream::connect_timeout(&resolved, LIMIT).with_context(|| format!("cannot connect to {address}"))?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(format!("GET /health/ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(64 * 1024).read_to_end(&mut answer).context("the server did not answer in time")?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split_whitespace().nth(1).unwrap_or("nothing");
    if status != "200" {
        bail!("{address} answered {status}: {}", answer.rsplit("\r\n").next().unwrap_or_default());
    }
    Ok(())
}
