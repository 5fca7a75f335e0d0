//! HTTP to other servers, guarded.
//!
//! From the bottom up: [`AddressPolicy`] says which addresses may be connected to, the dialer is the one place that
//! connects and asks it, the pool keeps connections, [`Fetcher`] gets a URL, [`Outbound`] sends a request to a
//! server by its Matrix name, found as the specification says (Server-Server API, "Resolving server names").
//!
//! Must not know: rooms, events, signatures; what the requests are for.

mod addresses;
mod body;
mod dial;
mod discovery;
mod dns;
mod error;
mod expiry;
mod fetch;
mod network;
mod pool;
mod server_names;
mod tls;
mod well_known;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header, uri::PathAndQuery};
use myelin_core::Env;
use ruma::ServerName;

pub use self::{
    addresses::AddressPolicy,
    body::Body,
    discovery::Destination,
    error::{Error, Refusal, Step},
    fetch::{Budget, Fetcher, Landed, Options, Redirects},
    network::{LookupError, Network, Resolver, Service, Sockets},
    server_names::ServerNames,
    tls::{Trust, TrustError},
};
use self::{body::Deadline, discovery::Discovery, pool::Peer};

/// Requests to servers by their names.
pub struct Outbound {
    env: Env,
    names: ServerNames,
    fetcher: Arc<Fetcher>,
    discovery: Discovery,
}

impl Outbound {
    pub fn new(env: Env, names: ServerNames, fetcher: Arc<Fetcher>) -> Self {
        let discovery = Discovery::new(env.clone(), fetcher.clone());
        Self { env, names, fetcher, discovery }
    }

    /// Whether this server may talk with `server`, in either direction.
    pub fn permits(&self, server: &ServerName) -> bool {
        self.names.permits(server)
    }

    /// How `server` is found, for people: one sentence per step taken.
    pub async fn explain(&self, server: &ServerName) -> (Result<Destination, Error>, Vec<String>) {
        let mut steps = Vec::new();
        (self.discovery.find(server, &mut steps).await, steps)
    }

    /// For URLs, through the same guards.
    pub fn fetcher(&self) -> &Arc<Fetcher> {
        &self.fetcher
    }

    /// Sends `request`, whose URI is a path with a query. Redirects are not followed.
    pub async fn send(
        &self,
        server: &ServerName,
        request: Request<Bytes>,
        budget: Budget,
    ) -> Result<Response<Bytes>, Error> {
        body::collected(self.open(server, request, budget).await?).await
    }

    /// As [`Outbound::send`], with the body as it comes.
    pub async fn open(
        &self,
        server: &ServerName,
        request: Request<Bytes>,
        budget: Budget,
    ) -> Result<Response<Body>, Error> {
        if !self.names.permits(server) {
            return Err(Refusal::Server(server.to_owned()).into());
        }
        let exchange = Box::pin(self.exchange(server, request, budget));
        let timed_out = || Error::TimedOut { step: Step::Answer, after: budget.timeout };
        self.env.timeout(budget.timeout, exchange).await.ok_or_else(timed_out)?
    }

    async fn exchange(
        &self,
        server: &ServerName,
        request: Request<Bytes>,
        budget: Budget,
    ) -> Result<Response<Body>, Error> {
        let deadline = Deadline::of(budget, &self.env);
        let destination = self.discovery.find(server, &mut Vec::new()).await?;
        let request = addressed_to(&destination.host, request)?;
        let mut failure = None;
        for endpoint in &destination.endpoints {
            let peer = Peer::secure(endpoint.clone(), destination.certificate_name.clone());
            let exchange = self.fetcher.pool.exchange(&peer, request.clone(), budget.body_size_max, deadline);
            match exchange.await {
                Err(error) if error.is_before_sending() => failure = Some(error),
                outcome => return outcome,
            }
        }
        Err(failure
            .unwrap_or_else(|| Error::unreachable(Step::Resolve, format!("{server} has no addresses"))))
    }
}

/// The request with the authority in its URI, for HTTP/2, and in `Host`, for HTTP/1.1.
fn addressed_to(host: &str, request: Request<Bytes>) -> Result<Request<Bytes>, Error> {
    let invalid = |what: &str| Error::unreachable(Step::Send, format!("{what} cannot be sent"));
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    parts.uri = Uri::builder()
        .scheme("https")
        .authority(host)
        .path_and_query(path)
        .build()
        .map_err(|_| invalid("the path"))?;
    let host = HeaderValue::from_str(host).map_err(|_| invalid("the host"))?;
    parts.headers.insert(header::HOST, host);
    Ok(Request::from_parts(parts, body))
}
