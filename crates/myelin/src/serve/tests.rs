//! What becomes of connections that are too many, too slow or say too much: over real sockets, in simulated time. Nothing
//! here waits for real time but for what comes through a socket.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    routing::{get, post},
};
use futures::{FutureExt, future::Either, pin_mut, stream};
use myelin_core::Env;
use myelin_testenv::Sim;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{oneshot, watch},
};

use super::{connections::Connections, listener::Bound};
use crate::config::types::{Listener, Tls};

/// In this time everything happens that happens at all.
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// A listener that answers.
struct Host {
    sim: Sim,
    address: SocketAddr,
    /// Requests that got through.
    asked: Arc<AtomicUsize>,
    _stop: watch::Sender<bool>,
}

impl Host {
    async fn start(routes: Router, tls: Option<Tls>, connections_max: usize) -> Self {
        let sim = Sim::new(1);
        let env = Env { clock: sim.env().clock, ..crate::system::env() };
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        let router = routes.layer(axum::middleware::map_request(move |request: axum::extract::Request| {
            counted.fetch_add(1, Ordering::SeqCst);
            async move { request }
        }));
        let listener = Listener { address: SocketAddr::from(([127, 0, 0, 1], 0)), tls, serves: Vec::new() };
        let bound = Bound::bind(&listener, router).await.expect("a free port");
        let address = bound.address;
        let (stop, stopping) = watch::channel(false);
        let connections = Arc::new(Connections::new(connections_max, 1_000, Vec::new()));
        env.spawner.spawn("listener", bound.run(env.clone(), connections, stopping).boxed());
        Self { sim, address, asked, _stop: stop }
    }

    /// Answers `/`, and tells at `/count` how long a body was.
    async fn ordinary() -> Self {
        let count = async |body: Body| match to_bytes(body, usize::MAX).await {
            Ok(bytes) => bytes.len().to_string(),
            Err(error) => format!("{error:?}"),
        };
        let routes = Router::new().route("/", get(async || "hello")).route("/count", post(count));
        Self::start(routes, None, 100).await
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    async fn connects(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("somebody listens")
    }

    /// Says this, and what is answered until the connection ends.
    async fn exchange(&self, said: &str) -> String {
        let mut stream = self.connects().await;
        // Who is cut off may not get rid of all of it.
        stream.write_all(said.as_bytes()).await.ok();
        read_to_end(&mut stream).await
    }

    /// Lets time pass until this happens.
    async fn in_time<F: Future>(&self, event: F) -> F::Output {
        let env = self.sim.env();
        let ends_ms = env.now_ms() + DAY_MS;
        let passing = async {
            while env.now_ms() < ends_ms {
                self.sim.clock().jump_to_next_timer();
                tokio::task::yield_now().await;
            }
        };
        pin_mut!(event, passing);
        match futures::future::select(event, passing).await {
            Either::Left((output, _)) => output,
            Either::Right(_) => panic!("nothing happened for a day"),
        }
    }
}

/// What can still be read, also of a connection that is broken off.
async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok();
    String::from_utf8(answer).expect("text")
}

/// Reads until this has come.
async fn read_until(stream: &mut TcpStream, end: &str) {
    let mut answer = Vec::new();
    while !answer.ends_with(end.as_bytes()) {
        answer.push(stream.read_u8().await.expect("more"));
    }
}

fn get_with(headers: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n{headers}\r\n")
}

#[tokio::test]
async fn a_head_has_limits() {
    let host = Host::ordinary().await;
    let large = |size: usize| get_with(&format!("X-Large: {}\r\n", "x".repeat(size)));
    let many = |count: usize| get_with(&(0..count).map(|n| format!("X-{n}: x\r\n")).collect::<String>());
    for fine in [large(40_000), many(90)] {
        let answer = host.exchange(&fine).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
    }
    assert_eq!(host.asked(), 2);
    let answer = host.exchange(&many(150)).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    for too_much in [large(70_000), large(10_000_000)] {
        let answer = host.exchange(&too_much).await;
        // Of a connection that is cut off while it says more the answer may be lost.
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
    assert_eq!(host.asked(), 2, "nobody was asked");
}

#[tokio::test]
async fn a_body_must_keep_coming() {
    let host = Host::ordinary().await;
    let head = "POST /count HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nContent-Length: 100000\r\n\r\n";
    let answer = host.exchange(&format!("{head}{}", "x".repeat(100_000))).await;
    assert!(answer.ends_with("100000"), "{answer}");
    let mut slow = host.connects().await;
    slow.write_all(format!("{head}some of it").as_bytes()).await.expect("taken");
    let answer = host.in_time(read_to_end(&mut slow)).await;
    assert!(answer.contains("comes too slowly"), "{answer}");
}

#[tokio::test]
async fn who_says_nothing_is_not_waited_for() {
    let host = Host::ordinary().await;
    for said in ["", "PRI * HTTP/2.0"] {
        let mut silent = host.connects().await;
        silent.write_all(said.as_bytes()).await.expect("taken");
        assert_eq!(host.in_time(read_to_end(&mut silent)).await, "", "after '{said}'");
    }
    assert_eq!(host.asked(), 0);
}

#[tokio::test]
async fn who_does_not_shake_hands_is_not_waited_for() {
    let directory = tempfile::tempdir().expect("a directory");
    let files = Tls { cert: directory.path().join("cert"), key: directory.path().join("key") };
    let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).expect("a certificate");
    std::fs::write(&files.cert, made.cert.pem()).expect("written");
    std::fs::write(&files.key, made.signing_key.serialize_pem()).expect("written");
    let host = Host::start(Router::new(), Some(files), 100).await;
    let mut silent = host.connects().await;
    assert_eq!(host.in_time(read_to_end(&mut silent)).await, "");
}

/// What is in the kernel's buffers on the way through loopback counts as taken.
const TAKEN_MAX: usize = 64 * 1024 * 1024;

/// Of a large answer no more is made than is taken. That it is given up is seen by its being dropped.
#[tokio::test]
async fn who_takes_nothing_of_an_answer_is_given_up() {
    struct Answer {
        chunks: usize,
        ended: Option<oneshot::Sender<usize>>,
    }
    impl Drop for Answer {
        fn drop(&mut self) {
            self.ended.take().map(|ended| ended.send(self.chunks));
        }
    }
    const CHUNK: &[u8] = &[b'x'; 64 * 1024];
    let (ended, has_ended) = oneshot::channel();
    let ended = Arc::new(Mutex::new(Some(ended)));
    let large = move || {
        let answer = Answer { chunks: 0, ended: ended.lock().take() };
        let chunks = stream::unfold(answer, async |mut answer| {
            answer.chunks += 1;
            let goes_on = answer.chunks <= 4 * TAKEN_MAX / CHUNK.len();
            goes_on.then(|| (Ok::<_, Infallible>(Bytes::from_static(CHUNK)), answer))
        });
        std::future::ready(Body::from_stream(chunks))
    };
    let host = Host::start(Router::new().route("/", get(large)), None, 100).await;
    let mut stream = host.connects().await;
    stream.write_all(get_with("").as_bytes()).await.expect("taken");
    let made = host.in_time(has_ended).await.expect("it ends") * CHUNK.len();
    assert!(made < TAKEN_MAX, "{made} bytes were made for somebody who takes none");
}

/// Who comes meanwhile waits outside and is let in when somebody leaves.
#[tokio::test]
async fn no_more_connections_are_served_than_there_are_places() {
    let routes = Router::new().route("/", get(async || "hello"));
    let host = Host::start(routes, None, 1).await;
    let mut first = host.connects().await;
    let stays = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    first.write_all(stays.as_bytes()).await.expect("taken");
    read_until(&mut first, "hello").await;
    let mut second = host.connects().await;
    second.write_all(get_with("").as_bytes()).await.expect("taken");
    for asked in 2..20 {
        first.write_all(stays.as_bytes()).await.expect("taken");
        read_until(&mut first, "hello").await;
        assert_eq!(host.asked(), asked, "the first one alone is heard");
    }
    drop(first);
    let answer = read_to_end(&mut second).await;
    assert!(answer.ends_with("hello"), "{answer}");
}

#[tokio::test]
async fn time_alone_ends_no_connection_that_is_in_use() {
    let host = Host::ordinary().await;
    let mut stream = host.connects().await;
    for _ in 0..3 {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.expect("taken");
        read_until(&mut stream, "hello").await;
        host.sim.clock().advance(Duration::from_secs(3_600));
    }
}
