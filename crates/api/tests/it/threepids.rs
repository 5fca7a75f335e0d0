//! E-mail addresses of accounts, and identity servers.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{Request, Response, header};
use myelin_federation::{Budget, IdentityTransport, TransportError};
use myelin_users::{
    RegistrationMode,
    mail::{Mail, MailError, MailSetup, Mailer},
};
use ruma::ServerName;
use serde_json::{Value, json};

use crate::world::{Answer, World};

const V3: &str = "/_matrix/client/v3";
const SECRET: &str = "s3cret";

#[derive(Default)]
pub struct Letterbox(Mutex<Vec<Mail>>);

impl Mailer for Letterbox {
    fn send(&self, mail: Mail) -> BoxFuture<'_, Result<(), MailError>> {
        self.0.lock().unwrap().push(mail);
        async { Ok(()) }.boxed()
    }
}

/// Knows one address, keeps invites for the others, and writes down what it is asked.
#[derive(Default)]
pub struct FakeIdentityServer {
    pub known: Mutex<Option<(String, String)>>,
    pub asked: Mutex<Vec<(String, String, Value)>>,
}

impl FakeIdentityServer {
    fn answer(&self, path: &str, body: &Value) -> (u16, Value) {
        match path {
            "/_matrix/identity/v2/hash_details" => {
                (200, json!({ "algorithms": ["none"], "lookup_pepper": "pepper" }))
            }
            "/_matrix/identity/v2/lookup" => {
                let asked = body["addresses"][0].as_str().unwrap();
                let known = self.known.lock().unwrap().clone();
                match known.filter(|(address, _)| format!("{address} email") == asked) {
                    Some((_, user_id)) => (200, json!({ "mappings": { asked: user_id } })),
                    None => (200, json!({ "mappings": {} })),
                }
            }
            "/_matrix/identity/v2/store-invite" => {
                let key = json!({
                    "public_key": "ta8IQ0u1sp44HVpxYi7dFOdS/bfwDjcy4xLFlfY5KOA",
                    "key_validity_url": "https://id.example.org/_matrix/identity/v2/pubkey/isvalid",
                });
                (200, json!({ "token": "sometoken", "public_keys": [key], "display_name": "c...@x..." }))
            }
            "/_matrix/identity/v2/3pid/bind" if body["sid"] == "good" => {
                (200, json!({ "medium": "email", "address": "a@x.org", "mxid": body["mxid"] }))
            }
            "/_matrix/identity/v2/3pid/bind" => {
                (404, json!({ "errcode": "M_NO_VALID_SESSION", "error": "No." }))
            }
            "/_matrix/identity/v2/3pid/unbind" => (200, json!({})),
            _ => (404, json!({})),
        }
    }
}

impl IdentityTransport for FakeIdentityServer {
    fn send<'a>(
        &'a self,
        _: &'a ServerName,
        request: Request<Bytes>,
        _: Budget,
    ) -> BoxFuture<'a, Result<Response<Bytes>, TransportError>> {
        let path = request.uri().path().to_owned();
        let authorization = request.headers().get(header::AUTHORIZATION);
        let authorization = authorization.map_or("", |value| value.to_str().unwrap()).to_owned();
        let body = serde_json::from_slice(request.body()).unwrap_or_default();
        let (status, answer) = self.answer(&path, &body);
        self.asked.lock().unwrap().push((path, authorization, body));
        let response = Response::builder().status(status).body(answer.to_string().into()).unwrap();
        async { Ok(response) }.boxed()
    }
}

fn with_mail(required: bool) -> (World, Arc<Letterbox>) {
    let letterbox = Arc::new(Letterbox::default());
    let mailer = letterbox.clone();
    let world = World::with_users(|config| {
        config.registration = RegistrationMode::Open;
        config.mail = Some(MailSetup {
            mailer,
            base_url: "https://localhost".to_owned(),
            next_link_hosts: vec!["app.org".to_owned()],
            required,
        });
    });
    (world, letterbox)
}

impl World {
    fn request_token(&self, place: &str, email: &str, attempt: u64) -> Answer {
        let body = json!({ "client_secret": SECRET, "email": email, "send_attempt": attempt });
        self.post(&format!("{V3}/{place}/email/requestToken"), None, &body)
    }

    /// Opens the link of the newest mail and presses the button.
    fn confirm(&self, letterbox: &Letterbox) -> Answer {
        let mail = letterbox.0.lock().unwrap().last().unwrap().clone();
        let link = mail.text.split("https://localhost").nth(1).unwrap().split_whitespace().next().unwrap();
        let (path, form) = link.split_once('?').unwrap();
        assert_eq!(self.get(link, None).status, 200);
        self.request(http::Method::POST, path, None, form.to_owned())
    }

    /// The id of a session for that address, confirmed.
    fn proven(&self, letterbox: &Letterbox, place: &str, email: &str) -> String {
        let sid = self.request_token(place, email, 1).ok()["sid"].as_str().unwrap().to_owned();
        assert_eq!(self.confirm(letterbox).status, 200);
        sid
    }

    fn add(&self, token: &str, name: &str, sid: &str) -> Answer {
        let auth = json!({
            "type": "m.login.password", "password": format!("{name}'s password"),
            "identifier": { "type": "m.id.user", "user": name },
        });
        let body = json!({ "sid": sid, "client_secret": SECRET, "auth": auth });
        self.post(&format!("{V3}/account/3pid/add"), Some(token), &body)
    }
}

fn email_stage(sid: &str) -> Value {
    json!({ "type": "m.login.email.identity", "threepid_creds": { "sid": sid, "client_secret": SECRET } })
}

#[test]
fn an_account_is_registered_with_an_address() {
    let (world, letterbox) = with_mail(true);
    let register = |auth: Value| {
        let body = json!({ "username": "alice", "password": "secret", "auth": auth });
        world.post(&format!("{V3}/register"), None, &body)
    };
    let flows = register(Value::Null);
    assert_eq!(flows.json["flows"], json!([{ "stages": ["m.login.email.identity"] }]));
    let sid = world.request_token("register", "Alice@x.org", 1).ok()["sid"].as_str().unwrap().to_owned();
    let early = register(email_stage(&sid));
    assert_eq!(early.error(), (401, "M_THREEPID_AUTH_FAILED"));
    assert_eq!(world.confirm(&letterbox).status, 200);
    let registered = register(email_stage(&sid)).ok();
    let token = registered["access_token"].as_str().unwrap();
    let listed = world.get(&format!("{V3}/account/3pid"), Some(token)).ok();
    assert_eq!(listed["threepids"][0]["address"], "alice@x.org");
    assert!(listed["threepids"][0]["validated_at"].is_u64() && listed["threepids"][0]["added_at"].is_u64());
    let again = world.request_token("register", "ALICE@x.org", 1);
    assert_eq!(again.error(), (400, "M_THREEPID_IN_USE"));

    let by_address = json!({
        "type": "m.login.password", "password": "secret",
        "identifier": { "type": "m.id.thirdparty", "medium": "email", "address": "ALICE@X.org" },
    });
    let login = world.post(&format!("{V3}/login"), None, &by_address).ok();
    assert_eq!(login["user_id"], "@alice:localhost");
    let stranger = json!({
        "type": "m.login.password", "password": "secret",
        "identifier": { "type": "m.id.thirdparty", "medium": "email", "address": "bob@x.org" },
    });
    assert_eq!(world.post(&format!("{V3}/login"), None, &stranger).error(), (403, "M_FORBIDDEN"));
}

#[test]
fn a_forgotten_password_is_set_anew() {
    let (world, letterbox) = with_mail(false);
    let alice = world.user("alice");
    let sid = world.proven(&letterbox, "account/3pid", "a@x.org");
    assert_eq!(world.add(&alice, "alice", "other").error(), (403, "M_THREEPID_AUTH_FAILED"));
    world.add(&alice, "alice", &sid).ok();
    assert_eq!(world.add(&alice, "alice", &sid).error(), (403, "M_THREEPID_AUTH_FAILED"), "used up");

    let unknown = world.request_token("account/password", "b@x.org", 1);
    assert_eq!(unknown.error(), (400, "M_THREEPID_NOT_FOUND"));
    let reset = |auth: Value| {
        let body = json!({ "new_password": "fresh", "auth": auth });
        world.post(&format!("{V3}/account/password"), None, &body)
    };
    assert_eq!(reset(Value::Null).json["flows"], json!([{ "stages": ["m.login.email.identity"] }]));
    let sid = world.proven(&letterbox, "account/password", "a@x.org");
    reset(email_stage(&sid)).ok();
    assert_eq!(reset(email_stage(&sid)).error(), (401, "M_THREEPID_AUTH_FAILED"), "used up");
    assert_eq!(world.get(&format!("{V3}/account/whoami"), Some(&alice)).error(), (401, "M_UNKNOWN_TOKEN"));
    let login = json!({
        "type": "m.login.password", "password": "fresh",
        "identifier": { "type": "m.id.user", "user": "alice" },
    });
    world.post(&format!("{V3}/login"), None, &login).ok();
}

#[test]
fn proofs_are_good_for_one_thing() {
    let (world, letterbox) = with_mail(false);
    let alice = world.user("alice");
    let sid = world.proven(&letterbox, "register", "a@x.org");
    assert_eq!(world.add(&alice, "alice", &sid).error(), (403, "M_THREEPID_AUTH_FAILED"));
    let sid = world.proven(&letterbox, "account/3pid", "a@x.org");
    let body = json!({ "new_password": "fresh", "auth": email_stage(&sid) });
    let refused = world.post(&format!("{V3}/account/password"), None, &body);
    assert_eq!(refused.error(), (401, "M_THREEPID_AUTH_FAILED"));
}

#[test]
fn addresses_are_removed_and_free_again() {
    let (world, letterbox) = with_mail(false);
    let alice = world.user("alice");
    let sid = world.proven(&letterbox, "account/3pid", "a@x.org");
    world.add(&alice, "alice", &sid).ok();
    let body = json!({ "medium": "email", "address": "A@x.org" });
    let removed = world.post(&format!("{V3}/account/3pid/delete"), Some(&alice), &body).ok();
    assert_eq!(removed["id_server_unbind_result"], "no-support", "it was bound nowhere");
    let listed = world.get(&format!("{V3}/account/3pid"), Some(&alice)).ok();
    assert_eq!(listed, json!({ "threepids": [] }));
    let bob = world.user("bob");
    let body = json!({ "client_secret": "other", "email": "a@x.org", "send_attempt": 1 });
    let path = format!("{V3}/account/3pid/email/requestToken");
    let sid = world.post(&path, None, &body).ok()["sid"].as_str().unwrap().to_owned();
    world.confirm(&letterbox);
    let auth = json!({
        "type": "m.login.password", "password": "bob's password",
        "identifier": { "type": "m.id.user", "user": "bob" },
    });
    let body = json!({ "sid": sid, "client_secret": "other", "auth": auth });
    world.post(&format!("{V3}/account/3pid/add"), Some(&bob), &body).ok();
}

#[test]
fn without_mail_there_are_no_addresses() {
    let world = World::with_users(|config| config.registration = RegistrationMode::Open);
    for place in ["register", "account/password", "account/3pid"] {
        assert_eq!(world.request_token(place, "a@x.org", 1).error(), (403, "M_THREEPID_DENIED"), "{place}");
        let body =
            json!({ "client_secret": SECRET, "country": "GB", "phone_number": "1", "send_attempt": 1 });
        let refused = world.post(&format!("{V3}/{place}/msisdn/requestToken"), None, &body);
        assert_eq!(refused.error(), (403, "M_THREEPID_DENIED"), "{place}");
    }
    let reset = world.post(&format!("{V3}/account/password"), None, &json!({ "new_password": "x" }));
    assert_eq!(reset.error(), (401, "M_MISSING_TOKEN"));
}

#[test]
fn links_that_are_not_good() {
    let (world, letterbox) = with_mail(false);
    let path = "/_myelin/client/v1/email/validate";
    assert_eq!(world.get(path, None).status, 400);
    assert_eq!(world.get(&format!("{path}?sid=a&client_secret=b&token=%3Cscript%3E"), None).status, 400);
    let body = json!({
        "client_secret": SECRET, "email": "a@x.org", "send_attempt": 1, "next_link": "https://app.org/done",
    });
    let sid = world.post(&format!("{V3}/register/email/requestToken"), None, &body).ok();
    let form = format!("sid={}&client_secret={SECRET}&token=guess", sid["sid"].as_str().unwrap());
    assert_eq!(world.request(http::Method::POST, path, None, form).status, 400);
    let next = world.confirm(&letterbox);
    assert_eq!(
        (next.status.as_u16(), &next.headers["location"]),
        (303, &"https://app.org/done".parse().unwrap())
    );
}

#[test]
fn addresses_are_bound_and_unbound_at_trusted_identity_servers() {
    let world = World::new();
    let alice = world.user("alice");
    let bind = |id_server: &str, sid: &str| {
        let body =
            json!({ "client_secret": SECRET, "sid": sid, "id_server": id_server, "id_access_token": "t" });
        world.post(&format!("{V3}/account/3pid/bind"), Some(&alice), &body)
    };
    assert_eq!(bind("evil.example.org", "good").error(), (400, "M_SERVER_NOT_TRUSTED"));
    assert_eq!(bind("id.example.org", "bad").error(), (404, "M_NO_VALID_SESSION"));
    bind("id.example.org", "good").ok();
    let body = json!({ "medium": "email", "address": "a@x.org" });
    let unbound = world.post(&format!("{V3}/account/3pid/unbind"), Some(&alice), &body).ok();
    assert_eq!(unbound["id_server_unbind_result"], "success");
    let unbound = world.post(&format!("{V3}/account/3pid/unbind"), Some(&alice), &body).ok();
    assert_eq!(unbound["id_server_unbind_result"], "no-support", "bound nowhere any more");
    let asked = world.identity_server.asked.lock().unwrap();
    let bound = asked.iter().find(|(path, ..)| path.ends_with("/bind")).unwrap();
    assert_eq!((bound.1.as_str(), &bound.2["mxid"]), ("Bearer t", &json!("@alice:localhost")));
    let unbound = asked.iter().find(|(path, ..)| path.ends_with("/unbind")).unwrap();
    assert!(unbound.1.starts_with("X-Matrix "), "{}", unbound.1);
}

#[test]
fn people_are_invited_by_address() {
    let world = World::new();
    let [alice, bob] = ["alice", "bob"].map(|name| world.user(name));
    let room = world.post(&format!("{V3}/createRoom"), Some(&alice), &json!({ "name": "Harbour" })).ok();
    let room = room["room_id"].as_str().unwrap().to_owned();
    let invite = |token: &str, id_server: &str, address: &str| {
        let body = json!({
            "id_server": id_server, "id_access_token": "t", "medium": "email", "address": address,
        });
        world.post(&format!("{V3}/rooms/{room}/invite"), Some(token), &body)
    };
    assert_eq!(invite(&alice, "evil.example.org", "b@x.org").error(), (400, "M_SERVER_NOT_TRUSTED"));
    assert_eq!(invite(&alice, "id.example.org", "nobody").error(), (400, "M_INVALID_PARAM"));
    assert_eq!(invite(&bob, "id.example.org", "c@x.org").error(), (403, "M_FORBIDDEN"));
    assert!(world.identity_server.asked.lock().unwrap().is_empty(), "nobody outside hears of it");

    *world.identity_server.known.lock().unwrap() = Some(("b@x.org".to_owned(), "@bob:localhost".to_owned()));
    invite(&alice, "id.example.org", "B@x.org").ok();
    let member =
        world.get(&format!("{V3}/rooms/{room}/state/m.room.member/@bob:localhost"), Some(&alice)).ok();
    assert_eq!(member["membership"], "invite");

    invite(&alice, "id.example.org", "c@x.org").ok();
    let path = format!("{V3}/rooms/{room}/state/m.room.third_party_invite/sometoken");
    let pending = world.get(&path, Some(&alice)).ok();
    assert_eq!(pending["display_name"], "c...@x...");
    assert_eq!(pending["public_keys"].as_array().unwrap().len(), 1);
    let asked = world.identity_server.asked.lock().unwrap();
    let stored = asked.iter().find(|(path, ..)| path.ends_with("/store-invite")).unwrap();
    assert_eq!(
        (&stored.2["room_name"], &stored.2["sender"]),
        (&json!("Harbour"), &json!("@alice:localhost"))
    );
    drop(asked);

    let carol = world.user("carol");
    let join = |signed: Value| {
        let body = json!({ "third_party_signed": signed });
        world.post(&format!("{V3}/join/{room}"), Some(&carol), &body)
    };
    let signed = |mxid: &str, token: &str| {
        let signatures = json!({ "id.example.org": { "ed25519:0": "x".repeat(86) } });
        json!({ "sender": "@alice:localhost", "mxid": mxid, "token": token, "signatures": signatures })
    };
    assert_eq!(join(signed("@bob:localhost", "sometoken")).error(), (403, "M_FORBIDDEN"));
    assert_eq!(join(signed("@carol:localhost", "other")).error(), (403, "M_FORBIDDEN"));
    assert_eq!(
        join(signed("@carol:localhost", "sometoken")).error(),
        (403, "M_FORBIDDEN"),
        "a forged signature"
    );
    assert_eq!(join(json!({})).error(), (403, "M_FORBIDDEN"));
}
