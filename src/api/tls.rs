//! TLS in process: the certificate and key of two PEM files, read again when they change.

use axum_server::tls_rustls::RustlsConfig;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The two files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, and those that lead from it to the root.
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// The certificate in force for new connections.
#[derive(Clone)]
pub struct Tls(pub(super) RustlsConfig);

/// Looks after the files.
pub struct TlsWatch {
    files: TlsFiles,
    tls: Tls,
    /// What the files held when they were last looked at; never logged.
    seen: [Vec<u8>; 2],
}

/// A certificate or key that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {reason}")]
pub struct TlsError {
    file: String,
    reason: String,
}

fn error(file: &Path, reason: impl ToString) -> TlsError {
    TlsError { file: file.display().to_string(), reason: reason.to_string() }
}

impl TlsWatch {
    /// Reads the files; at the start they must be right.
    ///
    /// # Errors
    /// [`TlsError`], naming the file.
    pub fn open(files: TlsFiles) -> Result<Self, TlsError> {
        let seen = read(&files)?;
        let tls = Tls(RustlsConfig::from_config(Arc::new(configure(&files, &seen)?)));
        Ok(Self { files, tls, seen })
    }

    /// What to serve with.
    pub fn tls(&self) -> Tls {
        self.tls.clone()
    }

    /// Reads the files again and, if they have changed, serves new connections with them: true if so. If they are broken, or do not belong
    /// together yet because only one has been replaced, the old ones stay in force, and the error is given once per state of the files.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn reload(&mut self) -> Result<bool, TlsError> {
        let now = read(&self.files)?;
        if now == self.seen {
            return Ok(false);
        }
        self.seen = now;
        self.tls.0.reload_from_config(Arc::new(configure(&self.files, &self.seen)?));
        Ok(true)
    }
}

fn read(files: &TlsFiles) -> Result<[Vec<u8>; 2], TlsError> {
    let read = |path: &Path| std::fs::read(path).map_err(|reason| error(path, reason));
    Ok([read(&files.cert)?, read(&files.key)?])
}

fn configure(files: &TlsFiles, [cert, key]: &[Vec<u8>; 2]) -> Result<ServerConfig, TlsError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(cert).collect();
    let chain = chain.map_err(|reason| error(&files.cert, reason))?;
    if chain.is_empty() {
        return Err(error(&files.cert, "holds no certificate in PEM"));
    }
    let key =
        PrivateKeyDer::from_pem_slice(key).map_err(|reason| error(&files.key, format!("holds no private key in PEM that can be read: {reason}")))?;
    let versions = ServerConfig::builder_with_provider(Arc::new(ring::default_provider())).with_safe_default_protocol_versions();
    let builder = versions.map_err(|reason| error(&files.cert, reason))?.with_no_client_auth();
    let mut config = builder.with_single_cert(chain, key).map_err(|reason| error(&files.cert, format!("with this key: {reason}")))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
