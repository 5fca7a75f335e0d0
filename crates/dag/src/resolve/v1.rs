//! The first state resolution algorithm (room version 1, "State resolution"): by depth, and without auth chains.
//!
//! Where the specification leaves room it is filled as in Synapse, which every other server of such a room follows:
//! conflicts between memberships are resolved apart from each other, each with the memberships that nobody disputes.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use myelin_core::{EventNid, StateKeyNid};
use ruma::{
    events::{StateEventType, TimelineEventType},
    room_version_rules::RoomVersionRules,
};
use sha1::{Digest, Sha1};

use super::{
    Graph, ResolveError,
    conflict::{self, Key, conflicted_keys, events, key_of},
};
use crate::{Pdu, StateTree, auth::authorize_by_state};

/// The state by which events are judged.
type Known = HashMap<Key, Arc<Pdu>>;

/// What states say differently about one key.
struct Contest {
    key: StateKeyNid,
    phase: Phase,
    /// Not empty; the deepest first.
    candidates: Vec<(EventNid, Arc<Pdu>)>,
}

/// In this order; each is judged by the outcome of those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    PowerLevels,
    JoinRules,
    Memberships,
    Others,
}

/// `states` are two or more, and distinct.
pub fn resolve(
    rules: &RoomVersionRules,
    states: &[&StateTree],
    graph: &impl Graph,
) -> Result<StateTree, ResolveError> {
    let (agreed, disputed) = split(states);
    let candidates = events(&disputed.values().flatten().copied().collect(), graph)?;
    let known = conflict::known(rules, &agreed, &candidates, graph)?;
    let candidates: BTreeMap<_, _> = candidates.into_iter().collect();
    let contests = disputed.into_iter().filter_map(|(key, nids)| Contest::new(key, nids, &candidates));
    let outcome = decide(rules, known, &contests.collect::<Vec<_>>());
    Ok(outcome.into_iter().fold(agreed, |state, (key, event)| state.insert(key, event)))
}

/// What no two states contradict each other about, and what they do. A key that some states lack is no conflict.
fn split(states: &[&StateTree]) -> (StateTree, BTreeMap<StateKeyNid, BTreeSet<EventNid>>) {
    let mut agreed = states[0].clone();
    let mut disputed = BTreeMap::new();
    for key in conflicted_keys(states) {
        let nids: BTreeSet<EventNid> = states.iter().filter_map(|state| state.get(key)).collect();
        match nids.first() {
            Some(only) if nids.len() == 1 => agreed = agreed.insert(key, *only),
            _ => {
                agreed = agreed.remove(key);
                disputed.insert(key, nids);
            }
        }
    }
    (agreed, disputed)
}

fn decide(rules: &RoomVersionRules, mut known: Known, contests: &[Contest]) -> Vec<(StateKeyNid, EventNid)> {
    let mut outcome = Vec::with_capacity(contests.len());
    for phase in [Phase::PowerLevels, Phase::JoinRules, Phase::Memberships, Phase::Others] {
        // Of one phase none knows of the others, so that their order does not matter.
        let winners: Vec<_> = contests
            .iter()
            .filter(|contest| contest.phase == phase)
            .filter_map(|contest| Some((contest.key, contest.winner(rules, &known)?)))
            .collect();
        for (key, (event, pdu)) in winners {
            outcome.push((key, *event));
            known.extend(key_of(pdu).map(|key| (key, pdu.clone())));
        }
    }
    outcome
}

impl Contest {
    /// `None` if none of the events can be had.
    fn new(
        key: StateKeyNid,
        nids: BTreeSet<EventNid>,
        events: &BTreeMap<EventNid, Arc<Pdu>>,
    ) -> Option<Self> {
        let held = nids.into_iter().filter_map(|nid| Some((nid, events.get(&nid)?.clone())));
        let mut candidates: Vec<_> = held.collect();
        candidates.sort_by_cached_key(|(_, pdu)| (Reverse(pdu.depth), Sha1::digest(pdu.event_id.as_bytes())));
        let phase = Phase::of(&candidates.first()?.1);
        Some(Self { key, phase, candidates })
    }

    fn winner(&self, rules: &RoomVersionRules, known: &Known) -> Option<&(EventNid, Arc<Pdu>)> {
        match self.phase {
            Phase::Others => self.deepest_allowed(rules, known),
            _ => self.last_of_allowed_changes(rules, known),
        }
    }

    /// From the shallowest on, each event in the state that the one before it made, until one is not allowed.
    fn last_of_allowed_changes(
        &self,
        rules: &RoomVersionRules,
        known: &Known,
    ) -> Option<&(EventNid, Arc<Pdu>)> {
        let mut upwards = self.candidates.iter().rev();
        let mut last = upwards.next()?;
        for next in upwards {
            let own_key = key_of(&last.1);
            let fetch = |event_type: &StateEventType, state_key: &str| {
                let key = (event_type.clone(), state_key.to_owned());
                if own_key.as_ref() == Some(&key) { Some(&last.1) } else { known.get(&key) }
            };
            if authorize_by_state(rules, &next.1, fetch).is_err() {
                break;
            }
            last = next;
        }
        Some(last)
    }

    /// The shallowest if none is allowed.
    fn deepest_allowed(&self, rules: &RoomVersionRules, known: &Known) -> Option<&(EventNid, Arc<Pdu>)> {
        let fetch = |event_type: &StateEventType, state_key: &str| {
            known.get(&(event_type.clone(), state_key.to_owned()))
        };
        let allowed = self.candidates.iter().find(|(_, pdu)| authorize_by_state(rules, pdu, fetch).is_ok());
        allowed.or(self.candidates.last())
    }
}

impl Phase {
    fn of(pdu: &Pdu) -> Self {
        match pdu.event_type {
            TimelineEventType::RoomPowerLevels if pdu.state_key.as_deref() == Some("") => Self::PowerLevels,
            TimelineEventType::RoomJoinRules => Self::JoinRules,
            TimelineEventType::RoomMember => Self::Memberships,
            _ => Self::Others,
        }
    }
}

#[cfg(test)]
mod tests;
