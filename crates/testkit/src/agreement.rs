//! What several servers hold of one room, side by side.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
};

use myelin_core::EventNid;
use myelin_store::tables::VerdictRecord;
use myelin_view::RoomSnapshot;
use ruma::{EventId, OwnedServerName, RoomId};

use crate::server::Server;

/// (type, state key) -> event id.
pub(crate) type State = BTreeMap<(String, String), String>;

/// What the servers that take part in the room do not agree on, to be read by people; empty if they agree. Who takes part
/// is what the servers themselves say: each that has a joined user in its own view. An event that is soft-failed at one
/// server stays the other's own extremity, as long as nobody may speak after it, and what it comes after stays the one's.
pub(crate) async fn differences(servers: &[(OwnedServerName, Rc<Server>)], room_id: &str) -> Vec<String> {
    let mut taking_part = Vec::new();
    for (name, server) in servers {
        if let Some(room) = snapshot(server, room_id).await
            && room.has_server(name)
        {
            taking_part.push((name, server));
        }
    }
    let Some(((first_name, first), others)) = taking_part.split_first() else { return Vec::new() };
    let (state, tips) = (current_state(first, room_id).await, extremities(first, room_id).await);
    let mut found = Vec::new();
    for (name, server) in others {
        let (other_state, other_tips) =
            (current_state(server, room_id).await, extremities(server, room_id).await);
        let keys: BTreeSet<_> = state.keys().chain(other_state.keys()).collect();
        for key in keys.into_iter().filter(|key| state.get(*key) != other_state.get(*key)) {
            let [here, there] =
                [&state, &other_state].map(|state| state.get(key).map_or("-", String::as_str));
            found.push(format!("{} '{}': {here} at {first_name}, {there} at {name}", key.0, key.1));
        }
        let here: BTreeSet<_> = tips.difference(&other_tips).cloned().collect();
        let there: BTreeSet<_> = other_tips.difference(&tips).cloned().collect();
        let (below_here, below_there) =
            (below_soft_failed(server, &here).await, below_soft_failed(first, &there).await);
        let explained = |tip: &String, own: &BTreeSet<String>, others: &BTreeSet<String>| {
            own.contains(tip) || others.contains(tip)
        };
        if !here.iter().all(|tip| explained(tip, &below_here, &below_there))
            || !there.iter().all(|tip| explained(tip, &below_there, &below_here))
        {
            found.push(format!("extremities: {tips:?} at {first_name}, {other_tips:?} at {name}"));
        }
    }
    found
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
