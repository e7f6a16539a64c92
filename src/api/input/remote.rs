//! An input fetched over http or https: no redirects, and no connection to an address that is neither public nor listed, whatever a name
//! resolves to.

use super::address::{Network, may_connect};
use super::{push, refuse};
use crate::service::jobs::Upload;
use crate::wire::Fault;
use axum::http::{StatusCode, Uri, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioExecutor;
use rustls::crypto::ring;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tower::Service;

/// How long a connection may take to be there, and the next bytes to come.
const PATIENCE: Duration = Duration::from_secs(20);

/// Fetches what is there.
///
/// # Errors
/// `Validation`; if the store fails.
pub(super) async fn read(uri: Uri, networks: &[Network], upload: &mut Upload) -> Result<(), Fault> {
    // An address that is written out passes the resolver by.
    let written: Option<IpAddr> = uri.host().and_then(|host| host.trim_start_matches('[').trim_end_matches(']').parse().ok());
    if written.is_some_and(|address| !may_connect(address, networks)) {
        return Err(refuse("leads to an address that this server must not connect to"));
    }
    let mut connector = HttpConnector::new_with_resolver(Resolver { networks: networks.to_vec() });
    connector.enforce_http(false);
    connector.set_connect_timeout(Some(PATIENCE));
    let builder = HttpsConnectorBuilder::new().with_provider_and_native_roots(ring::default_provider()).map_err(|error| {
        tracing::error!(%error, "the certificates that this machine trusts cannot be read");
        refuse("cannot be fetched by this server")
    })?;
    let connector = builder.https_or_http().enable_http1().wrap_connector(connector);
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let answer = tokio::time::timeout(PATIENCE, client.get(uri)).await.map_err(|_| refuse("is not answered"))?;
    let answer = answer.map_err(|error| {
        // The log has the reason; a client could map a network by it.
        tracing::info!(error = ?error, "the input of a job cannot be fetched");
        refuse("cannot be fetched: nobody answers there, or at an address that this server must not connect to")
    })?;
    let (head, mut body) = answer.into_parts();
    if head.status != StatusCode::OK {
        return Err(refuse(format!("is answered {}; redirects are not followed", head.status.as_u16())));
    }
    if head.headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(refuse("is answered with a Content-Encoding, which is not taken"));
    }
    while let Some(frame) = tokio::time::timeout(PATIENCE, body.frame()).await.map_err(|_| refuse("broke off"))? {
        if let Ok(bytes) = frame.map_err(|_| refuse("broke off"))?.into_data() {
            push(upload, &bytes).await?;
        }
    }
    Ok(())
}

/// The machine's own resolver, without the addresses that must not be connected to: what was checked is what is connected to.
#[derive(Clone)]
struct Resolver {
    networks: Vec<Network>,
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let networks = self.networks.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> = found.filter(|address| may_connect(address.ip(), &networks)).collect();
            match allowed.is_empty() {
                true => Err(io::Error::other("the name leads to no address that may be connected to")),
                false => Ok(allowed.into_iter()),
            }
        })
    }
}
