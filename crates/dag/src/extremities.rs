//! The forward extremities of a room: accepted events that no accepted event refers to yet. New events go after them.

use myelin_core::{EventNid, limits::PREV_EVENTS_MAX};
use ruma::OwnedEventId;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extremity {
    pub nid: EventNid,
    pub event_id: OwnedEventId,
    pub depth: u64,
}

/// Invariant: distinct, newest first. Newest means last received: depth is only what a sender claims.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ForwardExtremities(Vec<Extremity>);

impl ForwardExtremities {
    /// Once an event is *accepted*. Soft-failed and rejected events change nothing: they are never built upon.
    ///
    /// `has_children`: an accepted event refers to it already (it was filled in from history), so it is no extremity
    /// itself.
    #[must_use]
    pub fn after(&self, event: Extremity, prev_events: &[OwnedEventId], has_children: bool) -> Self {
        let stays = |other: &&Extremity| other.nid != event.nid && !prev_events.contains(&other.event_id);
        let mut left: Vec<_> = self.0.iter().filter(stays).cloned().collect();
        if !has_children {
            left.push(event);
        }
        left.into_iter().collect()
    }

    /// The prev events of the next event: at most [`PREV_EVENTS_MAX`], newest first. What is left out stays an
    /// extremity and is referred to later.
    pub fn prev_events(&self) -> Vec<OwnedEventId> {
        self.chosen().map(|extremity| extremity.event_id.clone()).collect()
    }

    /// The depth of the next event: one more than the deepest of its prev events.
    pub fn next_depth(&self) -> u64 {
        let deepest = self.chosen().map(|extremity| extremity.depth).max();
        let limit = myelin_core::limits::JSON_INTEGER_MAX.unsigned_abs();
        deepest.map_or(1, |depth| depth.saturating_add(1).min(limit))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Extremity> {
        self.0.iter()
    }

    fn chosen(&self) -> impl Iterator<Item = &Extremity> {
        self.0.iter().take(PREV_EVENTS_MAX)
    }
}

impl FromIterator<Extremity> for ForwardExtremities {
    fn from_iter<I: IntoIterator<Item = Extremity>>(extremities: I) -> Self {
        let mut all: Vec<_> = extremities.into_iter().collect();
        all.sort_unstable_by_key(|extremity| std::cmp::Reverse(extremity.nid));
        all.dedup_by_key(|extremity| extremity.nid);
        Self(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> OwnedEventId {
        format!("$e{n}").try_into().unwrap()
    }

    fn extremity(n: u64) -> Extremity {
        Extremity { nid: EventNid(n), event_id: id(n), depth: n }
    }

    fn nids(extremities: &ForwardExtremities) -> Vec<u64> {
        extremities.iter().map(|extremity| extremity.nid.0).collect()
    }

    #[test]
    fn a_line_has_one_a_fork_two_and_a_merge_one_again() {
        let empty = ForwardExtremities::default();
        assert_eq!((empty.next_depth(), empty.prev_events()), (1, vec![]));
        let line = empty.after(extremity(1), &[], false).after(extremity(2), &[id(1)], false);
        assert_eq!(nids(&line), [2]);
        let fork = line.after(extremity(3), &[id(1)], false);
        assert_eq!(nids(&fork), [3, 2]);
        let merged = fork.after(extremity(4), &[id(2), id(3)], false);
        assert_eq!((nids(&merged), merged.next_depth()), (vec![4], 5));
    }

    #[test]
    fn filled_in_and_repeated_events_add_nothing() {
        let line = ForwardExtremities::from_iter([extremity(5)]);
        assert_eq!(line.after(extremity(3), &[], true), line);
        assert_eq!(line.after(extremity(5), &[], false), line);
    }

    #[test]
    fn at_most_twenty_are_referred_to_newest_first() {
        let many: ForwardExtremities = (1..=30).map(extremity).collect();
        let chosen = many.prev_events();
        assert_eq!((chosen.len(), &chosen[0], &chosen[19]), (20, &id(30), &id(11)));
        let left = many.after(extremity(31), &chosen, false);
        assert_eq!(nids(&left), [31, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1]);
        let boastful = Extremity { depth: u64::MAX, ..extremity(40) };
        assert_eq!(ForwardExtremities::from_iter([boastful]).next_depth(), (1 << 53) - 1);
    }
}
