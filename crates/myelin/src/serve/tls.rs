//! Certificates of listeners.

use std::{fs::File, io::BufReader, path::Path, sync::Arc};

use anyhow::{Context, ensure};
use rustls::{
    ServerConfig,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use tokio_rustls::TlsAcceptor;

use crate::config::types::Tls;

pub fn acceptor(tls: &Tls) -> anyhow::Result<TlsAcceptor> {
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?;
    let certificates = certificates(&tls.cert)?;
    let mut config = builder
        .with_no_client_auth()
        .with_single_cert(certificates, private_key(&tls.key)?)
        .with_context(|| format!("{} does not belong to {}", tls.key.display(), tls.cert.display()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// All certificates of a PEM file; at least one.
pub fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read: Result<Vec<_>, _> = rustls_pemfile::certs(&mut open(path)?).collect();
    let found = read.with_context(|| format!("{} is not a PEM file", path.display()))?;
    ensure!(!found.is_empty(), "{} holds no certificate", path.display());
    Ok(found)
}

fn private_key(path: &Path) -> anyhow::Result<PrivateKeyDer<'static>> {
    let read = rustls_pemfile::private_key(&mut open(path)?);
    let found = read.with_context(|| format!("{} is not a PEM file", path.display()))?;
    found.with_context(|| format!("{} holds no private key", path.display()))
}

fn open(path: &Path) -> anyhow::Result<BufReader<File>> {
    Ok(BufReader::new(File::open(path).with_context(|| format!("cannot read {}", path.display()))?))
}
