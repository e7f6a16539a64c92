//! HTTPS: with the certificate of the files, with the new one once they have changed, and with the old one while they are broken.

use crate::fake::Server;
use crate::models::real_minilm;
use crate::raw::{Reply, connect, read_reply, request};
use crate::server;
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vecmill::api::{Options, TlsFiles, TlsWatch};
use vecmill::service::access::Access;

/// A new certificate for `vecmill.test` with its key.
fn certificate() -> CertifiedKey<KeyPair> {
    generate_simple_self_signed(["vecmill.test".to_owned()]).unwrap()
}

fn write(dir: &Path, own: &CertifiedKey<KeyPair>) -> TlsFiles {
    let files = TlsFiles { cert: dir.join("cert.pem"), key: dir.join("key.pem") };
    std::fs::write(&files.cert, own.cert.pem()).unwrap();
    std::fs::write(&files.key, own.signing_key.serialize_pem()).unwrap();
    files
}

/// One request over TLS, trusting this certificate and no other; the error if the handshake fails.
fn get(addr: SocketAddr, path: &str, trusted: &CertificateDer<'static>) -> std::io::Result<Reply> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider())).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from("vecmill.test").unwrap();
    let mut stream = StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), connect(addr));
    stream.write_all(&request("GET", path, &[], b""))?;
    Ok(read_reply(&mut stream, "GET"))
}

#[test]
fn a_new_certificate_is_served_once_it_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (certificate(), certificate());
    let files = write(dir.path(), &old);
    let mut watch = TlsWatch::open(files.clone()).unwrap();
    let server = Server::with_tls(Options::default(), Access::open_to_all(), Some(watch.tls()));
    let served = |own: &CertifiedKey<KeyPair>| get(server.addr, "/v1/models", own.cert.der()).map(|reply| reply.status).ok();
    assert_eq!((served(&old), served(&new)), (Some(200), None));
    assert!(!watch.reload().unwrap(), "nothing has changed");

    // Only one of the two files is there yet: they do not belong together.
    std::fs::write(&files.cert, new.cert.pem()).unwrap();
    let error = watch.reload().unwrap_err().to_string();
    assert!(error.contains("cert.pem"), "{error}");
    assert!(!watch.reload().unwrap(), "told once");
    assert_eq!((served(&old), served(&new)), (Some(200), None));
    write(dir.path(), &new);
    assert!(watch.reload().unwrap());
    assert_eq!((served(&old), served(&new)), (None, Some(200)));

    std::fs::remove_file(&files.key).unwrap();
    assert!(watch.reload().unwrap_err().to_string().contains("key.pem"));
    assert_eq!(served(&new), Some(200));
}

#[test]
fn files_that_are_no_certificate_or_key_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let files = write(dir.path(), &certificate());
    let refused = || TlsWatch::open(files.clone()).err().unwrap().to_string();
    std::fs::write(&files.cert, "nonsense").unwrap();
    assert!(refused().contains("cert.pem") && refused().contains("no certificate"), "{}", refused());
    write(dir.path(), &certificate());
    std::fs::write(&files.key, "nonsense").unwrap();
    assert!(refused().contains("key.pem"), "{}", refused());
    write(dir.path(), &certificate());
    std::fs::write(&files.key, certificate().signing_key.serialize_pem()).unwrap();
    assert!(refused().contains("cert.pem"), "of two pairs: {}", refused());
}

#[test]
fn the_binary_serves_https_and_its_health_check_copes() {
    let dir = tempfile::tempdir().unwrap();
    let own = certificate();
    let files = write(dir.path(), &own);
    let (cert, key) = (files.cert.to_str().unwrap(), files.key.to_str().unwrap());
    let model = format!("m={}", real_minilm().display());
    let mut server = server::Server::spawn(server::command(&[
        "--model",
        &model,
        "--offline",
        "--port",
        "0",
        "--store",
        "memory",
        "--tls-cert",
        cert,
        "--tls-key",
        key,
    ]));
    let addr: SocketAddr = server.base.strip_prefix("https://").expect("an https address").parse().unwrap();
    assert_eq!(get(addr, "/v1/models", own.cert.der()).unwrap().json()["data"]["items"][0]["slug"], "m");
    let health = |url: &str| Command::new(env!("CARGO_BIN_EXE_vecmill")).args(["health", "--url", url]).output().unwrap().status.code();
    assert_eq!(health(&server.base), Some(0));
    assert_ne!(health(&format!("http://{addr}")), Some(0), "plain HTTP is not answered");

    let new = certificate();
    write(dir.path(), &new);
    let limit = Instant::now() + Duration::from_secs(60);
    while get(addr, "/health", new.cert.der()).is_err() {
        assert!(Instant::now() < limit, "the new certificate was never served");
    }
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));
}
