//! What the states disagree on, gathered for the algorithms.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use myelin_core::{EventNid, StateKeyNid};
use roaring::RoaringTreemap;
use ruma::{
    events::StateEventType,
    room_version_rules::{RoomVersionRules, StateResolutionV2Rules},
};

use super::{Graph, Lookup, Need, ResolveError, difference};
use crate::{Pdu, StateTree, auth::auth_types};

pub type Key = (StateEventType, String);

/// For the second algorithm. Copies share what they have in common.
#[derive(Clone)]
pub struct Conflict {
    /// Two or more, and distinct.
    pub states: Vec<StateTree>,
    /// What is conflicted of each.
    disputed: Vec<StateTree>,
    keys: RoaringTreemap,
    conflicted: RoaringTreemap,
    /// The full conflicted set: conflicted events, the auth difference, and in version 12 and up what is between them.
    pub full: RoaringTreemap,
}

impl Conflict {
    pub fn of(
        v2_rules: &StateResolutionV2Rules,
        states: &[&StateTree],
        graph: &impl Graph,
    ) -> Result<Self, ResolveError> {
        let keys = conflicted_keys(states);
        let disputed = |state: &&StateTree| -> StateTree {
            keys.iter().filter_map(|key| Some((*key, state.get(*key)?))).collect()
        };
        let disputed: Vec<StateTree> = states.iter().map(disputed).collect();
        let conflict = Self {
            states: states.iter().map(|state| (*state).clone()).collect(),
            keys: keys.iter().map(|key| key.0).collect(),
            conflicted: disputed.iter().flat_map(StateTree::iter).map(|(_, event)| event.0).collect(),
            disputed,
            full: RoaringTreemap::new(),
        };
        conflict.with_full(v2_rules, graph)
    }

    /// The conflict where the states at some places are other ones, which say something else about the `changed` keys.
    pub fn with(
        &self,
        v2_rules: &StateResolutionV2Rules,
        replaced: &[(usize, &StateTree)],
        changed: &BTreeSet<StateKeyNid>,
        graph: &impl Graph,
    ) -> Result<Self, ResolveError> {
        let mut next = self.clone();
        for (at, state) in replaced {
            next.states[*at] = (*state).clone();
        }
        changed.iter().for_each(|key| next.look_again_at(*key));
        next.with_full(v2_rules, graph)
    }

    fn look_again_at(&mut self, key: StateKeyNid) {
        for event in self.disputed.iter().filter_map(|disputed| disputed.get(key)) {
            self.conflicted.remove(event.0);
        }
        let first = self.states[0].get(key);
        let agreed = self.states.iter().all(|state| state.get(key) == first);
        if agreed {
            self.keys.remove(key.0)
        } else {
            self.keys.insert(key.0)
        };
        for (disputed, state) in self.disputed.iter_mut().zip(&self.states) {
            match state.get(key).filter(|_| !agreed) {
                Some(event) => {
                    *disputed = disputed.insert(key, event);
                    self.conflicted.insert(event.0);
                }
                None => *disputed = disputed.remove(key),
            }
        }
    }

    fn with_full(self, v2_rules: &StateResolutionV2Rules, graph: &impl Graph) -> Result<Self, ResolveError> {
        let full =
            difference::full_conflicted_set(v2_rules, &self.states, &self.disputed, &self.conflicted, graph)?;
        Ok(Self { full, ..self })
    }

    pub fn is_about(&self, key: StateKeyNid) -> bool {
        self.keys.contains(key.0)
    }

    pub fn keys(&self) -> impl Iterator<Item = StateKeyNid> + '_ {
        self.keys.iter().map(StateKeyNid)
    }

    /// What all states say.
    pub fn agreed(&self, key: StateKeyNid) -> Option<EventNid> {
        self.states[0].get(key).filter(|_| !self.is_about(key))
    }
}

/// What the states do not all say the same about.
pub fn conflicted_keys(states: &[&StateTree]) -> BTreeSet<StateKeyNid> {
    let others = states.iter().skip(1);
    others.flat_map(|other| states[0].diff(other)).map(|(key, ..)| key).collect()
}

/// Those entries of a state through which `events` are judged.
pub fn known(
    rules: &RoomVersionRules,
    state: &StateTree,
    judged: &[(EventNid, Arc<Pdu>)],
    graph: &impl Graph,
) -> Result<HashMap<Key, Arc<Pdu>>, ResolveError> {
    let keys = relevant_keys(rules, judged, graph);
    let nids = keys.iter().filter_map(|key| state.get(*key)).collect();
    Ok(events(&nids, graph)?.into_iter().filter_map(|(_, pdu)| Some((key_of(&pdu)?, pdu))).collect())
}

pub fn key_of(pdu: &Pdu) -> Option<Key> {
    Some((pdu.event_type.to_string().into(), pdu.state_key.clone()?))
}

/// The auth types of these events, the power levels (for the mainline), and the keys of these events themselves.
fn relevant_keys(
    rules: &RoomVersionRules,
    judged: &[(EventNid, Arc<Pdu>)],
    graph: &impl Graph,
) -> BTreeSet<StateKeyNid> {
    let mut names: HashSet<Key> = HashSet::with_capacity(judged.len());
    names.insert((StateEventType::RoomPowerLevels, String::new()));
    for (_, pdu) in judged {
        names.extend(key_of(pdu));
        // A malformed event has none; the algorithms pass over it.
        let types = auth_types(rules, &pdu.event_type, &pdu.sender, pdu.state_key.as_deref(), &pdu.content);
        names.extend(types.into_iter().flatten());
    }
    names.iter().filter_map(|(event_type, state_key)| graph.state_key_nid(event_type, state_key)).collect()
}

/// The events that can be had.
pub fn events(
    nids: &BTreeSet<EventNid>,
    graph: &impl Graph,
) -> Result<Vec<(EventNid, Arc<Pdu>)>, ResolveError> {
    let (mut found, mut missing) = (Vec::with_capacity(nids.len()), Vec::new());
    for nid in nids {
        match graph.event_by_nid(*nid) {
            Lookup::Found(pdu) => found.push((*nid, pdu)),
            Lookup::Missing => missing.push(*nid),
            Lookup::Unobtainable => {}
        }
    }
    if missing.is_empty() { Ok(found) } else { Err(ResolveError::Need(Need::EventNids(missing))) }
}
