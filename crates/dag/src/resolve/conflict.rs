//! What the states disagree on, gathered for the algorithms.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use myelin_core::{EventNid, StateKeyNid};
use ruma::{
    events::StateEventType,
    room_version_rules::{RoomVersionRules, StateResolutionV2Rules},
};

use super::{Graph, Lookup, Need, ResolveError, difference};
use crate::{Pdu, StateTree, auth::auth_types};

pub type Key = (StateEventType, String);

/// For the second algorithm.
pub struct Conflict {
    pub keys: BTreeSet<StateKeyNid>,
    /// The full conflicted set: conflicted events, the auth difference, and in version 12 and up what is between them.
    pub full: Vec<(EventNid, Arc<Pdu>)>,
}

impl Conflict {
    /// `states` are two or more, and distinct.
    pub fn find(
        v2_rules: &StateResolutionV2Rules,
        states: &[&StateTree],
        graph: &impl Graph,
    ) -> Result<Self, ResolveError> {
        let keys = conflicted_keys(states);
        let conflicted: BTreeSet<EventNid> =
            states.iter().flat_map(|state| keys.iter().filter_map(|key| state.get(*key))).collect();
        let mut full = difference::auth_difference(states, &keys, graph)?;
        if v2_rules.consider_conflicted_state_subgraph {
            full.extend(difference::subgraph(&conflicted, graph)?);
        }
        full.extend(conflicted);
        Ok(Self { keys, full: events(&full, graph)? })
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
