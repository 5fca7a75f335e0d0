//! Invites to an e-mail address whose owner turns out to be a user of another server.

use http::{Method, Request, StatusCode};
use myelin_dag::SigningKey;
use serde_json::{Value, json};

use super::{Net, refused};
use myelin_testkit::client::percent;

const TOKEN: &str = "abc123";

fn signed(key: &SigningKey, mxid: &str) -> Value {
    let signature = key.sign(json!({ "mxid": mxid, "token": TOKEN }).to_string().as_bytes());
    json!({ "mxid": mxid, "token": TOKEN, "signatures": { "id.test": { key.key_id(): signature } } })
}

/// What an identity server tells the server at `at`.
fn onbind(net: &Net, at: usize, method: Method, body: &Value) -> myelin_testkit::server::Answer {
    let request = Request::builder().method(method).uri("/_matrix/federation/v1/3pid/onbind");
    let request = request.header("content-type", "application/json");
    net.run(net.servers[at].call(request.body(body.to_string().into()).unwrap()))
}

#[test]
fn whoever_the_address_belongs_to_is_invited() {
    let net = Net::new(2);
    let ann = net.user(0, "ann");
    let mut bob = net.user(1, "bob");
    let identity = SigningKey::from_seed("0", [5; 32]).unwrap();
    // Sydent says POST.
    for (version, method) in [("6", Method::PUT), ("11", Method::POST), ("12", Method::PUT)] {
        let room = net.create(0, &ann, json!({ "preset": "private_chat", "room_version": version }));
        let public_key = identity.public_key_base64();
        let content = json!({ "display_name": "b...@e...", "key_validity_url": "https://id.test/valid",
            "public_key": public_key, "public_keys": [{ "public_key": public_key }] });
        let path =
            format!("/_matrix/client/v3/rooms/{}/state/m.room.third_party_invite/{TOKEN}", percent(&room));
        net.run(ann.put(&net.servers[0], &path, &content)).ok();
        let bind = |signed: &Value| {
            json!({ "medium": "email", "address": "bob@example.org", "mxid": bob.user_id, "invites": [{
                "medium": "email", "address": "bob@example.org", "mxid": bob.user_id, "room_id": room,
                "sender": ann.user_id, "signed": signed,
            }] })
        };
        let forged = SigningKey::from_seed("0", [6; 32]).unwrap();
        let bodies = [bind(&signed(&forged, &bob.user_id)), bind(&signed(&identity, &bob.user_id))];
        onbind(&net, 1, Method::PUT, &bodies[0]).ok();
        assert!(net.sync(1, &mut bob)["rooms"].get("invite").is_none(), "another one signed");
        onbind(&net, 1, method.clone(), &bodies[1]).ok();
        net.sync(1, &mut bob);
        assert!(bob.invites.contains_key(&room), "version {version}");
        net.act(1, &bob, &room, "join", json!({})).ok();
        assert_eq!(net.members(0, &room).len(), 2);
    }
}

/// An identity server that says of its key what it is told to.
fn identity_server(net: &Net, valid: &'static str) {
    let says = move || async move { valid };
    let router = axum::Router::new().route("/valid", axum::routing::get(says));
    net.network.connect("id.test".try_into().unwrap(), router);
}

#[test]
fn a_key_that_was_withdrawn_proves_nothing() {
    let net = Net::new(1);
    let (ann, mut bob) = (net.user(0, "ann"), net.user(0, "bob"));
    let identity = SigningKey::from_seed("0", [5; 32]).unwrap();
    let room = net.create(0, &ann, json!({ "preset": "private_chat" }));
    let key =
        json!({ "public_key": identity.public_key_base64(), "key_validity_url": "https://id.test/valid" });
    let mut content = key.clone();
    content["display_name"] = "b...@e...".into();
    content["public_keys"] = json!([key]);
    let path = format!("/_matrix/client/v3/rooms/{}/state/m.room.third_party_invite/{TOKEN}", percent(&room));
    net.run(ann.put(&net.servers[0], &path, &content)).ok();
    let invite = json!({ "medium": "email", "address": "bob@example.org", "mxid": bob.user_id, "room_id": room,
        "sender": ann.user_id, "signed": signed(&identity, &bob.user_id) });
    let body =
        json!({ "medium": "email", "address": "bob@example.org", "mxid": bob.user_id, "invites": [invite] });
    for (says, invited) in [
        (None, false),
        (Some("{\"valid\":false}"), false),
        (Some("{}"), false),
        (Some("{\"valid\":true}"), true),
    ] {
        if let Some(says) = says {
            identity_server(&net, says);
        }
        onbind(&net, 0, Method::PUT, &body).ok();
        net.sync(0, &mut bob);
        assert_eq!(bob.invites.contains_key(&room), invited, "the identity server says {says:?}");
    }
}

#[test]
fn an_identity_is_of_a_local_user() {
    let net = Net::new(1);
    let body = json!({ "medium": "email", "address": "x@y", "mxid": "@x:elsewhere.test", "invites": [] });
    refused(&onbind(&net, 0, Method::PUT, &body), StatusCode::BAD_REQUEST, "M_INVALID_PARAM");
}
