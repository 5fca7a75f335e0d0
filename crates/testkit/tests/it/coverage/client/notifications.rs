//! Push rules, notifications, pushers.

use http::Method;
use serde_json::json;

use super::{
    super::{
        call::{Call, Content},
        place::Place,
    },
    Row,
};

pub const ROWS: &[Row] = &[
    ("getPushRules", Place::call),
    ("getPushRulesGlobal", Place::call),
    ("getPushRule", |at| own_rule(at)),
    ("deletePushRule", |at| own_rule(at)),
    ("setPushRule", |at| {
        let body = json!({
            "actions": ["notify", { "set_tweak": "sound", "value": "default" }],
            "conditions": [{ "kind": "event_match", "key": "content.body", "pattern": "cake" }],
        });
        at.call().path("kind", "override").path("ruleId", "cake").json(body)
    }),
    ("isPushRuleEnabled", |at| own_rule(at)),
    ("setPushRuleEnabled", |at| own_rule(at).json(json!({ "enabled": false }))),
    ("getPushRuleActions", |at| own_rule(at)),
    ("setPushRuleActions", |at| own_rule(at).json(json!({ "actions": ["notify"] }))),
    ("getNotifications", |at| {
        at.says(&at.bob, "alice: look", json!({ "m.mentions": { "user_ids": [at.alice.id] } }));
        at.call().query("limit", "10").query("only", "highlight")
    }),
    ("getPushers", |at| {
        let path = "/_matrix/client/v3/pushers/set";
        at.tries(&at.alice, Method::POST, path, Content::Json(pusher()));
        at.call()
    }),
    ("postPusher", |at| at.call().json(pusher())),
];

fn own_rule(at: &Place) -> Call {
    let path = "/_matrix/client/v3/pushrules/global/content/cake";
    let rule = json!({ "actions": ["notify"], "pattern": "cake" });
    at.tries(&at.alice, Method::PUT, path, Content::Json(rule));
    at.call().path("kind", "content").path("ruleId", "cake")
}

fn pusher() -> serde_json::Value {
    json!({
        "pushkey": "key", "kind": "http", "app_id": "test.app", "app_display_name": "App", "lang": "en",
        "device_display_name": "Phone", "profile_tag": "tag", "append": false,
        "data": { "url": "https://push.test/_matrix/push/v1/notify", "format": "event_id_only" },
    })
}
