//! What media needs of the outside: other servers' media, and web pages.

use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture, stream::BoxStream};
use ruma::ServerName;
use url::Url;

/// Bytes as they arrive. An error ends the stream; so does dropping it.
pub type BytesStream = BoxStream<'static, Result<Bytes, std::io::Error>>;

/// How media of other servers is fetched.
pub trait Origin: Send + Sync + 'static {
    /// Asks `server` for media of its own. Completes when the head of the answer is there; the body follows. If its
    /// content has not been uploaded there yet, the server may wait for `wait`.
    fn fetch<'a>(
        &'a self,
        server: &'a ServerName,
        media_id: &'a str,
        wait: Duration,
        limits: FetchLimits,
    ) -> BoxFuture<'a, Result<Fetched, FetchError>>;
}

/// How web pages and images on them are fetched. Addresses that are not public are refused, also after redirects.
pub trait Pages: Send + Sync + 'static {
    /// Completes when the head of the answer is there; the body follows.
    fn fetch<'a>(&'a self, url: &'a Url, limits: FetchLimits) -> BoxFuture<'a, Result<Page, PageError>>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchLimits {
    /// The body; a longer one ends with an error.
    pub size_max: u64,
    /// Until the last byte.
    pub timeout: Duration,
}

/// Media of another server.
pub struct Fetched {
    pub content_type: Option<String>,
    pub file_name: Option<String>,
    /// If the server says.
    pub size: Option<u64>,
    pub body: BytesStream,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    #[error("the server does not have it")]
    NotFound,
    #[error("its content has not been uploaded yet")]
    NotYetUploaded,
    #[error("it is larger than this server takes")]
    TooLarge,
    #[error("{0}")]
    Failed(String),
}

/// What a URL answered with.
pub struct Page {
    pub status: u16,
    /// After redirects.
    pub url: Url,
    pub content_type: Option<String>,
    /// `X-Robots-Tag`, all of them.
    pub robots: Vec<String>,
    pub size: Option<u64>,
    pub body: BytesStream,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// The address, or one that it leads to, is not for this server to connect to.
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Failed(String),
}

/// There are no other servers.
pub struct NoOrigin;

impl Origin for NoOrigin {
    fn fetch<'a>(
        &'a self,
        _: &'a ServerName,
        _: &'a str,
        _: Duration,
        _: FetchLimits,
    ) -> BoxFuture<'a, Result<Fetched, FetchError>> {
        std::future::ready(Err(FetchError::NotFound)).boxed()
    }
}

/// There is no web.
pub struct NoPages;

impl Pages for NoPages {
    fn fetch<'a>(&'a self, _: &'a Url, _: FetchLimits) -> BoxFuture<'a, Result<Page, PageError>> {
        std::future::ready(Err(PageError::Failed("there is no web here".to_owned()))).boxed()
    }
}
