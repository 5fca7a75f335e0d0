//! A remote server in the hands of a test: it has a name, a key, events that it knows, and says what the test wants,
//! the truth or not.
//!
//! It answers from what it was given by [`Puppet::knows`] and [`Puppet::knows_state`]; what the test puts into its mouth
//! by [`Puppet::says`] goes first. [`Puppet::makes`] makes signed PDUs; in room versions 1 and 2, where a server chooses the
//! names of its events, [`Puppet::makes_in`] and [`Puppet::makes_named`] do.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use axum::{
    Router,
    body::Body,
    http::{Method, Request, StatusCode},
};
use http_body_util::BodyExt;
use myelin_dag::{Names, NewEvent, Parents, Pdu, SigningKey, auth_types, build, needs_names, room_version};
use myelin_federation::{TransportError, x_matrix::SignedParts};
use myelin_view::{RoomSnapshot, View};
use parking_lot::Mutex;
use ruma::{
    CanonicalJsonObject, EventId, OwnedEventId, OwnedServerName, OwnedUserId, RoomId, RoomVersionId,
    ServerName, signatures::sign_json,
};
use serde_json::{Value, json, value::RawValue};

use crate::network::Network;

/// Events in one answer, as Synapse has it for `get_missing_events`.
const MISSING_MAX: usize = 20;
/// Its keys are valid for ever, as far as a test is concerned.
const VALID_UNTIL_MS: u64 = 4_000_000_000_000;

/// Cheap to clone; clones are the same server.
#[derive(Clone)]
pub struct Puppet(Arc<Inner>);

struct Inner {
    name: OwnedServerName,
    key: SigningKey,
    network: Network,
    knowledge: Mutex<Knowledge>,
}

#[derive(Default)]
struct Knowledge {
    pdus: BTreeMap<OwnedEventId, Arc<Pdu>>,
    /// The states before events.
    states: BTreeMap<OwnedEventId, Vec<OwnedEventId>>,
    /// Answers by the beginning of path and query.
    said: Vec<(String, StatusCode, Value)>,
    asked: Vec<(String, Value)>,
    /// Events in an answer of history, however many are asked for.
    gives: Option<usize>,
    received: Vec<Value>,
    transactions: u64,
    /// How many events it gave names.
    named: u64,
}

/// Where the next event of a room goes.
#[derive(Clone, Debug)]
pub struct Place {
    pub prev_events: Vec<OwnedEventId>,
    pub depth: u64,
}

/// What a server answered to a puppet.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub json: Value,
}

impl Puppet {
    /// # Panics
    /// If `name` is no server name.
    pub fn connect(network: &Network, name: &str) -> Self {
        let mut seed = [3; 32];
        seed.iter_mut().zip(name.bytes()).for_each(|(seed, byte)| *seed = byte);
        let key = SigningKey::from_seed("puppet", seed).expect("a key from a seed");
        let name: OwnedServerName = name.try_into().expect("a server name");
        let inner = Inner { name, key, network: network.clone(), knowledge: Mutex::default() };
        let puppet = Self(Arc::new(inner));
        let answering = puppet.clone();
        let answer = move |request: Request<Body>| {
            let puppet = answering.clone();
            async move { puppet.answer(request).await }
        };
        network.connect(&puppet.0.name, Router::new().fallback(answer));
        puppet
    }

    pub fn name(&self) -> &ServerName {
        &self.0.name
    }

    pub fn network(&self) -> &Network {
        &self.0.network
    }

    pub fn key(&self) -> &SigningKey {
        &self.0.key
    }

    /// # Panics
    /// If that makes no user id.
    pub fn user(&self, localpart: &str) -> OwnedUserId {
        format!("@{localpart}:{}", self.0.name).try_into().expect("a user id")
    }

    /// Hands this event out from now on.
    pub fn knows(&self, pdu: &Pdu) {
        self.0.knowledge.lock().pdus.insert(pdu.event_id.clone(), Arc::new(pdu.clone()));
    }

    /// Has this event no more to give.
    pub fn forgets(&self, id: &EventId) {
        self.0.knowledge.lock().pdus.remove(id);
    }

    /// The state before an event.
    pub fn knows_state(&self, before: &Pdu, state: Vec<OwnedEventId>) {
        self.0.knowledge.lock().states.insert(before.event_id.clone(), state);
    }

    /// Answers requests whose path and query begin like this with that, from now on.
    pub fn says(&self, path: &str, status: StatusCode, answer: Value) {
        let mut knowledge = self.0.knowledge.lock();
        knowledge.said.retain(|(known, ..)| known != path);
        knowledge.said.push((path.to_owned(), status, answer));
    }

    /// Answers them by what it knows again.
    pub fn says_no_more(&self, path: &str) {
        self.0.knowledge.lock().said.retain(|(known, ..)| known != path);
    }

    /// What it was told to say counts no more: from now on it answers from what it knows.
    pub fn tells_the_truth(&self) {
        self.0.knowledge.lock().said.clear();
    }

    /// Gives so many events when it is asked for history, however many that should be.
    pub fn gives_at_once(&self, count: usize) {
        self.0.knowledge.lock().gives = Some(count);
    }

    /// Method, path and query of everything that it was asked.
    pub fn asked(&self) -> Vec<String> {
        self.0.knowledge.lock().asked.iter().map(|(asked, _)| asked.clone()).collect()
    }

    /// The bodies of requests with this in their method, path and query.
    pub fn bodies(&self, part: &str) -> Vec<Value> {
        let knowledge = self.0.knowledge.lock();
        let asked = knowledge.asked.iter().filter(|(asked, _)| asked.contains(part));
        asked.map(|(_, body)| body.clone()).collect()
    }

    /// The transactions that were sent to it.
    pub fn received(&self) -> Vec<Value> {
        self.0.knowledge.lock().received.clone()
    }

    /// A signed event. Nothing of it is checked.
    ///
    /// # Panics
    /// If it cannot be built.
    pub fn makes(&self, version: &RoomVersionId, event: NewEvent, parents: Parents, now_ms: u64) -> Pdu {
        let rules = room_version::rules(version).expect("a room version");
        let pdu = build(&rules, event, parents, now_ms, &self.0.key).expect("an event");
        self.knows(&pdu);
        pdu
    }

    /// An event as this server would make it at `place` if the room's state there were the one that `view` has now.
    ///
    /// # Panics
    /// If it cannot be built, or the room is not there.
    pub async fn makes_in(&self, view: &View, room_id: &RoomId, event: NewEvent, place: Place) -> Pdu {
        let name = {
            let mut knowledge = self.0.knowledge.lock();
            knowledge.named += 1;
            format!("$made{}:{}", knowledge.named, self.0.name)
        };
        self.makes_named(view, room_id, &name, event, place, &[]).await
    }

    /// The same with this name, where events have names, and with these auth events besides.
    ///
    /// # Panics
    /// If it cannot be built, or the room is not there.
    pub async fn makes_named(
        &self,
        view: &View,
        room_id: &RoomId,
        name: &str,
        event: NewEvent,
        place: Place,
        besides: &[OwnedEventId],
    ) -> Pdu {
        let room = view.room_by_id(room_id).await.expect("readable").expect("the room");
        let mut auth_events = auth_events(view, &room, &event).await;
        auth_events.extend_from_slice(besides);
        // The hashes of what it refers to are left out, as in templates of Synapse.
        let referred = place.prev_events.iter().chain(&auth_events);
        let names = needs_names(&room.info.rules).then(|| Names {
            event_id: name.try_into().expect("an event id"),
            reference_hashes: referred.map(|id| (id.clone(), String::new())).collect(),
        });
        let parents = Parents {
            room_id: Some(room_id.to_owned()),
            prev_events: place.prev_events,
            auth_events,
            depth: place.depth,
            names,
        };
        self.makes(&room.info.version, event, parents, view.env.now_ms())
    }

    /// The same at the end of the room as `view` has it.
    pub async fn makes_next(&self, view: &View, room_id: &RoomId, event: NewEvent) -> Pdu {
        self.makes_in(view, room_id, event, end_of(view, room_id).await).await
    }

    /// Sends a transaction of these PDUs.
    pub async fn sends(&self, to: &ServerName, pdus: &[&Pdu]) -> Reply {
        let pdus: Vec<Value> = pdus.iter().map(|pdu| json_of(pdu)).collect();
        self.sends_transaction(to, json!(pdus), json!([])).await
    }

    pub async fn sends_transaction(&self, to: &ServerName, pdus: Value, edus: Value) -> Reply {
        let reply = self.tries_to_send(to, pdus, edus).await;
        reply.unwrap_or_else(|error| panic!("{to} does not answer: {error}"))
    }

    /// The same in bad weather.
    ///
    /// # Errors
    /// What became of the transaction, if it got no answer.
    pub async fn tries_to_send(
        &self,
        to: &ServerName,
        pdus: Value,
        edus: Value,
    ) -> Result<Reply, TransportError> {
        let number = {
            let mut knowledge = self.0.knowledge.lock();
            knowledge.transactions += 1;
            knowledge.transactions
        };
        let body = json!({ "origin": self.0.name, "origin_server_ts": 1, "pdus": pdus, "edus": edus });
        self.try_requests(to, Method::PUT, &format!("/_matrix/federation/v1/send/{number}"), Some(&body))
            .await
    }

    /// A request signed by this server.
    ///
    /// # Panics
    /// If the body is not canonical JSON, or nobody has the name.
    pub async fn requests(&self, to: &ServerName, method: Method, uri: &str, body: Option<&Value>) -> Reply {
        let reply = self.try_requests(to, method, uri, body).await;
        reply.unwrap_or_else(|error| panic!("{to} does not answer: {error}"))
    }

    /// The same in bad weather.
    ///
    /// # Errors
    /// What became of the request, if it got no answer.
    ///
    /// # Panics
    /// If the body is not canonical JSON.
    pub async fn try_requests(
        &self,
        to: &ServerName,
        method: Method,
        uri: &str,
        body: Option<&Value>,
    ) -> Result<Reply, TransportError> {
        let content = body.map(|body| {
            let object: CanonicalJsonObject = serde_json::from_value(body.clone()).expect("canonical JSON");
            serde_json::to_string(&object).expect("text")
        });
        self.try_requests_text(to, method, uri, content).await
    }

    /// A request whose body is signed and sent as it is.
    ///
    /// # Panics
    /// If nobody has the name.
    pub async fn requests_text(&self, to: &ServerName, method: Method, uri: &str, content: String) -> Reply {
        let reply = self.try_requests_text(to, method, uri, Some(content)).await;
        reply.unwrap_or_else(|error| panic!("{to} does not answer: {error}"))
    }

    async fn try_requests_text(
        &self,
        to: &ServerName,
        method: Method,
        uri: &str,
        content: Option<String>,
    ) -> Result<Reply, TransportError> {
        let parts = SignedParts {
            method: method.as_str(),
            uri,
            origin: &self.0.name,
            destination: to,
            content: content.as_deref(),
        };
        let request = Request::builder().method(method.clone()).uri(uri);
        let request = request.header("authorization", parts.sign(&self.0.key).to_string());
        let request = request.body(content.unwrap_or_default().into()).expect("a request");
        let budget = myelin_federation::Budget::LARGE;
        let response = self.0.network.port_of(&self.0.name).send(to, request, budget).await;
        let response = response?;
        let json = serde_json::from_slice(response.body()).unwrap_or_default();
        Ok(Reply { status: response.status(), json })
    }

    async fn answer(&self, request: Request<Body>) -> (StatusCode, String) {
        let (parts, body) = request.into_parts();
        let uri = parts.uri.path_and_query().map_or("/", |uri| uri.as_str()).to_owned();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let mut knowledge = self.0.knowledge.lock();
        knowledge.asked.push((format!("{} {uri}", parts.method), body.clone()));
        let said = knowledge.said.iter().find(|(path, ..)| uri.starts_with(path));
        if let Some((_, status, answer)) = said {
            return (*status, answer.to_string());
        }
        if uri.starts_with("/_matrix/key/v2/server") {
            return (StatusCode::OK, self.keys().to_string());
        }
        let Some(question) = uri.strip_prefix("/_matrix/federation/v1/") else { return not_found() };
        if question.starts_with("send/") {
            knowledge.received.push(body);
            return (StatusCode::OK, json!({ "pdus": {} }).to_string());
        }
        match knowledge.answer(question, &body) {
            Some(answer) => (StatusCode::OK, answer.to_string()),
            None => not_found(),
        }
    }

    fn keys(&self) -> Value {
        let (id, key) = (self.0.key.key_id(), self.0.key.public_key_base64());
        let keys = json!({
            "server_name": self.0.name,
            "valid_until_ts": VALID_UNTIL_MS,
            "verify_keys": { id: { "key": key } },
            "old_verify_keys": {},
        });
        let mut keys: CanonicalJsonObject = serde_json::from_value(keys).expect("canonical JSON");
        sign_json(self.0.name.as_str(), self.0.key.pair(), &mut keys).expect("signed");
        serde_json::to_value(keys).expect("JSON")
    }
}

impl Knowledge {
    fn answer(&self, question: &str, body: &Value) -> Option<Value> {
        let (path, query) = question.split_once('?').unwrap_or((question, ""));
        let mut segments = path.split('/');
        let (endpoint, first, second) = (segments.next()?, segments.next()?, segments.next());
        let query = || query.split('&').filter_map(|pair| pair.split_once('='));
        let ids = |name: &'static str| {
            let of_name = query().filter(move |(key, _)| *key == name);
            of_name.filter_map(|(_, id)| decoded(id).try_into().ok()).collect::<Vec<OwnedEventId>>()
        };
        match endpoint {
            "event" => {
                let pdu = self.pdus.get(&OwnedEventId::try_from(decoded(first)).ok()?)?;
                Some(json!({ "origin": "puppet", "origin_server_ts": 1, "pdus": [json_of(pdu)] }))
            }
            "event_auth" => {
                let of = OwnedEventId::try_from(decoded(second?)).ok()?;
                Some(json!({ "auth_chain": self.jsons(&self.auth_chain([&of])) }))
            }
            "state_ids" => {
                let state = self.states.get(ids("event_id").first()?)?;
                let chain = self.auth_chain(state);
                Some(json!({ "pdu_ids": state, "auth_chain_ids": chain }))
            }
            "state" => {
                let state = self.states.get(ids("event_id").first()?)?;
                let chain = self.auth_chain(state);
                Some(json!({ "pdus": self.jsons(state), "auth_chain": self.jsons(&chain) }))
            }
            "get_missing_events" => {
                let of = |name| serde_json::from_value::<Vec<OwnedEventId>>(body.get(name)?.clone()).ok();
                let (latest, earliest) = (of("latest_events")?, of("earliest_events")?);
                let limit = body.get("limit").and_then(Value::as_u64).unwrap_or(10);
                let limit = self.gives.unwrap_or(usize::try_from(limit).ok()?.min(MISSING_MAX));
                let found = self.before(&latest, &earliest, limit);
                Some(json!({ "events": self.jsons(&found) }))
            }
            "backfill" => {
                let from = ids("v");
                let limit = query().find(|(key, _)| *key == "limit")?.1.parse().ok()?;
                let mut found: Vec<_> =
                    from.iter().filter(|id| self.pdus.contains_key(*id)).cloned().collect();
                found.extend(self.before(&from, &[], self.gives.unwrap_or(limit)));
                Some(json!({ "origin": "puppet", "origin_server_ts": 1, "pdus": self.jsons(&found) }))
            }
            _ => None,
        }
    }

    /// Breadth first along prev events, nearest first.
    fn before(&self, of: &[OwnedEventId], without: &[OwnedEventId], limit: usize) -> Vec<OwnedEventId> {
        let (mut found, mut front) = (Vec::new(), of.to_vec());
        while !front.is_empty() {
            let mut next = Vec::new();
            for id in front.iter().filter_map(|id| self.pdus.get(id)).flat_map(|pdu| &pdu.prev_events) {
                let known = self.pdus.contains_key(id) && !without.contains(id);
                if known && found.len() < limit && !of.contains(id) && !found.contains(id) {
                    found.push(id.clone());
                    next.push(id.clone());
                }
            }
            front = next;
        }
        found
    }

    fn auth_chain<'a>(&self, of: impl IntoIterator<Item = &'a OwnedEventId>) -> BTreeSet<OwnedEventId> {
        let mut front: Vec<_> = of.into_iter().cloned().collect();
        let mut chain = BTreeSet::new();
        while let Some(id) = front.pop() {
            let Some(pdu) = self.pdus.get(&id) else { continue };
            front.extend(pdu.auth_events.iter().filter(|id| chain.insert((*id).clone())).cloned());
        }
        chain
    }

    fn jsons<'a>(&self, ids: impl IntoIterator<Item = &'a OwnedEventId>) -> Vec<Value> {
        ids.into_iter().filter_map(|id| self.pdus.get(id)).map(|pdu| json_of(pdu)).collect()
    }
}

/// The end of a room as a server has it.
///
/// # Panics
/// If the room is not there.
pub async fn end_of(view: &View, room_id: &RoomId) -> Place {
    let room = view.room_by_id(room_id).await.expect("readable").expect("the room");
    let events = view.events.load_many(&room.head.extremities).await.expect("readable");
    let prev_events = events.into_iter().flatten().map(|event| event.pdu.event_id.clone()).collect();
    Place { prev_events, depth: room.head.depth + 1 }
}

/// Everything in the current state of a room as a server has it, auth chains included: for [`Puppet::knows`].
///
/// # Panics
/// If the room is not there.
pub async fn state_of(view: &View, room_id: &RoomId) -> Vec<Arc<Pdu>> {
    let room = view.room_by_id(room_id).await.expect("readable").expect("the room");
    let nids: Vec<_> = room.current_state.iter().map(|(_, nid)| nid).collect();
    let events = view.events.load_many(&nids).await.expect("readable");
    events.into_iter().flatten().map(|event| event.pdu.clone()).collect()
}

/// The event as it travels.
///
/// # Panics
/// Never: PDUs are JSON.
pub fn json_of(pdu: &Pdu) -> Value {
    serde_json::from_str(&pdu.json).expect("PDUs are JSON")
}

/// # Panics
/// Never: PDUs are JSON.
pub fn raw_of(pdu: &Pdu) -> Box<RawValue> {
    RawValue::from_string(pdu.json.to_string()).expect("PDUs are JSON")
}

async fn auth_events(view: &View, room: &RoomSnapshot, event: &NewEvent) -> Vec<OwnedEventId> {
    let (kind, key) = (&event.event_type, event.state_key.as_deref());
    let types = auth_types(&room.info.rules, kind, &event.sender, key, &event.content).expect("auth types");
    let mut ids = Vec::new();
    for (event_type, state_key) in types {
        let found = view.current_state_event(room, &event_type.to_string(), &state_key).await;
        ids.extend(found.expect("readable").map(|event| event.pdu.event_id.clone()));
    }
    ids
}

fn not_found() -> (StatusCode, String) {
    (StatusCode::NOT_FOUND, json!({ "errcode": "M_NOT_FOUND", "error": "Not known." }).to_string())
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = (*first == b'%').then(|| std::str::from_utf8(tail.get(..2)?).ok()).flatten();
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
