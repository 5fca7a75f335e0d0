//! Rooms: making, finding, entering and leaving them, what is in them.

use http::Method;
use myelin_testkit::client::percent;
use serde_json::json;

use super::{
    super::{
        call::Call,
        place::Place,
        surroundings::{IDENTITY_SERVER, OLD_IDENTITY_SERVERS},
    },
    Row,
};

const NO_SUCH_SERVER: &str = "a server that cannot be asked is no fault of the request: 502";

pub const ROWS: &[Row] = &[
    ("createRoom", |at| {
        let body = json!({
            "visibility": "public", "room_alias_name": "new", "name": "New", "topic": "Newer", "invite": [at.bob.id],
            "room_version": "12", "creation_content": { "m.federate": true }, "preset": "public_chat", "is_direct": false,
            "initial_state": [{ "type": "m.room.avatar", "state_key": "", "content": { "url": "mxc://here.test/a" } }],
            "power_level_content_override": { "events_default": 0 },
        });
        at.call().json(body)
    }),
    ("upgradeRoom", |at| at.call().json(json!({ "new_version": "12", "additional_creators": [at.bob.id] }))),
    // The directory.
    ("setRoomAlias", |at| at.call().path("roomAlias", "#new:here.test").json(json!({ "room_id": at.room }))),
    ("getRoomIdByAlias", |at| at.call().by_nobody()),
    ("deleteRoomAlias", Place::call),
    ("getLocalAliases", Place::call),
    ("getRoomVisibilityOnDirectory", |at| at.call().by_nobody().any_room()),
    ("setRoomVisibilityOnDirectory", |at| at.call().json(json!({ "visibility": "private" }))),
    ("getPublicRooms", |at| {
        at.call().by_nobody().query("limit", "10").lenient("?server of the wrong kind", NO_SUCH_SERVER)
    }),
    ("queryPublicRooms", |at| {
        let filter = json!({ "generic_search_term": "hall", "room_types": [null] });
        at.call()
            .json(json!({ "limit": 10, "filter": filter, "include_all_networks": false }))
            .lenient("?server of the wrong kind", NO_SUCH_SERVER)
    }),
    ("getRoomSummary", |at| at.call().query("via", "here.test")),
    ("getSpaceHierarchy", |at| {
        let space =
            at.creates(&at.alice, json!({ "creation_content": { "type": "m.space" }, "name": "Space" }));
        at.sets(&at.alice, &space, "m.space.child", &at.room, json!({ "via": ["here.test"] }));
        let call = at.call().path("roomId", &space).query("limit", "10").query("max_depth", "2");
        call.query("suggested_only", "false")
    }),
    // Members.
    ("inviteUser", |at| at.call().json(json!({ "user_id": at.registers("carol").id, "reason": "cake" }))),
    ("inviteBy3PID", |at| {
        let call = at.call().json(json!({
            "id_server": IDENTITY_SERVER, "id_access_token": "t", "medium": "email", "address": "c@mail.test",
        }));
        call.lenient("without id_access_token", OLD_IDENTITY_SERVERS)
    }),
    ("joinRoomById", |at| joinable(at).json(json!({ "reason": "cake" }))),
    ("joinRoom", |at| joinable(at).query("via", "here.test").json(json!({ "reason": "cake" }))),
    ("knockRoom", |at| {
        let knocked = at.creates(&at.bob, json!({
            "initial_state": [{ "type": "m.room.join_rules", "state_key": "", "content": { "join_rule": "knock" } }],
        }));
        at.call().path("roomIdOrAlias", &knocked).query("via", "here.test").json(json!({ "reason": "cake" }))
    }),
    ("leaveRoom", |at| at.call().json(json!({ "reason": "no cake" }))),
    ("forgetRoom", |at| {
        let path = format!("v3/rooms/{}/leave", percent(&at.room));
        at.does(&at.alice, Method::POST, &path, json!({}));
        at.call()
    }),
    ("kick", |at| at.call().json(json!({ "user_id": at.bob.id, "reason": "rude" }))),
    ("ban", |at| at.call().json(json!({ "user_id": at.bob.id, "reason": "rude" }))),
    ("unban", |at| {
        let path = format!("v3/rooms/{}/ban", percent(&at.room));
        at.does(&at.alice, Method::POST, &path, json!({ "user_id": at.bob.id }));
        at.call().json(json!({ "user_id": at.bob.id, "reason": "sorry" }))
    }),
    ("getMembersByRoom", |at| at.call().query("membership", "join")),
    ("getJoinedMembersByRoom", Place::call),
    // Events.
    ("sendMessage", |at| at.call().json(json!({ "msgtype": "m.text", "body": "hello" }))),
    ("setRoomStateWithKey", |at| {
        at.call().path("eventType", "m.room.topic").json(json!({ "topic": "Cake" }))
    }),
    ("redactEvent", |at| at.call().json(json!({ "reason": "a mistake" }))),
    ("getOneRoomEvent", Place::call),
    // The schema of the form `event` fits no event: it wants exactly one of two shapes, of which events have both.
    ("getRoomStateWithKey", |at| {
        at.call().path("eventType", "m.room.member").path("stateKey", &at.bob.id).query("format", "content")
    }),
    ("getRoomState", Place::call),
    ("getEventContext", |at| at.call().query("limit", "10").query("filter", r#"{"lazy_load_members":true}"#)),
    ("getRoomEvents", |at| at.call().query("dir", "b").query("limit", "50")),
    ("getEventByTimestamp", |at| at.call().query("ts", "0").query("dir", "f")),
    ("getRelatingEvents", |at| at.call().query("dir", "b").query("limit", "5").query("recurse", "true")),
    ("getRelatingEventsWithRelType", |at| related(at)),
    ("getRelatingEventsWithRelTypeAndEventType", |at| related(at)),
    ("getThreadRoots", |at| at.call().query("include", "all").query("limit", "5")),
    ("setTyping", |at| at.call().json(json!({ "typing": true, "timeout": 30_000 }))),
    ("postReceipt", |at| at.call().path("receiptType", "m.read").json(json!({ "thread_id": "main" }))),
    ("setReadMarker", |at| {
        at.call().json(json!({ "m.fully_read": at.event, "m.read": at.event, "m.read.private": at.event }))
    }),
    // Reports.
    ("reportRoom", |at| at.call().any_room().json(json!({ "reason": "rude" }))),
    ("reportEvent", |at| at.call().json(json!({ "reason": "rude" }))),
    ("reportUser", |at| at.call().path("userId", &at.bob.id).json(json!({ "reason": "rude" }))),
];

/// A room that Alice may join.
fn joinable(at: &Place) -> Call {
    let room = at.creates(&at.bob, json!({ "preset": "public_chat" }));
    at.call().path("roomId", &room).path("roomIdOrAlias", &room)
}

fn related(at: &Place) -> Call {
    at.call().path("relType", "m.thread").query("dir", "b").query("limit", "5")
}
