//! What a server hands out to other servers, and to whom.

use http::{Method, StatusCode};
use myelin_api::rate_limit::{Limit, RateLimits};
use myelin_federation::{Budget, Client, Peers, RequestError, Transport};
use myelin_testenv::Sim;
use myelin_testkit::{
    network::Network,
    server::{Server, signing_key},
    settings::Settings,
};
use ruma::{ServerName, server_name};
use serde_json::{Value, json};
use std::sync::Arc;

fn here_name() -> &'static ServerName {
    server_name!("here.test")
}

/// Another server as far as its signed requests go.
pub struct Asker {
    client: Client,
    _served: Option<Server>,
}

impl Asker {
    /// A server in the network: its keys can be had.
    pub fn new(network: &Network, name: &ServerName, sim: &Sim) -> Self {
        let server = Server::start_in(network, name, sim, Default::default());
        Self { _served: Some(server), ..Self::nobody(network, name, sim) }
    }

    /// Nobody: it signs, but its keys cannot be had.
    pub fn nobody(network: &Network, name: &ServerName, sim: &Sim) -> Self {
        let peers = Arc::new(Peers::new(sim.env()));
        let transport: Arc<dyn Transport> = network.port_of(here_name());
        let client = Client::new(name.to_owned(), Arc::new(signing_key(name)), transport, peers);
        Self { client, _served: None }
    }

    pub async fn get(&self, path: &str) -> Result<Value, (u16, String)> {
        refused(self.client.get(here_name(), path, Budget::ORDINARY).await)
    }

    pub async fn post(&self, path: &str, content: &Value) -> Result<Value, (u16, String)> {
        refused(self.client.post(here_name(), path, content, Budget::ORDINARY).await)
    }
}

fn refused(answer: Result<Value, RequestError>) -> Result<Value, (u16, String)> {
    answer.map_err(|error| match error {
        RequestError::Status { status, errcode, .. } => (status.as_u16(), errcode),
        other => (0, other.to_string()),
    })
}

/// A room of alice at `here.test`: its id and the ids of its events.
async fn room(here: &Server, extra: Value) -> (String, Vec<String>) {
    let account = json!({ "username": "alice", "password": "secret", "auth": { "type": "m.login.dummy" } });
    let account = here.request(Method::POST, "/_matrix/client/v3/register", None, Some(&account)).await.ok();
    let token = account["access_token"].as_str().expect("a token").to_owned();
    let room =
        here.request(Method::POST, "/_matrix/client/v3/createRoom", Some(&token), Some(&extra)).await.ok();
    let room_id = room["room_id"].as_str().expect("a room").to_owned();
    for n in 0..3 {
        let path = format!("/_matrix/client/v3/rooms/{room_id}/send/m.room.message/{n}");
        let content = json!({ "msgtype": "m.text", "body": format!("message {n}") });
        here.request(Method::PUT, &path, Some(&token), Some(&content)).await.ok();
    }
    let events = here.truth(&room_id).await;
    (room_id, events)
}

const FORBIDDEN: (u16, &str) = (StatusCode::FORBIDDEN.as_u16(), "M_FORBIDDEN");

#[test]
fn who_is_not_in_a_room_reads_nothing_of_it() {
    let (sim, network) = (Sim::new(1), Network::default());
    let here = Server::start_in(&network, here_name(), &sim, Default::default());
    let asker = Asker::new(&network, server_name!("b.test"), &sim);
    sim.block_on(async {
        let (room_id, events) = room(&here, json!({ "preset": "public_chat" })).await;
        let last = events.last().expect("an event");
        for path in [
            format!("/_matrix/federation/v1/event/{last}"),
            format!("/_matrix/federation/v1/state/{room_id}?event_id={last}"),
            format!("/_matrix/federation/v1/state_ids/{room_id}?event_id={last}"),
            format!("/_matrix/federation/v1/event_auth/{room_id}/{last}"),
            format!("/_matrix/federation/v1/backfill/{room_id}?v={last}&limit=10"),
            format!("/_matrix/federation/v1/timestamp_to_event/{room_id}?ts=0&dir=f"),
            format!("/_matrix/federation/v1/state_ids/!nowhere:here.test?event_id={last}"),
        ] {
            let (status, errcode) = asker.get(&path).await.expect_err("a refusal");
            assert_eq!((status, errcode.as_str()), FORBIDDEN, "{path}");
        }
        let path = format!("/_matrix/federation/v1/get_missing_events/{room_id}");
        let asked = json!({ "earliest_events": [], "latest_events": [last] });
        let (status, errcode) = asker.post(&path, &asked).await.expect_err("a refusal");
        assert_eq!((status, errcode.as_str()), FORBIDDEN);
    });
}

#[test]
fn a_server_whose_keys_cannot_be_had_is_nobody() {
    let (sim, network) = (Sim::new(1), Network::default());
    let _here = Server::start_in(&network, here_name(), &sim, Default::default());
    let nobody = Asker::nobody(&network, server_name!("nobody.test"), &sim);
    sim.block_on(async {
        let path = "/_matrix/federation/v1/query/profile?user_id=@alice:here.test";
        let (status, errcode) = nobody.get(path).await.expect_err("a refusal");
        assert_eq!((status, errcode.as_str()), (401, "M_UNAUTHORIZED"));
    });
}

#[test]
fn who_claims_to_be_many_servers_is_told_to_wait() {
    let (sim, network) = (Sim::new(1), Network::default());
    let mut settings = Settings::new(here_name());
    settings.edge.rate_limits =
        RateLimits { key_fetch: Limit { per_second: 0.1, burst: 2 }, ..Default::default() };
    let _here = Server::start_with(&network, settings, &sim, Default::default());
    let known = Asker::new(&network, server_name!("b.test"), &sim);
    let path = "/_matrix/federation/v1/query/profile?user_id=@nobody:here.test";
    sim.block_on(async {
        assert_eq!(known.get(path).await.expect_err("unknown").0, 404);
        for (n, status) in [(0, 401), (1, 429), (2, 429)] {
            let name = ServerName::parse(format!("n{n}.test")).expect("a name");
            let nobody = Asker::nobody(&network, &name, &sim);
            assert_eq!(nobody.get(path).await.expect_err("a refusal").0, status, "{n}");
        }
        assert_eq!(known.get(path).await.expect_err("unknown").0, 404, "its keys are known");
    });
}

#[test]
fn a_server_that_asks_too_often_is_told_to_wait_and_others_are_not() {
    let (sim, network) = (Sim::new(1), Network::default());
    let mut settings = Settings::new(here_name());
    let limits = RateLimits { server_request: Limit { per_second: 0.1, burst: 2 }, ..Default::default() };
    settings.edge.rate_limits = limits;
    let _here = Server::start_with(&network, settings, &sim, Default::default());
    let (b, c) = (server_name!("b.test"), server_name!("c.test"));
    let (b, c) = (Asker::new(&network, b, &sim), Asker::new(&network, c, &sim));
    let path = "/_matrix/federation/v1/query/profile?user_id=@nobody:here.test";
    sim.block_on(async {
        let status = async |asker: &Asker| asker.get(path).await.expect_err("a refusal");
        let (unknown, limited) = ((404, "M_NOT_FOUND".to_owned()), (429, "M_LIMIT_EXCEEDED".to_owned()));
        assert_eq!(status(&b).await, unknown);
        assert_eq!(status(&b).await, unknown);
        assert_eq!(status(&b).await, limited);
        assert_eq!(status(&c).await, unknown);
        let join = "/_matrix/federation/v1/make_join/!nowhere:here.test/@u:b.test?ver=11";
        assert_eq!(b.get(join).await, Err(unknown.clone()), "a limit of its own");
        sim.env().clock.sleep(std::time::Duration::from_secs(10)).await;
        assert_eq!(status(&b).await, unknown);
    });
}

#[test]
fn profiles_and_aliases_are_told_to_servers() {
    let (sim, network) = (Sim::new(1), Network::default());
    let here = Server::start_in(&network, here_name(), &sim, Default::default());
    let asker = Asker::new(&network, server_name!("b.test"), &sim);
    sim.block_on(async {
        let (room_id, _) = room(&here, json!({ "room_alias_name": "hall" })).await;
        let profile = asker.get("/_matrix/federation/v1/query/profile?user_id=@alice:here.test").await;
        assert_eq!(profile, Ok(json!({ "displayname": "alice" })));
        let field = "/_matrix/federation/v1/query/profile?user_id=@alice:here.test&field=avatar_url";
        assert_eq!(asker.get(field).await, Ok(json!({})));
        for (path, refusal) in [
            ("query/profile?user_id=@bob:here.test", (404, "M_NOT_FOUND")),
            ("query/profile?user_id=@bob:there.test", (400, "M_INVALID_PARAM")),
            ("query/directory?room_alias=%23nothing:here.test", (404, "M_NOT_FOUND")),
            ("query/directory?room_alias=%23hall:there.test", (404, "M_NOT_FOUND")),
            ("query/nonsense?x=y", (404, "M_UNRECOGNIZED")),
        ] {
            let answer = asker.get(&format!("/_matrix/federation/v1/{path}")).await;
            let (status, errcode) = answer.expect_err("a refusal");
            assert_eq!((status, errcode.as_str()), refusal, "{path}");
        }
        let alias = asker.get("/_matrix/federation/v1/query/directory?room_alias=%23hall:here.test").await;
        assert_eq!(alias, Ok(json!({ "room_id": room_id, "servers": ["here.test"] })));
    });
}

/// The access token of a new account.
async fn account(server: &Server, name: &str) -> String {
    let body = json!({ "username": name, "password": "secret", "auth": { "type": "m.login.dummy" } });
    let account = server.request(Method::POST, "/_matrix/client/v3/register", None, Some(&body)).await.ok();
    account["access_token"].as_str().expect("a token").to_owned()
}

async fn create(server: &Server, token: &str, body: Value) -> String {
    let room =
        server.request(Method::POST, "/_matrix/client/v3/createRoom", Some(token), Some(&body)).await.ok();
    room["room_id"].as_str().expect("a room").to_owned()
}

async fn client_get(server: &Server, token: &str, path: &str) -> Result<Value, (u16, String)> {
    let answer = server.request(Method::GET, &format!("/_matrix/client/{path}"), Some(token), None).await;
    match answer.is_ok() {
        true => Ok(answer.json),
        false => {
            Err((answer.status.as_u16(), answer.json["errcode"].as_str().unwrap_or_default().to_owned()))
        }
    }
}

#[test]
fn clients_look_things_up_on_other_servers() {
    let (sim, network) = (Sim::new(1), Network::default());
    let here = Server::start_in(&network, here_name(), &sim, Default::default());
    let there = Server::start_in(&network, server_name!("there.test"), &sim, Default::default());
    sim.block_on(async {
        let (alice, bob) = (account(&here, "alice").await, account(&there, "bob").await);
        let hall = json!({ "room_alias_name": "hall", "visibility": "public", "preset": "public_chat", "name": "Hall" });
        let hall = create(&here, &alice, hall).await;
        let found = client_get(&there, &bob, "v3/directory/room/%23hall:here.test").await;
        assert_eq!(found, Ok(json!({ "room_id": hall, "servers": ["here.test"] })));
        let unknown = client_get(&there, &bob, "v3/directory/room/%23none:here.test").await;
        assert_eq!(unknown, Err((404, "M_NOT_FOUND".to_owned())));
        let rooms = client_get(&there, &bob, "v3/publicRooms?server=here.test").await.expect("rooms");
        assert_eq!(rooms["chunk"][0]["name"], "Hall");
        let profile = client_get(&there, &bob, "v3/profile/@alice:here.test/displayname").await;
        assert_eq!(profile, Ok(json!({ "displayname": "alice" })));
        let summary = client_get(&there, &bob, "v1/room_summary/%23hall:here.test").await.expect("a summary");
        assert_eq!((&summary["room_id"], &summary["membership"]), (&json!(hall), &json!("leave")));
        for path in ["v3/profile/@x:nobody.test", "v3/directory/room/%23x:nobody.test", "v3/publicRooms?server=nobody.test"] {
            assert_eq!(client_get(&there, &bob, path).await, Err((502, "M_UNKNOWN".to_owned())), "{path}");
        }
    });
}

#[test]
fn spaces_reach_over_servers_as_far_as_they_are_open() {
    let (sim, network) = (Sim::new(1), Network::default());
    let here = Server::start_in(&network, here_name(), &sim, Default::default());
    let there = Server::start_in(&network, server_name!("there.test"), &sim, Default::default());
    sim.block_on(async {
        let (alice, bob) = (account(&here, "alice").await, account(&there, "bob").await);
        let space = |preset: &str| json!({ "preset": preset, "creation_content": { "type": "m.space" } });
        let remote_space = create(&here, &alice, space("public_chat")).await;
        let open = create(&here, &alice, json!({ "preset": "public_chat", "name": "open" })).await;
        let closed = create(&here, &alice, json!({ "preset": "private_chat" })).await;
        let root = create(&there, &bob, space("private_chat")).await;
        let via = json!({ "via": ["here.test"] });
        for (server, token, parent, child) in [
            (&here, &alice, &remote_space, &open),
            (&here, &alice, &remote_space, &closed),
            (&there, &bob, &root, &remote_space),
        ] {
            let path = format!("/_matrix/client/v3/rooms/{parent}/state/m.space.child/{child}");
            server.request(Method::PUT, &path, Some(token), Some(&via)).await.ok();
        }
        let tree = client_get(&there, &bob, &format!("v1/rooms/{root}/hierarchy")).await.expect("a tree");
        let rooms: Vec<_> =
            tree["rooms"].as_array().expect("rooms").iter().map(|room| &room["room_id"]).collect();
        assert_eq!(rooms, [&json!(root), &json!(remote_space), &json!(open)]);
        assert_eq!(tree["rooms"][1]["children_state"].as_array().map(Vec::len), Some(2));
        let asker = Asker::new(&network, server_name!("b.test"), &sim);
        let told =
            asker.get(&format!("/_matrix/federation/v1/hierarchy/{remote_space}")).await.expect("a space");
        assert_eq!(told["inaccessible_children"], json!([closed]));
        assert_eq!(told["children"][0]["room_id"], json!(open));
        let hidden = asker.get(&format!("/_matrix/federation/v1/hierarchy/{closed}")).await;
        assert_eq!(hidden, Err((404, "M_NOT_FOUND".to_owned())));
    });
}

/// Two servers in one room whose history is for members only: what was said before bob joined, and after.
struct Shared {
    here: Server,
    there: Server,
    asker: Asker,
    alice: String,
    bob: String,
    room_id: String,
    before: String,
    after: String,
}

async fn say(server: &Server, token: &str, room_id: &str, text: &str) -> String {
    let path = format!("/_matrix/client/v3/rooms/{room_id}/send/m.room.message/{}", text.replace(' ', "-"));
    let content = json!({ "msgtype": "m.text", "body": text });
    let sent = server.request(Method::PUT, &path, Some(token), Some(&content)).await.ok();
    sent["event_id"].as_str().expect("an event id").to_owned()
}

async fn set(server: &Server, token: &str, room_id: &str, kind: &str, content: Value) {
    let path = format!("/_matrix/client/v3/rooms/{room_id}/state/{kind}/");
    server.request(Method::PUT, &path, Some(token), Some(&content)).await.ok();
}

async fn shared(sim: &Sim, network: &Network) -> Shared {
    let here = Server::start_in(network, here_name(), sim, Default::default());
    let there = Server::start_in(network, server_name!("there.test"), sim, Default::default());
    let asker = Asker::nobody(network, server_name!("there.test"), sim);
    let (alice, bob) = (account(&here, "alice").await, account(&there, "bob").await);
    let visibility = json!({
        "type": "m.room.history_visibility", "state_key": "",
        "content": { "history_visibility": "joined" },
    });
    let hall = json!({ "preset": "public_chat", "room_alias_name": "hall", "initial_state": [visibility] });
    let room_id = create(&here, &alice, hall).await;
    let before = say(&here, &alice, &room_id, "before bob").await;
    let path = "/_matrix/client/v3/join/%23hall:here.test";
    there.request(Method::POST, path, Some(&bob), Some(&json!({}))).await.ok();
    let after = say(&here, &alice, &room_id, "after bob").await;
    Shared { here, there, asker, alice, bob, room_id, before, after }
}

#[test]
fn what_no_user_of_a_server_may_see_goes_out_redacted() {
    let (sim, network) = (Sim::new(1), Network::default());
    sim.block_on(async {
        let shared = shared(&sim, &network).await;
        let event = async |id: &str| {
            let path = format!("/_matrix/federation/v1/event/{id}");
            let answer = shared.asker.get(&path).await.expect("an event");
            assert_eq!(answer["origin"], "here.test");
            assert!(answer["origin_server_ts"].is_u64());
            answer["pdus"][0]["content"].clone()
        };
        assert_eq!(event(&shared.before).await, json!({}));
        assert_eq!(event(&shared.after).await["body"], "after bob");
        let (room_id, after) = (&shared.room_id, &shared.after);
        let path = format!("/_matrix/federation/v1/backfill/{room_id}?v={after}&limit=100");
        let backfill = shared.asker.get(&path).await.expect("history");
        let contents: Vec<_> =
            backfill["pdus"].as_array().expect("pdus").iter().map(|pdu| &pdu["content"]).collect();
        assert_eq!(contents.len(), shared.here.truth(room_id).await.len());
        assert_eq!(contents[0]["body"], "after bob");
        assert!(!backfill.to_string().contains("before bob"));
        set(
            &shared.here,
            &shared.alice,
            room_id,
            "m.room.history_visibility",
            json!({ "history_visibility": "shared" }),
        )
        .await;
        assert_eq!(event(&shared.before).await, json!({}), "what counts is what was said at the time");
    });
}

#[test]
fn who_takes_part_reads_state_and_history() {
    let (sim, network) = (Sim::new(1), Network::default());
    sim.block_on(async {
        let shared = shared(&sim, &network).await;
        let (room_id, before, after) = (&shared.room_id, &shared.before, &shared.after);
        let truth = shared.here.truth(room_id).await;
        let path = |what: &str| format!("/_matrix/federation/v1/{what}/{room_id}?event_id={after}");
        let ids = shared.asker.get(&path("state_ids")).await.expect("ids");
        let state = shared.asker.get(&path("state")).await.expect("a state");
        let count = |answer: &Value, field: &str| answer[field].as_array().map(Vec::len);
        assert_eq!(count(&ids, "pdu_ids"), count(&state, "pdus"));
        assert_eq!(count(&ids, "auth_chain_ids"), count(&state, "auth_chain"));
        assert!(ids["pdu_ids"].as_array().expect("ids").contains(&json!(truth[0])), "the create event");
        assert!(!ids["pdu_ids"].as_array().expect("ids").contains(&json!(after)));
        let path = format!("/_matrix/federation/v1/event_auth/{room_id}/{after}");
        let chain = shared.asker.get(&path).await.expect("a chain");
        let kinds: Vec<_> =
            chain["auth_chain"].as_array().expect("events").iter().map(|pdu| &pdu["type"]).collect();
        for kind in ["m.room.create", "m.room.member", "m.room.power_levels"] {
            assert!(kinds.contains(&&json!(kind)), "{kind}: {kinds:?}");
        }
        let path = format!("/_matrix/federation/v1/get_missing_events/{room_id}");
        let asked = json!({ "earliest_events": [before], "latest_events": [after], "limit": 10 });
        let missing = shared.asker.post(&path, &asked).await.expect("events");
        let missing: Vec<_> =
            missing["events"].as_array().expect("events").iter().map(|pdu| &pdu["type"]).collect();
        assert_eq!(missing, [&json!("m.room.member")], "bob's join lies between");
        let nothing =
            json!({ "earliest_events": [], "latest_events": [after], "limit": 10, "min_depth": 1000 });
        assert_eq!(shared.asker.post(&path, &nothing).await, Ok(json!({ "events": [] })));
        let path = format!("/_matrix/federation/v1/timestamp_to_event/{room_id}?ts=99999999999999&dir=b");
        assert_eq!(shared.asker.get(&path).await.expect("an event")["event_id"], json!(after));
        let path = format!("/_matrix/federation/v1/timestamp_to_event/{room_id}?ts=99999999999999&dir=f");
        assert_eq!(shared.asker.get(&path).await, Err((404, "M_NOT_FOUND".to_owned())));
    });
}

#[test]
fn an_event_belongs_to_its_room_and_bans_hold() {
    let (sim, network) = (Sim::new(1), Network::default());
    sim.block_on(async {
        let shared = shared(&sim, &network).await;
        let other = create(&shared.here, &shared.alice, json!({ "preset": "public_chat" })).await;
        let secret = say(&shared.here, &shared.alice, &other, "secret").await;
        let room_id = &shared.room_id;
        for path in [
            format!("state/{room_id}?event_id={secret}"),
            format!("state_ids/{room_id}?event_id={secret}"),
            format!("event_auth/{room_id}/{secret}"),
        ] {
            let answer = shared.asker.get(&format!("/_matrix/federation/v1/{path}")).await;
            assert_eq!(answer, Err((404, "M_NOT_FOUND".to_owned())), "{path}");
        }
        let path = format!("/_matrix/federation/v1/backfill/{room_id}?v={secret}&limit=10");
        assert_eq!(shared.asker.get(&path).await.expect("nothing")["pdus"], json!([]));
        let path = format!("/_matrix/federation/v1/get_missing_events/{room_id}");
        let asked = json!({ "earliest_events": [], "latest_events": [secret] });
        assert_eq!(shared.asker.post(&path, &asked).await, Ok(json!({ "events": [] })));
        let acl = json!({ "allow": ["*"], "deny": ["there.*"] });
        set(&shared.here, &shared.alice, room_id, "m.room.server_acl", acl).await;
        for path in reads(room_id, &shared.after) {
            let (status, errcode) = shared.asker.get(&path).await.expect_err("a refusal");
            assert_eq!((status, errcode.as_str()), FORBIDDEN, "{path}");
        }
        let path = format!("/_matrix/federation/v1/get_missing_events/{room_id}");
        let (status, errcode) = shared.asker.post(&path, &asked).await.expect_err("a refusal");
        assert_eq!((status, errcode.as_str()), FORBIDDEN);
    });
}

#[test]
fn a_server_that_has_left_reads_nothing_of_what_came_later() {
    let (sim, network) = (Sim::new(1), Network::default());
    sim.block_on(async {
        let shared = shared(&sim, &network).await;
        let room_id = &shared.room_id;
        let leave = format!("/_matrix/client/v3/rooms/{room_id}/leave");
        shared.there.request(Method::POST, &leave, Some(&shared.bob), Some(&json!({}))).await.ok();
        // The leave is on its way.
        sim.env().clock.sleep(std::time::Duration::from_secs(10)).await;
        let later = say(&shared.here, &shared.alice, room_id, "after all").await;
        for path in reads(room_id, &shared.after) {
            shared.asker.get(&path).await.expect("what it was there for");
        }
        for path in reads(room_id, &later) {
            match shared.asker.get(&path).await {
                Err((status, errcode)) => assert_eq!((status, errcode.as_str()), FORBIDDEN, "{path}"),
                Ok(answer) => {
                    assert!(path.contains("/backfill/") || path.contains("/timestamp_to_event/"), "{path}");
                    let answer = answer.to_string();
                    assert!(!answer.contains("after all") && !answer.contains(&later), "{path}: {answer}");
                }
            }
        }
        let path = format!("/_matrix/federation/v1/get_missing_events/{room_id}");
        let asked = json!({ "earliest_events": [shared.after], "latest_events": [later], "limit": 10 });
        let missing = shared.asker.post(&path, &asked).await;
        assert!(!missing.expect("events").to_string().contains("after all"));
    });
}

/// Every `GET` by which a server reads in a room, at an event.
fn reads(room_id: &str, event: &str) -> [String; 6] {
    [
        format!("event/{event}"),
        format!("state/{room_id}?event_id={event}"),
        format!("state_ids/{room_id}?event_id={event}"),
        format!("event_auth/{room_id}/{event}"),
        format!("backfill/{room_id}?v={event}&limit=10"),
        format!("timestamp_to_event/{room_id}?ts=99999999999999&dir=b"),
    ]
    .map(|path| format!("/_matrix/federation/v1/{path}"))
}

/// The `required` of the specification's schemas, for what is read.
#[test]
fn answers_have_what_the_specification_requires() {
    let (sim, network) = (Sim::new(1), Network::default());
    sim.block_on(async {
        let shared = shared(&sim, &network).await;
        let (room, event) = (&shared.room_id, &shared.after);
        let transaction: &[&str] = &["origin", "origin_server_ts", "pdus"];
        let reads: [(String, &[&str]); 13] = [
            (format!("federation/v1/backfill/{room}?v={event}&limit=1"), transaction),
            (format!("federation/v1/event/{event}"), transaction),
            (format!("federation/v1/event_auth/{room}/{event}"), &["auth_chain"]),
            (format!("federation/v1/state/{room}?event_id={event}"), &["auth_chain", "pdus"]),
            (format!("federation/v1/state_ids/{room}?event_id={event}"), &["auth_chain_ids", "pdu_ids"]),
            (
                format!("federation/v1/timestamp_to_event/{room}?ts=0&dir=f"),
                &["event_id", "origin_server_ts"],
            ),
            (format!("federation/v1/hierarchy/{room}"), &["room", "children", "inaccessible_children"]),
            ("federation/v1/publicRooms".to_owned(), &["chunk"]),
            (
                "federation/v1/query/directory?room_alias=%23hall:here.test".to_owned(),
                &["room_id", "servers"],
            ),
            ("federation/v1/user/devices/@alice:here.test".to_owned(), &["user_id", "stream_id", "devices"]),
            ("federation/v1/version".to_owned(), &["server"]),
            ("key/v2/server".to_owned(), &["server_name", "verify_keys", "signatures", "valid_until_ts"]),
            ("key/v2/query/here.test".to_owned(), &["server_keys"]),
        ];
        for (path, required) in reads {
            let answer = shared.asker.get(&format!("/_matrix/{path}")).await.expect("an answer");
            for field in required {
                assert!(!answer[*field].is_null(), "{path}: {field}");
            }
        }
    });
}
