//! One URL, through the guards: for documents and services that are named by URLs from outside.

use std::{collections::HashSet, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use myelin_core::Env;
use rustls::pki_types::ServerName;
use url::Url;

use crate::{
    addresses::AddressPolicy,
    body::{self, Body, Deadline},
    dial::{Dialer, Endpoint, Host},
    error::{Error, Refusal, Step},
    network::Network,
    pool::{Peer, Pool},
    tls::{Trust, TrustError},
};

/// What one exchange may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// From the first look-up to the last byte of the answer.
    pub timeout: Duration,
    /// Bytes of the answer's body.
    pub body_size_max: usize,
}

/// How addresses and certificates are judged, and how much may be open.
pub struct Options {
    pub addresses: AddressPolicy,
    pub trust: Trust,
    /// Connections open at once, idle ones included.
    pub connections_max: usize,
}

/// What a URL may lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redirects {
    /// How many are followed; of more than that, or of a circle, the request fails.
    pub follow_max: usize,
    /// Whether `http` is fetched too, at first and after a redirect.
    pub plain_http: bool,
}

/// The URL that an answer came from in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Landed(pub Url);

/// Requests to URLs.
pub struct Fetcher {
    env: Env,
    pub(crate) pool: Arc<Pool>,
}

impl Fetcher {
    pub fn new(env: Env, network: Network, options: Options) -> Result<Self, TrustError> {
        let tls = options.trust.into_config()?;
        let dialer = Dialer::new(env.clone(), network, options.addresses, tls);
        Ok(Self { env: env.clone(), pool: Pool::new(env, dialer, options.connections_max) })
    }

    pub async fn get(
        &self,
        url: &Url,
        redirects: Redirects,
        budget: Budget,
    ) -> Result<Response<Bytes>, Error> {
        self.fetch(url, Request::new(Bytes::new()), redirects, budget).await
    }

    /// Sends `request` to `url`, whatever its own URI is. Only GET follows redirects.
    pub async fn fetch(
        &self,
        url: &Url,
        request: Request<Bytes>,
        redirects: Redirects,
        budget: Budget,
    ) -> Result<Response<Bytes>, Error> {
        body::collected(self.open(url, request, redirects, budget).await?).await
    }

    /// As [`Fetcher::fetch`], with the body as it comes. Where it came from, after all redirects, is among the extensions
    /// of the answer: [`Landed`].
    pub async fn open(
        &self,
        url: &Url,
        request: Request<Bytes>,
        redirects: Redirects,
        budget: Budget,
    ) -> Result<Response<Body>, Error> {
        let following = Box::pin(self.follow(url.clone(), request, redirects, budget));
        let timed_out = || Error::TimedOut { step: Step::Answer, after: budget.timeout };
        self.env.timeout(budget.timeout, following).await.ok_or_else(timed_out)?
    }

    async fn follow(
        &self,
        mut url: Url,
        request: Request<Bytes>,
        redirects: Redirects,
        budget: Budget,
    ) -> Result<Response<Body>, Error> {
        let deadline = Deadline::of(budget, &self.env);
        let mut visited = HashSet::new();
        loop {
            if url.scheme() != "https" && !(url.scheme() == "http" && redirects.plain_http) {
                return Err(Refusal::Scheme(url.scheme().to_owned()).into());
            }
            let mut response = self.once(&url, request.clone(), budget.body_size_max, deadline).await?;
            if !is_redirect(response.status()) || request.method() != Method::GET {
                response.extensions_mut().insert(Landed(url));
                return Ok(response);
            }
            visited.insert(url.clone());
            url = next(&url, &response)?;
            if visited.contains(&url) {
                return Err(Error::Redirect(format!("{url} leads back to itself")));
            }
            if visited.len() > redirects.follow_max {
                return Err(Error::Redirect(format!("more than {}", redirects.follow_max)));
            }
        }
    }

    async fn once(
        &self,
        url: &Url,
        mut request: Request<Bytes>,
        body_size_max: usize,
        deadline: Deadline,
    ) -> Result<Response<Body>, Error> {
        let unusable = |what: &str| Error::unreachable(Step::Send, format!("{url} {what}"));
        let peer = peer(url).ok_or_else(|| unusable("names no host"))?;
        let authority = &url[url::Position::BeforeHost..url::Position::AfterPort];
        let host = HeaderValue::from_str(authority).map_err(|_| unusable("names no host"))?;
        let mut bare = url.clone();
        bare.set_fragment(None);
        bare.set_username("")
            .and_then(|()| bare.set_password(None))
            .map_err(|()| unusable("names no host"))?;
        *request.uri_mut() = bare.as_str().parse().map_err(|_| unusable("cannot be sent"))?;
        request.headers_mut().insert(header::HOST, host);
        self.pool.exchange(&peer, request, body_size_max, deadline).await
    }
}

fn peer(url: &Url) -> Option<Peer> {
    let host = match url.host()? {
        url::Host::Domain(name) => Host::Name(name.to_owned()),
        url::Host::Ipv4(address) => Host::Address(address.into()),
        url::Host::Ipv6(address) => Host::Address(address.into()),
    };
    let endpoint = Endpoint { host, port: url.port_or_known_default()? };
    match url.scheme() {
        "http" => Some(Peer::plain(endpoint)),
        _ => Some(Peer::secure(endpoint.clone(), certificate_name(&endpoint.host)?)),
    }
}

/// Whom the certificate must be made out to; for an address, rustls sends no SNI.
pub fn certificate_name(host: &Host) -> Option<ServerName<'static>> {
    match host {
        Host::Address(address) => Some(ServerName::from(*address)),
        Host::Name(name) => ServerName::try_from(name.clone()).ok(),
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn next(url: &Url, response: &Response<Body>) -> Result<Url, Error> {
    let location = response.headers().get(header::LOCATION).and_then(|location| location.to_str().ok());
    let location = location.ok_or_else(|| Error::Redirect(format!("{url} leads nowhere")))?;
    url.join(location)
        .map_err(|_| Error::Redirect(format!("{url} leads to '{location}', which is not a URL")))
}
