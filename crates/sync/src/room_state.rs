//! The state that clients had of a room at a moment.

use std::sync::Arc;

use myelin_core::{EventNid, Position, RoomNid, TimelineOrder};
use myelin_dag::state_tree::{NodeHash, StateTree};
use myelin_store::{Direction, tables::CURRENT_STATES};
use myelin_view::{Event, RoomSnapshot, View};

use crate::Error;

/// The room's current state just after `order`; empty before the room began for this server. States of history that was
/// brought later (negative orders) are nobody's current state at a place after it: clients have not been told of them.
pub async fn state_at(view: &View, room: RoomNid, order: TimelineOrder) -> Result<StateTree, Error> {
    let live = TimelineOrder::from(Position::ZERO);
    let begin = if order < live { TimelineOrder::MIN } else { live };
    let end = TimelineOrder(order.0.saturating_add(1));
    let range = ((room, begin), (room, end));
    let rows = view.store.range(&CURRENT_STATES, &range.0, &range.1, Direction::Reverse, 1).await?;
    match rows.first() {
        Some((_, row)) => Ok(view.states.load(NodeHash(row.root)).await?),
        None => Ok(StateTree::new()),
    }
}

/// The state at `now`, which is in memory if nothing happened in the room since.
pub async fn state_now(view: &View, room: &RoomSnapshot, now: Position) -> Result<StateTree, Error> {
    if view.feed.last_change(room.nid()).is_none_or(|position| position <= now) {
        return Ok(room.current_state.clone());
    }
    state_at(view, room.nid(), now.into()).await
}

/// The events of a state but for the members, of whom there may be very many: for clients that load them lazily.
pub async fn without_members(view: &View, state: &StateTree) -> Result<Vec<EventNid>, Error> {
    let (keys, events): (Vec<_>, Vec<_>) = state.iter().unzip();
    let names = view.interner.state_key_names(&keys).await?;
    let named = names.iter().zip(events);
    Ok(named.filter(|(name, _)| name.event_type != "m.room.member").map(|(_, event)| event).collect())
}

/// Loads events in order, leaving out what is not there.
pub async fn load_events(view: &View, nids: &[EventNid]) -> Result<Vec<Arc<Event>>, Error> {
    Ok(view.events.load_many(nids).await?.into_iter().flatten().collect())
}
