//! The port to the network: one request to a server by its name, one answer, whole or as it comes.
//!
//! Whoever implements it resolves the name, connects, and refuses what the configuration refuses.

use std::time::Duration;

use bytes::Bytes;
use futures::{
    FutureExt,
    future::{self, BoxFuture},
    stream::BoxStream,
};
use http::{Request, Response};
use ruma::ServerName;

/// What one exchange may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// From the first look-up to the last byte of the answer.
    pub timeout: Duration,
    /// Bytes of the answer's body.
    pub body_size_max: usize,
}

impl Budget {
    /// Most requests: an answer of at most 16 MiB within 30 s.
    pub const ORDINARY: Self = Self { timeout: Duration::from_secs(30), body_size_max: 16 * 1024 * 1024 };
    /// Whole room states.
    pub const LARGE: Self = Self { timeout: Duration::from_secs(180), body_size_max: 256 * 1024 * 1024 };
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum TransportError {
    /// No address, no connection, no TLS session, or it broke.
    #[error("the server cannot be reached: {0}")]
    Unreachable(String),
    #[error("the server did not answer in time")]
    Timeout,
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// The configuration does not allow to talk to it.
    #[error("this server does not talk to it: {0}")]
    Refused(String),
}

/// The body of an answer as it comes; its first error is its end.
pub type Pieces = BoxStream<'static, Result<Bytes, TransportError>>;

/// Requests name a path (with a query), never a host: the server name is what is resolved.
pub trait Transport: Send + Sync + 'static {
    fn send<'a>(
        &'a self,
        server: &'a ServerName,
        request: Request<Bytes>,
        budget: Budget,
    ) -> BoxFuture<'a, Result<Response<Bytes>, TransportError>>;

    /// Completes with the head of the answer. The budget covers the body, too.
    fn open<'a>(
        &'a self,
        server: &'a ServerName,
        request: Request<Bytes>,
        budget: Budget,
    ) -> BoxFuture<'a, Result<Response<Pieces>, TransportError>>;

    /// What an `https` URL leads to that another server has named. Redirects are followed; addresses that are refused for
    /// servers are refused here.
    fn open_url<'a>(
        &'a self,
        url: &'a str,
        budget: Budget,
    ) -> BoxFuture<'a, Result<Response<Pieces>, TransportError>>;

    /// Whether the configuration lets this server talk with `server`, in either direction.
    fn permits(&self, server: &ServerName) -> bool;
}

/// A network with nobody in it: for a server that keeps to itself.
pub struct Nowhere;

impl Transport for Nowhere {
    fn send<'a>(
        &'a self,
        server: &'a ServerName,
        _: Request<Bytes>,
        _: Budget,
    ) -> BoxFuture<'a, Result<Response<Bytes>, TransportError>> {
        future::ready(Err(refused(server.as_str()))).boxed()
    }

    fn open<'a>(
        &'a self,
        server: &'a ServerName,
        _: Request<Bytes>,
        _: Budget,
    ) -> BoxFuture<'a, Result<Response<Pieces>, TransportError>> {
        future::ready(Err(refused(server.as_str()))).boxed()
    }

    fn open_url<'a>(
        &'a self,
        url: &'a str,
        _: Budget,
    ) -> BoxFuture<'a, Result<Response<Pieces>, TransportError>> {
        future::ready(Err(refused(url))).boxed()
    }

    fn permits(&self, _: &ServerName) -> bool {
        false
    }
}

fn refused(who: &str) -> TransportError {
    TransportError::Refused(format!("federation is off, so '{who}' is not asked"))
}
