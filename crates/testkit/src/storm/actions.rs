//! What users do in a storm: something that a user of a real server might, not always with the right to do it.

use http::Method;
use serde_json::{Value, json};

use super::{Breadth, Storm, malice};
use crate::client::percent;

/// A request that changes something.
pub(super) struct Action {
    pub user: usize,
    pub method: Method,
    pub path: String,
    pub body: Value,
    pub kind: Kind,
}

pub(super) enum Kind {
    /// The body is unlike any other.
    Message {
        room: usize,
        body: String,
    },
    Upgrade,
    /// A to-device message. The words are unlike any others.
    Letter {
        to: usize,
        words: String,
    },
    Other,
}

impl Storm {
    pub(super) fn any_action(&mut self) -> Action {
        self.done += 1;
        let (user, room) = (self.any(self.users.len()), self.any(self.rooms.len()));
        if self.options.breadth >= Breadth::Broad && self.chance(4) {
            return self.rarer_action(user, room);
        }
        match self.any(43) {
            0..=6 => self.joining(user, room),
            7..=8 => self.post(user, room, "leave", json!({})),
            9..=11 => self.aimed(user, room, "invite"),
            12 => self.aimed(user, room, "kick"),
            13 => self.aimed(user, room, "ban"),
            14 => self.aimed(user, room, "unban"),
            15..=16 => self.power(user, room),
            17..=18 => {
                self.state(user, room, "m.room.topic", json!({ "topic": format!("topic {}", self.done) }))
            }
            19 => self.state(user, room, "m.room.name", json!({ "name": format!("name {}", self.done) })),
            20 => self.join_rules(user, room),
            21 => self.rename(user),
            22..=23 => self.redaction(user, room),
            24..=25 => self.typing(user, room),
            26..=27 => self.receipt(user, room),
            29..=31 => self.letter(user),
            28 if self.done.is_multiple_of(5) && self.rooms.len() < super::ROOMS_MAX => {
                self.upgrade(user, room)
            }
            _ => self.message(user, room),
        }
    }

    fn rarer_action(&self, user: usize, room: usize) -> Action {
        match self.any(8) {
            0 => self.state(user, room, "m.room.history_visibility", {
                let visibility = ["shared", "invited", "joined", "world_readable"][self.any(4)];
                json!({ "history_visibility": visibility })
            }),
            1 => self.state(user, room, "m.room.server_acl", {
                let denied = if self.chance(2) { json!([malice::NAME]) } else { json!([]) };
                json!({ "allow": ["*"], "deny": denied, "allow_ip_literals": false })
            }),
            2 => self.redaction_of_state(user, room),
            3 => {
                let via = percent(&self.rooms[room].via);
                let path = format!("knock/{}?via={via}&server_name={via}", percent(&self.rooms[room].id));
                Self::other(user, Method::POST, path, json!({}))
            }
            4 => self.post(user, room, "forget", json!({})),
            5 => {
                let (kind, key) = ("org.myelin.mark", percent(&self.users[user].id));
                let path = format!("{}/state/{kind}/{key}", self.base(room));
                Self::other(user, Method::PUT, path, json!({ "mark": self.done }))
            }
            6 => self.reaction(user, room),
            _ => self.new_keys(user),
        }
    }

    fn redaction_of_state(&self, user: usize, room: usize) -> Action {
        let path = format!("{}/state", self.base(room));
        let read = self.users[user].request(Method::GET, &path, None);
        let state = self.world.run(read).filter(crate::server::Answer::is_ok).map(|answer| answer.json);
        let state: Vec<_> = state.iter().filter_map(Value::as_array).flatten().collect();
        let Some(event) = state.get(self.any(state.len())) else { return self.message(user, room) };
        let event = percent(event["event_id"].as_str().unwrap_or_default());
        let path = format!("{}/redact/{event}/r{}", self.base(room), self.done);
        Self::other(user, Method::PUT, path, json!({}))
    }

    fn reaction(&self, user: usize, room: usize) -> Action {
        let here: Vec<_> = self.spoken.iter().filter(|spoken| spoken.room == room).collect();
        let Some(spoken) = here.get(self.any(here.len())) else { return self.message(user, room) };
        let relation = json!({ "rel_type": "m.annotation", "event_id": spoken.event_id, "key": "+" });
        let path = format!("{}/send/m.reaction/t{}", self.base(room), self.done);
        Self::other(user, Method::PUT, path, json!({ "m.relates_to": relation }))
    }

    fn other(user: usize, method: Method, path: String, body: Value) -> Action {
        Action { user, method, path, body, kind: Kind::Other }
    }

    fn base(&self, room: usize) -> String {
        format!("rooms/{}", percent(&self.rooms[room].id))
    }

    fn post(&self, user: usize, room: usize, what: &str, body: Value) -> Action {
        Self::other(user, Method::POST, format!("{}/{what}", self.base(room)), body)
    }

    fn state(&self, user: usize, room: usize, event_type: &str, content: Value) -> Action {
        Self::other(user, Method::PUT, format!("{}/state/{event_type}/", self.base(room)), content)
    }

    /// Asks the server that made the room and any other one.
    fn joining(&self, user: usize, room: usize) -> Action {
        let Self { rooms, users, .. } = self;
        let vias = [&rooms[room].via, &users[self.any(users.len())].server].map(|via| percent(via));
        let [first, second] = vias;
        let path = format!(
            "join/{}?via={first}&via={second}&server_name={first}&server_name={second}",
            percent(&rooms[room].id)
        );
        Self::other(user, Method::POST, path, json!({}))
    }

    fn aimed(&self, user: usize, room: usize, what: &str) -> Action {
        let target = &self.users[self.any(self.users.len())].id;
        self.post(user, room, what, json!({ "user_id": target }))
    }

    /// Power levels as the user's server has them, with one user's changed.
    fn power(&self, user: usize, room: usize) -> Action {
        let target = &self.users[self.any(self.users.len())].id;
        let level = [0, 50, 100][self.any(3)];
        let path = format!("{}/state/m.room.power_levels/", self.base(room));
        let read = self.users[user].request(Method::GET, &path, None);
        let levels = self.world.run(read).filter(crate::server::Answer::is_ok).map(|answer| answer.json);
        let mut levels = levels.unwrap_or_else(|| json!({}));
        levels["users"][target] = json!(level);
        self.state(user, room, "m.room.power_levels", levels)
    }

    fn join_rules(&self, user: usize, room: usize) -> Action {
        let allow = json!([{ "type": "m.room_membership", "room_id": self.rooms[0].id }]);
        let content = match self.any(5) {
            0 => json!({ "join_rule": "invite" }),
            1 => json!({ "join_rule": "knock" }),
            2 => json!({ "join_rule": "restricted", "allow": allow }),
            _ => json!({ "join_rule": "public" }),
        };
        self.state(user, room, "m.room.join_rules", content)
    }

    fn rename(&self, user: usize) -> Action {
        let path = format!("profile/{}/displayname", percent(&self.users[user].id));
        Self::other(user, Method::PUT, path, json!({ "displayname": format!("name {}", self.done) }))
    }

    fn redaction(&self, user: usize, room: usize) -> Action {
        let here: Vec<_> = self.spoken.iter().filter(|spoken| spoken.room == room).collect();
        match here.get(self.any(here.len())) {
            None => self.message(user, room),
            Some(spoken) => {
                let event = percent(&spoken.event_id);
                let path = format!("{}/redact/{event}/r{}", self.base(room), self.done);
                Self::other(user, Method::PUT, path, json!({}))
            }
        }
    }

    fn typing(&self, user: usize, room: usize) -> Action {
        let path = format!("{}/typing/{}", self.base(room), percent(&self.users[user].id));
        let body = match self.chance(3) {
            true => json!({ "typing": false }),
            false => json!({ "typing": true, "timeout": 20_000 }),
        };
        Self::other(user, Method::PUT, path, body)
    }

    fn receipt(&self, user: usize, room: usize) -> Action {
        let here: Vec<_> = self.spoken.iter().filter(|spoken| spoken.room == room).collect();
        match here.last() {
            None => self.message(user, room),
            Some(spoken) => {
                self.post(user, room, &format!("receipt/m.read/{}", percent(&spoken.event_id)), json!({}))
            }
        }
    }

    fn upgrade(&self, user: usize, room: usize) -> Action {
        let version = self.options.versions[self.any(self.options.versions.len())];
        let kind = Kind::Upgrade;
        Action { kind, ..self.post(user, room, "upgrade", json!({ "new_version": version })) }
    }

    pub(super) fn message(&self, user: usize, room: usize) -> Action {
        let body = format!("message {}", self.done);
        let path = format!("{}/send/m.room.message/t{}", self.base(room), self.done);
        let content = json!({ "msgtype": "m.text", "body": body });
        Action { user, method: Method::PUT, path, body: content, kind: Kind::Message { room, body } }
    }
}
