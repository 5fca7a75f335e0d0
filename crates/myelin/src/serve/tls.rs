//! Certificates of listeners.

use std::{fs::File, io::BufReader, path::Path, sync::Arc, time::SystemTime};

use anyhow::{Context, ensure};
use parking_lot::Mutex;
use rustls::{
    ServerConfig,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio_rustls::TlsAcceptor;

use crate::config::types::Tls;

/// The certificate of one listener; renewed when its files change.
#[derive(Clone)]
pub struct Certified {
    pub acceptor: TlsAcceptor,
    current: Arc<Current>,
}

#[derive(Debug)]
struct Current {
    files: Tls,
    loaded: Mutex<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    certified: Arc<CertifiedKey>,
    /// When the files were written.
    written: Written,
}

type Written = [Option<SystemTime>; 2];

impl Certified {
    pub fn load(files: &Tls) -> anyhow::Result<Self> {
        let loaded = Mutex::new(Loaded { written: written(files), certified: certified(files)? });
        let current = Arc::new(Current { files: files.clone(), loaded });
        let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(current.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), current })
    }

    /// Takes the files as they are now, if they have been written anew. Of a pair that does not fit, as while it is being
    /// replaced, nothing is taken.
    pub fn renew(&self) -> anyhow::Result<()> {
        let written = written(&self.current.files);
        if self.current.loaded.lock().written == written {
            return Ok(());
        }
        let certified = certified(&self.current.files)?;
        *self.current.loaded.lock() = Loaded { certified, written };
        tracing::info!(file = %self.current.files.cert.display(), "a new certificate is used from now on");
        Ok(())
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.loaded.lock().certified.clone())
    }
}

fn written(files: &Tls) -> Written {
    [&files.cert, &files.key].map(|file| std::fs::metadata(file).and_then(|file| file.modified()).ok())
}

fn certified(files: &Tls) -> anyhow::Result<Arc<CertifiedKey>> {
    let (certificates, key) = (certificates(&files.cert)?, private_key(&files.key)?);
    let certified = CertifiedKey::from_der(certificates, key, &default_provider());
    let foreign = || format!("{} does not belong to {}", files.key.display(), files.cert.display());
    Ok(Arc::new(certified.with_context(foreign)?))
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn write(path: &Path, text: &str, at_s: u64) {
        std::fs::write(path, text).expect("written");
        let file = File::options().write(true).open(path).expect("opened");
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(at_s)).expect("dated");
    }

    /// A certificate and its key, as PEM.
    fn made() -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let certificate = CertificateParams::new(["a.test".to_owned()]).expect("names").self_signed(&key);
        (certificate.expect("a certificate").pem(), key.serialize_pem())
    }

    #[test]
    fn a_new_certificate_is_taken_once_both_files_are_there() {
        let directory = tempfile::tempdir().expect("a directory");
        let files = Tls { cert: directory.path().join("cert"), key: directory.path().join("key") };
        let ((old, old_key), (new, new_key)) = (made(), made());
        write(&files.cert, &old, 1);
        write(&files.key, &old_key, 1);
        let certified = Certified::load(&files).expect("they belong together");
        let shown = || certified.current.loaded.lock().certified.cert[0].clone();
        let before = shown();
        certified.renew().expect("nothing is new");
        write(&files.cert, &new, 2);
        assert!(certified.renew().is_err(), "the key is still the old one");
        assert_eq!(shown(), before);
        write(&files.key, &new_key, 3);
        certified.renew().expect("they belong together");
        assert_ne!(shown(), before);
    }
}
