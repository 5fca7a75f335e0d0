//! The way to other servers, as configured: what federation needs of the network.

use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture};
use http::{Request, Response};
use myelin_core::Env;
use myelin_federation::{Budget, IdentityTransport, Pieces, Transport, TransportError};
use myelin_outbound::{
    AddressPolicy, Body, Error, Fetcher, Network, Options, Outbound, Redirects, ServerNames, Step, Trust,
};
use ruma::ServerName;
use rustix::process::{Resource, getrlimit};
use url::Url;

use crate::{config::keys, serve::tls};

/// A quarter of the open files, within these bounds.
const CONNECTIONS_MIN: usize = 64;
const CONNECTIONS_MAX: usize = 2_048;
const IDENTITY_CONNECTIONS_MAX: usize = 16;

/// How many connections to other servers may be open at once.
pub fn connections_max() -> usize {
    let descriptors = getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok());
    descriptors
        .map_or(CONNECTIONS_MAX, |descriptors| (descriptors / 4).clamp(CONNECTIONS_MIN, CONNECTIONS_MAX))
}

pub fn transport(config: &keys::Federation, env: &Env) -> anyhow::Result<Arc<dyn Transport>> {
    let addresses = AddressPolicy::new(config.allow_addresses.clone(), config.deny_addresses.clone());
    Ok(Arc::new(ToServers(outbound(config, addresses, env)?)))
}

/// Requests to servers, with `addresses` in the place of what is configured.
pub fn outbound(config: &keys::Federation, addresses: AddressPolicy, env: &Env) -> anyhow::Result<Outbound> {
    let names = match config.enabled {
        true => ServerNames::new(&config.allow, &config.deny),
        false => ServerNames::nobody(),
    };
    let options = Options { addresses, trust: trust(config)?, connections_max: connections_max() };
    let fetcher = Fetcher::new(env.clone(), Network::system(), options)?;
    Ok(Outbound::new(env.clone(), names, Arc::new(fetcher)))
}

/// The authorities whose certificates are believed.
pub fn trust(config: &keys::Federation) -> anyhow::Result<Trust> {
    if !config.verify_certificates {
        return Ok(Trust::unverified());
    }
    let own = config.ca_file.as_ref().map(|file| tls::certificates(file)).transpose();
    Ok(Trust::system().and(own.context("federation.ca_file")?.unwrap_or_default()))
}

/// Requests to identity servers: HTTPS at their own names, through the same guards.
pub fn identity_transport(
    config: &keys::Federation,
    env: &Env,
) -> anyhow::Result<Arc<dyn IdentityTransport>> {
    let addresses = AddressPolicy::new(config.allow_addresses.clone(), config.deny_addresses.clone());
    let options = Options { addresses, trust: trust(config)?, connections_max: IDENTITY_CONNECTIONS_MAX };
    Ok(Arc::new(ToIdentityServers(Fetcher::new(env.clone(), Network::system(), options)?)))
}

struct ToIdentityServers(Fetcher);

impl IdentityTransport for ToIdentityServers {
    fn send<'a>(
        &'a self,
        server: &'a ServerName,
        request: Request<Bytes>,
        budget: Budget,
    ) -> BoxFuture<'a, Result<Response<Bytes>, TransportError>> {
        let budget = cost(budget);
        let never = Redirects { follow_max: 0, plain_http: false };
        async move {
            let url = format!("https://{server}{}", request.uri());
            let url = url.parse().map_err(|_| TransportError::Refused(format!("'{url}' is not a URL")))?;
            self.0.fetch(&url, request, never, budget).await.map_err(|error| told(&error))
        }
        .boxed()
    }
}

/// What another server names instead of sending it: media in an object store, mostly.
const REDIRECTS: Redirects = Redirects { follow_max: 3, plain_http: false };

struct ToServers(Outbound);

impl Transport for ToServers {
    fn send<'a>(
        &'a self,
        server: &'a ServerName,
        request: Request<Bytes>,
        budget: Budget,
    ) -> BoxFuture<'a, Result<Response<Bytes>, TransportError>> {
        async move { self.0.send(server, request, cost(budget)).await.map_err(|error| told(&error)) }.boxed()
    }

    fn open<'a>(
        &'a self,
        server: &'a ServerName,
        request: Request<Bytes>,
        budget: Budget,
    ) -> BoxFuture<'a, Result<Response<Pieces>, TransportError>> {
        async move {
            self.0.open(server, request, cost(budget)).await.map(in_pieces).map_err(|error| told(&error))
        }
        .boxed()
    }

    fn open_url<'a>(
        &'a self,
        url: &'a str,
        budget: Budget,
    ) -> BoxFuture<'a, Result<Response<Pieces>, TransportError>> {
        async move {
            let unusable = |_| TransportError::Unreachable("what it names is not a URL".to_owned());
            let url = Url::parse(url).map_err(unusable)?;
            let request = Request::new(Bytes::new());
            let opened = self.0.fetcher().open(&url, request, REDIRECTS, cost(budget)).await;
            opened.map(in_pieces).map_err(|error| told(&error))
        }
        .boxed()
    }

    fn permits(&self, server: &ServerName) -> bool {
        self.0.permits(server)
    }
}

fn cost(Budget { timeout, body_size_max }: Budget) -> myelin_outbound::Budget {
    myelin_outbound::Budget { timeout, body_size_max }
}

fn in_pieces(response: Response<Body>) -> Response<Pieces> {
    response.map(|body| body.into_stream().map_err(|error| told(&error)).boxed())
}

fn told(error: &Error) -> TransportError {
    match error {
        Error::Refused(refusal) => TransportError::Refused(refusal.to_string()),
        Error::TimedOut { step: Step::Answer, .. } => TransportError::Timeout,
        Error::TooLarge(size) => TransportError::TooLarge(*size),
        error => TransportError::Unreachable(error.to_string()),
    }
}
