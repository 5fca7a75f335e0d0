//! The ports to the network: names and sockets, so that tests answer for them.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use futures::future::BoxFuture;
use tokio::net::TcpStream;

use crate::dns::SystemResolver;

/// A name could not be looked up; that it has no records is an empty answer instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LookupError(pub String);

/// An SRV record (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub priority: u16,
    pub weight: u16,
    pub port: u16,
    /// Without the dot at the end; empty if the service is decidedly not available.
    pub target: String,
}

/// Answers are cached for as long as DNS says, within bounds.
pub trait Resolver: Send + Sync + 'static {
    /// A and AAAA records, through aliases.
    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, LookupError>>;

    /// The SRV records of `_service._tcp.host`, in no order.
    fn services<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<Service>, LookupError>>;
}

/// Opens connections, without asking whether that is a good idea: the dialer does.
pub trait Sockets: Send + Sync + 'static {
    fn connect(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<TcpStream>>;
}

/// What lies below HTTP.
#[derive(Clone)]
pub struct Network {
    pub resolver: Arc<dyn Resolver>,
    pub sockets: Arc<dyn Sockets>,
}

impl Network {
    /// The network of this machine.
    pub fn system() -> Self {
        Self { resolver: Arc::new(SystemResolver::new()), sockets: Arc::new(SystemSockets) }
    }
}

struct SystemSockets;

impl Sockets for SystemSockets {
    fn connect(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<TcpStream>> {
        Box::pin(TcpStream::connect(address))
    }
}
