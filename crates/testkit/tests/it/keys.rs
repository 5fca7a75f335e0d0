//! The signing keys of other servers: fetched once, kept, refreshed, had from notaries, and never believed too long.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    routing::{get, post},
};
use http::StatusCode;
use myelin_core::RoomNid;
use myelin_dag::SigningKey;
use myelin_federation::{Budget, Client, Keyring, Peers, Wanted, keys::answer::KeyAnswer};
use myelin_store::{
    Batch,
    codec::AtPosition,
    memory::MemoryDisk,
    tables::{OLD_SIGNING_KEYS, OldSigningKeyRecord, SERVER_ROOMS, ServerRoomRecord},
};
use myelin_testenv::Sim;
use myelin_testkit::{
    network::Network,
    server::{Server, signing_key},
};
use parking_lot::Mutex;
use ruma::{CanonicalJsonObject, OwnedServerName, ServerName, server_name, signatures::sign_json};
use serde_json::{Value, json};

const DAY: Duration = Duration::from_secs(24 * 3600);
const MINUTE: Duration = Duration::from_secs(60);

fn here() -> &'static ServerName {
    server_name!("here.test")
}

fn there() -> &'static ServerName {
    server_name!("there.test")
}

fn key(version: &str) -> SigningKey {
    let seed = version.bytes().fold([9; 32], |mut seed, byte| {
        seed[0] ^= byte;
        seed
    });
    SigningKey::from_seed(version, seed).expect("a key")
}

/// A server of which only the key endpoint is there.
#[derive(Clone, Default)]
struct KeyServer {
    answer: Arc<Mutex<Option<Value>>>,
    asked: Arc<AtomicUsize>,
}

impl KeyServer {
    fn start(network: &Network, name: &ServerName) -> Self {
        let this = Self::default();
        let served = this.clone();
        let answer = move || {
            served.asked.fetch_add(1, Ordering::SeqCst);
            let answer = served.answer.lock().clone();
            std::future::ready(answer.map(|json| json.to_string()).ok_or(StatusCode::SERVICE_UNAVAILABLE))
        };
        network.connect(name, Router::new().route("/_matrix/key/v2/server", get(answer)));
        this
    }

    /// From now on it says that `current` is valid until then.
    fn says(&self, name: &ServerName, current: &SigningKey, old: Value, valid_until_ms: u64) {
        let body = json!({
            "server_name": name,
            "verify_keys": { current.key_id(): { "key": current.public_key_base64() } },
            "old_verify_keys": old,
            "valid_until_ts": valid_until_ms,
        });
        *self.answer.lock() = Some(signed(body, name, current));
    }

    fn is_silent(&self) {
        *self.answer.lock() = None;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// A notary that hands on what it was told to.
#[derive(Clone)]
struct Notary {
    name: &'static ServerName,
    answers: Arc<Mutex<Vec<Value>>>,
    asked: Arc<AtomicUsize>,
}

impl Notary {
    fn start(world: &World, name: &'static ServerName) -> Self {
        let own = KeyServer::default();
        own.says(name, &key("n"), json!({}), world.now_ms() + 6 * DAY.as_millis() as u64);
        let keys = own.answer.lock().clone().unwrap_or_default().to_string();
        let this = Self { name, answers: Arc::default(), asked: Arc::default() };
        let served = this.clone();
        let answer = move || {
            served.asked.fetch_add(1, Ordering::SeqCst);
            std::future::ready(json!({ "server_keys": *served.answers.lock() }).to_string())
        };
        let routes = Router::new()
            .route("/_matrix/key/v2/server", get(move || std::future::ready(keys.clone())))
            .route("/_matrix/key/v2/query", post(answer));
        world.network.connect(name, routes);
        this
    }

    /// What `peer` says, or said.
    fn hands_on(&self, peer: &KeyServer) {
        let answer = peer.answer.lock().clone().expect("an answer");
        self.answers.lock().push(signed(answer, self.name, &key("n")));
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn signed(body: Value, name: &ServerName, key: &SigningKey) -> Value {
    let mut object: CanonicalJsonObject = serde_json::from_value(body).expect("an object");
    sign_json(name.as_str(), key.pair(), &mut object).expect("signed");
    serde_json::to_value(object).expect("JSON")
}

struct World {
    sim: Sim,
    network: Network,
    server: Server,
    keys: Keyring,
}

impl World {
    fn new(notaries: &[&ServerName]) -> Self {
        Self::on(MemoryDisk::default(), notaries)
    }

    fn on(disk: MemoryDisk, notaries: &[&ServerName]) -> Self {
        let (sim, network) = (Sim::new(1), Network::default());
        let server = Server::start_in(&network, here(), &sim, disk);
        let keys = keyring(&server, &network, &sim, notaries);
        Self { sim, network, server, keys }
    }

    fn now_ms(&self) -> u64 {
        self.sim.env().now_ms()
    }

    /// The ids of the keys of a server that were valid then.
    fn keys_at(&self, server: &ServerName, key_ids: &[&str], at_ms: u64) -> Vec<String> {
        let key_ids = key_ids.iter().map(ToString::to_string).collect();
        let wanted = Wanted { server: server.to_owned(), key_ids, at_ms };
        let mut found = self.sim.block_on(self.keys.keys_for(&[wanted]));
        found.remove(server.as_str()).unwrap_or_default().into_keys().collect()
    }

    fn pass(&self, time: Duration) {
        self.sim.block_on(async { self.sim.env().clock.sleep(time).await });
    }
}

fn keyring(server: &Server, network: &Network, sim: &Sim, notaries: &[&ServerName]) -> Keyring {
    let (peers, own) = (Arc::new(Peers::new(sim.env())), Arc::new(signing_key(here())));
    let client = Client::new(here().to_owned(), own.clone(), network.port_of(here()), peers.clone());
    let notaries: Vec<OwnedServerName> = notaries.iter().map(|name| (*name).to_owned()).collect();
    Keyring::new(server.view.clone(), Arc::new(client), &peers, own, notaries)
}

#[test]
fn keys_are_fetched_once_and_outlive_a_restart_of_both_servers() {
    let world = World::new(&[]);
    let peer = KeyServer::start(&world.network, there());
    let now = world.now_ms();
    let old = json!({ "ed25519:old": { "key": key("old").public_key_base64(), "expired_ts": now - 1000 } });
    peer.says(there(), &key("a"), old, now + 3 * DAY.as_millis() as u64);
    assert_eq!(world.keys_at(there(), &["ed25519:a"], now), ["ed25519:a"]);
    assert_eq!(world.keys_at(there(), &[], now - 1000), ["ed25519:a", "ed25519:old"]);
    assert_eq!(world.keys_at(there(), &["ed25519:old"], now - 500), [""; 0], "it had expired by then");
    assert_eq!(peer.asked(), 1);
    peer.is_silent();
    let afterwards = keyring(&world.server, &world.network, &world.sim, &[]);
    let world = World { keys: afterwards, ..world };
    assert_eq!(world.keys_at(there(), &["ed25519:a"], now), ["ed25519:a"]);
    assert_eq!(peer.asked(), 1);
}

#[test]
fn a_key_is_believed_for_a_week_at_most() {
    let world = World::new(&[]);
    let peer = KeyServer::start(&world.network, there());
    let start = world.now_ms();
    peer.says(there(), &key("a"), json!({}), start + 1000 * DAY.as_millis() as u64);
    assert_eq!(world.keys_at(there(), &["ed25519:a"], start), ["ed25519:a"]);
    peer.is_silent();
    world.pass(6 * DAY);
    assert_eq!(world.keys_at(there(), &["ed25519:a"], world.now_ms()), ["ed25519:a"]);
    world.pass(2 * DAY);
    assert_eq!(world.keys_at(there(), &["ed25519:a"], world.now_ms()), [""; 0], "nobody vouches for it now");
    assert_eq!(world.keys_at(there(), &["ed25519:a"], start), ["ed25519:a"], "it was valid then");
    assert_eq!(world.keys_at(there(), &["ed25519:a"], 0), ["ed25519:a"], "old room versions do not ask when");
}

#[test]
fn keys_are_renewed_before_they_expire() {
    let world = World::new(&[]);
    let peer = KeyServer::start(&world.network, there());
    let day = DAY.as_millis() as u64;
    peer.says(there(), &key("a"), json!({}), world.now_ms() + day);
    world.keys_at(there(), &["ed25519:a"], world.now_ms());
    world.pass(DAY * 3 / 4);
    peer.says(there(), &key("a"), json!({}), world.now_ms() + day);
    assert_eq!(world.keys_at(there(), &["ed25519:a"], world.now_ms()), ["ed25519:a"], "nobody waits for it");
    world.pass(Duration::from_secs(1));
    assert_eq!(peer.asked(), 2);
    peer.is_silent();
    world.pass(DAY / 2);
    assert_eq!(world.keys_at(there(), &["ed25519:a"], world.now_ms()), ["ed25519:a"]);
}

#[test]
fn a_server_that_does_not_answer_is_asked_once_and_then_less_and_less() {
    let world = World::new(&[]);
    let peer = KeyServer::start(&world.network, there());
    let wanted = Wanted { server: there().to_owned(), key_ids: vec!["ed25519:a".to_owned()], at_ms: 0 };
    let wanted = std::slice::from_ref(&wanted);
    world.sim.block_on(async {
        let all = (0..10).map(|_| world.keys.keys_for(wanted));
        futures::future::join_all(all).await;
    });
    assert_eq!(peer.asked(), 1, "whoever waits for the same server waits for the same answer");
    for (seconds, asked) in [(5, 1), (6, 2), (15, 2), (6, 3)] {
        world.pass(Duration::from_secs(seconds));
        world.sim.block_on(world.keys.keys_for(wanted));
        assert_eq!(peer.asked(), asked, "after {seconds} s more");
    }
}

#[test]
fn a_key_that_a_server_does_not_have_does_not_make_it_be_asked_again_and_again() {
    let world = World::new(&[]);
    let peer = KeyServer::start(&world.network, there());
    peer.says(there(), &key("a"), json!({}), world.now_ms() + DAY.as_millis() as u64);
    for n in 0..20 {
        assert_eq!(world.keys_at(there(), &[&format!("ed25519:x{n}")], world.now_ms()), [""; 0]);
    }
    assert_eq!(peer.asked(), 1);
    // A new key is found, if not at once.
    peer.says(there(), &key("b"), json!({}), world.now_ms() + DAY.as_millis() as u64);
    world.pass(Duration::from_secs(31));
    assert_eq!(world.keys_at(there(), &["ed25519:b"], world.now_ms()), ["ed25519:b"]);
}

#[test]
fn notaries_speak_for_servers_that_are_gone() {
    let notary = server_name!("notary.test");
    let world = World::new(&[notary]);
    let _notary = Server::start_in(&world.network, notary, &world.sim, MemoryDisk::default());
    let peer = KeyServer::start(&world.network, there());
    let now = world.now_ms();
    peer.says(there(), &key("a"), json!({}), now + DAY.as_millis() as u64);
    // The notary has heard of it once.
    let client = Client::new(
        here().to_owned(),
        Arc::new(signing_key(here())),
        world.network.port_of(here()),
        Arc::new(Peers::new(world.sim.env())),
    );
    let asked = world.sim.block_on(client.get_unsigned::<Value>(
        notary,
        "/_matrix/key/v2/query/there.test",
        Budget::ORDINARY,
    ));
    let told = asked.expect("an answer");
    let told = told["server_keys"][0].to_string();
    let answer = KeyAnswer::check(there(), &told, now).expect("signed by the server");
    answer.check_signed_by(notary, &signing_key(notary).public_key_set()).expect("signed by the notary");
    world.network.disconnect(there());
    assert_eq!(world.keys_at(there(), &["ed25519:a"], now), ["ed25519:a"]);
}

#[test]
fn what_a_notary_has_not_signed_is_not_believed() {
    let notary = server_name!("notary.test");
    let world = World::new(&[notary]);
    let liar = KeyServer::start(&world.network, notary);
    let until = world.now_ms() + DAY.as_millis() as u64;
    liar.says(notary, &key("n"), json!({}), until);
    let forged = json!({
        "server_name": there(),
        "verify_keys": { "ed25519:a": { "key": key("a").public_key_base64() } },
        "old_verify_keys": {},
        "valid_until_ts": until,
    });
    let own = signed(forged, there(), &key("a"));
    let keys = liar.answer.lock().clone().unwrap_or_default();
    let serve = |answer: Value| {
        let (keys, answer) = (keys.clone(), json!({ "server_keys": [answer] }));
        let routes = Router::new()
            .route("/_matrix/key/v2/server", get(move || std::future::ready(keys.to_string())))
            .route("/_matrix/key/v2/query", post(move || std::future::ready(answer.to_string())));
        world.network.connect(notary, routes);
    };
    serve(own.clone());
    assert_eq!(world.keys_at(there(), &["ed25519:a"], 0), [""; 0]);
    serve(signed(own.clone(), notary, &key("other")));
    world.pass(MINUTE);
    assert_eq!(world.keys_at(there(), &["ed25519:a"], 0), [""; 0]);
    serve(signed(own, notary, &key("n")));
    world.pass(MINUTE);
    assert_eq!(world.keys_at(there(), &["ed25519:a"], 0), ["ed25519:a"], "it is the signature that counts");
}

#[test]
fn this_server_tells_of_its_keys_old_ones_included() {
    let world = World::new(&[]);
    let (old, expired_ms) = (key("before"), world.now_ms() - 5);
    let mut batch = Batch::new();
    let record = OldSigningKeyRecord { public_key: old.public_key(), expired_ms };
    batch.put(&OLD_SIGNING_KEYS, &old.key_id().to_owned(), &record);
    world.sim.block_on(world.server.view.store.commit(batch)).expect("stored");
    let answer = world
        .sim
        .block_on(world.server.request(http::Method::GET, "/_matrix/key/v2/server", None, None))
        .ok();
    let checked = KeyAnswer::check(here(), &answer.to_string(), world.now_ms()).expect("a good answer");
    let told: Vec<_> = checked.keys().map(|(id, _, until)| (id.as_str(), until)).collect();
    let day = DAY.as_millis() as u64;
    assert_eq!(told, [("ed25519:before", expired_ms), ("ed25519:sim", world.now_ms() + day)]);
    assert_eq!(world.keys_at(here(), &[], expired_ms), ["ed25519:before", "ed25519:sim"]);
    assert_eq!(world.keys_at(here(), &[], world.now_ms()), ["ed25519:sim"]);
}

#[test]
fn a_validity_that_is_lowered_does_not_lock_a_server_out() {
    let world = World::new(&[]);
    let peer = KeyServer::start(&world.network, there());
    let day = DAY.as_millis() as u64;
    // Its clock was a year ahead.
    peer.says(there(), &key("a"), json!({}), world.now_ms() + 366 * day);
    assert_eq!(world.keys_at(there(), &["ed25519:a"], world.now_ms()), ["ed25519:a"]);
    for _ in 0..8 {
        peer.says(there(), &key("a"), json!({}), world.now_ms() + 2 * day);
        world.pass(DAY);
        world.keys_at(there(), &["ed25519:a"], world.now_ms());
        world.pass(MINUTE);
    }
    assert_eq!(world.keys_at(there(), &["ed25519:a"], world.now_ms()), ["ed25519:a"]);
    let afterwards = keyring(&world.server, &world.network, &world.sim, &[]);
    let world = World { keys: afterwards, ..world };
    peer.is_silent();
    assert_eq!(world.keys_at(there(), &["ed25519:a"], world.now_ms()), ["ed25519:a"]);
}

#[test]
fn a_retired_key_signs_nothing_from_then_on_whatever_was_promised() {
    let world = World::new(&[]);
    let peer = KeyServer::start(&world.network, there());
    let (start, day) = (world.now_ms(), DAY.as_millis() as u64);
    peer.says(there(), &key("a"), json!({}), start + 300 * day);
    world.keys_at(there(), &["ed25519:a"], start);
    let old = json!({ "ed25519:a": { "key": key("a").public_key_base64(), "expired_ts": start + 1000 } });
    peer.says(there(), &key("b"), old, start + day);
    world.pass(MINUTE);
    assert_eq!(world.keys_at(there(), &["ed25519:b"], world.now_ms()), ["ed25519:b"]);
    assert_eq!(world.keys_at(there(), &["ed25519:a"], world.now_ms()), [""; 0]);
    assert_eq!(
        world.keys_at(there(), &["ed25519:a"], start),
        ["ed25519:a"],
        "what it has signed stays valid"
    );
}

#[test]
fn a_notary_does_not_bring_a_retired_key_back() {
    let notary = server_name!("notary.test");
    let world = World::new(&[notary]);
    let (teller, peer) = (Notary::start(&world, notary), KeyServer::start(&world.network, there()));
    let (start, day) = (world.now_ms(), DAY.as_millis() as u64);
    peer.says(there(), &key("a"), json!({}), start + 300 * day);
    teller.hands_on(&peer);
    let old = json!({ "ed25519:a": { "key": key("a").public_key_base64(), "expired_ts": start } });
    peer.says(there(), &key("b"), old, start + day);
    assert_eq!(world.keys_at(there(), &["ed25519:b"], start), ["ed25519:b"]);
    world.network.disconnect(there());
    world.pass(2 * DAY);
    assert_eq!(world.keys_at(there(), &["ed25519:a"], world.now_ms()), [""; 0]);
    assert!(teller.asked() > 0);
}

#[test]
fn a_notary_does_not_replace_a_key_that_is_known_by_another_value() {
    let notary = server_name!("notary.test");
    let world = World::new(&[notary]);
    let (teller, peer) = (Notary::start(&world, notary), KeyServer::start(&world.network, there()));
    let (start, day) = (world.now_ms(), DAY.as_millis() as u64);
    peer.says(there(), &key("a"), json!({}), start + day);
    world.keys_at(there(), &["ed25519:a"], start);
    // Made up by the notary: a key of the same id.
    let other = SigningKey::from_seed("a", [77; 32]).expect("a key");
    peer.says(there(), &other, json!({}), start + 300 * day);
    teller.hands_on(&peer);
    world.network.disconnect(there());
    world.pass(2 * DAY);
    assert_eq!(world.keys_at(there(), &["ed25519:a"], world.now_ms()), [""; 0]);
    assert!(teller.asked() > 0);
}

#[test]
fn with_many_unknown_servers_a_notary_goes_first_and_the_rest_is_asked_for_directly() {
    let notary = server_name!("notary.test");
    let world = World::new(&[notary]);
    let teller = Notary::start(&world, notary);
    let until = world.now_ms() + DAY.as_millis() as u64;
    let names: Vec<OwnedServerName> =
        (0..20).map(|n| format!("s{n}.test").try_into().expect("a name")).collect();
    let peers: Vec<_> = names.iter().map(|name| KeyServer::start(&world.network, name)).collect();
    for (name, peer) in names.iter().zip(&peers) {
        peer.says(name, &key("a"), json!({}), until);
    }
    peers[..18].iter().for_each(|peer| teller.hands_on(peer));
    let key_ids = vec!["ed25519:a".to_owned()];
    let wanted = |name: &OwnedServerName| Wanted { server: name.clone(), key_ids: key_ids.clone(), at_ms: 0 };
    let wanted: Vec<_> = names.iter().map(wanted).collect();
    let keys = world.sim.block_on(world.keys.keys_for(&wanted));
    assert!(names.iter().all(|name| keys[name.as_str()].contains_key("ed25519:a")), "{keys:?}");
    assert_eq!(peers.iter().map(KeyServer::asked).sum::<usize>(), 2);
    assert_eq!(teller.asked(), 1);
}

#[test]
fn notaries_are_asked_less_and_less_for_what_they_do_not_have() {
    let notary = server_name!("notary.test");
    let world = World::new(&[notary]);
    let teller = Notary::start(&world, notary);
    for _ in 0..10 {
        assert_eq!(world.keys_at(there(), &["ed25519:a"], 0), [""; 0]);
    }
    assert_eq!(teller.asked(), 1, "each event of a dead server asks for its keys");
    for _ in 0..20 {
        world.pass(MINUTE);
        world.keys_at(there(), &["ed25519:a"], 0);
    }
    assert!((4..10).contains(&teller.asked()), "{}", teller.asked());
}

#[test]
fn strangers_keep_nobody_from_the_keys_that_are_needed_here() {
    let world = World::new(&[]);
    let asked = Arc::new(AtomicUsize::new(0));
    let stranger = async |name: usize, address: u8| {
        let name: OwnedServerName = format!("n{name}.evil").try_into().expect("a name");
        let counter = asked.clone();
        let hole = move || {
            counter.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<String>()
        };
        world.network.connect(&name, Router::new().route("/_matrix/key/v2/server", get(hole)));
        world.keys.current_key(&name, "ed25519:a", [1, 2, 3, address].into()).await
    };
    let peer = KeyServer::start(&world.network, there());
    peer.says(there(), &key("a"), json!({}), world.now_ms() + DAY.as_millis() as u64);
    world.sim.block_on(async {
        let of_one = futures::future::join_all((0..100).map(|n| stranger(n, 1)));
        let answers = of_one.await;
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 8);
        assert_eq!(asked.load(Ordering::SeqCst), 8);
        // From many addresses: there is an end, too. What was begun is still under way.
        let of_many = futures::future::join_all((100..300).map(|n| stranger(n, n as u8)));
        of_many.await;
        assert_eq!(asked.load(Ordering::SeqCst), 32);
    });
    assert_eq!(world.keys_at(there(), &["ed25519:a"], world.now_ms()), ["ed25519:a"]);
}

#[test]
fn what_strangers_ask_for_ends_and_others_come_in() {
    let world = World::new(&[]);
    let peer = KeyServer::start(&world.network, there());
    peer.says(there(), &key("a"), json!({}), world.now_ms() + DAY.as_millis() as u64);
    let address = std::net::IpAddr::from([1, 2, 3, 4]);
    world.sim.block_on(async {
        for n in 0..50 {
            let name: OwnedServerName = format!("n{n}.evil").try_into().expect("a name");
            assert_eq!(
                world.keys.current_key(&name, "ed25519:a", address).await,
                Ok(None),
                "nobody is there"
            );
        }
        let key = world.keys.current_key(there(), "ed25519:a", address).await;
        assert!(key.is_ok_and(|key| key.is_some()));
    });
}

#[test]
fn servers_that_share_an_address_wait_for_each_other() {
    let world = World::new(&[]);
    let until = world.now_ms() + DAY.as_millis() as u64;
    let names: Vec<OwnedServerName> =
        (0..24).map(|n| format!("s{n}.test").try_into().expect("a name")).collect();
    for name in &names {
        let said = KeyServer::default();
        said.says(name, &key("a"), json!({}), until);
        let said = said.answer.lock().clone().unwrap_or_default().to_string();
        let clock = world.sim.env().clock;
        let slow = move || {
            let (pause, said) = (clock.sleep(Duration::from_secs(1)), said.clone());
            async move {
                pause.await;
                said
            }
        };
        world.network.connect(name, Router::new().route("/_matrix/key/v2/server", get(slow)));
    }
    let address = std::net::IpAddr::from([1, 2, 3, 4]);
    let asked = names.iter().map(|name| world.keys.current_key(name, "ed25519:a", address));
    let found = world.sim.block_on(futures::future::join_all(asked));
    assert!(found.iter().all(|key| matches!(key, Ok(Some(_)))), "{found:?}");
}

/// Somebody who takes a connection and never answers.
fn tarpit(world: &World, name: &ServerName, asked: &Arc<AtomicUsize>) {
    let counter = asked.clone();
    let hole = move || {
        counter.fetch_add(1, Ordering::SeqCst);
        std::future::pending::<String>()
    };
    world.network.connect(name, Router::new().route("/_matrix/key/v2/server", get(hole)));
}

fn server(name: String) -> OwnedServerName {
    name.try_into().expect("a name")
}

#[test]
fn strangers_keep_no_server_out_with_which_a_room_is_shared() {
    let world = World::new(&[]);
    let (asked, day) = (Arc::new(AtomicUsize::new(0)), DAY.as_millis() as u64);
    let peer = KeyServer::start(&world.network, there());
    peer.says(there(), &key("a"), json!({}), world.now_ms() + day);
    let mut batch = Batch::new();
    let position = world.server.view.store.position();
    let row = AtPosition { position, value: ServerRoomRecord { joined: true } };
    batch.put(&SERVER_ROOMS, &(there().to_string(), RoomNid(1)), &row);
    world.sim.block_on(world.server.view.store.commit(batch)).expect("stored");
    let current = |name: &ServerName| {
        world.sim.block_on(world.keys.current_key(name, "ed25519:a", [9, 9, 9, 9].into()))
    };
    assert!(matches!(current(there()), Ok(Some(_))));
    let names: Vec<_> = (0..40).map(|n| server(format!("n{n}.evil"))).collect();
    names.iter().for_each(|name| tarpit(&world, name, &asked));
    world.sim.block_on(async {
        let claims = names.iter().zip(0..).map(|(name, n)| {
            world.keys.current_key(name, "ed25519:a", std::net::IpAddr::from([1, 2, 3, n / 8]))
        });
        futures::future::join_all(claims).await;
    });
    assert_eq!(asked.load(Ordering::SeqCst), 32, "all lanes of strangers are taken, and stay so");
    let honest = server_name!("honest.test");
    KeyServer::start(&world.network, honest).says(honest, &key("a"), json!({}), world.now_ms() + 9 * day);
    assert!(current(honest).is_err(), "a stranger, too");
    world.pass(DAY * 3 / 4);
    peer.says(there(), &key("a"), json!({}), world.now_ms() + day);
    assert!(matches!(current(there()), Ok(Some(_))));
    world.pass(Duration::from_secs(1));
    assert_eq!(peer.asked(), 2, "what was stale is renewed");
    world.pass(3 * DAY);
    peer.says(there(), &key("a"), json!({}), world.now_ms() + day);
    assert!(matches!(current(there()), Ok(Some(_))), "it had expired");
}

#[test]
fn names_that_a_server_invents_keep_nobody_from_the_keys_that_are_needed_here() {
    let world = World::new(&[]);
    let asked = Arc::new(AtomicUsize::new(0));
    let until = world.now_ms() + DAY.as_millis() as u64;
    let named: Vec<_> = (0..300).map(|n| server(format!("n{n}.evil"))).collect();
    named.iter().for_each(|name| tarpit(&world, name, &asked));
    let peers = [there(), server_name!("other.test")];
    let wanted = |name: &ServerName| Wanted {
        server: name.to_owned(),
        key_ids: vec!["ed25519:a".to_owned()],
        at_ms: 0,
    };
    let named: Vec<_> = named.iter().map(|name| wanted(name)).collect();
    for name in peers {
        KeyServer::start(&world.network, name).says(name, &key("a"), json!({}), until);
    }
    let evil = server_name!("evil.test");
    let clock = world.sim.env().clock;
    world.sim.block_on(async {
        // Rooms of one transaction.
        let rooms = named.chunks(30).map(|room| world.keys.bring_brought_by(evil, room));
        let others = async {
            clock.sleep(Duration::from_secs(1)).await;
            assert_eq!(asked.load(Ordering::SeqCst), 8);
            let before_ms = world.now_ms();
            let here = [wanted(peers[0])];
            let brought = [wanted(peers[1])];
            let here = world.keys.keys_for(&here).await;
            world.keys.bring_brought_by(server_name!("good.test"), &brought).await;
            let brought = world.keys.at_hand(&brought).await;
            assert!(!here[peers[0].as_str()].is_empty() && !brought[peers[1].as_str()].is_empty());
            assert!(world.now_ms() < before_ms + 100, "nobody waits but for the disk");
        };
        futures::future::join(futures::future::join_all(rooms), others).await;
    });
}

#[test]
fn keys_that_strangers_invent_do_not_keep_notaries_from_being_asked_for_others() {
    let notary = server_name!("notary.test");
    let world = World::new(&[notary]);
    let teller = Notary::start(&world, notary);
    let address = std::net::IpAddr::from([1, 2, 3, 4]);
    let invented = world.sim.block_on(world.keys.current_key(there(), "ed25519:invented", address));
    assert_eq!((invented, teller.asked()), (Ok(None), 1));
    let gone = KeyServer::default();
    gone.says(there(), &key("a"), json!({}), world.now_ms() + DAY.as_millis() as u64);
    teller.hands_on(&gone);
    assert_eq!(world.keys_at(there(), &["ed25519:a"], 0), ["ed25519:a"]);
}

#[test]
fn who_makes_the_question_for_keys_panic_is_asked_again() {
    let world = World::new(&[]);
    let peer = KeyServer::default();
    peer.says(there(), &key("a"), json!({}), world.now_ms() + DAY.as_millis() as u64);
    let served = peer.clone();
    let answer = move || {
        let first = served.asked.fetch_add(1, Ordering::SeqCst) == 0;
        let answer = served.answer.lock().clone().unwrap_or_default().to_string();
        async move {
            assert!(!first, "a test panics here");
            answer
        }
    };
    world.network.connect(there(), Router::new().route("/_matrix/key/v2/server", get(answer)));
    assert_eq!(world.keys_at(there(), &["ed25519:a"], 0), [""; 0]);
    world.pass(MINUTE);
    assert_eq!(world.keys_at(there(), &["ed25519:a"], 0), ["ed25519:a"]);
}

#[test]
fn a_notary_asks_again_for_what_is_not_valid_long_enough() {
    let world = World::new(&[]);
    let peer = KeyServer::start(&world.network, there());
    let hour = DAY.as_millis() as u64 / 24;
    let says_for = |hours: u64| peer.says(there(), &key("a"), json!({}), world.now_ms() + hours * hour);
    let path = "/_matrix/key/v2/query/there.test";
    let single = |hours: u64| {
        let path = format!("{path}?minimum_valid_until_ts={}", world.now_ms() + hours * hour);
        world.sim.block_on(world.server.request(http::Method::GET, &path, None, None)).ok()
    };
    let batch = |hours: u64| {
        let criteria = json!({ "minimum_valid_until_ts": world.now_ms() + hours * hour });
        let body = json!({ "server_keys": { there().as_str(): { "ed25519:a": criteria } } });
        let path = "/_matrix/key/v2/query";
        world.sim.block_on(world.server.request(http::Method::POST, path, None, Some(&body))).ok()
    };
    let valid_for = |answer: Value| {
        let until = answer["server_keys"][0]["valid_until_ts"].as_u64().expect("an answer");
        (until.saturating_sub(world.now_ms()) + hour / 2) / hour
    };
    says_for(1);
    single(0);
    assert_eq!(peer.asked(), 1);
    world.pass(MINUTE);
    single(0);
    assert_eq!(peer.asked(), 1, "it holds for long enough");
    says_for(3);
    assert_eq!((valid_for(single(2)), peer.asked()), (3, 2));
    world.pass(MINUTE);
    batch(2);
    assert_eq!(peer.asked(), 2);
    says_for(5);
    assert_eq!((valid_for(batch(4)), peer.asked()), (5, 3));
}
