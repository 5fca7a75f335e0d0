//! The state-reset watch: what state resolution did to a room that nobody asked for.
//!
//! When an event is accepted, the current state may change by more than that event: resolution may bring back what had
//! been replaced long ago, or drop it. Sometimes that is how a dispute ends; people experience it as a ban undone or
//! a moderator's power lost, so operators are to see it. Must not know: where states and events are kept, or what is
//! done about a reset.

use myelin_core::{EventNid, StateKeyNid};
use ruma::events::StateEventType;

use crate::StateTree;

/// Replacements that are followed back before one counts as unrelated.
const STEPS_MAX: usize = 1_000;

/// A change of the current state that none of the accepted events asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reset {
    pub key: StateKeyNid,
    pub before: Option<EventNid>,
    pub after: Option<EventNid>,
    pub kind: ResetKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetKind {
    /// Nothing is there any more.
    Dropped,
    /// Back to an event that had been replaced, directly or by several steps: the classic state reset.
    Reverted,
    /// To an event of another branch, which had lost before, or had been soft-failed.
    Overturned,
}

/// What is watched: who is in the room, and who may do what.
pub fn is_watched(event_type: &StateEventType) -> bool {
    matches!(
        event_type,
        StateEventType::RoomMember
            | StateEventType::RoomPowerLevels
            | StateEventType::RoomJoinRules
            | StateEventType::RoomServerAcl
    )
}

/// Compares the current state before and after some events were accepted.
///
/// - `is_watched`: by the type of the key, see [`is_watched`].
/// - `was_accepted`: whether it is one of these events. A change to such an event is what it asked for.
/// - `replaced`: the event that had the same key in the state before an event; `None` if there was none or it is not
///   at hand.
///
/// Costs what the difference of the states costs: for an event at the end of a room, next to nothing.
pub fn resets(
    before: &StateTree,
    after: &StateTree,
    is_watched: impl Fn(StateKeyNid) -> bool,
    was_accepted: impl Fn(EventNid) -> bool,
    replaced: impl Fn(EventNid) -> Option<EventNid>,
) -> Vec<Reset> {
    let unasked = before.diff(after).into_iter().filter(|(key, _, now)| {
        let asked_for = now.is_some_and(&was_accepted);
        !asked_for && is_watched(*key)
    });
    unasked
        .map(|(key, before, after)| Reset { key, before, after, kind: kind_of(before, after, &replaced) })
        .collect()
}

fn kind_of(
    before: Option<EventNid>,
    after: Option<EventNid>,
    replaced: impl Fn(EventNid) -> Option<EventNid>,
) -> ResetKind {
    let Some(after) = after else { return ResetKind::Dropped };
    let earlier = std::iter::successors(before, |event| replaced(*event));
    match earlier.take(STEPS_MAX).any(|event| event == after) {
        true => ResetKind::Reverted,
        false => ResetKind::Overturned,
    }
}

#[cfg(test)]
mod tests;
