//! Whether a server is right when it shows a client a gap in a room's timeline (`limited`): there is one only where more
//! came than the timeline may have, or where the server itself lacks, or lacked when it was news, what comes before.
//!
//! Knows the tables, and nothing of how `myelin-rooms` notes gaps.

use std::collections::{BTreeMap, BTreeSet};

use myelin_core::TimelineOrder;
use myelin_dag::Pdu;
use myelin_view::Event;
use ruma::{
    EventId, ServerName,
    events::{TimelineEventType, room::member::MembershipState},
};

use crate::server::Server;

/// A timeline as a client was told it: `limited`.
pub(crate) struct Told<'a> {
    pub room_id: &'a str,
    /// The last event that the client has, and up to where it has been told, if the token says so.
    pub last: &'a str,
    pub since: Option<TimelineOrder>,
    pub until: TimelineOrder,
    /// Event ids, oldest first, of at most so many.
    pub shown: Vec<&'a str>,
    pub limit: usize,
    /// The client takes state from the timeline: it is cut where state changed that the client is not shown.
    pub state_fits_start: bool,
}

type Orders = BTreeMap<String, TimelineOrder>;

/// To be asked before anybody pages back: that fills gaps.
///
/// # Panics
/// If there is no gap.
pub(crate) async fn check(server: &Server, user_id: &str, told: &Told<'_>) {
    let Told { room_id, last, since, until, shown, .. } = told;
    assert!(
        is_founded(server, told).await,
        "{user_id} is shown a gap in {room_id} where there is none: has {last}, since {since:?}, until {until:?}: {shown:?}"
    );
}

async fn is_founded(server: &Server, told: &Told<'_>) -> bool {
    let rows = server.timeline(told.room_id).await;
    let orders: Orders = rows.iter().map(|(order, id)| (id.clone(), *order)).collect();
    let first = told.shown.first().and_then(|id| orders.get(*id)).copied();
    // A room that was withheld until its members were known begins before what the client was told by position.
    let since = told.since.filter(|since| first.is_none_or(|first| *since < first));
    let from = since.or(orders.get(told.last).copied()).unwrap_or(TimelineOrder::MIN);
    let to = first.unwrap_or(told.until);
    let mut between = rows.iter().filter(|(order, _)| from < *order && *order < to);
    if told.shown.len() >= told.limit && between.next().is_some() {
        return true;
    }
    for (order, id) in rows.iter().filter(|(order, _)| from < *order && *order <= to) {
        let event = event(server, id).await.expect("what is in a timeline is held");
        let cut = told.state_fits_start && *order < to && event.state_key.is_some();
        if cut || !joins_on(server, &event, *order, &orders).await {
            return true;
        }
        let before = rows.iter().take_while(|(before, _)| before < order).map(|(_, id)| id.clone());
        if brings_server_in(server, &event, &before.collect::<Vec<_>>()).await {
            return true;
        }
    }
    false
}

/// Whether all that an event comes after was news before it. What does not count is looked through.
async fn joins_on(server: &Server, of: &Event, at: TimelineOrder, orders: &Orders) -> bool {
    let mut pending: Vec<String> = of.pdu.prev_events.iter().map(ToString::to_string).collect();
    let mut seen = BTreeSet::new();
    while let Some(id) = pending.pop() {
        if !seen.insert(id.clone()) {
            continue;
        }
        match orders.get(&id) {
            // What has no position was filled in.
            Some(order) if order.position().is_none() || *order > at => return false,
            Some(_) => {}
            None => match event(server, &id).await {
                Some(prev) if !prev.accepted() => {
                    pending.extend(prev.pdu.prev_events.iter().map(ToString::to_string));
                }
                _ => return false,
            },
        }
    }
    true
}

/// Whether it is a join before which nobody of the server was in the room, by the state or by what the server has shown of
/// its users: what has happened until then it cannot know.
async fn brings_server_in(server: &Server, join: &Event, before: &[String]) -> bool {
    let name = &server.view.server_name;
    if own_user(&join.pdu, name).is_none() {
        return false;
    }
    let mut shown = BTreeMap::new();
    for id in before {
        let event = event(server, id).await.expect("what is in a timeline is held");
        shown.extend(own_user(&event.pdu, name).map(|user| (user, event.pdu.membership())));
    }
    let Some(root) = join.state_before else { return false };
    let state = server.view.states.load(root).await.expect("readable");
    let nids: Vec<_> = state.iter().map(|(_, nid)| nid).collect();
    let state = server.view.events.load_many(&nids).await.expect("readable");
    let mut inside = state.iter().flatten().filter(|event| own_user(&event.pdu, name).is_some());
    let joined = Some(MembershipState::Join);
    !inside.any(|event| event.pdu.membership() == joined) || !shown.values().any(|held| *held == joined)
}

/// Whose membership it is, if that is a user of the server.
fn own_user(pdu: &Pdu, server: &ServerName) -> Option<String> {
    let user = pdu.state_key.clone().filter(|_| pdu.event_type == TimelineEventType::RoomMember)?;
    user.ends_with(&format!(":{server}")).then_some(user)
}

async fn event(server: &Server, id: &str) -> Option<std::sync::Arc<Event>> {
    let id = <&EventId>::try_from(id).expect("an event id");
    server.view.events.load_by_id(id).await.expect("readable")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::World;

    #[test]
    fn a_gap_takes_more_events_than_fit_or_something_that_lacks() {
        let world = World::new(1).servers(["a.test"]);
        let alice = world.user("@alice:a.test");
        let room = alice.creates_public_room();
        let said = ["one", "two", "three"].map(|words| alice.sends(&room, words));
        let server = world.server("a.test").unwrap();
        let is_founded = |shown: usize, limit: usize| {
            let told = Told {
                room_id: &room.id,
                last: &said[0],
                since: None,
                until: TimelineOrder::MAX,
                shown: said[said.len() - shown..].iter().map(String::as_str).collect(),
                limit,
                state_fits_start: false,
            };
            world.run(super::is_founded(&server, &told))
        };
        assert!(is_founded(1, 1), "'two' does not fit");
        assert!(!is_founded(1, 20), "'two' would have fitted");
        assert!(!is_founded(2, 2) && !is_founded(0, 20), "nothing lies between, or it would have fitted");
    }
}
