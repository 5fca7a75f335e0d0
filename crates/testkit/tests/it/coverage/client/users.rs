//! Profiles, account data, presence, who is there.

use http::Method;
use myelin_testkit::client::percent;
use serde_json::json;

use super::{
    super::{call::Call, place::Place},
    Row,
};

const KIND: &str = "org.example.data";

pub const ROWS: &[Row] = &[
    ("setAccountData", |at| at.call().path("type", KIND).json(json!({ "cake": true }))),
    ("getAccountData", |at| {
        let path = format!("v3/user/{}/account_data/{KIND}", percent(&at.alice.id));
        at.does(&at.alice, Method::PUT, &path, json!({ "cake": true }));
        at.call().path("type", KIND)
    }),
    ("setAccountDataPerRoom", |at| at.call().path("type", KIND).any_room().json(json!({ "cake": true }))),
    ("getAccountDataPerRoom", |at| {
        let path = format!("v3/{}/account_data/{KIND}", own_room(at));
        at.does(&at.alice, Method::PUT, &path, json!({ "cake": true }));
        at.call().path("type", KIND)
    }),
    ("getRoomTags", |at| {
        at.does(&at.alice, Method::PUT, &format!("v3/{}/tags/u.cake", own_room(at)), json!({ "order": 0.5 }));
        at.call().any_room()
    }),
    ("setRoomTag", |at| at.call().path("tag", "u.cake").any_room().json(json!({ "order": 0.5 }))),
    ("deleteRoomTag", |at| at.call().path("tag", "u.cake").any_room()),
    ("setProfileField", |at| named(at).json(json!({ "displayname": "Alice" }))),
    ("getProfileField", |at| named(at).by_nobody()),
    ("deleteProfileField", |at| named(at)),
    ("getUserProfile", |at| at.call().by_nobody()),
    ("setPresence", |at| at.call().json(json!({ "presence": "online", "status_msg": "cake" }))),
    ("getPresence", |at| {
        let path = format!("v3/presence/{}/status", percent(&at.bob.id));
        at.does(&at.bob, Method::PUT, &path, json!({ "presence": "online" }));
        at.call().path("userId", &at.bob.id)
    }),
    ("getJoinedRooms", Place::call),
    ("getMutualRooms", |at| at.call().query("user_id", &at.bob.id)),
    ("searchUserDirectory", |at| at.call().json(json!({ "search_term": "bob", "limit": 5 }))),
];

fn own_room(at: &Place) -> String {
    format!("user/{}/rooms/{}", percent(&at.alice.id), percent(&at.room))
}

fn named(at: &Place) -> Call {
    at.call().path("keyName", "displayname")
}
