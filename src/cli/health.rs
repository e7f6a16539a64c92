//! `vecmill health`: asks a running server whether it is ready, so that a container without curl can be probed.

use crate::config::Env;
use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::Empty;
use hyper::{StatusCode, Uri};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Flags of `vecmill health`.
#[derive(Debug, Clone, clap::Args)]
pub struct Flags {
    /// Address of the server, without a path. Over https its certificate is not verified: the check sends no secret and asks for its own
    /// machine, under a name that no certificate has.
    /// [default: port VECMILL_PORT or 8000 of 127.0.0.1, over https if VECMILL_TLS_CERT is set]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// How many seconds to wait for the answer.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout_s: u64,
}

/// Exit code 0 if `GET /health/ready` answers 200, 1 for any other status.
///
/// # Errors
/// No server there, or no answer in time.
pub async fn run(flags: Flags, env: &Env) -> anyhow::Result<ExitCode> {
    let url = flags.url.unwrap_or_else(|| default_url(env));
    let uri: Uri = format!("{}/health/ready", url.trim_end_matches('/')).parse().with_context(|| format!("--url {url}"))?;
    let known = matches!(uri.scheme_str(), Some("http" | "https"));
    ensure!(known && uri.host().is_some(), "--url {url}: must be http://HOST:PORT or https://HOST:PORT");
    let connector = HttpsConnectorBuilder::new().with_tls_config(trusting()?).https_or_http().enable_http1().build();
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let answer = tokio::time::timeout(Duration::from_secs(flags.timeout_s), client.get(uri)).await;
    let status = answer.with_context(|| format!("no answer within {} s", flags.timeout_s))?.with_context(|| format!("no server at {url}"))?.status();
    println!("{}", if status == StatusCode::OK { "ready" } else { "not ready" });
    Ok(if status == StatusCode::OK { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A server that was started with the same environment, as in a container.
fn default_url(env: &Env) -> String {
    let scheme = if env.get("VECMILL_TLS_CERT").is_some() { "https" } else { "http" };
    format!("{scheme}://127.0.0.1:{}", env.get("VECMILL_PORT").unwrap_or("8000"))
}

/// TLS with whoever answers.
fn trusting() -> anyhow::Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider))).with_no_client_auth())
}

/// Takes every certificate; that the other side has its key is verified still.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

type Signature = Result<HandshakeSignatureValid, rustls::Error>;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(&self, message: &[u8], cert: &CertificateDer<'_>, dss: &DigitallySignedStruct) -> Signature {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(&self, message: &[u8], cert: &CertificateDer<'_>, dss: &DigitallySignedStruct) -> Signature {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_follows_the_servers_environment() {
        assert_eq!(default_url(&Env::default()), "http://127.0.0.1:8000");
        assert_eq!(default_url(&Env::from([("VECMILL_PORT", "8443"), ("VECMILL_TLS_CERT", "/c.pem")])), "https://127.0.0.1:8443");
    }
}
