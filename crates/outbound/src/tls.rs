//! Whose certificates are believed.

use std::sync::Arc;

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring::default_provider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("TLS cannot be set up: {0}")]
pub struct TrustError(String);

/// The authorities that are believed.
#[derive(Clone, Debug)]
pub struct Trust {
    roots: RootCertStore,
    verify: bool,
}

impl Trust {
    /// The authorities that this system believes.
    pub fn system() -> Self {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "certificates of authorities could not be read");
        }
        Self::only(found.certs)
    }

    pub fn only(authorities: Vec<CertificateDer<'static>>) -> Self {
        Self { roots: RootCertStore::empty(), verify: true }.and(authorities)
    }

    pub fn and(mut self, authorities: Vec<CertificateDer<'static>>) -> Self {
        self.roots.add_parsable_certificates(authorities);
        self
    }

    /// Believes everybody: for test networks.
    pub fn unverified() -> Self {
        Self { roots: RootCertStore::empty(), verify: false }
    }

    pub(crate) fn into_config(self) -> Result<ClientConfig, TrustError> {
        let provider = Arc::new(default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| TrustError(error.to_string()))?;
        let mut config = match self.verify {
            true => builder.with_root_certificates(self.roots).with_no_client_auth(),
            false => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(BelieveAnybody(provider)))
                .with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// Takes every certificate; that its owner holds the key is still checked.
#[derive(Debug)]
struct BelieveAnybody(Arc<CryptoProvider>);

impl ServerCertVerifier for BelieveAnybody {
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

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// What is wrong, in words.
pub(crate) fn explain(error: &std::io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(problem)) => certificate_problem(problem),
        Some(error) => error.to_string(),
        None => error.to_string(),
    }
}

fn certificate_problem(problem: &CertificateError) -> String {
    use CertificateError as E;
    match problem {
        E::Expired | E::ExpiredContext { .. } => "the certificate has expired".into(),
        E::NotValidYet | E::NotValidYetContext { .. } => "the certificate is not valid yet".into(),
        E::NotValidForName | E::NotValidForNameContext { .. } => {
            "the certificate belongs to another name".into()
        }
        E::UnknownIssuer => "the certificate is signed by an authority that is not trusted".into(),
        E::Revoked => "the certificate has been revoked".into(),
        problem => format!("the certificate is not accepted: {problem:?}"),
    }
}
