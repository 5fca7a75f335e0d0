//! The extensions of sliding sync, and thread subscriptions.

use http::Method;
use myelin_testkit::{
    client::{Client, percent, text},
    sliding::Sliding,
};
use serde_json::{Value, json};

use super::sliding::{Place, list};

fn with(extensions: Value) -> Value {
    let mut body = list(0, 99, 1);
    body["extensions"] = extensions;
    body
}

fn receipt(place: &Place, user: &Client, room: &str, event: &str) {
    place.does(user, room, &format!("receipt/m.read/{}", percent(event)), &json!({}));
}

#[test]
fn to_device_messages_come_until_their_token_comes_back() {
    let place = Place::new();
    let (ann, bob) = (place.user("ann"), place.user("bob"));
    let device = text(&place.asks(&ann, Method::GET, "account/whoami", &Value::Null).ok()["device_id"]);
    let send = |n: u32| {
        let content = json!({ "messages": { &ann.user_id: { &device: { "n": n } } } });
        place.puts(&bob, &format!("sendToDevice/m.test/t{n}"), &content);
    };
    (0..3).for_each(send);
    let asking = |since: Option<&Value>, limit: u64| {
        let mut to_device = json!({ "enabled": true, "limit": limit });
        if let Some(since) = since {
            to_device["since"] = since.clone();
        }
        json!({ "extensions": { "to_device": to_device } })
    };
    let numbers = |answer: &Value| {
        let events = answer["extensions"]["to_device"]["events"].as_array().unwrap();
        events.iter().map(|event| event["content"]["n"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let mut client = Sliding::of(&ann, "encryption");
    let answer = place.looks(&mut client, &asking(None, 2));
    assert_eq!(numbers(&answer), [0, 1]);
    let first = answer["extensions"]["to_device"]["next_batch"].clone();
    assert_eq!(numbers(&place.looks(&mut client, &asking(None, 2))), [0, 1], "not acknowledged");
    let answer = place.looks(&mut client, &asking(Some(&first), 2));
    assert_eq!(numbers(&answer), [2]);
    send(3);
    let answer = place.looks(&mut client, &asking(Some(&answer["extensions"]["to_device"]["next_batch"]), 2));
    assert_eq!(numbers(&answer), [3]);
    // Nobody waits for the deletion of what was acknowledged.
    place.run(place.server().view.env.clock.sleep(std::time::Duration::from_secs(1)));
    let future = json!("9007199254740991");
    assert_eq!(
        numbers(&place.looks(&mut client, &asking(Some(&future), 2))),
        [3],
        "a token that cannot be deletes nothing"
    );
}

#[test]
fn encryption_tells_of_stocks_and_of_changed_devices() {
    let place = Place::new();
    let (ann, bob) = (place.user("ann"), place.user("bob"));
    let room = place.rooms(&ann, 1).remove(0);
    let body = json!({ "extensions": { "e2ee": { "enabled": true } } });
    let mut client = Sliding::of(&ann, "");
    let answer = place.looks(&mut client, &body);
    let e2ee = &answer["extensions"]["e2ee"];
    assert!(
        e2ee["device_one_time_keys_count"].is_object() && e2ee["device_unused_fallback_key_types"].is_array()
    );
    assert_eq!(e2ee["device_lists"], Value::Null);
    place.does(&bob, &room, "join", &json!({}));
    let answer = place.looks(&mut client, &body);
    assert_eq!(answer["extensions"]["e2ee"]["device_lists"]["changed"], json!([bob.user_id]));
    place.does(&bob, &room, "leave", &json!({}));
    let answer = place.looks(&mut client, &body);
    assert_eq!(answer["extensions"]["e2ee"]["device_lists"]["left"], json!([bob.user_id]));
}

#[test]
fn account_data_is_global_and_of_the_rooms_in_sight() {
    let place = Place::new();
    let ann = place.user("ann");
    let rooms = place.rooms(&ann, 2);
    let own = format!("user/{}", percent(&ann.user_id));
    let put = |room: &str, n: u32| {
        place.puts(&ann, &format!("{own}/rooms/{}/account_data/m.x", percent(room)), &json!({ "n": n }));
    };
    put(&rooms[0], 0);
    place.puts(&ann, &format!("{own}/account_data/m.y"), &json!({ "y": 1 }));
    let body = with(json!({ "account_data": { "enabled": true } }));
    let mut client = Sliding::of(&ann, "");
    let answer = place.looks(&mut client, &body);
    let data = &answer["extensions"]["account_data"];
    let types: Vec<_> = data["global"].as_array().unwrap().iter().map(|event| text(&event["type"])).collect();
    assert!(types.contains(&"m.y".to_owned()) && types.contains(&"m.push_rules".to_owned()));
    assert_eq!(data["rooms"], json!({ &rooms[0]: [{ "type": "m.x", "content": { "n": 0 } }] }));
    assert_eq!(place.looks(&mut client, &body)["extensions"], json!({}));
    put(&rooms[1], 1);
    let answer = place.looks(&mut client, &body);
    assert_eq!(answer["extensions"]["account_data"]["rooms"][&rooms[1]][0]["content"]["n"], 1);
    assert_eq!(answer["rooms"], json!({}), "nothing happened in the rooms");

    // What was written out of sight, or while nobody asked, comes later.
    let off = list(0, 99, 1);
    place.looks(&mut client, &off);
    put(&rooms[1], 2);
    place.looks(&mut client, &off);
    let answer = place.looks(&mut client, &body);
    assert_eq!(answer["extensions"]["account_data"]["rooms"][&rooms[1]][0]["content"]["n"], 2);
    let only = with(json!({ "account_data": { "enabled": true, "lists": [], "rooms": [] } }));
    place.looks(&mut client, &only);
    put(&rooms[0], 3);
    assert_eq!(place.looks(&mut client, &only)["extensions"], json!({}));
    let named = with(json!({ "account_data": { "enabled": true, "lists": [], "rooms": [&rooms[0]] } }));
    let answer = place.looks(&mut client, &named);
    assert_eq!(answer["extensions"]["account_data"]["rooms"][&rooms[0]][0]["content"]["n"], 3);
}

#[test]
fn receipts_are_of_the_events_in_sight_and_then_as_they_come() {
    let place = Place::new();
    let (ann, bob) = (place.user("ann"), place.user("bob"));
    let room = place.rooms(&ann, 1).remove(0);
    place.does(&bob, &room, "join", &json!({}));
    let old = place.says(&ann, &room, "old");
    receipt(&place, &ann, &room, &old);
    receipt(&place, &bob, &room, &old);
    let new = place.says(&ann, &room, "new");
    let body = with(json!({ "receipts": { "enabled": true } }));
    let mut client = Sliding::of(&ann, "");
    let readers = |answer: &Value, event: &str| {
        let content = &answer["extensions"]["receipts"]["rooms"][&room]["content"][event]["m.read"];
        content.as_object().into_iter().flatten().map(|(user, _)| user.clone()).collect::<Vec<_>>()
    };
    let answer = place.looks(&mut client, &body);
    assert_eq!(
        readers(&answer, &old),
        std::slice::from_ref(&ann.user_id),
        "the event is not in sight; one's own always comes"
    );
    receipt(&place, &bob, &room, &new);
    let answer = place.looks(&mut client, &body);
    assert_eq!(readers(&answer, &new), std::slice::from_ref(&bob.user_id));
    assert_eq!(answer["rooms"], json!({}));
    let mut other = Sliding::of(&ann, "other");
    assert_eq!(readers(&place.looks(&mut other, &body), &new), std::slice::from_ref(&bob.user_id));
    // One's own receipt changes the counts of the room.
    receipt(&place, &ann, &room, &new);
    let answer = place.looks(&mut client, &body);
    assert!(answer["rooms"][&room]["notification_count"].is_u64(), "{answer}");
    let private = format!("receipt/m.read.private/{}", percent(&new));
    place.does(&bob, &room, &private, &json!({}));
    assert_eq!(place.looks(&mut client, &body)["extensions"], json!({}), "not for others' eyes");
}

#[test]
fn who_types_is_shown_while_they_do() {
    let place = Place::new();
    let (ann, bob) = (place.user("ann"), place.user("bob"));
    let room = place.rooms(&ann, 1).remove(0);
    place.does(&bob, &room, "join", &json!({}));
    let body = with(json!({ "typing": { "enabled": true } }));
    let mut client = Sliding::of(&ann, "");
    assert_eq!(place.looks(&mut client, &body)["extensions"], json!({}));
    let path = format!("rooms/{}/typing/{}", percent(&room), percent(&bob.user_id));
    place.puts(&bob, &path, &json!({ "typing": true, "timeout": 30_000 }));
    let answer = place.looks(&mut client, &body);
    assert_eq!(answer["extensions"]["typing"]["rooms"][&room]["content"]["user_ids"], json!([bob.user_id]));
    assert_eq!(place.looks(&mut client, &body)["extensions"], json!({}));
    let mut other = Sliding::of(&ann, "other");
    let answer = place.looks(&mut other, &body);
    assert_eq!(answer["extensions"]["typing"]["rooms"][&room]["content"]["user_ids"], json!([bob.user_id]));
    place.puts(&bob, &path, &json!({ "typing": false }));
    let answer = place.looks(&mut client, &body);
    assert_eq!(answer["extensions"]["typing"]["rooms"][&room]["content"]["user_ids"], json!([]));
}

#[test]
fn threads_are_subscribed_to_and_the_changes_told() {
    const THREADS: &str = "io.element.msc4308.thread_subscriptions";
    let place = Place::new();
    let (ann, bob) = (place.user("ann"), place.user("bob"));
    let room = place.rooms(&ann, 1).remove(0);
    let root = place.says(&ann, &room, "root");
    let relation = json!({ "rel_type": "m.thread", "event_id": root });
    let reply = place.sends(
        &ann,
        &room,
        "m.room.message",
        &json!({ "msgtype": "m.text", "body": "r", "m.relates_to": relation }),
    );
    let path = |root: &str| {
        format!(
            "/_matrix/client/unstable/io.element.msc4306/rooms/{}/thread/{}/subscription",
            percent(&room),
            percent(root)
        )
    };
    let asks =
        |user: &Client, method: Method, root: &str, body: Value| place.asks(user, method, &path(root), &body);
    let body = json!({ "extensions": { THREADS: { "enabled": true, "limit": 1 } } });
    let mut client = Sliding::of(&ann, "");
    assert_eq!(place.looks(&mut client, &body)["extensions"], json!({}));

    assert_eq!(asks(&ann, Method::GET, &root, Value::Null).json["errcode"], "M_NOT_FOUND");
    asks(&ann, Method::PUT, &root, json!({ "automatic": reply })).ok();
    assert_eq!(asks(&ann, Method::GET, &root, Value::Null).ok(), json!({ "automatic": true }));
    let answer = place.looks(&mut client, &body);
    assert_eq!(answer["extensions"][THREADS]["subscribed"][&room][&root]["automatic"], true);
    asks(&ann, Method::PUT, &root, json!({})).ok();
    assert_eq!(asks(&ann, Method::GET, &root, Value::Null).ok(), json!({ "automatic": false }));
    asks(&ann, Method::DELETE, &root, Value::Null).ok();
    asks(&ann, Method::DELETE, &root, Value::Null).ok();
    assert_eq!(asks(&ann, Method::GET, &root, Value::Null).status.as_u16(), 404);
    let answer = place.looks(&mut client, &body);
    let told = &answer["extensions"][THREADS];
    assert!(
        told["unsubscribed"][&room][&root]["bump_stamp"].is_u64() && told["subscribed"].is_null(),
        "{told}"
    );

    let answer = asks(&ann, Method::PUT, &root, json!({ "automatic": reply }));
    assert_eq!(
        (answer.status.as_u16(), text(&answer.json["errcode"])),
        (409, "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION".to_owned())
    );
    let answer = asks(&ann, Method::PUT, &root, json!({ "automatic": root }));
    assert_eq!(text(&answer.json["errcode"]), "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD");
    for (method, body) in
        [(Method::GET, Value::Null), (Method::PUT, json!({})), (Method::DELETE, Value::Null)]
    {
        assert_eq!(asks(&bob, method, &root, body).status.as_u16(), 404, "Bob is not in the room");
    }
    assert_eq!(asks(&ann, Method::PUT, "$none", json!({})).status.as_u16(), 404);

    let second = place.says(&ann, &room, "another");
    asks(&ann, Method::PUT, &second, json!({})).ok();
    let mut other = Sliding::of(&ann, "other");
    let answer = place.looks(&mut other, &body);
    let told = &answer["extensions"][THREADS];
    assert_eq!(told["subscribed"][&room][&second]["automatic"], false);
    let more = text(&told["prev_batch"]);
    let list = |query: &str| {
        let path = format!("/_matrix/client/unstable/io.element.msc4308/thread_subscriptions?dir=b{query}");
        place.asks(&ann, Method::GET, &path, &Value::Null)
    };
    let page = list(&format!("&from={more}")).ok();
    assert!(page["unsubscribed"][&room][&root].is_object() && page["end"].is_null(), "{page}");
    let page = list("&limit=1").ok();
    assert!(page["subscribed"][&room][&second].is_object() && page["end"].is_string());
    let page = list(&format!("&to={}", other.pos.clone().unwrap())).ok();
    assert_eq!(page, json!({}));
    for bad in ["&limit=0", "&from=x", "&to=x"] {
        assert_eq!(list(bad).json["errcode"], "M_INVALID_PARAM", "{bad}");
    }
}

#[test]
fn sticky_events_come_from_all_rooms_that_a_list_stands_for_and_whole_after_a_join() {
    let place = Place::new();
    let (ann, bob) = (place.user("ann"), place.user("bob"));
    let rooms = place.rooms(&ann, 3);
    place.does(&bob, &rooms[0], "join", &json!({}));
    let sticks = |room: &str, n: u32| {
        let path =
            format!("rooms/{}/send/m.x/s{n}?org.matrix.msc4354.sticky_duration_ms=600000", percent(room));
        place.puts(&ann, &path, &json!({ "n": n }));
        // Not in the timeline of one event any more.
        place.says(&ann, room, "after");
    };
    (0..3).for_each(|n| sticks(&rooms[0], n));
    sticks(&rooms[1], 3);
    let asking = |since: Option<&Value>| {
        let mut body = list(5, 9, 1);
        let mut sticky = json!({ "enabled": true, "limit": 2 });
        if let Some(since) = since {
            sticky["since"] = since.clone();
        }
        body["extensions"] = json!({ "org.matrix.msc4354.sticky_events": sticky });
        body
    };
    let of = |answer: &Value| answer["extensions"]["org.matrix.msc4354.sticky_events"].clone();
    let numbers = |sticky: &Value, room: &str| {
        let events = sticky["rooms"][room]["events"].as_array().into_iter().flatten();
        events.map(|event| event["content"]["n"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let mut client = Sliding::of(&bob, "");
    let first = of(&place.looks(&mut client, &asking(None)));
    assert_eq!(numbers(&first, &rooms[0]), [0, 1], "out of range, but in the list; {first}");
    let second = of(&place.looks(&mut client, &asking(Some(&first["next_batch"]))));
    assert_eq!(numbers(&second, &rooms[0]), [2]);
    let since = second["next_batch"].clone();
    assert_eq!(of(&place.looks(&mut client, &asking(Some(&since)))), Value::Null);
    place.does(&bob, &rooms[1], "join", &json!({}));
    let third = of(&place.looks(&mut client, &asking(Some(&since))));
    assert_eq!(numbers(&third, &rooms[1]), [3], "who joins gets what holds");
    let body = with(json!({ "org.matrix.msc4354.sticky_events": { "enabled": true, "since": "x" } }));
    assert_eq!(place.looks_in_vain(&client, &body).json["errcode"], "M_INVALID_PARAM");
    let path =
        format!("rooms/{}/send/m.x/s9?org.matrix.msc4354.sticky_duration_ms=600000", percent(&rooms[0]));
    place.puts(&ann, &path, &json!({ "n": 9 }));
    let mut body = list(0, 9, 1);
    body["extensions"] = asking(Some(&third["next_batch"]))["extensions"].clone();
    let answer = place.looks(&mut client, &body);
    assert_eq!(answer["rooms"][&rooms[0]]["timeline"][0]["content"]["n"], 9);
    assert_eq!(numbers(&of(&answer), &rooms[0]), [0_u64; 0], "it is in the timeline");
}
