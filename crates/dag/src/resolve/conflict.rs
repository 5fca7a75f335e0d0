//! What the states disagree on, gathered for the algorithm.

use std::{collections::BTreeSet, sync::Arc};

use myelin_core::{EventNid, StateKeyNid};
use ruma::{
    OwnedEventId,
    events::StateEventType,
    room_version_rules::{RoomVersionRules, StateResolutionV2Rules},
    state_res::{StateMap, auth_types_for_event},
};

use super::{Graph, Lookup, Need, ResolveError, difference};
use crate::{Pdu, StateTree};

pub struct Conflict {
    pub keys: BTreeSet<StateKeyNid>,
    /// Per state, its conflicted entries, and the unconflicted ones that can bear on them.
    pub maps: Vec<StateMap<OwnedEventId>>,
    pub auth_difference: Vec<OwnedEventId>,
    /// Version 12 and up: the events between conflicted ones.
    pub subgraph: Vec<OwnedEventId>,
}

impl Conflict {
    /// `states` are two or more, and distinct.
    pub fn find(
        rules: &RoomVersionRules,
        v2_rules: &StateResolutionV2Rules,
        states: &[&StateTree],
        graph: &impl Graph,
    ) -> Result<Self, ResolveError> {
        let keys = conflicted_keys(states);
        let conflicted: BTreeSet<EventNid> =
            states.iter().flat_map(|state| keys.iter().filter_map(|key| state.get(*key))).collect();
        let auth_difference = difference::auth_difference(states, &keys, graph)?;
        let subgraph = match v2_rules.consider_conflicted_state_subgraph {
            true => difference::subgraph(&conflicted, graph)?,
            false => BTreeSet::new(),
        };

        let full: BTreeSet<EventNid> =
            conflicted.iter().chain(&auth_difference).chain(&subgraph).copied().collect();
        let pdus = events(&full, graph)?;
        let id_of = |nids: &BTreeSet<EventNid>| {
            let among = pdus.iter().filter(|(nid, _)| nids.contains(nid));
            among.map(|(_, pdu)| pdu.event_id.clone()).collect::<Vec<_>>()
        };
        let (auth_difference, subgraph) = (id_of(&auth_difference), id_of(&subgraph));
        let maps = maps(rules, states, &keys, &pdus, graph)?;
        Ok(Self { keys, maps, auth_difference, subgraph })
    }
}

/// What the states do not all say the same about.
pub fn conflicted_keys(states: &[&StateTree]) -> BTreeSet<StateKeyNid> {
    let others = states.iter().skip(1);
    others.flat_map(|other| states[0].diff(other)).map(|(key, ..)| key).collect()
}

fn maps(
    rules: &RoomVersionRules,
    states: &[&StateTree],
    conflicted: &BTreeSet<StateKeyNid>,
    full_conflicted: &[(EventNid, Arc<Pdu>)],
    graph: &impl Graph,
) -> Result<Vec<StateMap<OwnedEventId>>, ResolveError> {
    let relevant = relevant_keys(rules, full_conflicted, graph);
    let keys: Vec<StateKeyNid> = conflicted.union(&relevant).copied().collect();
    let missing: Vec<_> = keys.iter().copied().filter(|key| graph.state_key(*key).is_none()).collect();
    if !missing.is_empty() {
        return Err(ResolveError::Need(Need::StateKeys(missing)));
    }
    let nids: BTreeSet<_> =
        states.iter().flat_map(|state| keys.iter().filter_map(|key| state.get(*key))).collect();
    let ids: std::collections::BTreeMap<_, _> =
        events(&nids, graph)?.into_iter().map(|(nid, pdu)| (nid, pdu.event_id.clone())).collect();
    let entry = |state: &StateTree, key: &StateKeyNid| {
        let id = ids.get(&state.get(*key)?)?.clone();
        Some((graph.state_key(*key)?, id))
    };
    Ok(states.iter().map(|state| keys.iter().filter_map(|key| entry(state, key)).collect()).collect())
}

/// The keys through which the algorithm may read an unconflicted event: the auth types of everything in the full
/// conflicted set, the keys of these events themselves, and the power levels (for the mainline).
pub fn relevant_keys(
    rules: &RoomVersionRules,
    full_conflicted: &[(EventNid, Arc<Pdu>)],
    graph: &impl Graph,
) -> BTreeSet<StateKeyNid> {
    let mut names: BTreeSet<(StateEventType, String)> = BTreeSet::new();
    names.insert((StateEventType::RoomPowerLevels, String::new()));
    for (_, pdu) in full_conflicted {
        let state_key = pdu.state_key.as_deref();
        names.extend(state_key.map(|state_key| (pdu.event_type.to_string().into(), state_key.to_owned())));
        let auth = &rules.authorization;
        // A malformed event has none; the algorithm passes over it.
        let types = auth_types_for_event(&pdu.event_type, &pdu.sender, state_key, &pdu.content, auth);
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
