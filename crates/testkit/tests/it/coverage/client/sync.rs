//! Sync, old and new, and search.

use serde_json::json;

use super::{
    super::place::{Place, text},
    Row,
};

pub const ROWS: &[Row] = &[
    ("sync", |at| {
        let filter = r#"{"room":{"timeline":{"limit":5},"include_leave":true}}"#;
        let call = at.call().query("filter", filter).query("timeout", "0").query("full_state", "true");
        call.query("set_presence", "offline").query("use_state_after", "false")
    }),
    ("getEvents", |at| {
        let from = text(&at.gets(&at.alice, "v3/sync?set_presence=offline")["next_batch"]);
        at.says(&at.bob, "news", json!({}));
        at.call().query("from", &from).query("timeout", "0")
    }),
    ("peekEvents", |at| {
        let from = text(&at.gets(&at.alice, "v3/sync?set_presence=offline")["next_batch"]);
        at.says(&at.bob, "news", json!({}));
        at.call()
            .query("from", &from)
            .query("timeout", "0")
            .query("room_id", &at.room)
            .lenient("without ?room_id", "without it this is the deprecated operation of the same path")
    }),
    ("initialSync", |at| at.call().query("limit", "5").query("archived", "false")),
    ("roomInitialSync", Place::call),
    ("getOneEvent", Place::call),
    ("defineFilter", |at| {
        at.call().json(json!({
            "event_fields": ["type", "content"], "event_format": "client",
            "presence": { "limit": 5, "types": ["m.presence"] },
            "account_data": { "not_types": ["m.tag"] },
            "room": {
                "rooms": [at.room], "include_leave": false,
                "timeline": { "limit": 5, "lazy_load_members": true, "senders": [at.bob.id] },
                "state": { "types": ["m.room.*"] }, "ephemeral": { "not_types": ["m.typing"] },
            },
        }))
    }),
    ("getFilter", |at| {
        let path = format!("v3/user/{}/filter", at.alice.id);
        let filter =
            at.does(&at.alice, http::Method::POST, &path, json!({ "room": { "timeline": { "limit": 5 } } }));
        at.call().path("filterId", &text(&filter["filter_id"]))
    }),
    ("search", |at| {
        let events = json!({
            "search_term": "hello", "keys": ["content.body"], "order_by": "recent", "filter": { "limit": 5 },
            "event_context": { "before_limit": 1, "after_limit": 1, "include_profile": true },
            "include_state": true, "groupings": { "group_by": [{ "key": "room_id" }] },
        });
        at.call().json(json!({ "search_categories": { "room_events": events } }))
    }),
];
