//! A valid call for each operation of the Server-Server API, by its `operationId`. The caller is `there.test`, whose user
//! Eve is in Alice's room.

use http::Method;
use myelin_dag::{NewEvent, Parents, SigningKey, build, hashes::event_id_of, rules};
use myelin_testkit::{client::percent, server::signing_key};
use ruma::{CanonicalJsonObject, RoomVersionId, signatures::hash_and_sign_event};
use serde_json::{Value, json};

use super::{
    call::{Call, Content, Who},
    place::{Place, text, there},
};

pub type Row = (&'static str, fn(&Place) -> Call);

const LEFT_OUT: &str = "what cannot be read of a transaction is left out of it";
const BY_SIGNATURE: &str = "who sends is whose signature it is, and when does not matter";
const DISPLAY_NAME: &str =
    "Synapse leaves it out, and the one that counts is that of the invite to the address";
const ORIGIN: &str = "events have no origin any more: servers leave it out, and so does the format of rooms";
const NEW: &str = "@new:there.test";
const EVE: &str = "@eve:there.test";

pub const ROWS: &[Row] = &[
    // What is in a room.
    ("backfillRoom", |at| at.signed().query("v", &at.event).query("limit", "10")),
    ("getMissingPreviousEvents", |at| {
        let body = json!({ "limit": 10, "min_depth": 0, "earliest_events": [], "latest_events": [at.event] });
        at.signed().json(body)
    }),
    ("getEventAuth", Place::signed),
    ("getRoomState", |at| at.signed().query("event_id", &at.event)),
    ("getRoomStateIds", |at| at.signed().query("event_id", &at.event)),
    ("getEvent", Place::signed),
    ("getEventByTimestamp", |at| at.signed().query("ts", "0").query("dir", "f")),
    ("getSpaceHierarchy", |at| at.signed().query("suggested_only", "false")),
    // Handshakes.
    ("makeJoin", |at| at.signed().path("userId", NEW).query("ver", "12").any_room()),
    ("sendJoinV2", |at| {
        let template = template(at, "make_join", &at.room, NEW, "?ver=12");
        let (id, event) = made(&template, &at.room);
        at.signed().path("eventId", &id).query("omit_members", "false").json(event)
    }),
    ("makeKnock", |at| at.signed().path("roomId", &knockable(at)).path("userId", NEW).query("ver", "12")),
    ("sendKnock", |at| {
        at.signed();
        let room = knockable(at);
        let (id, event) = made(&template(at, "make_knock", &room, NEW, "?ver=12"), &room);
        at.signed().path("roomId", &room).path("eventId", &id).json(event)
    }),
    ("makeLeave", |at| at.signed().path("userId", EVE)),
    ("sendLeaveV2", |at| {
        at.signed();
        let (id, event) = made(&template(at, "make_leave", &at.room, EVE, ""), &at.room);
        at.signed().path("eventId", &id).json(event)
    }),
    ("sendInviteV1", |at| {
        let mut invite = Invite::new(at, "2");
        invite.event["unsigned"] = json!({ "invite_room_state": [invite.create] });
        let call = at.signed().path("roomId", &invite.room).path("eventId", &invite.id).json(invite.event);
        call.any_room().lenient("without origin", ORIGIN)
    }),
    ("sendInviteV2", |at| {
        let invite = Invite::new(at, "11");
        let body =
            json!({ "room_version": "11", "event": invite.event, "invite_room_state": [invite.create] });
        let call = at.signed().path("roomId", &invite.room).path("eventId", &invite.id).json(body);
        call.any_room().lenient("without event.origin", ORIGIN)
    }),
    ("exchangeThirdPartyInvite", |at| {
        let signed = third_party_invite(at, "@new:there.test");
        let content = json!({ "membership": "invite", "third_party_invite": { "display_name": "n...", "signed": signed } });
        let call = at.signed().json(json!({
            "type": "m.room.member", "room_id": at.room, "sender": at.alice.id, "state_key": NEW, "content": content,
        }));
        call.lenient("without content.third_party_invite.display_name", DISPLAY_NAME)
    }),
    ("onBindThirdPartyIdentifier", |at| {
        let signed = third_party_invite(at, &at.bob.id);
        let invite = json!({
            "medium": "email", "address": "bob@mail.test", "mxid": at.bob.id, "room_id": at.room, "sender": at.alice.id,
            "signed": signed,
        });
        let body =
            json!({ "medium": "email", "address": "bob@mail.test", "mxid": at.bob.id, "invites": [invite] });
        let not_read = "which address it was does not matter: what counts is what was signed";
        at.signed()
            .by_nobody()
            .json(body)
            .lenient("without invites.0.medium", not_read)
            .lenient("without invites.0.address", not_read)
            .lenient("the wrong type of invites.0.medium", not_read)
            .lenient("the wrong type of invites.0.address", not_read)
    }),
    // Transactions.
    ("sendTransaction", |at| {
        let template = template(at, "make_leave", &at.room, EVE, "");
        let (_, event) = made(&template, &at.room);
        let edu = json!({ "edu_type": "m.presence", "content": { "push": [] } });
        let body = json!({ "origin": there(), "origin_server_ts": 1, "pdus": [event], "edus": [edu] });
        at.signed()
            .json(body)
            .lenient("the wrong type of pdus.0", LEFT_OUT)
            .lenient("the wrong type of edus.0", LEFT_OUT)
            .lenient("without edus.0", LEFT_OUT)
            .lenient("without origin", BY_SIGNATURE)
            .lenient("the wrong type of origin", BY_SIGNATURE)
            .lenient("without pdus", "a transaction without events has none")
    }),
    // Keys of servers.
    ("getServerKey", |at| at.signed().by_nobody()),
    ("perspectivesKeyQuery", |at| {
        at.signed().by_nobody().path("serverName", there().as_str()).query("minimum_valid_until_ts", "0")
    }),
    ("bulkPerspectivesKeyQuery", |at| {
        let criteria = json!({ signing_key(there()).key_id(): { "minimum_valid_until_ts": 0 } });
        at.signed().by_nobody().json(json!({ "server_keys": { there().as_str(): criteria } }))
    }),
    // Users and their devices.
    ("getUserDevices", Place::signed),
    ("queryUserEncryptionKeys", |at| at.signed().json(json!({ "device_keys": { at.alice.id.clone(): [] } }))),
    ("claimUserEncryptionKeys", |at| {
        let wanted = json!({ at.alice.id.clone(): { at.alice.device.clone(): "signed_curve25519" } });
        at.signed().json(json!({ "one_time_keys": wanted }))
    }),
    ("queryProfile", |at| at.signed().query("user_id", &at.alice.id).query("field", "displayname")),
    ("queryRoomDirectory", |at| at.signed().query("room_alias", &at.alias)),
    ("queryInfo", |at| {
        let call = at.signed().path("queryType", "other").query("x", "y");
        call.refused(404, "M_UNRECOGNIZED", "as specified for an unknown type")
    }),
    ("exchangeOpenIdToken", |at| {
        let path = format!("v3/user/{}/openid/request_token", percent(&at.alice.id));
        let token = at.does(&at.alice, Method::POST, &path, json!({}));
        at.signed().by_nobody().query("access_token", &text(&token["access_token"]))
    }),
    ("getPublicRooms", |at| at.signed().query("limit", "10").query("include_all_networks", "false")),
    ("queryPublicRooms", |at| {
        at.signed().json(json!({ "limit": 10, "filter": { "generic_search_term": "hall" }, "include_all_networks": false }))
    }),
    // Media.
    ("getContent", |at| uploaded(at)),
    ("getContentThumbnail", |at| {
        uploaded(at).query("width", "32").query("height", "32").query("method", "scale")
    }),
    // The server.
    ("getVersion", |at| at.signed().by_nobody()),
    ("getWellKnown", |at| at.signed().by_nobody()),
    ("askPolicyServerToSign", |at| {
        let call = at.signed().json(json!({ "type": "m.room.message" }));
        let call = call.lenient("", "nothing is served at this path, whoever asks for whatever");
        call.refused(404, "M_UNRECOGNIZED", "as specified for a server that is no policy server")
    }),
];

fn uploaded(at: &Place) -> Call {
    at.signed().path("mediaId", &at.uploads_pixel())
}

fn knockable(at: &Place) -> String {
    let rule = json!({ "type": "m.room.join_rules", "state_key": "", "content": { "join_rule": "knock" } });
    at.creates(&at.alice, json!({ "initial_state": [rule] }))
}

fn template(at: &Place, what: &str, room: &str, user: &str, query: &str) -> Value {
    at.signed();
    let uri = format!("/_matrix/federation/v1/{what}/{}/{}{query}", percent(room), percent(user));
    let reply = at.asks(Who::Signed, Method::GET, &uri, &Content::None);
    assert!(reply.status.is_success(), "{what}: {}", reply.json);
    reply.json["event"].clone()
}

/// The event of a template, signed, with its id.
fn made(template: &Value, room: &str) -> (String, Value) {
    let ids = |field: &str| {
        let ids = template[field].as_array().into_iter().flatten();
        ids.filter_map(|id| id.as_str()?.try_into().ok()).collect()
    };
    let (sender, key) = (text(&template["sender"]), text(&template["state_key"]));
    let parents = Parents {
        room_id: room.try_into().ok(),
        prev_events: ids("prev_events"),
        auth_events: ids("auth_events"),
        depth: template["depth"].as_u64().unwrap_or(1),
        names: None,
    };
    event("12", &sender, "m.room.member", &key, &template["content"], parents)
}

fn event(
    version: &str,
    sender: &str,
    kind: &str,
    key: &str,
    content: &Value,
    parents: Parents,
) -> (String, Value) {
    let version: RoomVersionId = version.try_into().expect("a version");
    let rules = rules(&version).expect("a version");
    let sender = sender.try_into().expect("a user id");
    let event = NewEvent::state(sender, kind, key, content).expect("an event");
    let pdu = build(&rules, event, parents, 1_000, &signing_key(there())).expect("an event");
    (pdu.event_id.to_string(), serde_json::from_str(&pdu.json).expect("JSON"))
}

/// Of Bob, to a room of the other server.
struct Invite {
    room: String,
    id: String,
    event: Value,
    create: Value,
}

impl Invite {
    fn new(at: &Place, version: &str) -> Self {
        let room = "!room:there.test".to_owned();
        let parents = || Parents {
            room_id: room.as_str().try_into().ok(),
            prev_events: Vec::new(),
            auth_events: Vec::new(),
            depth: 1,
            names: myelin_dag::needs_names(
                &rules(&version.try_into().expect("a version")).expect("a version"),
            )
            .then(|| myelin_dag::Names {
                event_id: "$invite:there.test".try_into().expect("an event id"),
                reference_hashes: Default::default(),
            }),
        };
        let content = json!({ "creator": EVE, "room_version": version });
        let (_, create) = event(version, EVE, "m.room.create", "", &content, parents());
        let content = json!({ "membership": "invite" });
        let (_, event) = event(version, EVE, "m.room.member", &at.bob.id, &content, parents());
        let (id, event) = with_origin(version, &event);
        Self { room, id, event, create }
    }
}

/// As the schemas of invites have it, from a time when events had one.
fn with_origin(version: &str, event: &Value) -> (String, Value) {
    let rules = rules(&version.try_into().expect("a version")).expect("a version");
    let mut event: CanonicalJsonObject = serde_json::from_value(event.clone()).expect("an event");
    event.insert("origin".to_owned(), there().as_str().into());
    event.remove("signatures");
    hash_and_sign_event(there().as_str(), signing_key(there()).pair(), &mut event, &rules.redaction)
        .expect("signed");
    let text = serde_json::to_string(&event).expect("text");
    let id = event_id_of(&text, &rules).expect("an event id");
    (id.to_string(), serde_json::from_str(&text).expect("JSON"))
}

/// Alice has invited an address; what its identity server says of whose it is.
fn third_party_invite(at: &Place, user_id: &str) -> Value {
    let identity = SigningKey::from_seed("0", [5; 32]).expect("a key from a seed");
    let public_key = identity.public_key_base64();
    let content = json!({
        "display_name": "n...", "key_validity_url": "https://id.test/valid", "public_key": public_key,
        "public_keys": [{ "public_key": public_key }],
    });
    at.sets(&at.alice, &at.room, "m.room.third_party_invite", "token", content);
    let signature = identity.sign(json!({ "mxid": user_id, "token": "token" }).to_string().as_bytes());
    json!({ "mxid": user_id, "token": "token", "signatures": { "id.test": { identity.key_id(): signature } } })
}
