//! The default rules as the specification has them, edits, and the index against asking everybody.

use std::collections::{BTreeMap, HashSet};

use imbl::OrdSet;
use myelin_core::UserNid;
use proptest::prelude::*;
use ruma::{
    Int, OwnedUserId, UserId, event_id,
    power_levels::NotificationPowerLevels,
    push::{PushConditionPowerLevelsCtx, PushConditionRoomCtx, Ruleset as Rules},
    room_id,
    serde::Raw,
    user_id,
};
use serde_json::{Value, json, value::to_raw_value};

use crate::{
    Circumstances, Index, Outcome, Permissions, Ruleset, Subject,
    edit::{self, Definition, Error, Kind, Place},
    shared,
};

const NOTHING: (bool, bool) = (false, false);
const NOTIFIED: (bool, bool) = (true, false);
const HIGHLIGHTED: (bool, bool) = (true, true);

struct Event {
    sender: OwnedUserId,
    event_type: String,
    state_key: Option<String>,
    content: Value,
}

fn event(event_type: &str, state_key: Option<&str>, content: Value) -> Event {
    let sender = user_id!("@sender:example.org").to_owned();
    Event { sender, event_type: event_type.to_owned(), state_key: state_key.map(ToOwned::to_owned), content }
}

impl Event {
    fn look<T>(&self, look: impl FnOnce(&Subject<'_>) -> T) -> T {
        let content = to_raw_value(&self.content).expect("JSON");
        let (id, room) = (event_id!("$event"), room_id!("!room:example.org"));
        let (kind, key) = (&self.event_type, self.state_key.as_deref());
        look(&Subject::new(id, room, &self.sender, kind, key, &content))
    }
}

fn decided(rules: &Ruleset, owner: &UserId, event: &Event, members: u64, level: i64) -> (bool, bool) {
    let permissions = Permissions::new(level, []);
    let around = Circumstances {
        owner: Some(owner),
        display_name: Some("Ab"),
        member_count: members,
        permissions: &permissions,
    };
    let Outcome { notify, highlight } = event.look(|subject| rules.outcome(subject, &around));
    (notify, highlight)
}

#[test]
fn default_rules_are_those_of_the_specification() {
    let specified: Value = serde_json::from_str(include_str!("specified_defaults.json")).expect("JSON");
    let ours = json!(Rules::server_default(user_id!("@me:example.org")));
    for kind in ["override", "underride"] {
        let (specified, ours) = (specified[kind].as_array().expect("rules"), ours[kind].as_array());
        let ours = ours.expect("rules");
        assert_eq!(specified.len(), ours.len(), "{kind}");
        for (specified, ours) in specified.iter().zip(ours) {
            let mut specified = specified.clone();
            // Without a value it is true.
            for action in specified["actions"].as_array_mut().expect("actions") {
                if action["set_tweak"] == "highlight" {
                    action["value"] = ours["actions"]
                        .as_array()
                        .and_then(|actions| actions.iter().find(|action| action["set_tweak"] == "highlight"))
                        .map_or(Value::Null, |action| action["value"].clone());
                }
                if action["value"].is_null()
                    && let Some(action) = action.as_object_mut()
                {
                    action.remove("value");
                }
            }
            assert_eq!(&specified, ours);
        }
    }
    for kind in ["content", "room", "sender"] {
        assert!(ours.get(kind).is_none(), "{kind}");
    }
}

#[test]
fn what_each_default_rule_does() {
    let text = |body: &str| event("m.room.message", None, json!({ "msgtype": "m.text", "body": body }));
    let message = |content: Value| event("m.room.message", None, content);
    let member = |whom: &str, membership: &str| {
        event("m.room.member", Some(whom), json!({ "membership": membership }))
    };
    let me = "@me:example.org";
    let mention = json!({ "body": "hi", "m.mentions": { "user_ids": [me] } });
    let everybody = json!({ "body": "@room", "m.mentions": { "room": true } });
    let edit = json!({ "body": "*", "m.mentions": {}, "m.relates_to": { "rel_type": "m.replace" } });
    let edited_mention =
        json!({ "m.mentions": { "user_ids": [me] }, "m.relates_to": { "rel_type": "m.replace" } });
    // (event, members, power level of the sender, outcome)
    let table = [
        (text("hi"), 3, 0, NOTIFIED),
        (text("hi"), 2, 0, NOTIFIED),
        (text("hi me @me:example.org Ab"), 3, 0, NOTIFIED),
        (message(json!({ "msgtype": "m.notice", "body": "hi" })), 2, 0, NOTHING),
        (member(me, "invite"), 1, 0, NOTIFIED),
        (member("@other:example.org", "invite"), 1, 0, NOTHING),
        (member(me, "ban"), 2, 0, NOTHING),
        (message(mention), 3, 0, HIGHLIGHTED),
        (message(everybody.clone()), 3, 50, HIGHLIGHTED),
        (message(everybody), 3, 49, NOTIFIED),
        (event("m.room.tombstone", Some(""), json!({})), 3, 0, HIGHLIGHTED),
        (event("m.room.tombstone", None, json!({})), 3, 0, NOTHING),
        (event("m.reaction", None, json!({})), 2, 0, NOTHING),
        (event("m.room.server_acl", Some(""), json!({})), 2, 0, NOTHING),
        (message(edit), 2, 0, NOTHING),
        (message(edited_mention), 2, 0, HIGHLIGHTED),
        (event("m.call.invite", None, json!({})), 3, 0, NOTIFIED),
        (event("m.room.encrypted", None, json!({})), 2, 0, NOTIFIED),
        (event("m.room.encrypted", None, json!({})), 3, 0, NOTIFIED),
        (event("m.room.topic", Some(""), json!({ "topic": "t" })), 2, 0, NOTHING),
        (event("org.example", None, json!({})), 2, 0, NOTHING),
    ];
    for (event, members, level, expected) in table {
        let found = decided(shared(), user_id!("@me:example.org"), &event, members, level);
        assert_eq!(found, expected, "{} {:?} {}", event.event_type, event.state_key, event.content);
        assert_eq!(decided(shared(), &event.sender, &event, members, level), NOTHING, "one's own");
    }
}

#[test]
fn the_master_rule_silences_all_but_what_stands_before_it() {
    let me = user_id!("@me:example.org");
    let mut rules = edit::load(me, None);
    edit::set_enabled(&mut rules, Kind::Override, ".m.rule.master", true).expect("enabled");
    define(&mut rules, Kind::Override, "own", json!({ "actions": ["notify"] })).expect("added");
    let compiled = Ruleset::compile(&rules, HashSet::new());
    let message = event("m.room.message", None, json!({ "body": "x" }));
    assert_eq!(decided(&compiled, me, &message, 2, 100), NOTHING);
    assert!(compiled.is_quiet_in(room_id!("!any:example.org")));
}

fn define(rules: &mut Rules, kind: Kind, id: &str, definition: Value) -> Result<(), Error> {
    place(rules, kind, id, definition, None, None)
}

fn place(
    rules: &mut Rules,
    kind: Kind,
    id: &str,
    definition: Value,
    before: Option<&str>,
    after: Option<&str>,
) -> Result<(), Error> {
    let definition: Definition = serde_json::from_value(definition).expect("a definition");
    let place = Place { before: before.map(ToOwned::to_owned), after: after.map(ToOwned::to_owned) };
    edit::put(rules, kind, id, &definition, &place)
}

fn ids(rules: &Rules, kind: &str) -> Vec<String> {
    let json = edit::to_json(rules);
    let rules = json[kind].as_array().expect("a kind").iter();
    rules.filter_map(|rule| rule["rule_id"].as_str()).take(5).map(ToOwned::to_owned).collect()
}

#[test]
fn rules_stand_where_they_are_put() {
    let mut rules = edit::load(user_id!("@me:example.org"), None);
    let pattern = || json!({ "pattern": "x", "actions": [] });
    for id in ["c", "b", "a"] {
        define(&mut rules, Kind::Content, id, pattern()).expect("added");
    }
    assert_eq!(ids(&rules, "content"), ["a", "b", "c"]);
    place(&mut rules, Kind::Content, "a", pattern(), None, Some("c")).expect("moved");
    assert_eq!(ids(&rules, "content"), ["b", "c", "a"]);
    place(&mut rules, Kind::Content, "a", pattern(), Some("b"), None).expect("moved");
    place(&mut rules, Kind::Content, "d", pattern(), Some("c"), Some("a")).expect("added");
    assert_eq!(ids(&rules, "content"), ["a", "b", "d", "c"]);
    define(&mut rules, Kind::Content, "d", pattern()).expect("changed");
    assert_eq!(ids(&rules, "content"), ["a", "b", "d", "c"]);

    define(&mut rules, Kind::Override, "own", json!({ "actions": [] })).expect("added");
    assert_eq!(ids(&rules, "override")[..3], [".m.rule.master", "own", ".m.rule.suppress_notices"]);
    define(&mut rules, Kind::Underride, "own", json!({ "actions": [] })).expect("added");
    assert_eq!(ids(&rules, "underride")[..2], ["own", ".m.rule.call"]);
    let stored = json!({ "global": edit::to_json(&rules) }).to_string();
    let loaded = edit::load(user_id!("@me:example.org"), Some(&stored));
    assert_eq!(edit::to_json(&loaded), edit::to_json(&rules));
}

#[test]
fn a_changed_rule_stays_disabled() {
    let mut rules = edit::load(user_id!("@me:example.org"), None);
    define(&mut rules, Kind::Override, "own", json!({ "actions": [] })).expect("added");
    edit::set_enabled(&mut rules, Kind::Override, "own", false).expect("disabled");
    define(&mut rules, Kind::Override, "own", json!({ "actions": ["notify", "coalesce"] })).expect("changed");
    let rule = edit::get(&rules, Kind::Override, "own").expect("found");
    assert_eq!((&rule["enabled"], &rule["actions"]), (&json!(false), &json!(["notify"])));
}

#[test]
fn refused_edits() {
    let mut rules = edit::load(user_id!("@me:example.org"), None);
    let ok = || json!({ "actions": [], "pattern": "x" });
    let long = "x".repeat(256);
    let reserved = [".own", ".m.rule.master"];
    for id in reserved {
        assert_eq!(define(&mut rules, Kind::Override, id, ok()), Err(Error::Reserved));
        let deleted = edit::delete(&mut rules, Kind::Override, id);
        assert_eq!(deleted, Err(if id == ".own" { Error::NotFound } else { Error::Reserved }));
    }
    let invalid = [
        (Kind::Override, "a/b", ok()),
        (Kind::Override, r"a\b", ok()),
        (Kind::Override, &long, ok()),
        (Kind::Room, "x", ok()),
        (Kind::Sender, "x", ok()),
        (Kind::Content, "x", json!({ "actions": [] })),
        (Kind::Content, "x", json!({ "actions": [], "pattern": "x".repeat(513) })),
        (Kind::Override, "x", json!({ "actions": ["explode"] })),
        (Kind::Override, "x", json!({ "actions": [{ "set_tweak": 1 }] })),
        (Kind::Override, "x", json!({ "actions": vec!["notify"; 33] })),
        (Kind::Override, "x", json!({ "actions": [], "conditions": vec![json!({ "kind": "x" }); 33] })),
        (Kind::Override, "x", json!({ "actions": [], "conditions": [{ "kind": "event_match" }] })),
        (Kind::Override, "x", json!({ "actions": [], "conditions": [7] })),
        (Kind::Override, "x", json!({ "actions": [], "conditions": [{ "kind": "x", "is": 7 }] })),
        (
            Kind::Override,
            "x",
            json!({ "actions": [], "conditions": [{ "kind": "x", "y": "y".repeat(5_000) }] }),
        ),
    ];
    for (kind, id, definition) in invalid {
        let refused = define(&mut rules, kind, id, definition.clone());
        assert!(matches!(refused, Err(Error::Invalid(_))), "{id} {definition}");
    }
    for near in ["nobody", ".m.rule.call", "x"] {
        let refused = place(&mut rules, Kind::Underride, "x", ok(), Some(near), None);
        assert_eq!(refused, Err(Error::NoSuchPlace(near.to_owned())));
    }
    assert_eq!(edit::get(&rules, Kind::Room, "!x:y"), Err(Error::NotFound));
    assert_eq!(edit::set_enabled(&mut rules, Kind::Room, "!x:y", true), Err(Error::NotFound));
    assert_eq!(edit::set_actions(&mut rules, Kind::Room, "!x:y", &[]), Err(Error::NotFound));
    assert_eq!("device".parse::<Kind>(), Err(Error::UnknownKind));
    for n in 0..edit::RULES_MAX - 15 {
        define(&mut rules, Kind::Override, &n.to_string(), ok()).expect("there is room");
    }
    assert_eq!(define(&mut rules, Kind::Override, "one more", ok()), Err(Error::TooMany));
}

#[test]
fn conditions_that_nobody_knows_never_match() {
    let mut rules = edit::load(user_id!("@me:example.org"), None);
    let unknown = json!({ "actions": [], "conditions": [{ "kind": "org.example.phase_of_moon" }] });
    define(&mut rules, Kind::Override, "moon", unknown).expect("added");
    let compiled = Ruleset::compile(&rules, HashSet::new());
    let message = event("m.room.message", None, json!({ "body": "x" }));
    assert_eq!(decided(&compiled, user_id!("@me:example.org"), &message, 3, 0), NOTIFIED);
    assert!(compiled.triggers.is_empty());
}

/// No two wildcards in a row: the reference mistakes the second one for a character.
fn any_pattern() -> impl Strategy<Value = String> {
    "[*?]?[abA]{1,2}([ *?][abA]{1,2})?[*?]?"
}

fn any_condition() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        Just("content.body"),
        Just("type"),
        Just("sender"),
        Just("room_id"),
        Just("state_key"),
        Just(r"content.m\.x.y"),
        Just("content.list"),
    ];
    let value = prop_oneof![Just(json!("a")), Just(json!(1)), Just(json!(true)), Just(json!(null))];
    prop_oneof![
        (key.clone(), any_pattern())
            .prop_map(|(key, pattern)| json!({ "kind": "event_match", "key": key, "pattern": pattern })),
        Just(json!({ "kind": "event_match", "key": "type", "pattern": "m.room.message" })),
        Just(json!({ "kind": "event_match", "key": "room_id", "pattern": "!room:example.org" })),
        Just(json!({ "kind": "event_match", "key": "sender", "pattern": "@U1:example.org" })),
        (key.clone(), value.clone())
            .prop_map(|(key, value)| json!({ "kind": "event_property_is", "key": key, "value": value })),
        (key, value).prop_map(
            |(key, value)| json!({ "kind": "event_property_contains", "key": key, "value": value })
        ),
        prop_oneof![Just("2"), Just(">2"), Just("<=3")]
            .prop_map(|is| json!({ "kind": "room_member_count", "is": is })),
        Just(json!({ "kind": "contains_display_name" })),
        Just(json!({ "kind": "sender_notification_permission", "key": "room" })),
        Just(json!({ "kind": "org.example.unknown" })),
    ]
}

#[derive(Clone, Debug)]
enum Edit {
    Put(Kind, String, Value),
    Enabled(Kind, &'static str, bool),
    Actions(Kind, &'static str, Value),
}

fn any_actions() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!([])),
        Just(json!(["notify"])),
        Just(json!([{ "set_tweak": "highlight" }])),
        Just(json!(["notify", { "set_tweak": "highlight" }])),
    ]
}

fn any_edit() -> impl Strategy<Value = Edit> {
    let conditional = (
        prop_oneof![Just(Kind::Override), Just(Kind::Underride)],
        "[a-d]",
        proptest::collection::vec(any_condition(), 0..3),
        any_actions(),
    )
        .prop_map(|(kind, id, conditions, actions)| {
            Edit::Put(kind, id, json!({ "conditions": conditions, "actions": actions }))
        });
    let content = ("[a-d]", any_pattern(), any_actions()).prop_map(|(id, pattern, actions)| {
        Edit::Put(Kind::Content, id, json!({ "pattern": pattern, "actions": actions }))
    });
    let simple = (any_actions(), any::<bool>()).prop_map(|(actions, room)| {
        let (kind, id) =
            if room { (Kind::Room, "!room:example.org") } else { (Kind::Sender, "@u1:example.org") };
        Edit::Put(kind, id.to_owned(), json!({ "actions": actions }))
    });
    let default = prop_oneof![
        Just((Kind::Override, ".m.rule.master")),
        Just((Kind::Override, ".m.rule.suppress_notices")),
        Just((Kind::Override, ".m.rule.is_user_mention")),
        Just((Kind::Override, ".m.rule.is_room_mention")),
        Just((Kind::Underride, ".m.rule.message")),
        Just((Kind::Underride, ".m.rule.room_one_to_one")),
    ];
    let enabled =
        (default.clone(), any::<bool>()).prop_map(|((kind, id), enabled)| Edit::Enabled(kind, id, enabled));
    let actions = (default, any_actions()).prop_map(|((kind, id), actions)| Edit::Actions(kind, id, actions));
    prop_oneof![3 => conditional, 2 => content, 1 => simple, 1 => enabled, 1 => actions]
}

fn any_event() -> impl Strategy<Value = Event> {
    let kind = prop_oneof![
        4 => Just("m.room.message"), 1 => Just("m.room.encrypted"), 1 => Just("m.room.tombstone"), 1 => Just("a"),
    ];
    let content = (
        "[abA !]{0,8}",
        prop_oneof![Just("m.text"), Just("m.notice")],
        proptest::option::of(0..4_u64),
        any::<bool>(),
        prop_oneof![Just(json!("a")), Just(json!(1)), Just(json!(true)), Just(json!(null)), Just(json!({}))],
    )
        .prop_map(|(body, msgtype, mentioned, room, odd)| {
            let mut content =
                json!({ "body": body, "msgtype": msgtype, "m.x": { "y": odd }, "list": [odd, "b"] });
            if let Some(user) = mentioned {
                content["m.mentions"] =
                    json!({ "user_ids": [format!("@u{user}:example.org")], "room": room });
            }
            content
        });
    (0..4_u64, kind, proptest::option::of(Just(String::new())), content).prop_map(
        |(sender, kind, state_key, content)| Event {
            sender: owner(sender),
            event_type: kind.to_owned(),
            state_key,
            content,
        },
    )
}

impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} {:?} {}", self.event_type, self.sender, self.state_key, self.content)
    }
}

fn owner(n: u64) -> OwnedUserId {
    format!("@u{n}:example.org").try_into().expect("a user id")
}

fn edited(user: &UserId, edits: &[Edit]) -> Rules {
    let mut rules = edit::load(user, None);
    for edit in edits {
        let done = match edit {
            Edit::Put(kind, id, definition) => define(&mut rules, *kind, id, definition.clone()),
            Edit::Enabled(kind, id, enabled) => edit::set_enabled(&mut rules, *kind, id, *enabled),
            Edit::Actions(kind, id, actions) => {
                edit::set_actions(&mut rules, *kind, id, actions.as_array().expect("actions"))
            }
        };
        done.expect("a good edit");
    }
    rules
}

/// What ruma makes of it.
fn reference(rules: &Rules, owner: &UserId, event: &Event, members: u64, level: i64) -> (bool, bool) {
    let mut json = json!({
        "event_id": "$event", "room_id": "!room:example.org", "sender": event.sender,
        "type": event.event_type, "content": event.content, "origin_server_ts": 1,
    });
    if let Some(state_key) = &event.state_key {
        json["state_key"] = state_key.as_str().into();
    }
    let raw: Raw<Value> = Raw::from_json(to_raw_value(&json).expect("JSON"));
    let room = room_id!("!room:example.org").to_owned();
    let members = members.try_into().expect("a count");
    let context = PushConditionRoomCtx::new(room, members, owner.to_owned(), "Ab".to_owned());
    let levels = PushConditionPowerLevelsCtx::new(
        BTreeMap::from([(event.sender.clone(), Int::try_from(level).expect("a level"))]),
        Int::from(0_u8),
        NotificationPowerLevels::new(),
        ruma::room_version_rules::RoomPowerLevelsRules::new(
            &ruma::room_version_rules::AuthorizationRules::V11,
            [],
        ),
    );
    let context = context.with_power_levels(levels);
    let actions = futures::executor::block_on(rules.get_actions(&raw, &context));
    let Outcome { notify, highlight } = Outcome::of(actions);
    (notify, highlight)
}

proptest! {
    #[test]
    fn the_index_finds_everybody_whose_rules_matter(
        edits in proptest::collection::vec(proptest::collection::vec(any_edit(), 0..4), 4),
        ignoring in 0..8_u64,
        events in proptest::collection::vec((any_event(), 2..4_u64, 0..100_i64), 1..12),
    ) {
        let mut index = Index::default();
        let mut rulesets = Vec::new();
        for (n, edits) in edits.iter().enumerate() {
            let n = n as u64;
            let user = owner(n);
            let rules = edited(&user, edits);
            let ignored = if ignoring == n { HashSet::from([owner((n + 1) % 4)]) } else { HashSet::new() };
            let compiled = Ruleset::compile(&rules, ignored.clone());
            index.add(UserNid(n), &compiled.triggers);
            rulesets.push((user, rules, ignored, compiled));
        }
        let everybody: OrdSet<UserNid> = (0..4).map(UserNid).collect();
        for (event, members, level) in &events {
            let concerned = event.look(|subject| index.concerned(subject, &everybody));
            for (n, (user, rules, ignored, compiled)) in rulesets.iter().enumerate() {
                let found = decided(compiled, user, event, *members, *level);
                if !ignored.contains(&event.sender) {
                    prop_assert_eq!(found, reference(rules, user, event, *members, *level), "{:?}", event);
                }
                let named = event.look(|subject| subject.mentioned().any(|named| named == user.as_str()));
                if !named && !concerned.contains(&UserNid(n as u64)) && event.sender != *user {
                    prop_assert_eq!(found, decided(shared(), user, event, *members, *level), "{:?}", event);
                }
            }
        }
        for (n, (.., compiled)) in rulesets.iter().enumerate() {
            index.remove(UserNid(n as u64), &compiled.triggers);
        }
        let all = events.iter().all(|(event, ..)| {
            event.look(|subject| index.concerned(subject, &everybody)).is_empty()
        });
        prop_assert!(all, "everybody was taken out");
    }
}
