//! The auth difference and the conflicted state subgraph, by bitmaps.

use std::{collections::BTreeSet, sync::Arc};

use myelin_core::{EventNid, StateKeyNid};
use roaring::{MultiOps, RoaringTreemap};

use super::{Graph, Need, ResolveError};
use crate::{StateTree, auth_chain::AuthChain};

/// The events that are in the full auth chain of some state but not of all.
///
/// The full auth chain of a state has the events of the state in it, although the specification's has not: Synapse does
/// it so, and where an event of the state is in the auth chain of others the outcome would be another.
///
/// With U the unconflicted events and their chains, and Di the conflicted ones of state i and theirs, the full chain of
/// state i is U ∪ Di, and so the difference is (∪Di − ∩Di) − U. U is only ever subtracted.
pub fn auth_difference(
    states: &[&StateTree],
    conflicted: &BTreeSet<StateKeyNid>,
    graph: &impl Graph,
) -> Result<BTreeSet<EventNid>, ResolveError> {
    let mut all = RoaringTreemap::new();
    let mut common: Option<RoaringTreemap> = None;
    for state in states {
        let own = || conflicted.iter().filter_map(|key| state.get(*key));
        let chain = union(&chains(own(), graph)?) | own().map(|nid| nid.0).collect::<RoaringTreemap>();
        all |= &chain;
        common = Some(match common {
            Some(common) => common & &chain,
            None => chain,
        });
    }
    let difference = all - common.unwrap_or_default();
    let rest = without_agreed(difference, states[0], conflicted, graph)?;
    Ok(rest.into_iter().map(EventNid).collect())
}

/// Subtracts U. What is at hand is looked at first, since it is often enough.
fn without_agreed(
    mut difference: RoaringTreemap,
    state: &StateTree,
    conflicted: &BTreeSet<StateKeyNid>,
    graph: &impl Graph,
) -> Result<RoaringTreemap, ResolveError> {
    let agreed = || state.iter().filter(|(key, _)| !conflicted.contains(key)).map(|(_, event)| event);
    difference -= agreed().map(|event| event.0).collect::<RoaringTreemap>();
    let mut missing = Vec::new();
    for event in agreed() {
        if difference.is_empty() {
            return Ok(difference);
        }
        match graph.auth_chain(event) {
            // Mostly so: what authorises a settled event is older than what is in dispute.
            Some(chain) if chain.bitmap().max() < difference.min() => {}
            Some(chain) => difference -= chain.bitmap(),
            None => missing.push(event),
        }
    }
    if missing.is_empty() || difference.is_empty() { Ok(difference) } else { Err(need_chains(missing)) }
}

/// The events on a path of auth events from one conflicted event to another, ends included (version 12).
pub fn subgraph(
    conflicted: &BTreeSet<EventNid>,
    graph: &impl Graph,
) -> Result<BTreeSet<EventNid>, ResolveError> {
    let set: RoaringTreemap = conflicted.iter().map(|nid| nid.0).collect();
    let ancestors = union(&chains(conflicted.iter().copied(), graph)?);
    // Paths can only end at conflicted events that are ancestors of conflicted events.
    let ends = &ancestors & &set;
    if ends.is_empty() {
        return Ok(conflicted.clone());
    }
    let between: Vec<EventNid> = (ancestors - &set).into_iter().map(EventNid).collect();
    let chains = chains(between.iter().copied(), graph)?;
    let on_path = between.into_iter().zip(chains).filter(|(_, chain)| !chain.bitmap().is_disjoint(&ends));
    Ok(on_path.map(|(nid, _)| nid).chain(conflicted.iter().copied()).collect())
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
