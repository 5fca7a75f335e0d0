//! What a server hands out to other servers, and to whom.

use http::{Method, StatusCode};
use myelin_federation::{Budget, Client, Peers, RequestError, Transport};
use myelin_testenv::Sim;
use myelin_testkit::{
    network::Network,
    server::{Server, signing_key},
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
