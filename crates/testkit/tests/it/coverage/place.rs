//! Where the operations are tried: a server with people and rooms, and another server.

use std::cell::OnceCell;

use axum::body::Body;
use http::{Method, Request, header};
use http_body_util::BodyExt;
use myelin_federation::x_matrix::SignedParts;
use myelin_testkit::{
    client::percent,
    env::Sim,
    network::Network,
    server::{Server, signing_key},
};
use myelin_users::{DeviceRequest, registration::Registration};
use ruma::{ServerName, server_name};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{
    call::{Call, Content, Reply, Who},
    digest::Operation,
    surroundings::{self, Letterbox},
};

pub const PASSWORD: &str = "correct horse battery staple";

/// One red pixel.
pub const PNG: &[u8] = &[
    137, 80, 78, 71, 13, 10, 26, 10, 0, 0, 0, 13, 73, 72, 68, 82, 0, 0, 0, 1, 0, 0, 0, 1, 8, 6, 0, 0, 0, 31,
    21, 196, 137, 0, 0, 0, 13, 73, 68, 65, 84, 120, 218, 99, 248, 207, 192, 240, 31, 0, 5, 0, 1, 255, 86,
    199, 47, 13, 0, 0, 0, 0, 73, 69, 78, 68, 174, 66, 96, 130,
];

/// Alice's room is public; Bob is in it. Bob has a room of his own that nobody else may enter.
pub struct Place {
    pub sim: Sim,
    network: Network,
    server: Server,
    letterbox: Letterbox,
    /// Started when it is needed; its user Eve is in Alice's room, its user New in none.
    neighbour: OnceCell<Server>,
    pub alice: Person,
    pub bob: Person,
    pub room: String,
    pub alias: String,
    /// Alice's message in the room; Bob has answered it in a thread.
    pub event: String,
    /// Bob's own room.
    pub foreign: String,
}

pub struct Person {
    pub id: String,
    pub device: String,
    pub token: String,
}

pub fn here() -> &'static ServerName {
    server_name!("here.test")
}

pub fn there() -> &'static ServerName {
    server_name!("there.test")
}

impl Place {
    pub fn new() -> Self {
        let (sim, network) = (Sim::new(1), Network::default());
        let letterbox = Letterbox::default();
        surroundings::connect(&network);
        let settings = surroundings::settings(here(), &letterbox);
        let server = Server::start_with(&network, settings, &sim, Default::default());
        let nobody = || Person { id: String::new(), device: String::new(), token: String::new() };
        let mut place = Self {
            sim,
            network,
            server,
            letterbox,
            neighbour: OnceCell::new(),
            alice: nobody(),
            bob: nobody(),
            room: String::new(),
            alias: "#hall:here.test".to_owned(),
            event: String::new(),
            foreign: String::new(),
        };
        place.alice = place.registers("alice");
        place.bob = place.registers("bob");
        place.furnish();
        place
    }

    fn furnish(&mut self) {
        let hall = json!({
            "preset": "public_chat", "visibility": "public", "room_alias_name": "hall", "name": "Hall",
            "topic": "Anything", "initial_state": [
                { "type": "m.room.avatar", "state_key": "", "content": { "url": "mxc://here.test/avatar" } },
            ],
        });
        self.room = self.creates(&self.alice, hall);
        self.does(&self.bob, Method::POST, &format!("v3/join/{}", percent(&self.room)), json!({}));
        self.event = self.says(&self.alice, "hello", json!({}));
        let thread = json!({ "m.relates_to": { "rel_type": "m.thread", "event_id": self.event } });
        self.says(&self.bob, "hello back", thread);
        self.foreign = self.creates(&self.bob, json!({ "preset": "private_chat" }));
    }

    pub fn registers(&self, name: &str) -> Person {
        let body = json!({ "username": name, "password": PASSWORD, "auth": { "type": "m.login.dummy" } });
        let body = self.does_as(Who::Nobody, Method::POST, "v3/register", body);
        person(&body)
    }

    pub fn administrator(&self) -> Person {
        let registration = Registration {
            username: Some("admin".to_owned()),
            password: Some(PASSWORD.to_owned()),
            login: Some(DeviceRequest::default()),
            admin: true,
            ..Registration::default()
        };
        let registered = self.sim.block_on(self.server.users.register(&registration));
        let grant = registered.expect("registered").grant.expect("logged in");
        Person { id: "@admin:here.test".to_owned(), device: String::new(), token: grant.access_token }
    }

    fn starts_neighbour(&self) -> Server {
        let neighbour = Server::start_in(&self.network, there(), &self.sim, Default::default());
        let register = |name: &str| {
            let body = json!({ "username": name, "password": PASSWORD, "auth": { "type": "m.login.dummy" } });
            let path = "/_matrix/client/v3/register";
            self.sim.block_on(neighbour.request(Method::POST, path, None, Some(&body))).ok()
        };
        register("new");
        let eve = register("eve");
        let path = format!("/_matrix/client/v3/join/{}?via={}", percent(&self.room), here());
        let token = text(&eve["access_token"]);
        self.sim.block_on(neighbour.request(Method::POST, &path, Some(&token), Some(&json!({})))).ok();
        neighbour
    }

    /// The media id of an image of Alice; empty if that cannot be uploaded.
    pub fn uploads_pixel(&self) -> String {
        let content = Content::Bytes("image/png", PNG.to_vec());
        let uploaded = self.tries(&self.alice, Method::POST, "/_matrix/media/v3/upload", content);
        uploaded.text("content_uri").rsplit('/').next().unwrap_or_default().to_owned()
    }

    /// Asks for a mail to an address and follows the link in it: the id of the session, whose client secret is `secret`.
    pub fn proves(&self, address: &str) -> String {
        let body = json!({ "client_secret": "secret", "email": address, "send_attempt": 1 });
        let path = "v3/account/3pid/email/requestToken";
        let session = text(&self.does_as(Who::Nobody, Method::POST, path, body)["sid"]);
        let link = self.letterbox.newest_link();
        let (path, form) = link.split_once('?').expect("a query");
        let form = Content::Bytes("application/x-www-form-urlencoded", form.as_bytes().to_vec());
        let confirmed = self.asks(Who::Nobody, Method::POST, path, &form);
        assert!(confirmed.status.is_success(), "{}", confirmed.status);
        session
    }

    /// An address becomes Alice's.
    pub fn adds_address(&self, address: &str) {
        let session = self.proves(address);
        let body = json!({ "client_secret": "secret", "sid": session, "auth": self.password("alice") });
        self.does(&self.alice, Method::POST, "v3/account/3pid/add", body);
    }

    /// A second device.
    pub fn logs_in(&self, name: &str) -> Person {
        let identifier = json!({ "type": "m.id.user", "user": name });
        let body = json!({ "type": "m.login.password", "identifier": identifier, "password": PASSWORD });
        person(&self.does_as(Who::Nobody, Method::POST, "v3/login", body))
    }

    pub fn creates(&self, person: &Person, body: Value) -> String {
        text(&self.does(person, Method::POST, "v3/createRoom", body)["room_id"])
    }

    /// A message in Alice's room.
    pub fn says(&self, person: &Person, body: &str, mut content: Value) -> String {
        content["msgtype"] = "m.text".into();
        content["body"] = body.into();
        let transaction = percent(body);
        let path = format!("v3/rooms/{}/send/m.room.message/{transaction}", percent(&self.room));
        text(&self.does(person, Method::PUT, &path, content)["event_id"])
    }

    pub fn sets(&self, person: &Person, room: &str, kind: &str, key: &str, content: Value) {
        let path = format!("v3/rooms/{}/state/{kind}/{}", percent(room), percent(key));
        self.does(person, Method::PUT, &path, content);
    }

    /// A request of the client API that has to succeed.
    #[track_caller]
    pub fn does(&self, person: &Person, method: Method, path: &str, body: Value) -> Value {
        self.does_as(Who::Token(person.token.clone()), method, path, body)
    }

    #[track_caller]
    fn does_as(&self, who: Who, method: Method, path: &str, body: Value) -> Value {
        let reply = self.asks(who, method, &format!("/_matrix/client/{path}"), &Content::Json(body));
        assert!(reply.status.is_success(), "{path}: {} {}", reply.status, reply.json);
        reply.json
    }

    /// A request that may fail: what a valid call is prepared with by operations that are themselves tried.
    pub fn tries(&self, person: &Person, method: Method, path: &str, content: Content) -> Reply {
        self.asks(Who::Token(person.token.clone()), method, path, &content)
    }

    pub fn gets(&self, person: &Person, path: &str) -> Value {
        self.tries(person, Method::GET, &format!("/_matrix/client/{path}"), Content::None).json
    }

    /// What Alice does to authenticate once more.
    pub fn password(&self, name: &str) -> Value {
        let identifier = json!({ "type": "m.id.user", "user": name });
        json!({ "type": "m.login.password", "identifier": identifier, "password": PASSWORD })
    }

    /// A call of Alice; whatever the path names is hers.
    pub fn call(&self) -> Call {
        self.defaults(Call::new(Who::Token(self.alice.token.clone())))
    }

    pub fn call_of(&self, person: &Person) -> Call {
        self.defaults(Call::new(Who::Token(person.token.clone())))
    }

    /// A call of the other server.
    pub fn signed(&self) -> Call {
        self.neighbour.get_or_init(|| self.starts_neighbour());
        self.defaults(Call::new(Who::Signed))
    }

    fn defaults(&self, call: Call) -> Call {
        call.path("userId", &self.alice.id)
            .path("deviceId", &self.alice.device)
            .path("roomId", &self.room)
            .path("roomAlias", &self.alias)
            .path("roomIdOrAlias", &self.room)
            .path("eventId", &self.event)
            .path("eventType", "m.room.message")
            .path("stateKey", "")
            .path("txnId", "transaction")
            .path("serverName", here().as_str())
    }

    pub fn send(&self, operation: &Operation, call: &Call) -> Reply {
        self.asks(call.who.clone(), call.method(operation), &call.uri(operation), &call.content)
    }

    pub fn asks(&self, who: Who, method: Method, uri: &str, content: &Content) -> Reply {
        let mut request = Request::builder().method(method.clone()).uri(uri);
        let body = content.bytes();
        match who {
            Who::Nobody => (),
            Who::Token(token) => {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            Who::Signed | Who::Forged => {
                let covered = matches!(who, Who::Signed).then_some(uri).unwrap_or("/another/path");
                request = request.header(header::AUTHORIZATION, self.signature(&method, covered, &body));
            }
        }
        if let Content::Bytes(kind, _) = content {
            request = request.header(header::CONTENT_TYPE, *kind);
        }
        let request = request.body(Body::from(body)).expect("a request");
        let router = self.server.router();
        self.sim.block_on(async {
            let response = router.oneshot(request).await.unwrap_or_else(|never| match never {});
            let (parts, body) = response.into_parts();
            let body = body.collect().await.map(|body| body.to_bytes().to_vec()).unwrap_or_default();
            let json = serde_json::from_slice(&body).unwrap_or_default();
            Reply { status: parts.status, headers: parts.headers, body, json }
        })
    }

    fn signature(&self, method: &Method, uri: &str, body: &[u8]) -> String {
        let content = std::str::from_utf8(body).expect("text");
        let canonical = serde_json::from_str::<ruma::CanonicalJsonObject>(content);
        let canonical =
            canonical.map_or_else(|_| content.to_owned(), |json| serde_json::to_string(&json).expect("text"));
        let parts = SignedParts {
            method: method.as_str(),
            uri,
            origin: there(),
            destination: here(),
            content: (!canonical.is_empty()).then_some(canonical.as_str()),
        };
        parts.sign(&signing_key(there())).to_string()
    }
}

fn person(session: &Value) -> Person {
    let [id, device, token] = ["user_id", "device_id", "access_token"].map(|field| text(&session[field]));
    Person { id, device, token }
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
