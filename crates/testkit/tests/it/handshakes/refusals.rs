//! What the resident side refuses, asked directly with signed requests.

use http::{Method, Request, StatusCode};
use myelin_dag::{NewEvent, Parents, SigningKey, build, rules};
use myelin_federation::x_matrix::SignedParts;
use ruma::RoomVersionId;
use serde_json::{Value, json};

use super::{Net, refused};
use myelin_testkit::{client::percent, server::Answer};

/// A request to `a.test` as `b.test` signs it.
fn ask(net: &Net, method: Method, uri: &str, body: Option<&Value>) -> Answer {
    net.asks(1, 0, method, uri, body)
}

impl Net {
    /// A request of one server to another.
    pub fn asks(&self, from: usize, to: usize, method: Method, uri: &str, body: Option<&Value>) -> Answer {
        let (from, to) = (&self.servers[from], &self.servers[to]);
        let content = body.map(ToString::to_string);
        let parts = SignedParts {
            method: method.as_str(),
            uri,
            origin: &from.view.server_name,
            destination: &to.view.server_name,
            content: content.as_deref(),
        };
        let header = parts.sign(&from.signing_key()).to_string();
        let request = Request::builder().method(method).uri(uri).header("authorization", header);
        self.sim.block_on(to.call(request.body(content.unwrap_or_default().into()).unwrap()))
    }
}

struct Case {
    net: Net,
    room: String,
    template: Value,
    key: SigningKey,
}

fn case() -> Case {
    let net = Net::new(2);
    let ann = net.user(0, "ann");
    net.user(1, "bob");
    let room = net.public_room(0, &ann, "11");
    let template = template(&net, &room);
    let key = net.servers[1].signing_key();
    Case { net, room, template, key }
}

fn template(net: &Net, room: &str) -> Value {
    let uri = format!("/_matrix/federation/v1/make_join/{}/{}?ver=11", percent(room), percent("@bob:b.test"));
    ask(net, Method::GET, &uri, None).ok()["event"].clone()
}

impl Case {
    /// The event that the template asks for, with changes, in the name of its sender.
    fn event(&self, sender: &str, state_key: &str, kind: &str, content: Value) -> (String, Value) {
        self.event_in(&self.room, sender, state_key, kind, content)
    }

    fn event_in(
        &self,
        room: &str,
        sender: &str,
        state_key: &str,
        kind: &str,
        content: Value,
    ) -> (String, Value) {
        let ids = |field: &str| {
            let ids = self.template[field].as_array().unwrap().iter();
            ids.map(|id| id.as_str().unwrap().try_into().unwrap()).collect()
        };
        let event = NewEvent::state(sender.try_into().unwrap(), kind, state_key, &content).unwrap();
        let parents = Parents {
            room_id: Some(room.try_into().unwrap()),
            prev_events: ids("prev_events"),
            auth_events: ids("auth_events"),
            depth: 8,
            names: None,
        };
        let rules = rules(&RoomVersionId::V11).unwrap();
        let pdu = build(&rules, event, parents, 1_000, &self.key).unwrap();
        (pdu.event_id.to_string(), serde_json::from_str(&pdu.json).unwrap())
    }

    fn send(&self, what: &str, event_id: &str, event: &Value) -> Answer {
        let uri = format!("/_matrix/federation/{what}/{}/{}", percent(&self.room), percent(event_id));
        ask(&self.net, Method::PUT, &uri, Some(event))
    }
}

#[test]
fn a_template_is_for_users_of_who_asks_in_versions_that_they_know() {
    let Case { net, room, .. } = case();
    let uri = |what: &str, user: &str, query: &str| {
        format!("/_matrix/federation/v1/{what}/{}/{}{query}", percent(&room), percent(user))
    };
    let get = |uri: &str| ask(&net, Method::GET, uri, None);
    refused(&get(&uri("make_join", "@ann:a.test", "?ver=11")), StatusCode::FORBIDDEN, "M_FORBIDDEN");
    let old = get(&uri("make_join", "@bob:b.test", "?ver=1&ver=2"));
    refused(&old, StatusCode::BAD_REQUEST, "M_INCOMPATIBLE_ROOM_VERSION");
    assert_eq!(old.json["room_version"], "11");
    refused(
        &get(&uri("make_join", "@bob:b.test", "")),
        StatusCode::BAD_REQUEST,
        "M_INCOMPATIBLE_ROOM_VERSION",
    );
    refused(&get(&uri("make_knock", "@bob:b.test", "?ver=11")), StatusCode::FORBIDDEN, "M_FORBIDDEN");
    refused(&get(&uri("make_leave", "@bob:b.test", "")), StatusCode::FORBIDDEN, "M_FORBIDDEN");
    let unknown = "/_matrix/federation/v1/make_join/%21none%3Aa.test/%40bob%3Ab.test?ver=11";
    refused(&get(unknown), StatusCode::NOT_FOUND, "M_NOT_FOUND");
}

#[test]
fn only_the_event_that_the_url_and_the_origin_say_is_taken() {
    let case = case();
    let join = || json!({ "membership": "join" });
    let (id, good) = case.event("@bob:b.test", "@bob:b.test", "m.room.member", join());
    let invalid = |answer: &Answer| refused(answer, StatusCode::BAD_REQUEST, "M_INVALID_PARAM");
    invalid(&case.send("v2/send_join", "$wrong", &good));
    invalid(&case.send("v2/send_leave", &id, &good));
    invalid(&case.send("v1/send_knock", &id, &good));
    let mut changed = good.clone();
    changed["content"]["displayname"] = "changed".into();
    invalid(&case.send("v2/send_join", &id, &changed));
    let mut unsigned = good.clone();
    unsigned["signatures"] = json!({});
    invalid(&case.send("v2/send_join", &id, &unsigned));
    invalid(&case.send("v2/send_join", &id, &json!({ "type": "m.room.member" })));
    let others = [
        case.event("@eve:c.test", "@eve:c.test", "m.room.member", join()),
        case.event("@bob:b.test", "@ben:b.test", "m.room.member", join()),
        case.event("@bob:b.test", "@bob:b.test", "m.room.name", join()),
        case.event("@bob:b.test", "@bob:b.test", "m.room.member", json!({ "membership": "leave" })),
        case.event_in("!other:a.test", "@bob:b.test", "@bob:b.test", "m.room.member", join()),
    ];
    for (id, event) in others {
        invalid(&case.send("v2/send_join", &id, &event));
    }
    assert_eq!(case.net.members(0, &case.room).len(), 1);
    let answer = case.send("v2/send_join", &id, &good).ok();
    assert_eq!(answer["members_omitted"], false);
    assert!(
        answer["state"].as_array().unwrap().len() >= 6
            && !answer["auth_chain"].as_array().unwrap().is_empty()
    );
    // The answer was lost: asked again, it is the same.
    let again = case.send("v1/send_join", &id, &good).json;
    assert_eq!((&again[0], &again[1]["state"]), (&json!(200), &answer["state"]));
    assert_eq!(case.net.members(0, &case.room).len(), 2);
}

#[test]
fn an_event_on_ancestors_that_nobody_here_knows_is_refused() {
    let mut case = case();
    case.template["prev_events"] = json!(["$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]);
    let (id, event) =
        case.event("@bob:b.test", "@bob:b.test", "m.room.member", json!({ "membership": "join" }));
    refused(&case.send("v2/send_join", &id, &event), StatusCode::BAD_REQUEST, "M_INVALID_PARAM");
}

#[test]
fn a_template_from_before_a_ban_is_worth_nothing_after_it() {
    let net = Net::new(2);
    let ann = net.user(0, "ann");
    net.user(1, "bob");
    let room = net.public_room(0, &ann, "11");
    let template = template(&net, &room);
    net.act(0, &ann, &room, "ban", json!({ "user_id": "@bob:b.test" })).ok();
    let key = net.servers[1].signing_key();
    let case = Case { net, room, template, key };
    let (id, event) =
        case.event("@bob:b.test", "@bob:b.test", "m.room.member", json!({ "membership": "join" }));
    refused(&case.send("v2/send_join", &id, &event), StatusCode::FORBIDDEN, "M_FORBIDDEN");
}

#[test]
fn a_server_that_the_room_keeps_out_gets_no_template() {
    let net = Net::new(2);
    let (ann, bob) = (net.user(0, "ann"), net.user(1, "bob"));
    let room = net.public_room(0, &ann, "11");
    net.set(0, &ann, &room, "m.room.server_acl", json!({ "allow": ["*"], "deny": ["B.*"] })).ok();
    refused(&net.join(1, &bob, &room, "a.test"), StatusCode::FORBIDDEN, "M_FORBIDDEN");
}

/// Of what works before the room keeps a server out, nothing works after.
#[test]
fn a_server_that_the_room_keeps_out_gets_through_no_handshake() {
    let net = Net::new(2);
    let (ann, bob) = (net.user(0, "ann"), net.user(1, "bob"));
    net.user(1, "bert");
    net.user(0, "anton");
    let room = net.public_room(0, &ann, "11");
    net.join(1, &bob, &room, "a.test").ok();
    let uri = |what: &str, user: &str| {
        format!("/_matrix/federation/v1/{what}/{}/{}?ver=11", percent(&room), percent(user))
    };
    let templates = |net: &Net| {
        let join = ask(net, Method::GET, &uri("make_join", "@bert:b.test"), None);
        (join, ask(net, Method::GET, &uri("make_leave", "@bob:b.test"), None))
    };
    let (join, leave) = templates(&net);
    let key = net.servers[1].signing_key();
    let mut case = Case { net, room: room.clone(), template: join.ok()["event"].clone(), key };
    let event = |case: &Case, sender: &str, target: &str, membership: &str| {
        case.event(sender, target, "m.room.member", json!({ "membership": membership }))
    };
    let join = event(&case, "@bert:b.test", "@bert:b.test", "join");
    let (id, invite) = event(&case, "@bob:b.test", "@anton:a.test", "invite");
    let invite = (id, json!({ "room_version": "11", "event": invite, "invite_room_state": [] }));
    case.template = leave.ok()["event"].clone();
    let leave = event(&case, "@bob:b.test", "@bob:b.test", "leave");
    case.send("v2/invite", &invite.0, &invite.1).ok();
    case.net.set(0, &ann, &room, "m.room.server_acl", json!({ "allow": ["*"], "deny": ["b.test"] })).ok();
    let (make_join, make_leave) = templates(&case.net);
    let sent = [("v2/send_join", &join), ("v2/send_leave", &leave), ("v2/invite", &invite)];
    let sent = sent.map(|(what, (id, event))| case.send(what, id, event));
    for answer in [make_join, make_leave].iter().chain(&sent) {
        refused(answer, StatusCode::FORBIDDEN, "M_FORBIDDEN");
    }
}

#[test]
fn a_server_that_the_room_keeps_out_does_not_knock() {
    let net = Net::new(2);
    let (ann, _) = (net.user(0, "ann"), net.user(1, "bob"));
    let rules =
        json!([{ "type": "m.room.join_rules", "state_key": "", "content": { "join_rule": "knock" } }]);
    let room = net.create(0, &ann, json!({ "room_version": "11", "initial_state": rules }));
    let uri = format!("/_matrix/federation/v1/make_knock/{}/%40bob%3Ab.test?ver=11", percent(&room));
    let template = ask(&net, Method::GET, &uri, None).ok()["event"].clone();
    let key = net.servers[1].signing_key();
    let case = Case { net, room, template, key };
    let knock = json!({ "membership": "knock" });
    let (id, event) = case.event("@bob:b.test", "@bob:b.test", "m.room.member", knock);
    let acl = json!({ "allow": ["*"], "deny": ["b.test"] });
    case.net.set(0, &ann, &case.room, "m.room.server_acl", acl).ok();
    refused(&ask(&case.net, Method::GET, &uri, None), StatusCode::FORBIDDEN, "M_FORBIDDEN");
    refused(&case.send("v1/send_knock", &id, &event), StatusCode::FORBIDDEN, "M_FORBIDDEN");
    let open = json!({ "allow": ["*"] });
    case.net.set(0, &ann, &case.room, "m.room.server_acl", open).ok();
    case.send("v1/send_knock", &id, &event).ok();
}

#[test]
fn members_are_left_out_if_asked_for() {
    let mut case = case();
    let ann = case.net.user(0, "anna");
    let many: Vec<_> = (0..120).map(|n| format!("@many{n}:a.test")).collect();
    let body = json!({ "preset": "public_chat", "room_version": "11", "invite": many });
    case.room = case.net.create(0, &ann, body);
    case.template = template(&case.net, &case.room);
    let (id, event) =
        case.event("@bob:b.test", "@bob:b.test", "m.room.member", json!({ "membership": "join" }));
    let is_member = |event: &&Value| event["type"] == "m.room.member";
    let uri = format!(
        "/_matrix/federation/v2/send_join/{}/{}?omit_members=true",
        percent(&case.room),
        percent(&id)
    );
    let answer = ask(&case.net, Method::PUT, &uri, Some(&event)).ok();
    assert_eq!((&answer["members_omitted"], &answer["servers_in_room"]), (&json!(true), &json!(["a.test"])));
    let members = answer["state"].as_array().unwrap().iter().filter(is_member).count();
    assert_eq!(members, 5, "a room without a name is named after its members");
}

#[test]
fn an_invite_is_signed_only_if_it_is_one_for_a_local_user() {
    let case = case();
    let invite = |target: &str, content: Value| case.event("@bob:b.test", target, "m.room.member", content);
    let send = |id: &str, event: &Value, version: &str| {
        let uri = format!("/_matrix/federation/v2/invite/{}/{}", percent(&case.room), percent(id));
        let body = json!({ "room_version": version, "event": event, "invite_room_state": [] });
        ask(&case.net, Method::PUT, &uri, Some(&body))
    };
    let invalid = |answer: &Answer| refused(answer, StatusCode::BAD_REQUEST, "M_INVALID_PARAM");
    let (id, good) = invite("@ann:a.test", json!({ "membership": "invite" }));
    invalid(&send("$other", &good, "11"));
    refused(&send(&id, &good, "org.example.x"), StatusCode::BAD_REQUEST, "M_INCOMPATIBLE_ROOM_VERSION");
    let mut unsigned = good.clone();
    unsigned["signatures"] = json!({});
    invalid(&send(&id, &unsigned, "11"));
    for (id, event) in [
        invite("@ann:a.test", json!({ "membership": "join" })),
        invite("@ann:c.test", json!({ "membership": "invite" })),
        case.event("@eve:c.test", "@ann:a.test", "m.room.member", json!({ "membership": "invite" })),
        case.event_in(
            "!other:b.test",
            "@bob:b.test",
            "@ann:a.test",
            "m.room.member",
            json!({ "membership": "invite" }),
        ),
    ] {
        invalid(&send(&id, &event, "11"));
    }
    let signed = send(&id, &good, "11").ok();
    assert!(
        signed["event"]["signatures"].get("a.test").is_some()
            && signed["event"]["signatures"].get("b.test").is_some()
    );
    let uri = format!("/_matrix/federation/v1/invite/{}/{}", percent(&case.room), percent(&id));
    let old = ask(&case.net, Method::PUT, &uri, Some(&good)).json;
    assert_eq!((&old[0], &old[1]["event"]), (&json!(200), &signed["event"]));
}

#[test]
fn what_a_policy_server_refuses_is_not_let_in() {
    let net = Net::new(3);
    let (ann, bob, cat) = (net.user(0, "ann"), net.user(1, "bob"), net.user(2, "cat"));
    let room = net.public_room(0, &ann, "11");
    net.join(2, &cat, &room, "a.test").ok();
    let key = SigningKey::from_seed("policy_server", [5; 32]).unwrap();
    let policy = json!({ "via": "c.test", "public_keys": { "ed25519": key.public_key_base64() } });
    net.set(0, &ann, &room, "m.room.policy", policy).ok();
    let asked = net.gate(2, |path| match path.contains("/policy/") {
        true => super::gate::Deed::refuse(),
        false => super::gate::Deed::Pass,
    });
    refused(&net.join(1, &bob, &room, "a.test"), StatusCode::FORBIDDEN, "M_FORBIDDEN");
    assert_eq!((asked.count("/policy/"), net.members(0, &room).len()), (1, 2));
}

#[test]
fn from_version_12_on_an_invite_comes_with_the_create_event_and_no_forgeries() {
    let net = Net::new(2);
    let (_, bob) = (net.user(0, "ann"), net.user(1, "bob"));
    let [room, other] = ["One", "Two"].map(|name| {
        net.create(1, &bob, json!({ "preset": "public_chat", "room_version": "12", "name": name }))
    });
    let event = NewEvent::state(
        bob.user_id.as_str().try_into().unwrap(),
        "m.room.member",
        "@ann:a.test",
        &json!({ "membership": "invite" }),
    );
    let parents = Parents {
        room_id: Some(room.as_str().try_into().unwrap()),
        prev_events: vec![net.end(1, &room).try_into().unwrap()],
        auth_events: Vec::new(),
        depth: 8,
        names: None,
    };
    let rules = rules(&RoomVersionId::V12).unwrap();
    let pdu = build(&rules, event.unwrap(), parents, 1_000, &net.servers[1].signing_key()).unwrap();
    let uri = format!("/_matrix/federation/v2/invite/{}/{}", percent(&room), percent(pdu.event_id.as_str()));
    let invite = |state: &[&Value]| {
        let event: Value = serde_json::from_str(&pdu.json).unwrap();
        let body = json!({ "room_version": "12", "event": event, "invite_room_state": state });
        ask(&net, Method::PUT, &uri, Some(&body))
    };
    let (create, name) = (net.pdu(1, &room, "m.room.create"), net.pdu(1, &room, "m.room.name"));
    let stripped = json!({ "type": "m.room.name", "state_key": "", "sender": bob.user_id, "content": { "name": "One" } });
    let (mut unsigned, mut forged, mut malformed) = (create.clone(), name.clone(), name.clone());
    unsigned["signatures"] = json!({});
    forged["signatures"]["b.test"]["ed25519:sim"] = create["signatures"]["b.test"]["ed25519:sim"].clone();
    malformed.as_object_mut().unwrap().remove("depth");
    let stripped_create = json!({ "type": "m.room.create", "state_key": "", "sender": bob.user_id, "content": create["content"] });
    let foreign = [net.pdu(1, &other, "m.room.create"), net.pdu(1, &other, "m.room.name")];
    for state in [
        vec![],
        vec![&name],
        vec![&stripped_create],
        vec![&unsigned],
        vec![&create, &forged],
        vec![&create, &malformed],
        vec![&foreign[0]],
        vec![&create, &foreign[1]],
    ] {
        refused(&invite(&state), StatusCode::BAD_REQUEST, "M_INVALID_PARAM");
    }
    invite(&[&create, &name]).ok();
    invite(&[&create, &stripped]).ok();
}
