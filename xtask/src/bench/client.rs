//! One keep-alive HTTP/1.1 connection, as thin as hyper allows, so that the generator leaves the processor
//! to the server. Knows no Matrix beyond the bearer token.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// How much of an error's body goes into the message.
const EXCERPT_BYTES_MAX: usize = 300;

pub struct Connection {
    address: SocketAddr,
    host: HeaderValue,
    requests: SendRequest<Full<Bytes>>,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Result<Self> {
        let requests = dial(address).await?;
        Ok(Self { address, host: HeaderValue::from_str(&address.to_string())?, requests })
    }

    /// The body of a 2xx; anything else is an error that quotes the answer.
    pub async fn call(
        &mut self,
        method: Method,
        target: &str,
        authorization: Option<&HeaderValue>,
        body: Bytes,
    ) -> Result<Bytes> {
        if self.requests.ready().await.is_err() {
            self.requests = dial(self.address).await?;
        }
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method.clone();
        *request.uri_mut() = target.parse()?;
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        if method != Method::GET {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(authorization) = authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        let response =
            self.requests.send_request(request).await.with_context(|| format!("{method} {target}"))?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            let excerpt = String::from_utf8_lossy(&body[..body.len().min(EXCERPT_BYTES_MAX)]);
            bail!("{method} {target}: {status}: {excerpt}");
        }
        Ok(body)
    }
}

async fn dial(address: SocketAddr) -> Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true)?;
    let (requests, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // A broken connection shows at the request that meets it.
    tokio::spawn(connection);
    Ok(requests)
}
