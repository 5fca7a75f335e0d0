//! The auth difference and the conflicted state subgraph, by bitmaps.

use std::sync::Arc;

use myelin_core::EventNid;
use roaring::{MultiOps, RoaringTreemap};
use ruma::room_version_rules::StateResolutionV2Rules;

use super::{Graph, Need, ResolveError};
use crate::{StateTree, auth_chain::AuthChain};

/// The conflicted events, and those that are in the full auth chain of some state but not of all; in version 12 and up
/// also the conflicted state subgraph.
///
/// The full auth chain of a state has the events of the state in it, although the specification's has not: Synapse does
/// it so, and where an event of the state is in the auth chain of others the outcome would be another.
///
/// With U the unconflicted events and their chains, and Di the conflicted ones of state i (`disputed`) and theirs, the
/// full chain of state i is U ∪ Di, and so the difference is (∪Di − ∩Di) − U. U is only ever subtracted.
pub fn full_conflicted_set(
    v2_rules: &StateResolutionV2Rules,
    states: &[StateTree],
    disputed: &[StateTree],
    conflicted: &RoaringTreemap,
    graph: &impl Graph,
) -> Result<RoaringTreemap, ResolveError> {
    let closures = closures(disputed, graph)?;
    let all = closures.iter().map(|closure| &**closure).union();
    let common = closures.iter().map(|closure| &**closure).intersection();
    let difference = (&all - common) - conflicted;
    let mut full = conflicted | without_agreed(difference, states, graph)?;
    if v2_rules.consider_conflicted_state_subgraph {
        full |= between(all, conflicted, graph)?;
    }
    Ok(full)
}

/// Subtracts U. Mostly what is left is in it because it or what it authorises is agreed on; only what is in dispute on
/// one side but has been replaced there again wants a look at what every event of the states stands on.
fn without_agreed(
    mut difference: RoaringTreemap,
    states: &[StateTree],
    graph: &impl Graph,
) -> Result<RoaringTreemap, ResolveError> {
    if difference.is_empty() {
        return Ok(difference);
    }
    let agreed = states.iter().fold(difference.clone(), |agreed, state| agreed & &*state.events());
    let below = chains(agreed.iter().map(EventNid), graph)?;
    difference -= agreed;
    below.iter().for_each(|chain| difference -= chain.bitmap());
    if !difference.is_empty() {
        let whole = closures(states, graph)?;
        difference -= whole.iter().map(|closure| &**closure).intersection();
    }
    Ok(difference)
}

/// The events on a path of auth events from one conflicted event to another, ends excluded (version 12).
/// `below`: the conflicted events and their chains.
fn between(
    below: RoaringTreemap,
    conflicted: &RoaringTreemap,
    graph: &impl Graph,
) -> Result<RoaringTreemap, ResolveError> {
    let candidates = below - conflicted;
    let chains = chains(candidates.iter().map(EventNid), graph)?;
    let on_path = candidates.iter().zip(chains).filter(|(_, chain)| !chain.bitmap().is_disjoint(conflicted));
    Ok(on_path.map(|(nid, _)| nid).collect())
}

/// The events of each state, with their auth chains.
fn closures(states: &[StateTree], graph: &impl Graph) -> Result<Vec<Arc<RoaringTreemap>>, ResolveError> {
    let (mut closures, mut missing) = (Vec::with_capacity(states.len()), Vec::new());
    for state in states {
        match state.closure(|event| graph.auth_chain(event)) {
            Ok(closure) => closures.push(closure),
            Err(events) => missing.extend(events),
        }
    }
    if missing.is_empty() {
        return Ok(closures);
    }
    missing.sort_unstable();
    missing.dedup();
    Err(need_chains(missing))
}

pub fn chains(
    events: impl Iterator<Item = EventNid>,
    graph: &impl Graph,
) -> Result<Vec<Arc<AuthChain>>, ResolveError> {
    let (mut chains, mut missing) = (Vec::new(), Vec::new());
    for event in events {
        match graph.auth_chain(event) {
            Some(chain) => chains.push(chain),
            None => missing.push(event),
        }
    }
    if missing.is_empty() { Ok(chains) } else { Err(need_chains(missing)) }
}

fn need_chains(missing: Vec<EventNid>) -> ResolveError {
    ResolveError::Need(Need::AuthChains(missing))
}

pub fn union(chains: &[Arc<AuthChain>]) -> RoaringTreemap {
    chains.iter().map(|chain| chain.bitmap()).union()
}
