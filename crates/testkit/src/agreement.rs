//! What several servers hold of one room, side by side.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
};

use myelin_core::EventNid;
use myelin_store::tables::VerdictRecord;
use myelin_view::RoomSnapshot;
use ruma::{EventId, OwnedServerName, RoomId, ServerName};

use crate::server::Server;

/// (type, state key) -> event id.
pub(crate) type State = BTreeMap<(String, String), String>;

/// A server that takes part in a room, and what it holds of it.
struct Side<'s> {
    name: &'s OwnedServerName,
    server: &'s Server,
    room: Arc<RoomSnapshot>,
    state: State,
    tips: BTreeSet<String>,
}

/// What the servers that take part in the room do not agree on, to be read by people; empty if they agree. Who takes part
/// is what the servers themselves say: each that has a joined user in its own view. An event that is soft-failed at one
/// server stays the other's own extremity, as long as nobody may speak after it, and what it comes after stays the one's.
///
/// Two servers may part for good: the one resolves its users back into the room (state resolution before version 12 may
/// put an old join after a kick), the other has put them out and soft-fails whatever they say.
pub(crate) async fn differences(servers: &[(OwnedServerName, Rc<Server>)], room_id: &str) -> Vec<String> {
    compare(servers, room_id, false).await
}

/// The same after everybody had their say, in vain: then two servers may also have parted of which each has the other in
/// the room and one soft-fails the last that the other says. Their extremities then differ by that and by nothing else (but
/// for those that others come after); the
/// states are those after the extremities (`lawful` checks that of each server by itself), and so may differ.
pub(crate) async fn lasting_differences(
    servers: &[(OwnedServerName, Rc<Server>)],
    room_id: &str,
) -> Vec<String> {
    compare(servers, room_id, true).await
}

async fn compare(servers: &[(OwnedServerName, Rc<Server>)], room_id: &str, lasting: bool) -> Vec<String> {
    let mut sides = Vec::new();
    for (name, server) in servers {
        if let Some(room) = snapshot(server, room_id).await
            && room.has_server(name)
        {
            let state = current_state(server, room_id).await;
            let tips = extremities(server, room_id).await;
            let tips = if lasting { not_passed(server, tips).await } else { tips };
            sides.push(Side { name, server, room, state, tips });
        }
    }
    let mut found = Vec::new();
    let names: Vec<_> = sides.iter().map(|side| side.name).collect();
    for (index, one) in sides.iter().enumerate() {
        for other in &sides[index + 1..] {
            let soft_failed = [soft_fails_end_of(one, other).await, soft_fails_end_of(other, one).await];
            // Who is out of the room by the other's account is not told what is said there.
            if (soft_failed[0] && !one.room.has_server(other.name))
                || (soft_failed[1] && !other.room.has_server(one.name))
            {
                continue;
            }
            if !lasting || soft_failed == [false, false] {
                found.extend(differences_in_state(one, other));
            }
            found.extend(differences_in_extremities(one, other, &names).await);
        }
    }
    found
}

/// The extremities that no other one comes after: an event that came later than what comes after it stays one until the
/// next event here names it, which takes somebody who may speak.
async fn not_passed(server: &Server, tips: BTreeSet<String>) -> BTreeSet<String> {
    let (mut pending, mut passed) = (Vec::new(), BTreeSet::new());
    if tips.len() > 1 {
        pending.extend(tips.iter().cloned());
    }
    while let Some(id) = pending.pop() {
        let event_id = <&EventId>::try_from(id.as_str()).expect("an event id");
        let Some(event) = server.view.events.load_by_id(event_id).await.expect("readable") else { continue };
        let prevs = event.pdu.prev_events.iter().map(ToString::to_string);
        pending.extend(prevs.filter(|prev| passed.insert(prev.clone())));
    }
    tips.difference(&passed).cloned().collect()
}

/// Events of strangers (of none of the servers that are looked at) which one server was told and another was not, and what
/// they come after: as long as nobody at the one may speak, the other does not hear of them.
async fn kept_to_one(
    one: &Server,
    other: &Server,
    events: &BTreeSet<String>,
    names: &[&OwnedServerName],
) -> BTreeSet<String> {
    let (mut found, mut seen) = (BTreeSet::new(), BTreeSet::new());
    let mut pending: Vec<String> = events.iter().cloned().collect();
    while let Some(id) = pending.pop() {
        if !seen.insert(id.clone()) {
            continue;
        }
        let event_id = <&EventId>::try_from(id.as_str()).expect("an event id");
        let Some(event) = one.view.events.load_by_id(event_id).await.expect("readable") else { continue };
        let unheard = other.view.events.load_by_id(event_id).await.expect("readable").is_none();
        let strange = !names.iter().any(|name| **name == event.pdu.sender.server_name());
        if unheard && strange {
            found.insert(id);
            pending.extend(event.pdu.prev_events.iter().map(ToString::to_string));
            found.extend(event.pdu.prev_events.iter().map(ToString::to_string));
        }
    }
    found
}

async fn soft_fails_end_of(one: &Side<'_>, other: &Side<'_>) -> bool {
    for tip in &other.tips {
        if is_soft_failed(one.server, tip).await {
            return true;
        }
    }
    false
}

fn differences_in_state(one: &Side<'_>, other: &Side<'_>) -> Vec<String> {
    let keys: BTreeSet<_> = one.state.keys().chain(other.state.keys()).collect();
    let differing = keys.into_iter().filter(|key| one.state.get(*key) != other.state.get(*key));
    let described = differing.map(|key| {
        let [here, there] = [one, other].map(|side| side.state.get(key).map_or("-", String::as_str));
        format!("{} '{}': {here} at {}, {there} at {}", key.0, key.1, one.name, other.name)
    });
    described.collect()
}

async fn differences_in_extremities(
    one: &Side<'_>,
    other: &Side<'_>,
    names: &[&OwnedServerName],
) -> Option<String> {
    let here: BTreeSet<_> = one.tips.difference(&other.tips).cloned().collect();
    let there: BTreeSet<_> = other.tips.difference(&one.tips).cloned().collect();
    let mut explained = below_soft_failed(other.server, &here).await;
    explained.extend(below_soft_failed(one.server, &there).await);
    explained.extend(kept_to_one(one.server, other.server, &here, names).await);
    explained.extend(kept_to_one(other.server, one.server, &there, names).await);
    let (name, other_name) = (one.name, other.name);
    let same = here.is_subset(&explained) && there.is_subset(&explained);
    (!same).then(|| format!("extremities: {:?} at {name}, {:?} at {other_name}", one.tips, other.tips))
}

pub(crate) async fn current_state(server: &Server, room_id: &str) -> State {
    let Some(room) = snapshot(server, room_id).await else { return State::new() };
    let (keys, nids): (Vec<_>, Vec<_>) = room.current_state.iter().unzip();
    let names = server.view.interner.state_key_names(&keys).await.expect("state keys have names");
    let ids = event_ids(server, &nids).await;
    let key = |name: &myelin_view::StateKey| (name.event_type.clone(), name.state_key.clone());
    names.iter().map(|name| key(name)).zip(ids).collect()
}

pub(crate) async fn extremities(server: &Server, room_id: &str) -> BTreeSet<String> {
    match snapshot(server, room_id).await {
        Some(room) => event_ids(server, &room.head.extremities).await.into_iter().collect(),
        None => BTreeSet::new(),
    }
}

/// Whether a server has another one (or itself) in the room.
pub(crate) async fn has_server(server: &Server, room_id: &str, other: &str) -> bool {
    let other = <&ServerName>::try_from(other).expect("a server name");
    snapshot(server, room_id).await.is_some_and(|room| room.has_server(other))
}

async fn is_soft_failed(server: &Server, event_id: &str) -> bool {
    let event_id = <&EventId>::try_from(event_id).expect("an event id");
    let event = server.view.events.load_by_id(event_id).await.expect("readable");
    event.is_some_and(|event| matches!(event.verdict, VerdictRecord::SoftFailed { .. }))
}

/// Those of some events that are soft-failed at a server, and what they come after, down to what is not soft-failed.
async fn below_soft_failed(server: &Server, events: &BTreeSet<String>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut pending: Vec<String> = events.iter().cloned().collect();
    while let Some(id) = pending.pop() {
        if !is_soft_failed(server, &id).await || !found.insert(id.clone()) {
            continue;
        }
        let event_id = <&EventId>::try_from(id.as_str()).expect("an event id");
        let event = server.view.events.load_by_id(event_id).await.expect("readable").expect("held");
        let prevs: Vec<_> = event.pdu.prev_events.iter().map(ToString::to_string).collect();
        pending.extend(prevs.iter().cloned());
        for prev in prevs {
            if !is_soft_failed(server, &prev).await {
                found.insert(prev);
            }
        }
    }
    found
}

async fn snapshot(server: &Server, room_id: &str) -> Option<Arc<RoomSnapshot>> {
    let room_id = <&RoomId>::try_from(room_id).expect("a room id");
    server.view.room_by_id(room_id).await.expect("readable")
}

async fn event_ids(server: &Server, nids: &[EventNid]) -> Vec<String> {
    let events = server.view.events.load_many(nids).await.expect("readable");
    events.into_iter().map(|event| event.expect("held").pdu.event_id.to_string()).collect()
}
