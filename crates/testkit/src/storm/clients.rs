//! What clients show when the storm is over: what their server holds, and the same as clients that begin anew, by either
//! kind of sync.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::Storm;
use crate::{
    client::{Client, RoomView, percent, text},
    server::Server,
    sliding::{Sliding, everything},
    user::{Room, User},
};

/// Syncs after which a client that is still shown new things is shown them for ever.
const SYNCS_MAX: usize = 50;
const TIMELINE_LIMIT: usize = 20;

impl Storm {
    pub(super) fn check_clients(&self) {
        for user in &self.users {
            self.world.run(sync_until_quiet(user));
            self.world.run(self.check_client(user));
        }
    }

    async fn check_client(&self, user: &User) {
        let (seed, id) = (self.world.seed(), &user.id);
        let joined = joined_rooms(user).await;
        let server = self.world.server(&user.server).expect("all servers are on");
        for room in &self.rooms {
            let shown = user.shows(|client| client.rooms.get(&room.id).filter(|view| view.joined).cloned());
            let is_joined = joined.contains(&room.id);
            assert_eq!(shown.is_some(), is_joined, "seed {seed}: is {id} in {}?", room.id);
            let Some(view) = shown else { continue };
            let path = format!("rooms/{}/state", percent(&room.id));
            let state = user.request(http::Method::GET, &path, None).await.expect("it is on").ok();
            let key =
                |event: &Value| ((text(&event["type"]), text(&event["state_key"])), text(&event["event_id"]));
            let state: BTreeMap<_, _> = state.as_array().into_iter().flatten().map(key).collect();
            // What state resolution took out without putting anything in its place cannot be said in a sync.
            let shown = view.state.into_iter().filter(|(key, _)| state.contains_key(key));
            let shown: BTreeMap<_, _> = shown.collect();
            assert_eq!(shown, state, "seed {seed}: {id}'s state of {} is not the server's", room.id);
            assert!(view.typing.is_empty(), "seed {seed}: {id} still sees {:?} typing", view.typing);
            // Only who reads back later is shown what was filled in.
            let filled_in = server.filled_in(&room.id).await;
            let lasting = |ids: Vec<String>| -> Vec<_> {
                ids.into_iter().filter(|id| !filled_in.contains(id)).collect()
            };
            let (shown, truth) = (lasting(view.timeline.clone()), lasting(server.truth(&room.id).await));
            let from = truth.iter().position(|event| shown.first() == Some(event));
            let from = from.unwrap_or_else(|| panic!("seed {seed}: {id} is shown nothing of {}", room.id));
            let mut expected = Vec::new();
            for event in &truth[from..] {
                if shown.contains(event) || may_see(user, room, event).await {
                    expected.push(event.clone());
                }
            }
            assert_eq!(shown, expected, "seed {seed}: {id}'s timeline of {}", room.id);
        }
    }

    /// Who followed the storm shows what clients show that come now. Ends what the clients know: goes last.
    pub(super) fn check_newcomers(&mut self) {
        let mut sliding = std::mem::take(&mut self.sliding).into_iter();
        for user in &self.users {
            let followed = sliding.next();
            self.world.run(async {
                sync_until_quiet(user).await;
                let server = self.world.server(&user.server).expect("all servers are on");
                let old = user.shows(Client::clone);
                let context = format!("seed {}: {}", self.world.seed(), user.id);
                let fresh = synced_anew(&server, &old).await;
                compare_rooms(&context, &old, &fresh.rooms, &fresh.invites.keys().cloned().collect());
                let read = |client: &Client| -> Vec<_> {
                    let joined = client.rooms.iter().filter(|(_, view)| view.joined);
                    joined.map(|(room, view)| (room.clone(), view.read.clone())).collect()
                };
                assert_eq!(read(&old), read(&fresh), "{context}: who read what");
                if let Some(mut followed) = followed {
                    slide_until_quiet(&mut followed, &server, &context).await;
                    compare_followed(&format!("{context} (sliding)"), followed, &fresh);
                }
                let sliding = slid_anew(&server, &old, &context).await;
                compare_rooms(&context, &fresh, &sliding.rooms, &sliding.invites);
                let unread = |view: &RoomView| view.unread.filter(|_| view.joined);
                for (room, counts) in
                    fresh.rooms.iter().filter_map(|(room, view)| Some((room, unread(view)?)))
                {
                    assert_eq!(sliding.unread.get(room), Some(&counts), "{context}: unread of {room}");
                    let before = old.rooms.get(room).and_then(unread);
                    assert_eq!(before, Some(counts), "{context}: unread of {room}, followed");
                }
            });
        }
    }

    /// The users of a server that it holds to be joined.
    pub(super) async fn members_at(&self, name: &str, room: &Room) -> Vec<usize> {
        let mut members = Vec::new();
        for (number, user) in self.users.iter().enumerate().filter(|(_, user)| user.server == name) {
            if joined_rooms(user).await.contains(&room.id) {
                members.push(number);
            }
        }
        members
    }
}

pub(super) async fn may_see(user: &User, room: &Room, event: &str) -> bool {
    let path = format!("rooms/{}/event/{}", percent(&room.id), percent(event));
    user.request(http::Method::GET, &path, None).await.expect("the server is on").is_ok()
}

async fn synced_anew(server: &Server, old: &Client) -> Client {
    let (user_id, token) = (old.user_id.clone(), old.token.clone());
    let mut fresh = Client { user_id, token, state_after: true, ..Client::default() };
    fresh.sync(server, TIMELINE_LIMIT, 0).await;
    fresh
}

async fn slid_anew(server: &Server, old: &Client, context: &str) -> Sliding {
    let mut sliding = Sliding::of(old, "after the storm");
    slide_until_quiet(&mut sliding, server, context).await;
    sliding
}

/// Everything of all rooms.
pub(super) fn sliding_request() -> Value {
    json!({
        "lists": { "all": { "timeline_limit": TIMELINE_LIMIT, "required_state": everything() } },
        "extensions": { "receipts": { "enabled": true }, "typing": { "enabled": true } },
    })
}

async fn slide_until_quiet(sliding: &mut Sliding, server: &Server, context: &str) {
    for _ in 0..SYNCS_MAX {
        let answer = sliding.sync(server, &sliding_request(), 0).await;
        if answer["rooms"] == json!({}) && answer["extensions"] == json!({}) {
            return;
        }
    }
    panic!("{context}: sliding sync always has something new");
}

/// Who comes into a room by sliding sync is not told of every old receipt.
fn compare_followed(context: &str, mut followed: Sliding, fresh: &Client) {
    for (id, view) in followed.rooms.iter_mut().filter(|(_, view)| view.joined) {
        let read = fresh.rooms.get(id).map(|view| view.read.clone()).unwrap_or_default();
        let wrong = view.read.iter().find(|(user, event)| read.get(*user) != Some(event));
        assert!(wrong.is_none(), "{context}: {wrong:?} read that in {id}");
        view.read = read;
    }
    let invites = followed.invites.into_iter().map(|room| (room, Value::Null)).collect();
    let followed = Client { rooms: followed.rooms, invites, ..Client::default() };
    compare_rooms(context, &followed, &fresh.rooms, &fresh.invites.keys().cloned().collect());
}

fn compare_rooms(
    context: &str,
    one: &Client,
    rooms: &BTreeMap<String, RoomView>,
    invites: &BTreeSet<String>,
) {
    assert_eq!(&one.invites.keys().cloned().collect::<BTreeSet<_>>(), invites, "{context}: invites");
    let joined = |(id, view): (&String, &RoomView)| view.joined.then(|| id.clone());
    let there: BTreeSet<_> = one.rooms.iter().filter_map(joined).collect();
    assert_eq!(there, rooms.iter().filter_map(joined).collect(), "{context}: rooms");
    for id in &there {
        let (view, other) = (&one.rooms[id], &rooms[id]);
        let state: BTreeMap<_, _> =
            view.state.iter().filter(|(key, _)| other.state.contains_key(key)).collect();
        assert_eq!(state, other.state.iter().collect(), "{context}: state of {id}");
        let shown: Vec<_> = other.timeline.iter().filter(|event| view.timeline.contains(event)).collect();
        assert_eq!(view.timeline.last(), other.timeline.last(), "{context}: end of {id}");
        assert!(!shown.is_empty(), "{context}: nothing in common in {id}");
        assert_eq!(view.typing, other.typing, "{context}: typing in {id}");
        let read = other.read.iter().find(|(user, event)| view.read.get(*user) != Some(event));
        assert!(read.is_none(), "{context}: {read:?} read that in {id}");
    }
}

pub(super) async fn joined_rooms(user: &User) -> Vec<String> {
    let answer = user.request(http::Method::GET, "joined_rooms", None).await.expect("the server is on").ok();
    answer["joined_rooms"].as_array().into_iter().flatten().map(text).collect()
}

pub(super) async fn sync_until_quiet(user: &User) {
    for _ in 0..SYNCS_MAX {
        let before = user.shows(|client| client.since.clone());
        user.syncs().await;
        if user.shows(|client| client.since.clone()) == before {
            return;
        }
    }
}
