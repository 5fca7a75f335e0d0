//! Connections. The one place that connects to anything, so what it refuses is refused: it looks at the very address that
//! it connects to, whatever was looked up or checked before.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures::{
    FutureExt, StreamExt,
    future::{self, Either},
    stream::FuturesUnordered,
};
use myelin_core::Env;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    addresses::AddressPolicy,
    error::{Error, Refusal, Step},
    network::Network,
    tls,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// After this the next address is tried beside the one that does not answer (RFC 8305).
const STAGGER: Duration = Duration::from_millis(250);
/// Of one name.
const ADDRESSES_MAX: usize = 8;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    Address(IpAddr),
    Name(String),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// Where to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    pub host: Host,
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

pub struct Dialer {
    env: Env,
    pub network: Network,
    addresses: AddressPolicy,
    tls: TlsConnector,
}

impl Dialer {
    pub fn new(env: Env, network: Network, addresses: AddressPolicy, tls: ClientConfig) -> Self {
        Self { env, network, addresses, tls: TlsConnector::from(Arc::new(tls)) }
    }

    /// A connection to the first address that answers.
    pub async fn connect(&self, endpoint: &Endpoint) -> Result<TcpStream, Error> {
        let mut waiting = self.addresses_of(&endpoint.host).await?.into_iter();
        let mut attempts = FuturesUnordered::new();
        let mut failure = Error::unreachable(Step::Resolve, format!("{} has no addresses", endpoint.host));
        loop {
            match waiting.next() {
                Some(address) => attempts.push(self.attempt(endpoint, address)),
                None if attempts.is_empty() => return Err(failure),
                None => {}
            }
            let pause = match waiting.len() {
                0 => future::pending().boxed(),
                _ => self.env.clock.sleep(STAGGER),
            };
            match future::select(attempts.next(), pause).await {
                Either::Left((Some(Ok(stream)), _)) => return Ok(stream),
                Either::Left((Some(Err(error)), _)) => failure = error,
                Either::Left((None, _)) | Either::Right(_) => {}
            }
        }
    }

    pub async fn secure(
        &self,
        stream: TcpStream,
        name: &ServerName<'static>,
    ) -> Result<TlsStream<TcpStream>, Error> {
        let failed = |reason: String| Error::Tls { host: name.to_str().into_owned(), reason };
        let handshake = self.tls.connect(name.clone(), stream);
        match self.env.timeout(HANDSHAKE_TIMEOUT, handshake).await {
            Some(secured) => secured.map_err(|error| failed(tls::explain(&error))),
            None => Err(failed("the handshake took too long".into())),
        }
    }

    async fn addresses_of(&self, host: &Host) -> Result<Vec<IpAddr>, Error> {
        match host {
            Host::Address(address) => Ok(vec![*address]),
            Host::Name(name) => {
                let found = self.network.resolver.addresses(name).await;
                let found =
                    found.map_err(|error| Error::unreachable(Step::Resolve, format!("{name}: {error}")))?;
                Ok(alternating(found))
            }
        }
    }

    async fn attempt(&self, endpoint: &Endpoint, address: IpAddr) -> Result<TcpStream, Error> {
        if !self.addresses.permits(address) {
            return Err(Refusal::Address { host: endpoint.host.to_string(), address }.into());
        }
        let step = || match endpoint.host {
            Host::Address(_) => Step::Connect(endpoint.to_string()),
            Host::Name(_) => Step::Connect(format!("{endpoint} ({address})")),
        };
        let connecting = self.network.sockets.connect(SocketAddr::new(address, endpoint.port));
        let stream = match self.env.timeout(CONNECT_TIMEOUT, connecting).await {
            Some(connected) => connected.map_err(|error| Error::unreachable(step(), error))?,
            None => return Err(Error::TimedOut { step: step(), after: CONNECT_TIMEOUT }),
        };
        // Small requests must not wait for company.
        stream.set_nodelay(true).ok();
        Ok(stream)
    }
}

/// IPv6 and IPv4 in turn, so that a broken family costs one attempt.
fn alternating(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let (six, four): (Vec<_>, Vec<_>) = addresses.into_iter().partition(IpAddr::is_ipv6);
    let pairs = six.len().max(four.len());
    let in_turn = (0..pairs).flat_map(|n| [six.get(n), four.get(n)]).flatten().copied();
    in_turn.take(ADDRESSES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_alternate_and_addresses_are_bounded() {
        let list = |texts: &[&str]| -> Vec<IpAddr> {
            texts.iter().map(|text| text.parse().expect("an address")).collect()
        };
        let mixed = list(&["1.1.1.1", "1.1.1.2", "1.1.1.3", "::2"]);
        assert_eq!(alternating(mixed), list(&["::2", "1.1.1.1", "1.1.1.2", "1.1.1.3"]));
        let many = (1..=20).map(|n| IpAddr::from([1, 1, 1, n])).collect();
        assert_eq!(alternating(many).len(), ADDRESSES_MAX);
    }

    #[test]
    fn endpoints_are_shown_as_in_urls() {
        let endpoint = |host, port| Endpoint { host, port }.to_string();
        assert_eq!(endpoint(Host::Name("a.org".into()), 443), "a.org:443");
        assert_eq!(endpoint(Host::Address([0, 0, 0, 0, 0, 0, 0, 1].into()), 8448), "[::1]:8448");
    }
}
