//! One request and its answer on an open connection.

use std::{error::Error as _, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, Uri, header};
use http_body_util::Full;
use hyper::{body::Incoming, client::conn};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::error::{Error, Step};

/// Half-dead HTTP/2 connections are found out by pings while a request waits.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
const HEAD_SIZE_MAX: u32 = 64 * 1024;
/// What a peer may send before it is read, per stream.
const STREAM_WINDOW: u32 = 512 * 1024;
/// Per connection: enough for as many streams as there are, so that a body that is read slowly stops no other.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * super::REQUESTS_PER_PEER_MAX as u32;

pub type Http1 = conn::http1::SendRequest<Full<Bytes>>;
pub type Http2 = conn::http2::SendRequest<Full<Bytes>>;

/// The way into a connection.
pub enum Sender {
    Http1(Http1),
    /// Carries several requests at once.
    Http2(Http2),
}

/// The connection broke before the answer began.
pub struct Failure {
    reason: String,
    /// Not a byte of the request was sent.
    unsent: bool,
}

pub async fn http1<S>(stream: S) -> hyper::Result<(Http1, conn::http1::Connection<S, Full<Bytes>>)>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    conn::http1::Builder::new().max_buf_size(HEAD_SIZE_MAX as usize).handshake(stream).await
}

pub async fn http2<S>(
    stream: S,
) -> hyper::Result<(Http2, conn::http2::Connection<S, Full<Bytes>, TokioExecutor>)>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_header_list_size(HEAD_SIZE_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .handshake(stream)
        .await
}

impl Sender {
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::Http2(_))
    }

    pub fn is_closed(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_closed(),
            Self::Http2(sender) => sender.is_closed(),
        }
    }

    /// Another way into the same connection, where that is possible.
    pub fn share(&self) -> Option<Self> {
        match self {
            Self::Http1(_) => None,
            Self::Http2(sender) => Some(Self::Http2(sender.clone())),
        }
    }

    /// Sends `request` and waits for the head of its answer.
    pub async fn send(&mut self, request: &Request<Bytes>) -> Result<Response<Incoming>, Failure> {
        let answer = match self {
            Self::Http1(sender) => {
                sender.ready().await.map_err(|error| Failure::broken(&error, true))?;
                sender.try_send_request(for_http1(request)).await
            }
            Self::Http2(sender) => {
                sender.ready().await.map_err(|error| Failure::broken(&error, true))?;
                sender.try_send_request(for_http2(request)).await
            }
        };
        answer.map_err(|mut error| {
            let unsent = error.take_message().is_some();
            Failure::broken(error.error(), unsent)
        })
    }
}

/// The path alone in the request line, the host in its header.
fn for_http1(request: &Request<Bytes>) -> Request<Full<Bytes>> {
    let mut request = request.clone().map(Full::new);
    if let Some(path) = request.uri().path_and_query().cloned() {
        *request.uri_mut() = Uri::from(path);
    }
    request
}

/// The host in `:authority`.
fn for_http2(request: &Request<Bytes>) -> Request<Full<Bytes>> {
    let mut request = request.clone().map(Full::new);
    request.headers_mut().remove(header::HOST);
    request
}

impl Failure {
    fn broken(error: &hyper::Error, unsent: bool) -> Self {
        Self { reason: explain(error), unsent }
    }

    /// A kept connection may have ended just before it was used. What may have arrived is repeated only if the method
    /// means the same twice.
    pub fn is_worth_another_connection(&self, method: &Method) -> bool {
        self.unsent || method.is_idempotent()
    }
}

impl From<Failure> for Error {
    fn from(Failure { reason, unsent }: Failure) -> Self {
        let step = if unsent { Step::Send } else { Step::Answer };
        Self::unreachable(step, reason)
    }
}

/// An error with its cause, which hyper leaves out.
pub fn explain(error: &hyper::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
