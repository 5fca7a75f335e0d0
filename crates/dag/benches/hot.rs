//! The hot pieces of the room rules: `cargo bench -p myelin-dag`.

mod netsplit;

use std::{
    collections::{BTreeMap, HashMap},
    hint::black_box,
    sync::Arc,
};

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use myelin_core::{EventNid, StateKeyNid};
use myelin_dag::{
    NewEvent, Parents, Pdu, SigningKey, StateTree, auth_types, authorize, build, canonical, check_json,
    checks::{RawPdu, VerifiedPdu},
    client_form::{OpenEvent, open_event},
    rules,
};
use ruma::{
    EventId, OwnedEventId, OwnedUserId, RoomVersionId, SigningKeyAlgorithm,
    events::StateEventType,
    room_version_rules::RoomVersionRules,
    serde::{Base64, base64::Standard},
    signatures::verify_canonical_json_bytes,
};
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};

struct Room {
    rules: RoomVersionRules,
    key: SigningKey,
    by_id: HashMap<OwnedEventId, Arc<Pdu>>,
    state: HashMap<(StateEventType, String), Arc<Pdu>>,
    last: Option<Arc<Pdu>>,
}

fn alice() -> OwnedUserId {
    "@alice:example.org".try_into().expect("a user id")
}

fn event(event_type: &str, state_key: Option<&str>, content: &Value) -> NewEvent {
    let content = to_raw_value(content).expect("JSON");
    let state_key = state_key.map(ToOwned::to_owned);
    NewEvent {
        sender: alice(),
        event_type: event_type.into(),
        state_key,
        content,
        redacts: None,
        sticky_duration_ms: None,
    }
}

impl Room {
    fn new() -> Self {
        let mut room = Self {
            rules: rules(&RoomVersionId::V12).expect("supported"),
            key: SigningKey::from_seed("bench", [1; 32]).expect("a key"),
            by_id: HashMap::new(),
            state: HashMap::new(),
            last: None,
        };
        let users: HashMap<String, u32> =
            (0..50).map(|n| (format!("@moderator{n}:example.org"), 50)).collect();
        room.add(event("m.room.create", Some(""), &json!({ "room_version": "12" })));
        room.add(event("m.room.member", Some(alice().as_str()), &json!({ "membership": "join" })));
        room.add(event("m.room.power_levels", Some(""), &json!({ "users": users })));
        room.add(event("m.room.join_rules", Some(""), &json!({ "join_rule": "public" })));
        room
    }

    fn parents(&self, event: &NewEvent) -> Parents {
        let types = auth_types(
            &self.rules,
            &event.event_type,
            &event.sender,
            event.state_key.as_deref(),
            &event.content,
        );
        let auth = types.expect("well-formed").into_iter().filter_map(|key| self.state.get(&key));
        Parents {
            room_id: self.last.as_ref().map(|last| last.room_id.clone()),
            prev_events: self.last.iter().map(|last| last.event_id.clone()).collect(),
            auth_events: auth.map(|pdu| pdu.event_id.clone()).collect(),
            depth: self.last.as_ref().map_or(1, |last| last.depth + 1),
            names: None,
        }
    }

    fn build(&self, event: NewEvent) -> Pdu {
        let parents = self.parents(&event);
        build(&self.rules, event, parents, 1_700_000_000_000, &self.key).expect("a good event")
    }

    fn add(&mut self, event: NewEvent) {
        let pdu = Arc::new(self.build(event));
        self.by_id.insert(pdu.event_id.clone(), pdu.clone());
        if let Some(state_key) = &pdu.state_key {
            self.state.insert((pdu.event_type.to_string().into(), state_key.clone()), pdu.clone());
        }
        self.last = Some(pdu);
    }
}

fn message() -> NewEvent {
    let body = "The quick brown fox jumps over the lazy dog. ".repeat(3);
    event("m.room.message", None, &json!({ "msgtype": "m.text", "body": body, "m.mentions": {} }))
}

fn events(c: &mut Criterion) {
    let room = Room::new();
    let new = message();
    let parents = room.parents(&new);
    c.bench_function("build and sign a message", |b| {
        let input = || (new.clone(), parents.clone());
        let make = |(event, parents)| build(&room.rules, event, parents, 1_700_000_000_000, &room.key);
        b.iter_batched(input, make, BatchSize::SmallInput);
    });
    c.bench_function("only the ed25519 signature", |b| b.iter(|| room.key.sign(black_box(&[7; 500]))));

    let pdu = room.build(message());
    c.bench_function("authorise a message", |b| {
        let fetch_event = |id: &EventId| room.by_id.get(id).cloned();
        let fetch_state = |event_type: &StateEventType, key: &str| {
            room.state.get(&(event_type.clone(), key.to_owned())).cloned()
        };
        b.iter(|| authorize(&room.rules, black_box(&pdu), fetch_event, fetch_state));
    });
    c.bench_function("parse a stored message", |b| {
        b.iter(|| Pdu::parse(pdu.json.clone(), pdu.event_id.clone(), &room.rules));
    });
    c.bench_function("message to client form", |b| {
        b.iter(|| open_event(black_box(&pdu)).with_unsigned("{\"age\":1}").close());
    });
    let kept = open_event(&pdu).as_str().to_owned();
    c.bench_function("kept client form with unsigned", |b| {
        b.iter(|| OpenEvent::resume(black_box(&kept)).with_unsigned("{\"age\":1}").close());
    });
    c.bench_function("check 700 bytes of JSON", |b| b.iter(|| check_json(black_box(pdu.json.as_bytes()))));
    c.bench_function("canonicalise 700 bytes of JSON", |b| {
        b.iter(|| canonical::canonicalize(black_box(pdu.json.as_bytes())));
    });
}

/// Nids as a server that has been running for a while gives them out.
fn tree(size: u64) -> StateTree {
    (0..size).map(|n| (StateKeyNid(500_000 + n), EventNid(3_000_000 + n * 7))).collect()
}

fn trees(c: &mut Criterion) {
    let mut group = c.benchmark_group("state tree");
    for size in [2_000, 10_000] {
        let base = tree(size);
        base.root();
        let change = |n: u64| base.insert(StateKeyNid(500_000 + n % size), EventNid(9_000_000 + n));
        let new: Vec<_> = (0..1_000).map(|n| change(n).new_nodes_since(&base)).collect();
        let bytes: usize = new.iter().flatten().map(|(_, bytes)| bytes.len()).sum();
        let nodes: usize = new.iter().map(Vec::len).sum();
        println!("{size} keys: {} bytes in {:.2} nodes per change", bytes / 1_000, nodes as f64 / 1_000.0);

        let mut n = 0;
        group.bench_function(BenchmarkId::new("change a key, hash, encode", size), |b| {
            b.iter(|| {
                n += 1;
                change(n).new_nodes_since(&base)
            });
        });
        group.bench_function(BenchmarkId::new("get", size), |b| {
            b.iter(|| base.get(black_box(StateKeyNid(500_777))));
        });
        let ten =
            (0..10).fold(base.clone(), |tree, n| tree.insert(StateKeyNid(500_100 + n), EventNid(n + 1)));
        ten.root();
        group.bench_function(BenchmarkId::new("diff of ten changes", size), |b| b.iter(|| base.diff(&ten)));
        let store: HashMap<_, _> = base.new_nodes_since(&StateTree::new()).into_iter().collect();
        group.bench_function(BenchmarkId::new("load", size), |b| {
            b.iter(|| StateTree::load(base.root(), |hash| store.get(hash)));
        });
    }
    group.finish();
}

/// What an inbound PDU costs before it is authorised.
fn receipt(c: &mut Criterion) {
    let room = Room::new();
    let pdu = room.build(message());
    let raw = RawValue::from_string(pdu.json.to_string()).expect("JSON");
    let keys = BTreeMap::from([("example.org".to_owned(), room.key.public_key_set())]);
    let mut group = c.benchmark_group("receive a message");
    let signed = [7_u8; 500];
    let signature = Base64::<Standard>::parse(room.key.sign(&signed)).expect("base64");
    let public_key = room.key.public_key();
    group.bench_function("only the ed25519 verification", |b| {
        let ed25519 = SigningKeyAlgorithm::Ed25519;
        b.iter(|| {
            verify_canonical_json_bytes(&ed25519, &public_key, signature.as_bytes(), black_box(&signed))
        });
    });
    group
        .bench_function("check the format", |b| b.iter(|| RawPdu(black_box(&raw)).check_format(&room.rules)));
    let formed = RawPdu(&raw).check_format(&room.rules).expect("a good event");
    group.bench_function("verify", |b| {
        b.iter_batched(|| formed.clone(), |formed| formed.verify(&keys, &room.rules), BatchSize::SmallInput);
    });
    let verified = formed.verify(&keys, &room.rules).expect("signed");
    group.bench_function("authorise by its auth events", |b| {
        let authorize = |pdu: VerifiedPdu| pdu.authorize(&room.rules, |id| room.by_id.get(id).cloned());
        b.iter_batched(|| verified.clone(), authorize, BatchSize::SmallInput);
    });
    group.finish();
}

criterion_group!(benches, events, receipt, trees, netsplit::resolution);
criterion_main!(benches);
