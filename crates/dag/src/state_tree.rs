//! The state of a room as an immutable, persistent, content-addressed map from state key to event (DESIGN 3).
//!
//! A trie over a mix of the key's bits, eight ways per level. A subtree with at most [`LEAF_ENTRIES_MAX`] entries is
//! one leaf, any larger one is a branch, so the shape follows from the contents alone: equal states have equal roots,
//! whatever the order in which they came about. A change copies the path to one leaf and shares all the rest.
//!
//! Must not know: what keys and events mean, or where nodes are kept.

mod codec;
mod diff;
mod load;
mod node;
mod sets;

use std::{fmt, sync::Arc};

use myelin_core::{EventNid, StateKeyNid};
use roaring::RoaringTreemap;

pub use self::load::Need;
use self::node::Node;
use crate::AuthChain;

/// Small leaves keep the bytes written per change small; larger ones keep the number of nodes small.
pub const LEAF_ENTRIES_MAX: usize = 32;

/// The first 16 bytes of the SHA-256 of a node's bytes. All zeros: the empty tree.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NodeHash(pub [u8; 16]);

impl NodeHash {
    pub const EMPTY: Self = Self([0; 16]);
}

impl fmt::Debug for NodeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeHash:{:032x}", u128::from_be_bytes(self.0))
    }
}

/// A state of a room. Cloning costs nothing.
#[derive(Clone, Default)]
pub struct StateTree {
    root: Option<Arc<Node>>,
}

/// One key whose event differs: the key, the event in the one state, the event in the other.
pub type Change = (StateKeyNid, Option<EventNid>, Option<EventNid>);

impl StateTree {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn get(&self, key: StateKeyNid) -> Option<EventNid> {
        self.root.as_ref()?.get(key, 0)
    }

    #[must_use]
    pub fn insert(&self, key: StateKeyNid, event: EventNid) -> Self {
        let root = match &self.root {
            Some(root) if root.get(key, 0) == Some(event) => return self.clone(),
            Some(root) => root.insert(key, event, 0),
            None => Node::leaf(vec![(key, event)]),
        };
        Self { root: Some(root) }
    }

    #[must_use]
    pub fn remove(&self, key: StateKeyNid) -> Self {
        match &self.root {
            Some(root) if root.get(key, 0).is_some() => Self { root: root.remove(key, 0) },
            _ => self.clone(),
        }
    }

    /// The entries, in an order that depends on the contents alone.
    pub fn iter(&self) -> impl Iterator<Item = (StateKeyNid, EventNid)> + '_ {
        node::Entries::new(self.root.as_deref())
    }

    pub fn len(&self) -> usize {
        self.root.as_ref().map_or(0, |root| root.len())
    }

    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// Identifies the contents; computed once per node and kept.
    pub fn root(&self) -> NodeHash {
        self.root.as_ref().map_or(NodeHash::EMPTY, |root| root.hash())
    }

    /// The keys whose events differ, in time proportional to the difference.
    pub fn diff(&self, other: &Self) -> Vec<Change> {
        diff::diff(self.root.as_deref(), other.root.as_deref())
    }

    /// The nodes of this tree which `base` does not have in the same place, with their bytes: what is to be written
    /// when `base` has been written. A node that is elsewhere in `base` may be among them.
    pub fn new_nodes_since(&self, base: &Self) -> Vec<(NodeHash, Vec<u8>)> {
        self.new_nodes_beside(&[base])
    }

    /// As [`Self::new_nodes_since`] several trees.
    pub fn new_nodes_beside(&self, bases: &[&Self]) -> Vec<(NodeHash, Vec<u8>)> {
        diff::new_nodes(self.root.as_ref(), bases.iter().filter_map(|base| base.root.as_ref()))
    }

    /// All events of the state.
    pub(crate) fn events(&self) -> Arc<RoaringTreemap> {
        self.root.as_ref().map_or_else(Arc::default, |root| sets::events(root))
    }

    /// All events of the state and their auth chains, or those events whose chains are not at hand. What was found is
    /// kept with the nodes, so `chain_of` is asked for what is new since.
    pub(crate) fn closure(
        &self,
        chain_of: impl Fn(EventNid) -> Option<Arc<AuthChain>>,
    ) -> Result<Arc<RoaringTreemap>, Vec<EventNid>> {
        let Some(root) = &self.root else { return Ok(Arc::default()) };
        let mut missing = Vec::new();
        sets::closure(root, &chain_of, &mut missing).ok_or(missing)
    }

    /// Builds the tree from stored nodes. Nodes that `fetch` does not have come back as [`Need::Nodes`], a whole
    /// level at once; the driver adds them to what `fetch` sees and calls again.
    pub fn load<B: AsRef<[u8]>>(
        root: NodeHash,
        fetch: impl Fn(&NodeHash) -> Option<B>,
    ) -> Result<Self, Need> {
        Ok(Self { root: load::load(root, fetch)? })
    }
}

impl NodeHash {
    /// The hashes of the nodes that a stored node refers to (for reference counting and collection); `None` if the
    /// bytes are no node.
    pub fn children_of(bytes: &[u8]) -> Option<Vec<Self>> {
        codec::children(bytes)
    }

    /// The hash that these bytes are stored under.
    pub fn of(bytes: &[u8]) -> Self {
        codec::hash(bytes)
    }
}

/// Later entries for the same key win.
impl FromIterator<(StateKeyNid, EventNid)> for StateTree {
    fn from_iter<I: IntoIterator<Item = (StateKeyNid, EventNid)>>(entries: I) -> Self {
        let entries: std::collections::BTreeMap<_, _> = entries.into_iter().collect();
        Self { root: Node::from_entries(entries.into_iter().collect(), 0) }
    }
}

impl PartialEq for StateTree {
    fn eq(&self, other: &Self) -> bool {
        self.root() == other.root()
    }
}

impl Eq for StateTree {}

impl fmt::Debug for StateTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StateTree({:?}, {} entries)", self.root(), self.len())
    }
}

#[cfg(test)]
mod tests;
