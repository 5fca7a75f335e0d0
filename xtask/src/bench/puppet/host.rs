//! The one listener behind which all puppets live: keys, and whatever the server under test asks or sends.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::Ipv4Addr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::Result;
use bytes::Bytes;
use ed25519_dalek::SigningKey;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{CONTENT_TYPE, HOST},
};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};

use super::{
    event::{self, KEY_ID, unpadded},
    now_ms,
    room::HostedRoom,
};

const KEYS_VALID_MS: u64 = 24 * 60 * 60 * 1000;
/// Servers per octet of the address.
const PER_OCTET: usize = 250;

/// Cheap to clone; clones are the same host.
#[derive(Clone)]
pub struct Host(Arc<Inner>);

struct Inner {
    port: u16,
    key: SigningKey,
    /// Transactions, and PDUs in them, that have come in.
    transactions: AtomicUsize,
    pdus: AtomicUsize,
    rooms: Mutex<HashMap<String, Arc<HostedRoom>>>,
}

impl Host {
    /// Listens on all loopback addresses at a free port.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
        let inner = Inner {
            port: listener.local_addr()?.port(),
            key: SigningKey::from_bytes(&[42; 32]),
            transactions: AtomicUsize::new(0),
            pdus: AtomicUsize::new(0),
            rooms: Mutex::default(),
        };
        let host = Self(Arc::new(inner));
        tokio::spawn(host.clone().accept(listener, acceptor()?));
        Ok(host)
    }

    pub fn name_of(&self, number: usize) -> String {
        let (high, low) = (number / PER_OCTET, number % PER_OCTET);
        format!("{}:{}", Ipv4Addr::new(127, 1, high as u8, low as u8 + 1), self.0.port)
    }

    /// The key that all puppets sign with.
    pub fn key(&self) -> SigningKey {
        self.0.key.clone()
    }

    pub fn serve_room(&self, room: Arc<HostedRoom>) {
        if let Ok(mut rooms) = self.0.rooms.lock() {
            rooms.insert(room.room_id.clone(), room);
        }
    }

    pub fn pdus(&self) -> usize {
        self.0.pdus.load(Ordering::Relaxed)
    }

    pub fn transactions(&self) -> usize {
        self.0.transactions.load(Ordering::Relaxed)
    }

    async fn accept(self, listener: TcpListener, tls: TlsAcceptor) {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(self.clone().converse(stream, tls.clone()));
        }
    }

    /// A connection that breaks shows at the server under test.
    async fn converse(self, stream: TcpStream, tls: TlsAcceptor) {
        stream.set_nodelay(true).ok();
        let Ok(stream) = tls.accept(stream).await else { return };
        let service = service_fn(|request| {
            let host = self.clone();
            async move { Ok::<_, Infallible>(host.answer(request).await) }
        });
        http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let name = parts.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default().to_owned();
        let Ok(body) = body.collect().await else { return respond(None) };
        let path = parts.uri.path();
        if path.starts_with("/_matrix/key/v2/server") {
            return respond(Some(self.keys(&name)));
        }
        if parts.method == Method::PUT && path.starts_with("/_matrix/federation/v1/send/") {
            return respond(Some(self.take(&body.to_bytes())));
        }
        let rooms = self.0.rooms.lock().map(|rooms| rooms.values().cloned().collect::<Vec<_>>());
        let uri = parts.uri.to_string();
        let body = body.to_bytes();
        let mut rooms = rooms.unwrap_or_default().into_iter();
        respond(rooms.find_map(|room| room.answer(&parts.method, &uri, &body)))
    }

    fn keys(&self, name: &str) -> Value {
        let key = unpadded(self.0.key.verifying_key().as_bytes());
        let keys = json!({
            "server_name": name,
            "verify_keys": { KEY_ID: { "key": key } },
            "old_verify_keys": {},
            "valid_until_ts": now_ms() + KEYS_VALID_MS,
        });
        event::sign(keys, name, &self.0.key)
    }

    fn take(&self, body: &[u8]) -> Value {
        let transaction: Value = serde_json::from_slice(body).unwrap_or_default();
        let count = transaction["pdus"].as_array().map_or(0, Vec::len);
        self.0.pdus.fetch_add(count, Ordering::Relaxed);
        self.0.transactions.fetch_add(1, Ordering::Relaxed);
        json!({ "pdus": {} })
    }
}

fn respond(answer: Option<Value>) -> Response<Full<Bytes>> {
    let unknown = || json!({ "errcode": "M_UNRECOGNIZED", "error": "a puppet does not know this" });
    let status = if answer.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
    let body = answer.unwrap_or_else(unknown).to_string();
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A certificate that nobody vouches for: the servers under test are told not to check.
fn acceptor() -> Result<TlsAcceptor> {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
