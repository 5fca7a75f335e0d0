//! Every operation gets values that it does not expect, from a signed-in user: whatever it answers, it is not that the
//! server failed.

use http::Method;
use serde_json::{Map, Value, json};

use crate::{
    routes::{FAMILIES, filled_in},
    world::World,
};

/// Names that some operation's body has.
const KEYS: [&str; 60] = [
    "type",
    "user",
    "password",
    "new_password",
    "auth",
    "identifier",
    "username",
    "device_id",
    "devices",
    "timeout",
    "limit",
    "filter",
    "reason",
    "user_id",
    "invite",
    "invite_3pid",
    "initial_state",
    "preset",
    "room_version",
    "creation_content",
    "power_level_content_override",
    "room_alias_name",
    "name",
    "topic",
    "is_direct",
    "visibility",
    "new_version",
    "m.fully_read",
    "m.read",
    "m.read.private",
    "thread_id",
    "typing",
    "presence",
    "status_msg",
    "room_id",
    "servers",
    "via",
    "search_term",
    "displayname",
    "avatar_url",
    "content",
    "msgtype",
    "body",
    "m.relates_to",
    "m.new_content",
    "membership",
    "order",
    "refresh_token",
    "token",
    "erase",
    "room",
    "event_fields",
    "event_format",
    "account_data",
    "room_types",
    "generic_search_term",
    "since",
    "locked",
    "suspended",
    "id_server",
];

const PARAMETERS: [&str; 24] = [
    "%00",
    "..",
    "%2e%2e%2f",
    "%F0%9F%98%80",
    "%ff",
    "!",
    "@",
    "#",
    "$",
    "%23",
    "!a%2Fb%3Alocalhost",
    "@a%2Fb%3Alocalhost",
    "-1",
    "0",
    "18446744073709551616",
    "%20",
    "a%0Ab",
    "!%00:localhost",
    "@%00:localhost",
    "%23%00:localhost",
    "null",
    "@alice:localhost%00",
    "!room:%5B::1%5D",
    "@:localhost",
];

const QUERIES: [&str; 8] = [
    "limit=-1&from=x&dir=q&timeout=-1&ts=-1&since=x&filter=x&at=x&to=x",
    "limit=18446744073709551616&timeout=18446744073709551615&ts=18446744073709551615&max_depth=18446744073709551615&dir=b",
    "limit=0&timeout=0&ts=0&dir=f&from=s0_0&since=s0_0",
    "from=t-9223372036854775808&to=t9223372036854775807&dir=b&limit=4294967295&timeout=0",
    "since=s18446744073709551614_18446744073709551615&timeout=0&from=s18446744073709551614_0&dir=f",
    "filter=%7B%22room%22%3A%7B%22timeline%22%3A%7B%22limit%22%3A-5%7D%7D%7D&timeout=0&dir=b",
    "filter=99999999999999999999&set_presence=away&full_state=maybe&timeout=0&dir=b",
    "membership=x&not_membership=y&recurse=z&include=q&suggested_only=7&user_id=%00&username=%00&server=%00&via=%00",
];

fn values() -> Vec<Value> {
    let long = "x".repeat(70_000);
    let nested = (0..90).fold(json!(1), |inner, _| json!([inner]));
    vec![
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(1.5),
        json!(9_007_199_254_740_991_i64),
        json!(""),
        json!("\u{0}"),
        json!("\u{202e}@:"),
        json!(long),
        json!([]),
        json!([null]),
        json!(["@alice:localhost", "@alice:localhost"]),
        json!({}),
        json!({ "type": {}, "": null, "user": [], "state_key": 5 }),
        nested,
    ]
}

fn operations() -> impl Iterator<Item = (Method, &'static str)> {
    let all = FAMILIES.iter().flat_map(|(_, operations)| *operations);
    all.map(|operation| {
        let (method, path) = operation.split_once(' ').unwrap();
        (method.parse().unwrap(), path)
    })
}

/// Fills every parameter of the path with `value`.
fn filled_with(path: &str, value: &str) -> String {
    let mut out = String::new();
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        out.push_str(value);
        rest = after.split_once('}').unwrap().1;
    }
    out + rest
}

/// A world and a signed-in user with a room, thrown away when a request did something to them.
struct Attacker {
    world: World,
    users: usize,
    owner: Option<Owner>,
}

#[derive(Clone)]
struct Owner {
    token: String,
    user_id: String,
    room_id: String,
    event_id: String,
}

impl Attacker {
    fn new() -> Self {
        Self { world: World::new(), users: 0, owner: None }
    }

    #[track_caller]
    fn send(&mut self, method: Method, path: &str, body: String) {
        let owner = self.owner();
        // Where a path names a user, a room or an event, it is the attacker's: others' are refused before they are
        // looked at.
        let path =
            path.replace("@alice:localhost", &owner.user_id).replace("!room:localhost", &owner.room_id);
        let path = path.replace("$event", &owner.event_id);
        let shown = body.chars().take(80).collect::<String>();
        let answer = self.world.request(method.clone(), &path, Some(&owner.token), body);
        assert!(!answer.status.is_server_error(), "{method} {path} {shown}: {}", answer.json);
        assert!(
            answer.status.is_success()
                || answer.json["errcode"].is_string()
                || answer.json["flows"].is_array()
        );
        if method == Method::GET || !answer.status.is_success() {
            self.owner = Some(owner);
        }
    }

    fn owner(&mut self) -> Owner {
        self.owner.take().unwrap_or_else(|| {
            self.users += 1;
            let name = format!("u{}", self.users);
            let token = self.world.user(&name);
            let (room_id, event_id) = self.world.room_with_message(&token);
            Owner { token, user_id: format!("@{name}:localhost"), room_id, event_id }
        })
    }
}

#[test]
fn bodies() {
    let mut attacker = Attacker::new();
    for (method, path) in operations().filter(|(method, _)| method != Method::GET) {
        let path = filled_in(path);
        for value in values() {
            let body: Map<_, _> = KEYS.iter().map(|key| ((*key).to_owned(), value.clone())).collect();
            attacker.send(method.clone(), &path, Value::Object(body).to_string());
            attacker.send(method.clone(), &path, value.to_string());
        }
    }
}

#[test]
fn path_parameters() {
    let mut attacker = Attacker::new();
    for (method, path) in operations().filter(|(_, path)| path.contains('{')) {
        for parameter in PARAMETERS.iter().map(ToString::to_string).chain(["x".repeat(4096)]) {
            attacker.send(method.clone(), &filled_with(path, &parameter), "{}".to_owned());
        }
    }
}

#[test]
fn query_strings() {
    let mut attacker = Attacker::new();
    for (method, path) in operations().filter(|(method, _)| method == Method::GET) {
        for query in QUERIES {
            attacker.send(method.clone(), &format!("{}?{query}", filled_in(path)), String::new());
        }
    }
}
