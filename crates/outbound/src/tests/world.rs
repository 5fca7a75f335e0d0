//! A made-up Internet: names and addresses lead to TLS servers on loopback, with certificates of the test's authority.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use http::{Request, Response, Version, header};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use myelin_core::{Env, Spawner};
use myelin_testenv::{Sim, SimClock};
use parking_lot::Mutex;
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use rustls::{crypto::ring::default_provider, pki_types::PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::{
    AddressPolicy, Budget, Fetcher, LookupError, Network, Options, Outbound, Resolver, ServerNames, Service,
    Sockets, Trust,
};

pub const BUDGET: Budget = Budget { timeout: std::time::Duration::from_secs(60), body_size_max: 100_000 };

pub struct World {
    pub clock: Arc<SimClock>,
    pub env: Env,
    pub internet: Arc<Internet>,
    pub authority: CertifiedIssuer<'static, KeyPair>,
    pub seen: Arc<Mutex<Vec<Seen>>>,
}

/// A request as a server saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The made-up address.
    pub at: String,
    pub sni: Option<String>,
    pub host: String,
    pub path: String,
    pub version: Version,
}

/// What a server answers.
#[derive(Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Bytes,
    /// After the body there is silence instead of an end.
    pub stalls: bool,
}

pub fn reply(status: u16, body: impl Into<Bytes>) -> Reply {
    Reply { status, headers: Vec::new(), body: body.into(), stalls: false }
}

pub fn redirect(to: &str) -> Reply {
    Reply { headers: vec![("location", to.to_owned())], ..reply(302, "") }
}

type Replies = Arc<dyn Fn(&str) -> Reply + Send + Sync>;

/// How a server is set up beyond its address.
#[derive(Clone)]
pub struct Setup {
    pub names: Vec<String>,
    pub http2: bool,
    pub trusted: bool,
    pub expired: bool,
    pub replies: Replies,
}

pub fn certified(name: &str) -> Setup {
    let replies: Replies = Arc::new(|_| reply(200, "{}"));
    Setup { names: vec![name.to_owned()], http2: false, trusted: true, expired: false, replies }
}

impl Setup {
    pub fn replying(self, replies: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        Self { replies: Arc::new(replies), ..self }
    }
}

impl World {
    pub fn new() -> Self {
        let clock = Arc::new(SimClock::default());
        let env = Env { clock: clock.clone(), rng: Sim::new(1).env().rng, spawner: Arc::new(TestTasks) };
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        // A name of its own, or every certificate would seem to be its own issuer.
        params.distinguished_name.push(rcgen::DnType::CommonName, "the authority of the test");
        let key = KeyPair::generate().expect("a key");
        let authority = CertifiedIssuer::self_signed(params, key).expect("an authority");
        Self { clock, env, internet: Arc::default(), authority, seen: Arc::default() }
    }

    pub fn address(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|address| address.parse().expect("an address")).collect();
        self.internet.addresses.lock().insert(name.to_owned(), addresses);
    }

    pub fn service(&self, name: &str, services: &[(u16, u16, &str)]) {
        let service = |&(priority, port, target): &(u16, u16, &str)| Service {
            priority,
            weight: 0,
            port,
            target: target.to_owned(),
        };
        self.internet.services.lock().insert(name.to_owned(), services.iter().map(service).collect());
    }

    /// A host with `/.well-known/matrix/server`, at an address of its own.
    pub async fn delegating(&self, host: &str, address: &str, document: &str) {
        let document = document.to_owned();
        self.address(host, &[address]);
        let setup = certified(host).replying(move |_| reply(200, document.clone()));
        self.serve(&format!("{address}:443"), setup).await;
    }

    /// Starts a server that is reached at `at`.
    pub async fn serve(&self, at: &str, setup: Setup) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let made_up = at.parse().expect("an address and port");
        let real = listener.local_addr().expect("an address");
        self.internet.servers.lock().insert(made_up, real);
        let acceptor = self.acceptor(&setup);
        let server = Served { at: at.to_owned(), replies: setup.replies, seen: self.seen.clone() };
        let accepting = async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, server) = (acceptor.clone(), server.clone());
                TestTasks.spawn("connection", server.connection(stream, acceptor).boxed());
            }
        };
        TestTasks.spawn("server", accepting.boxed());
    }

    fn acceptor(&self, setup: &Setup) -> TlsAcceptor {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(setup.names.clone()).expect("names");
        if setup.expired {
            params.not_after = rcgen::date_time_ymd(2001, 1, 1);
        }
        let certificate = match setup.trusted {
            true => params.signed_by(&key, &self.authority).expect("a certificate"),
            false => params.self_signed(&key).expect("a certificate"),
        };
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("protocols")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("a server");
        if setup.http2 {
            config.alpn_protocols = vec![b"h2".to_vec()];
        }
        TlsAcceptor::from(Arc::new(config))
    }

    pub fn fetcher(&self, addresses: AddressPolicy) -> Arc<Fetcher> {
        let trust = Trust::only(vec![self.authority.der().clone()]);
        self.fetcher_with(Options { addresses, trust, connections_max: 8 })
    }

    pub fn fetcher_with(&self, options: Options) -> Arc<Fetcher> {
        let network = Network { resolver: self.internet.clone(), sockets: self.internet.clone() };
        Arc::new(Fetcher::new(self.env.clone(), network, options).expect("TLS"))
    }

    pub fn outbound(&self) -> Outbound {
        let fetcher = self.fetcher(AddressPolicy::new(vec![], vec![]));
        Outbound::new(self.env.clone(), ServerNames::new(&[], &[]), fetcher)
    }

    pub fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock())
    }

    /// Waits, while other tasks run, until `condition` holds.
    pub async fn until(&self, condition: impl Fn(&[Seen]) -> bool) {
        while !condition(&self.seen.lock()) {
            tokio::task::yield_now().await;
        }
    }
}

/// DNS and routing.
#[derive(Default)]
pub struct Internet {
    pub addresses: Mutex<HashMap<String, Vec<IpAddr>>>,
    pub services: Mutex<HashMap<String, Vec<Service>>>,
    pub servers: Mutex<HashMap<SocketAddr, SocketAddr>>,
    /// Every address that somebody tried to connect to.
    pub dialed: Mutex<Vec<SocketAddr>>,
    /// Answers of DNS that come first, one per question.
    pub first_answers: Mutex<Vec<IpAddr>>,
    /// Look-ups that panic before one is answered.
    pub panics: AtomicUsize,
}

impl Resolver for Internet {
    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, LookupError>> {
        let due = self.panics.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        assert!(due.is_err(), "a test panics here");
        if let Some(first) = self.first_answers.lock().pop() {
            return std::future::ready(Ok(vec![first])).boxed();
        }
        let found = self.addresses.lock().get(host).cloned();
        std::future::ready(Ok(found.unwrap_or_default())).boxed()
    }

    fn services<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<Service>, LookupError>> {
        let found = match name.contains("broken") {
            true => Err(LookupError("SERVFAIL".into())),
            false => Ok(self.services.lock().get(name).cloned().unwrap_or_default()),
        };
        std::future::ready(found).boxed()
    }
}

impl Sockets for Internet {
    fn connect(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<TcpStream>> {
        self.dialed.lock().push(address);
        match self.servers.lock().get(&address).copied() {
            Some(real) => TcpStream::connect(real).boxed(),
            None => std::future::ready(Err(io::ErrorKind::ConnectionRefused.into())).boxed(),
        }
    }
}

#[derive(Clone)]
struct Served {
    at: String,
    replies: Replies,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Served {
    async fn connection(self, stream: TcpStream, acceptor: TlsAcceptor) {
        let Ok(stream) = acceptor.accept(stream).await else { return };
        let sni = stream.get_ref().1.server_name().map(str::to_owned);
        let service = hyper::service::service_fn(|request: Request<Incoming>| {
            let answer = self.answer(&request, sni.clone());
            async move { Ok::<_, Infallible>(answer) }
        });
        let builder = auto::Builder::new(TokioExecutor::new());
        builder.serve_connection(TokioIo::new(stream), service).await.ok();
    }

    fn answer(
        &self,
        request: &Request<Incoming>,
        sni: Option<String>,
    ) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
        let header = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
        let host = header.or_else(|| request.uri().authority().map(|authority| authority.as_str()));
        let path = request.uri().path_and_query().map_or("", |path| path.as_str()).to_owned();
        let host = host.unwrap_or_default().to_owned();
        let version = request.version();
        self.seen.lock().push(Seen { at: self.at.clone(), sni, host, path: path.clone(), version });
        let Reply { status, headers, body, stalls } = (self.replies)(&path);
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(name, value);
        }
        let body = stream::iter([Ok(Frame::data(body))]);
        let body = match stalls {
            true => StreamBody::new(body.chain(stream::pending())).boxed_unsync(),
            false => StreamBody::new(body).boxed_unsync(),
        };
        response.body(body).expect("an answer")
    }
}

pub struct TestTasks;

impl Spawner for TestTasks {
    fn spawn(&self, _name: &'static str, task: BoxFuture<'static, ()>) {
        #[expect(clippy::disallowed_methods, reason = "sockets need the runtime")]
        tokio::spawn(task);
    }

    fn run_blocking(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        work();
        std::future::ready(()).boxed()
    }
}
