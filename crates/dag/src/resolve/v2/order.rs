//! The two orders of the algorithm: the reverse topological power ordering of power events, and the mainline ordering
//! of the rest.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BTreeMap, BinaryHeap, HashMap},
    sync::Arc,
};

use myelin_core::EventNid;
use ruma::{EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, events::TimelineEventType};

use super::{
    AtHand,
    held::{Held, auth_event},
};
use crate::{Pdu, resolve::Graph};

/// Mainlines are as long as their room has had power levels.
const MAINLINE_STEPS_MAX: usize = 100_000;
/// Between two neighbours in a fresh order, so that others fit in.
const LABEL_STEP: u64 = 1 << 32;

/// An event at its place in the order of the checks.
#[derive(Clone)]
pub struct Placed(Arc<(Place, Arc<Held>)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// By labels that grow along the reverse topological power ordering.
    Power(u64),
    /// The position of the nearest power levels on the mainline.
    Rest(usize),
}

impl Placed {
    pub fn new(place: Place, held: Arc<Held>) -> Self {
        Self(Arc::new((place, held)))
    }

    pub fn held(&self) -> &Held {
        &self.0.1
    }

    pub fn is_power(&self) -> bool {
        matches!(self.0.0, Place::Power(_))
    }

    fn rank(&self) -> (Place, MilliSecondsSinceUnixEpoch, &EventId) {
        let pdu = &self.held().pdu;
        (self.0.0, pdu.origin_server_ts, &pdu.event_id)
    }
}

impl Ord for Placed {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl PartialOrd for Placed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Placed {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Placed {}

/// The one that comes first is the least.
type Rank<'a> = (Reverse<i64>, MilliSecondsSinceUnixEpoch, &'a EventId, EventNid);

fn rank(held: &Held) -> Rank<'_> {
    (Reverse(held.power), held.pdu.origin_server_ts, &held.pdu.event_id, held.nid)
}

/// Each comes after those of these events that authorise it.
pub fn by_power(events: &BTreeMap<EventNid, Arc<Held>>) -> Vec<EventNid> {
    let mut waiting: HashMap<EventNid, usize> = HashMap::with_capacity(events.len());
    let mut children: HashMap<EventNid, Vec<EventNid>> = HashMap::new();
    for (nid, held) in events {
        let mut auth: Vec<_> = held.auth.iter().copied().filter(|auth| events.contains_key(auth)).collect();
        auth.sort_unstable();
        auth.dedup();
        waiting.insert(*nid, auth.len());
        auth.into_iter().for_each(|parent| children.entry(parent).or_default().push(*nid));
    }
    let roots = events.values().filter(|held| waiting.get(&held.nid) == Some(&0));
    let mut heap: BinaryHeap<_> = roots.map(|held| Reverse(rank(held))).collect();
    let mut sorted = Vec::with_capacity(events.len());
    while let Some(Reverse((.., nid))) = heap.pop() {
        sorted.push(nid);
        for child in children.get(&nid).into_iter().flatten() {
            let left = waiting.entry(*child).or_default();
            *left -= 1;
            if *left == 0 {
                heap.push(Reverse(rank(&events[child])));
            }
        }
    }
    sorted
}

/// Labels that grow along `order`. Those that have one keep it; `None` if that cannot be.
pub fn labels(order: &[EventNid], kept: impl Fn(EventNid) -> Option<u64>) -> Option<Vec<u64>> {
    let mut labels: Vec<u64> = Vec::with_capacity(order.len());
    let mut last = 0;
    let mut at = 0;
    while at < order.len() {
        let new = order[at..].iter().take_while(|nid| kept(**nid).is_none()).count();
        let next = order.get(at + new).and_then(|nid| kept(*nid));
        let step = match next {
            Some(next) => next.checked_sub(last)? / (new as u64 + 1),
            None => LABEL_STEP,
        };
        if step == 0 {
            return None;
        }
        for _ in 0..new {
            last = last.checked_add(step)?;
            labels.push(last);
        }
        if let Some(next) = next {
            labels.push(next);
            last = next;
        }
        at = labels.len();
    }
    Some(labels)
}

/// Power levels, each the one that authorised the next, and how far each is from the first. Shared by copies.
#[derive(Clone)]
pub struct Mainline {
    pub levels: Option<EventNid>,
    positions: Arc<HashMap<OwnedEventId, usize>>,
}

impl Mainline {
    /// `levels`: the power levels that it begins with.
    pub fn of<G: Graph>(levels: Option<(EventNid, Arc<Pdu>)>, at_hand: &AtHand<'_, G>) -> Self {
        let nid = levels.as_ref().map(|(nid, _)| *nid);
        let mut mainline: Vec<OwnedEventId> = Vec::new();
        let mut next = levels.map(|(_, pdu)| pdu);
        while let Some(levels) = next.filter(|_| mainline.len() < MAINLINE_STEPS_MAX) {
            next = auth_event(&levels, &TimelineEventType::RoomPowerLevels, at_hand);
            mainline.push(levels.event_id.clone());
        }
        // The oldest is the first; what has nothing to do with the mainline comes before it.
        let positions = mainline.into_iter().rev().enumerate().map(|(at, id)| (id, at + 1));
        Self { levels: nid, positions: Arc::new(positions.collect()) }
    }

    /// Whether the event is authorised by power levels on the mainline, or by none.
    pub fn is_next_to(&self, held: &Held) -> bool {
        held.levels.as_ref().is_none_or(|levels| self.positions.contains_key(levels))
    }

    /// The position of the nearest power levels on the mainline; `known` are those of others beside it.
    pub fn position<G: Graph>(
        &self,
        held: &Held,
        at_hand: &AtHand<'_, G>,
        known: &mut HashMap<OwnedEventId, usize>,
    ) -> usize {
        let mut way = Vec::new();
        let mut next = held.levels.clone();
        let position = loop {
            let Some(id) = next.filter(|_| way.len() < MAINLINE_STEPS_MAX) else { break 0 };
            if let Some(position) = self.positions.get(&id).or_else(|| known.get(&id)) {
                break *position;
            }
            let levels = at_hand.event(&id);
            next = levels
                .and_then(|levels| auth_event(&levels, &TimelineEventType::RoomPowerLevels, at_hand))
                .map(|levels| levels.event_id.clone());
            way.push(id);
        };
        known.extend(way.into_iter().map(|id| (id, position)));
        position
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(nids: &[u64]) -> Vec<EventNid> {
        nids.iter().copied().map(EventNid).collect()
    }

    #[test]
    fn what_comes_in_between_gets_a_label_in_between() {
        let fresh = labels(&order(&[1, 2, 3]), |_| None).unwrap();
        assert!(fresh.is_sorted_by(|a, b| a < b));
        let kept = |nid: EventNid| fresh.get(nid.0 as usize - 1).copied();
        let grown = labels(&order(&[7, 1, 8, 9, 2, 3, 10]), kept).unwrap();
        assert!(grown.is_sorted_by(|a, b| a < b));
        assert_eq!([grown[1], grown[4], grown[5]], fresh[..]);
    }

    #[test]
    fn labels_that_would_not_grow_are_refused() {
        let kept = |nid: EventNid| (nid.0 < 3).then_some(nid.0);
        assert_eq!(labels(&order(&[1, 2]), kept), Some(vec![1, 2]));
        assert_eq!(labels(&order(&[2, 1]), kept), None, "the other way round");
        assert_eq!(labels(&order(&[1, 3, 2]), kept), None, "no place is left");
    }
}
