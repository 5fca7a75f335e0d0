//! The auth difference and the conflicted state subgraph, by bitmaps.

use std::{collections::BTreeSet, sync::Arc};

use myelin_core::{EventNid, StateKeyNid};
use roaring::{MultiOps, RoaringTreemap};

use super::{Graph, Need, ResolveError};
use crate::{StateTree, auth_chain::AuthChain};

/// The events that are in the full auth chain of some state but not of all.
///
/// With U the union of the chains of unconflicted events and Di that of the conflicted events of state i, the full
/// chain of state i is U ∪ Di, and so the difference is (∪Di − ∩Di) − U. U is only ever subtracted.
pub fn auth_difference(
    states: &[&StateTree],
    conflicted: &BTreeSet<StateKeyNid>,
    graph: &impl Graph,
) -> Result<BTreeSet<EventNid>, ResolveError> {
    let mut all = RoaringTreemap::new();
    let mut common: Option<RoaringTreemap> = None;
    for state in states {
        let chain = union(&chains(conflicted.iter().filter_map(|key| state.get(*key)), graph)?);
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
    let mut missing = Vec::new();
    for (_, event) in state.iter().filter(|(key, _)| !conflicted.contains(key)) {
        if difference.is_empty() {
            return Ok(difference);
        }
        match graph.auth_chain(event) {
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
