//! One request and its answer on an open connection.

use std::{error::Error as _, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::{Body, Incoming},
    client::conn,
};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use myelin_core::Env;

use crate::error::{Error, Step};

/// Longest pause between two pieces of an answer's body.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Half-dead HTTP/2 connections are found out by pings while a request waits.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
const HEAD_SIZE_MAX: u32 = 64 * 1024;
/// What a peer may send before it is read, per stream and per connection.
const WINDOW: u32 = 1024 * 1024;

pub type Http1 = conn::http1::SendRequest<Full<Bytes>>;
pub type Http2 = conn::http2::SendRequest<Full<Bytes>>;

/// The way into a connection.
pub enum Sender {
    Http1(Http1),
    /// Carries several requests at once.
    Http2(Http2),
}

/// Why there is no answer.
pub enum Failure {
    /// The connection broke before the answer began.
    Broken {
        reason: String,
        /// Not a byte of the request was sent.
        unsent: bool,
    },
    /// Another connection would not help.
    Final(Error),
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
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .handshake(stream)
        .await
}

/// Sends `request` and reads the whole answer.
pub async fn hold(
    env: &Env,
    sender: &mut Sender,
    request: &Request<Bytes>,
    body_size_max: usize,
) -> Result<Response<Bytes>, Failure> {
    let (head, mut body) = sender.send(request).await?.into_parts();
    let size_hint = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if size_hint > body_size_max {
        return Err(Failure::Final(Error::TooLarge(body_size_max)));
    }
    let mut read = BytesMut::new();
    loop {
        let stalled = || Failure::Final(Error::TimedOut { step: Step::Body, after: STALL_TIMEOUT });
        let piece = env.timeout(STALL_TIMEOUT, body.frame()).await.ok_or_else(stalled)?;
        let Some(piece) = piece else { return Ok(Response::from_parts(head, read.freeze())) };
        let cut_off = |error| Failure::Final(Error::unreachable(Step::Body, explain(&error)));
        let Ok(piece) = piece.map_err(cut_off)?.into_data() else { continue };
        if read.len() + piece.len() > body_size_max {
            return Err(Failure::Final(Error::TooLarge(body_size_max)));
        }
        read.extend_from_slice(&piece);
    }
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

    async fn send(&mut self, request: &Request<Bytes>) -> Result<Response<Incoming>, Failure> {
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
        Self::Broken { reason: explain(error), unsent }
    }

    /// A kept connection may have ended just before it was used. What may have arrived is repeated only if the method
    /// means the same twice.
    pub fn is_worth_another_connection(&self, method: &Method) -> bool {
        match self {
            Self::Broken { unsent, .. } => *unsent || method.is_idempotent(),
            Self::Final(_) => false,
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Broken { reason, unsent: true } => Self::unreachable(Step::Send, reason),
            Failure::Broken { reason, unsent: false } => Self::unreachable(Step::Answer, reason),
            Failure::Final(error) => error,
        }
    }
}

/// An error with its cause, which hyper leaves out.
pub fn explain(error: &hyper::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
