//! Addresses other than TCP, and HTTPS.

use std::{
    io::{Cursor, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    sync::Arc,
};

use perihelion_rpc::{RpcConfig, ServeError, TlsFiles};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto, pki_types::ServerName},
};

use crate::{
    chain::{small_node, small_node_at},
    client::{ask, read_reply},
};

const HEALTH: &[u8] = b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

#[test]
fn a_unix_socket_is_served_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rpc.sock");
    // Left behind by a node that was killed.
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let laddr = format!("unix://{}", path.display());
    let node = small_node_at(&laddr, &RpcConfig::default());
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(HEALTH).unwrap();
    assert_eq!(read_reply(&mut stream).status, 200);
    drop(node);
    assert!(!path.exists());
}

#[test]
fn a_unix_socket_that_is_in_use_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rpc.sock");
    let other = UnixListener::bind(&path).unwrap();
    let laddr = format!("unix://{}", path.display());
    let refused = perihelion_rpc::check_address(&laddr);
    assert!(
        matches!(refused, Err(ServeError::Listen { .. })),
        "{refused:?}"
    );
    assert!(UnixStream::connect(&path).is_ok());
    drop(other);
}

/// A fresh certificate for localhost, and the files of a server that has it.
fn certificate(folder: &std::path::Path) -> (TlsFiles, RootCertStore) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let files = TlsFiles {
        certificate: folder.join("cert.pem"),
        key: folder.join("key.pem"),
    };
    std::fs::write(&files.certificate, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    (files, roots)
}

#[tokio::test]
async fn https_is_served_with_the_configured_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let (files, roots) = certificate(folder.path());
    let config = RpcConfig {
        tls: Some(files),
        ..RpcConfig::default()
    };
    let node = small_node(&config);
    let client = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(node.address())
        .await
        .unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(client))
        .connect(name, stream)
        .await
        .unwrap();
    stream.write_all(HEALTH).await.unwrap();
    let mut raw = Vec::new();
    // A server may close without a goodbye.
    let _ = stream.read_to_end(&mut raw).await;
    assert_eq!(read_reply(&mut Cursor::new(raw)).status, 200);
    // Without TLS there is no answer.
    let address = node.address();
    let plain = tokio::task::spawn_blocking(move || {
        std::panic::catch_unwind(|| ask(address, "GET", "/health", &[], None)).is_err()
    });
    assert!(plain.await.unwrap());
}

#[test]
fn a_certificate_that_cannot_be_read_keeps_the_server_from_starting() {
    let folder = tempfile::tempdir().unwrap();
    let (files, _) = certificate(folder.path());
    std::fs::write(&files.key, "no key").unwrap();
    let refused = perihelion_rpc::check_tls(&files);
    assert!(matches!(refused, Err(ServeError::Tls { ref path, .. }) if *path == files.key));
}
