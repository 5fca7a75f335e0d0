//! One GET, over HTTP or HTTPS, with a bounded answer.

use std::{path::Path, sync::Arc};

use anyhow::{Context, bail, ensure};
use axum::body::Body;
use http_body_util::{BodyExt, Limited};
use hyper::{Request, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, crypto::ring::default_provider, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use url::Url;

use crate::serve::tls;

const ANSWER_SIZE_MAX: usize = 256 * 1024;

pub struct Fetcher(Option<TlsConnector>);

pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Fetcher {
    /// HTTP only.
    pub fn plain() -> Self {
        Self(None)
    }

    /// Trusts the authorities of this system, and those in `ca_file`.
    pub fn trusting_system(ca_file: Option<&Path>) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(file) = ca_file {
            let certificates = tls::certificates(file).context("federation.ca_file")?;
            roots.add_parsable_certificates(certificates);
        }
        Self::trusting(roots)
    }

    /// Trusts the certificates in `file` and nobody else.
    pub fn trusting_only(file: &Path) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(tls::certificates(file)?);
        Self::trusting(roots)
    }

    fn trusting(roots: RootCertStore) -> anyhow::Result<Self> {
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(Some(TlsConnector::from(Arc::new(config)))))
    }

    pub async fn get(&self, url: &Url) -> anyhow::Result<Answer> {
        let host = url.host_str().context("the URL names no host")?.trim_matches(['[', ']']).to_owned();
        let port = url.port_or_known_default().context("the URL has no port")?;
        let stream = TcpStream::connect((host.as_str(), port))
            .await
            .with_context(|| format!("cannot connect to {host}:{port}"))?;
        match (url.scheme(), &self.0) {
            ("http", _) => exchange(stream, url).await,
            (_, Some(connector)) => {
                let name = ServerName::try_from(host)?;
                let stream =
                    connector.connect(name, stream).await.context("the TLS certificate is not accepted")?;
                exchange(stream, url).await
            }
            (scheme, None) => bail!("{scheme} is not possible here"),
        }
    }
}

async fn exchange<S>(stream: S, url: &Url) -> anyhow::Result<Answer>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let authority = &url[url::Position::BeforeHost..url::Position::AfterPort];
    let request = Request::get(path).header(header::HOST, authority).body(Body::empty())?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_SIZE_MAX).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("the answer cannot be read: {error}"))?;
        anyhow::Ok(Answer { status, body: body.to_bytes().to_vec() })
    };
    tokio::select! {
        answer = answer => answer,
        ended = connection => { ended?; bail!("the connection was closed without an answer") }
    }
}

impl Answer {
    /// The body of a 200 as JSON.
    pub fn json(&self) -> anyhow::Result<serde_json::Value> {
        ensure!(self.status == 200, "it answers with status {}", self.status);
        serde_json::from_slice(&self.body).context("it does not answer with JSON")
    }
}
