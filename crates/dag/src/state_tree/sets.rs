//! What events are below a node, and what they stand on, as bitmaps: made where somebody asks, once per node, and shared
//! as the nodes are. After a change of one key those on the way to one leaf are made anew.

use std::sync::{Arc, OnceLock};

use myelin_core::EventNid;
use roaring::RoaringTreemap;

use super::node::{Body, Node};
use crate::AuthChain;

#[derive(Default)]
pub struct Sets {
    events: OnceLock<Arc<RoaringTreemap>>,
    /// Invariant: what an event stands on never changes.
    closure: OnceLock<Arc<RoaringTreemap>>,
}

pub fn events(node: &Node) -> Arc<RoaringTreemap> {
    let make = || {
        Arc::new(match &node.body {
            Body::Leaf(entries) => entries.iter().map(|(_, event)| event.0).collect(),
            Body::Branch { children, .. } => {
                children.iter().flatten().fold(RoaringTreemap::new(), |set, child| set | &*events(child))
            }
        })
    };
    node.sets.events.get_or_init(make).clone()
}

/// The events with the chains of each; `None` if some chains are `missing`.
pub fn closure(
    node: &Node,
    chain_of: &impl Fn(EventNid) -> Option<Arc<AuthChain>>,
    missing: &mut Vec<EventNid>,
) -> Option<Arc<RoaringTreemap>> {
    if let Some(closure) = node.sets.closure.get() {
        return Some(closure.clone());
    }
    let missing_before = missing.len();
    let mut closure_here = RoaringTreemap::new();
    match &node.body {
        Body::Leaf(entries) => {
            for (_, event) in entries {
                closure_here.insert(event.0);
                match chain_of(*event) {
                    Some(chain) => closure_here |= chain.bitmap(),
                    None => missing.push(*event),
                }
            }
        }
        Body::Branch { children, .. } => {
            for child in children.iter().flatten() {
                closure_here |= &*closure(child, chain_of, missing).unwrap_or_default();
            }
        }
    }
    let whole = missing.len() == missing_before;
    whole.then(|| node.sets.closure.get_or_init(|| Arc::new(closure_here)).clone())
}
