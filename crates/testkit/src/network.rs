//! The network between simulated servers: a request goes to the router of the server that it names, and is worked on
//! by that server's machine. What goes wrong on the way is what [`Faults`] says.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    future::pending,
    hash::{DefaultHasher, Hash, Hasher},
    net::{Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{Extension, Router, body::Body, extract::ConnectInfo};
use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use http::{Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use myelin_core::Env;
use myelin_federation::{Budget, Pieces, Transport, TransportError};
use myelin_media::{FetchLimits, Page, PageError, Pages};
use myelin_testenv::Sim;
use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName};
use tower::ServiceExt;
use url::Url;

use crate::{
    faults::{Faults, happens},
    machine,
};

/// Exchanges that are kept to be shown when something fails.
const TRACE_MAX: usize = 400;
/// Pieces of a body that is read as it comes.
const PIECE_SIZE_MAX: usize = 4_096;
/// What one transaction may carry (Server-Server API, "Transactions").
pub(crate) const TRANSACTION_PDUS_MAX: usize = 50;
const TRANSACTION_EDUS_MAX: usize = 100;
/// What a duplicated request is late by, in milliseconds.
const DUPLICATE_LATE_MS: usize = 10_000;

/// Cheap to clone; clones are the same network. By default it knows no time, and so no faults but cuts.
#[derive(Clone, Default)]
pub struct Network(Arc<Inner>);

#[derive(Default)]
struct Inner {
    nodes: Mutex<HashMap<OwnedServerName, Node>>,
    faults: Mutex<Faults>,
    env: Option<Env>,
    trace: Mutex<Trace>,
    notaries: Mutex<Vec<OwnedServerName>>,
    own_faults: Mutex<Vec<String>>,
    denied: Mutex<HashSet<(OwnedServerName, OwnedServerName)>>,
}

#[derive(Default)]
struct Trace {
    newest: VecDeque<String>,
    all: DefaultHasher,
}

#[derive(Clone)]
struct Node {
    router: Router,
    /// Where requests are worked on; who has none works where it is asked.
    machine: Option<Sim>,
}

impl Network {
    /// A network in which time passes.
    pub fn new(sim: &Sim) -> Self {
        Self(Arc::new(Inner { env: Some(sim.env()), ..Inner::default() }))
    }

    /// Somebody answers under this name from now on.
    pub fn connect(&self, name: &ServerName, router: Router) {
        self.0.nodes.lock().insert(name.to_owned(), Node { router, machine: None });
    }

    pub(crate) fn connect_machine(&self, name: &ServerName, router: Router, machine: Sim) {
        self.0.nodes.lock().insert(name.to_owned(), Node { router, machine: Some(machine) });
    }

    /// Nobody reaches the server any more, and it reaches nobody.
    pub fn disconnect(&self, name: &ServerName) {
        self.0.nodes.lock().remove(name);
    }

    pub fn faults(&self) -> Faults {
        self.0.faults.lock().clone()
    }

    /// From now on; what is on its way already arrives as it would have.
    pub fn set_faults(&self, faults: Faults) {
        *self.0.faults.lock() = faults;
    }

    /// The newest exchanges, oldest first.
    pub fn trace(&self) -> Vec<String> {
        self.0.trace.lock().newest.iter().cloned().collect()
    }

    /// A hash of the whole trace, also of what is no longer kept.
    pub fn fingerprint(&self) -> u64 {
        self.0.trace.lock().all.finish()
    }

    /// Requests that were answered with an internal error, and transactions that carry too much, oldest first.
    pub fn own_faults(&self) -> Vec<String> {
        self.0.own_faults.lock().clone()
    }

    /// The configuration of `server` denies `other` from now on.
    pub fn deny(&self, server: &ServerName, other: &ServerName) {
        self.0.denied.lock().insert((server.to_owned(), other.to_owned()));
    }

    /// What answers under this name: to put something before it.
    pub fn router_of(&self, name: &ServerName) -> Option<Router> {
        Some(self.0.nodes.lock().get(name)?.router.clone())
    }

    /// What one server sees of the network.
    pub fn port_of(&self, name: &ServerName) -> Arc<dyn Transport> {
        Arc::new(Port { network: self.clone(), name: name.to_owned() })
    }

    /// The web as one server sees it: who answers under a name answers its URLs.
    pub fn web_of(&self, name: &ServerName) -> Arc<dyn Pages> {
        Arc::new(Port { network: self.clone(), name: name.to_owned() })
    }

    /// Simulated time, as servers have it; 0 where none passes.
    pub fn now_ms(&self) -> u64 {
        self.0.env.as_ref().map_or(0, Env::now_ms)
    }

    /// Servers that start from now on ask these for keys which their owners do not hand out.
    pub fn trust_notaries(&self, notaries: Vec<OwnedServerName>) {
        *self.0.notaries.lock() = notaries;
    }

    pub(crate) fn notaries(&self) -> Vec<OwnedServerName> {
        self.0.notaries.lock().clone()
    }

    /// Identity servers as one server sees them: whoever has the name.
    pub fn identity_servers_of(&self, name: &ServerName) -> Arc<dyn myelin_federation::IdentityTransport> {
        Arc::new(Port { network: self.clone(), name: name.to_owned() })
    }

    /// Something to read in the trace.
    pub fn note(&self, what: &str) {
        let now_ms = self.now_ms() % 10_000_000;
        let line = format!("{:>5}.{:03} {what}", now_ms / 1_000, now_ms % 1_000);
        let mut trace = self.0.trace.lock();
        if trace.newest.len() == TRACE_MAX {
            trace.newest.pop_front();
        }
        line.hash(&mut trace.all);
        trace.newest.push_back(line);
    }
}

struct Port {
    network: Network,
    name: OwnedServerName,
}

impl Transport for Port {
    fn send<'a>(
        &'a self,
        server: &'a ServerName,
        request: Request<Bytes>,
        budget: Budget,
    ) -> BoxFuture<'a, Result<Response<Bytes>, TransportError>> {
        async move {
            let what = format!("{} -> {server} {} {}", self.name, request.method(), request.uri());
            if self.network.0.carries_too_much(&self.name, &request) {
                self.network.0.own_faults.lock().push(format!("too much in one transaction: {what}"));
            }
            let exchange = Exchange { network: &self.network.0, from: &self.name, to: server };
            let outcome = match &self.network.0.env {
                None => exchange.run(request).await,
                Some(env) => env
                    .timeout(budget.timeout, exchange.run(request))
                    .await
                    .unwrap_or(Err(TransportError::Timeout)),
            };
            let outcome = outcome.and_then(|answer| match answer.body().len() {
                size if size > budget.body_size_max => Err(TransportError::TooLarge(budget.body_size_max)),
                _ => Ok(answer),
            });
            match &outcome {
                Ok(answer) => {
                    if answer.status() == StatusCode::INTERNAL_SERVER_ERROR {
                        self.network.0.own_faults.lock().push(what.clone());
                    }
                    self.network.note(&format!("{what}: {}", answer.status()));
                    let body = String::from_utf8_lossy(answer.body());
                    if what.contains("/federation/v1/send/") && body.contains("\"error\"") {
                        self.network.note(&format!("{server} refuses: {body}"));
                    }
                }
                Err(error) => self.network.note(&format!("{what}: {error}")),
            }
            outcome
        }
        .boxed()
    }

    fn open<'a>(
        &'a self,
        server: &'a ServerName,
        request: Request<Bytes>,
        budget: Budget,
    ) -> BoxFuture<'a, Result<Response<Pieces>, TransportError>> {
        async move {
            let answer = self.send(server, request, budget).await?;
            Ok(answer.map(|body| self.network.0.in_pieces(body)))
        }
        .boxed()
    }

    fn open_url<'a>(
        &'a self,
        url: &'a str,
        budget: Budget,
    ) -> BoxFuture<'a, Result<Response<Pieces>, TransportError>> {
        async move {
            let unusable = || TransportError::Refused(format!("'{url}' is not fetched"));
            let (host, path) =
                url.strip_prefix("https://").and_then(|rest| rest.split_once('/')).ok_or_else(unusable)?;
            let server = <&ServerName>::try_from(host).map_err(|_| unusable())?;
            let request = Request::get(format!("/{path}")).body(Bytes::new()).map_err(|_| unusable())?;
            self.open(server, request, budget).await
        }
        .boxed()
    }

    fn permits(&self, server: &ServerName) -> bool {
        !self.network.0.denied.lock().contains(&(self.name.clone(), server.to_owned()))
    }
}

impl Inner {
    /// Of servers on machines: what puppets send is up to the test.
    fn carries_too_much(&self, from: &ServerName, request: &Request<Bytes>) -> bool {
        let of_machine = self.nodes.lock().get(from).is_some_and(|node| node.machine.is_some());
        if !of_machine || !request.uri().path().starts_with("/_matrix/federation/v1/send/") {
            return false;
        }
        let body: serde_json::Value = serde_json::from_slice(request.body()).unwrap_or_default();
        let count = |field: &str| body[field].as_array().map_or(0, Vec::len);
        count("pdus") > TRANSACTION_PDUS_MAX || count("edus") > TRANSACTION_EDUS_MAX
    }

    /// What has arrived, handed on as if it were arriving; where it is cut off, the rest never comes.
    fn in_pieces(&self, body: Bytes) -> Pieces {
        let Some(env) = self.env.clone() else { return stream::iter([Ok(body)]).boxed() };
        let broken = happens(&env, self.faults.lock().cut_off).then(|| crate::below(&env, body.len() + 1));
        let mut pieces = Vec::new();
        let mut rest = body;
        let mut left = broken.unwrap_or(rest.len());
        while left > 0 {
            let piece = rest.split_to((1 + crate::below(&env, PIECE_SIZE_MAX)).min(left));
            left -= piece.len();
            pieces.push(Ok(piece));
        }
        if broken.is_some() {
            pieces.push(Err(TransportError::Unreachable("the connection broke".to_owned())));
        }
        stream::iter(pieces).boxed()
    }
}

impl myelin_federation::IdentityTransport for Port {
    fn send<'a>(
        &'a self,
        server: &'a ServerName,
        request: Request<Bytes>,
        budget: Budget,
    ) -> BoxFuture<'a, Result<Response<Bytes>, TransportError>> {
        Transport::send(self, server, request, budget)
    }
}

impl Pages for Port {
    fn fetch<'a>(&'a self, url: &'a Url, limits: FetchLimits) -> BoxFuture<'a, Result<Page, PageError>> {
        async move {
            let size_max = usize::try_from(limits.size_max).unwrap_or(usize::MAX);
            let budget = Budget { timeout: limits.timeout, body_size_max: size_max };
            let answer = self.open_url(url.as_str(), budget).await;
            let (head, body) = answer.map_err(|error| PageError::Failed(error.to_string()))?.into_parts();
            let content_type = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
            Ok(Page {
                status: head.status.as_u16(),
                url: url.clone(),
                content_type: content_type.map(str::to_owned),
                robots: Vec::new(),
                size: None,
                body: body.map_err(std::io::Error::other).boxed(),
            })
        }
        .boxed()
    }
}

/// One request and its answer.
struct Exchange<'a> {
    network: &'a Inner,
    from: &'a ServerName,
    to: &'a ServerName,
}

impl Exchange<'_> {
    async fn run(&self, request: Request<Bytes>) -> Result<Response<Bytes>, TransportError> {
        let faults = self.network.faults.lock().clone();
        if !self.network.nodes.lock().contains_key(self.from) {
            return Err(TransportError::Unreachable(format!("'{}' is cut off", self.from)));
        }
        let for_keys = request.uri().path().starts_with("/_matrix/key/");
        if for_keys && faults.keyless.contains(self.to) {
            return pending().await;
        }
        if for_keys && faults.keys_are_spared {
            return self.deliver(&Faults::healthy(), request).await;
        }
        self.travel(&faults, self.from, self.to, request.body().len()).await?;
        if self.happens(faults.lost_requests) {
            return pending().await;
        }
        let answer = self.deliver(&faults, request).await?;
        if self.happens(faults.lost_answers) {
            return pending().await;
        }
        let faults = self.network.faults.lock().clone();
        self.travel(&faults, self.to, self.from, answer.body().len()).await?;
        Ok(answer)
    }

    fn happens(&self, per_mille: usize) -> bool {
        self.network.env.as_ref().is_some_and(|env| happens(env, per_mille))
    }

    async fn sleep(&self, duration: Duration) {
        if let (Some(env), false) = (&self.network.env, duration.is_zero()) {
            env.clock.sleep(duration).await;
        }
    }

    async fn travel(
        &self,
        faults: &Faults,
        from: &ServerName,
        to: &ServerName,
        bytes: usize,
    ) -> Result<(), TransportError> {
        let journey = self.network.env.as_ref().map(|env| faults.journey(env, bytes));
        self.sleep(journey.unwrap_or_default()).await;
        let cut = self.network.faults.lock().is_cut(from, to);
        match cut {
            true if faults.cuts_are_silent => pending().await,
            true => Err(TransportError::Unreachable(format!("no way from '{from}' to '{to}'"))),
            false => Ok(()),
        }
    }

    async fn deliver(
        &self,
        faults: &Faults,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, TransportError> {
        self.sleep(faults.slow.get(self.to).copied().unwrap_or_default()).await;
        let node = self.network.nodes.lock().get(self.to).cloned();
        let node = node.ok_or_else(|| TransportError::Unreachable(format!("nobody is '{}'", self.to)))?;
        let router = node.router.layer(Extension(ConnectInfo(address_of(self.from))));
        let Some(machine) = node.machine else { return answer(router, request).await };
        let env = machine.env();
        if self.happens(faults.duplicated) {
            deliver_late(&env, router.clone(), request.clone());
        }
        let broken = TransportError::Unreachable("the connection broke".to_owned());
        if self.happens(faults.hung_up) {
            let patience = Duration::from_millis(crate::below(&env, 20) as u64);
            let worked_on = machine::run_while_asked(&env, answer(router, request));
            env.timeout(patience, worked_on).await;
            return Err(broken);
        }
        machine::run(&env, answer(router, request)).await.unwrap_or(Err(broken))
    }
}

/// Where a server is seen to come from: an IPv6 network of its own.
fn address_of(server: &ServerName) -> SocketAddr {
    let mut hasher = DefaultHasher::new();
    server.hash(&mut hasher);
    let address = (0x2600_u128 << 112) | u128::from(hasher.finish() >> 16) << 64 | 1;
    (Ipv6Addr::from_bits(address), 8448).into()
}

fn deliver_late(env: &Env, router: Router, request: Request<Bytes>) {
    let late = Duration::from_millis(crate::below(env, DUPLICATE_LATE_MS) as u64);
    let clock = env.clock.clone();
    let again = async move {
        clock.sleep(late).await;
        answer(router, request).await.ok();
    };
    env.spawner.spawn("duplicate", again.boxed());
}

async fn answer(router: Router, request: Request<Bytes>) -> Result<Response<Bytes>, TransportError> {
    let answer = router.oneshot(request.map(Body::from)).await;
    let (parts, body) = answer.unwrap_or_else(|never| match never {}).into_parts();
    let lost = |_| TransportError::Unreachable("the answer broke off".to_owned());
    let body = body.collect().await.map_err(lost)?.to_bytes();
    Ok(Response::from_parts(parts, body))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::routing::get;
    use ruma::server_name;

    use super::*;

    const ASKING: Budget = Budget { timeout: Duration::from_secs(10), body_size_max: 100 };

    /// `a` asks `b`, which counts.
    struct Pair {
        sim: Sim,
        network: Network,
        machine: Sim,
        asked: Arc<AtomicUsize>,
    }

    impl Pair {
        fn new(faults: Faults) -> Self {
            let sim = Sim::new(3);
            let (network, machine) = (Network::new(&sim), sim.machine());
            let asked = Arc::new(AtomicUsize::new(0));
            let (counter, clock) = (asked.clone(), machine.env().clock);
            let handler = move || async move {
                clock.sleep(Duration::from_secs(1)).await;
                counter.fetch_add(1, Ordering::Relaxed);
                "yes"
            };
            network.connect_machine(
                server_name!("b"),
                Router::new().route("/_matrix/key/x", get(handler.clone())).route("/x", get(handler)),
                machine.clone(),
            );
            network.connect(server_name!("a"), Router::new());
            network.set_faults(faults);
            Self { sim, network, machine, asked }
        }

        fn ask(&self, path: &str) -> Result<Response<Bytes>, TransportError> {
            let request = Request::get(path).body(Bytes::new()).unwrap();
            let port = self.network.port_of(server_name!("a"));
            self.sim.block_on(port.send(server_name!("b"), request, ASKING))
        }

        /// How often `b` did what it was asked, once everything has come to rest.
        fn asked(&self) -> usize {
            self.sim.block_on(self.sim.env().clock.sleep(Duration::from_secs(60)));
            self.asked.load(Ordering::Relaxed)
        }
    }

    fn always(change: impl FnOnce(&mut Faults)) -> Pair {
        let mut faults = Faults::default();
        change(&mut faults);
        Pair::new(faults)
    }

    #[test]
    fn without_faults_everything_arrives_once() {
        let pair = always(|_| {});
        assert_eq!(pair.ask("/x").unwrap().body(), "yes");
        assert_eq!(pair.asked(), 1);
        assert!(pair.network.trace()[0].ends_with("a -> b GET /x: 200 OK"), "{:?}", pair.network.trace());
    }

    #[test]
    fn a_lost_request_is_a_timeout_and_does_nothing() {
        let pair = always(|faults| faults.lost_requests = 1_000);
        assert!(matches!(pair.ask("/x"), Err(TransportError::Timeout)));
        assert_eq!(pair.asked(), 0);
    }

    #[test]
    fn a_lost_answer_is_a_timeout_and_the_work_is_done() {
        let pair = always(|faults| faults.lost_answers = 1_000);
        assert!(matches!(pair.ask("/x"), Err(TransportError::Timeout)));
        assert_eq!(pair.asked(), 1);
    }

    #[test]
    fn a_duplicate_arrives_later() {
        let pair = always(|faults| faults.duplicated = 1_000);
        pair.ask("/x").unwrap();
        assert_eq!(pair.asked(), 2);
    }

    #[test]
    fn a_broken_connection_stops_the_work() {
        let pair = always(|faults| faults.hung_up = 1_000);
        assert!(matches!(pair.ask("/x"), Err(TransportError::Unreachable(_))));
        assert_eq!(pair.asked(), 0);
    }

    #[test]
    fn a_cut_refuses_or_swallows_each_way_by_itself() {
        let (a, b) = (server_name!("a"), server_name!("b"));
        let there = always(|faults| faults.cut_way(a, b));
        assert!(matches!(there.ask("/x"), Err(TransportError::Unreachable(_))));
        assert_eq!(there.asked(), 0);
        let back = always(|faults| faults.cut_way(b, a));
        assert!(matches!(back.ask("/x"), Err(TransportError::Unreachable(_))));
        assert_eq!(back.asked(), 1);
        let silent = always(|faults| {
            faults.cut(&[a], &[b]);
            faults.cuts_are_silent = true;
        });
        assert!(matches!(silent.ask("/x"), Err(TransportError::Timeout)));
    }

    #[test]
    fn slow_servers_and_thin_wires_take_their_time() {
        let took = |pair: &Pair| {
            let started_ms = pair.sim.env().now_ms();
            pair.ask("/x").unwrap();
            pair.sim.env().now_ms() - started_ms
        };
        let b = server_name!("b").to_owned();
        assert_eq!(took(&always(|faults| faults.slow = [(b, Duration::from_secs(5))].into())), 6_000);
        assert_eq!(took(&always(|faults| faults.bytes_per_second = Some(1))), 4_000, "3 bytes of an answer");
        let straggling = always(|faults| (faults.stragglers, faults.straggler_ms) = (1_000, 700..701));
        assert_eq!(took(&straggling), 2_400);
    }

    #[test]
    fn dead_key_servers_answer_everything_else() {
        let pair = always(|faults| faults.keyless = [server_name!("b").to_owned()].into());
        pair.ask("/x").unwrap();
        assert!(matches!(pair.ask("/_matrix/key/x"), Err(TransportError::Timeout)));
    }

    #[test]
    fn questions_for_keys_can_be_spared() {
        let pair = always(|faults| (faults.lost_requests, faults.keys_are_spared) = (1_000, true));
        assert!(matches!(pair.ask("/x"), Err(TransportError::Timeout)));
        pair.ask("/_matrix/key/x").unwrap();
    }

    #[test]
    fn who_goes_down_does_not_answer() {
        let pair = always(|_| {});
        let (machine, clock) = (pair.machine.clone(), pair.sim.env().clock);
        let crash = async move {
            clock.sleep(Duration::from_millis(500)).await;
            machine.switch_off();
        };
        pair.sim.env().spawner.spawn("crash", crash.boxed());
        assert!(matches!(pair.ask("/x"), Err(TransportError::Unreachable(_))));
        assert_eq!(pair.asked(), 0);
    }
}
