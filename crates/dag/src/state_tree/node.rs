//! Nodes in memory: lookup, change with path copying, iteration.

use std::sync::{Arc, OnceLock};

use myelin_core::{EventNid, StateKeyNid};

use super::{LEAF_ENTRIES_MAX, NodeHash, codec, sets::Sets};

/// Bits of the mixed key per level.
const LEVEL_BITS: u32 = 3;
pub const WAYS: usize = 1 << LEVEL_BITS;

pub type Entry = (StateKeyNid, EventNid);
pub type Children = [Option<Arc<Node>>; WAYS];

/// Invariant: never empty; a branch has more than `LEAF_ENTRIES_MAX` entries below it, a leaf at most so many.
pub struct Node {
    pub body: Body,
    pub sets: Sets,
    hash: OnceLock<NodeHash>,
}

pub enum Body {
    /// Sorted by key.
    Leaf(Vec<Entry>),
    Branch {
        children: Children,
        count: usize,
    },
}

/// Which child a key belongs to. The mix is a bijection, so distinct keys part at some level.
pub fn way(key: StateKeyNid, level: u32) -> usize {
    ((mix(key.0) >> (level * LEVEL_BITS).min(u64::BITS - 1)) as usize) & (WAYS - 1)
}

/// The finaliser of splitmix64: neighbouring nids land far apart.
fn mix(key: u64) -> u64 {
    let key = (key ^ (key >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let key = (key ^ (key >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    key ^ (key >> 31)
}

impl Node {
    /// `entries` are sorted by key, distinct, and few enough.
    pub fn leaf(entries: Vec<Entry>) -> Arc<Self> {
        Self::of(Body::Leaf(entries))
    }

    pub fn branch(children: Children) -> Arc<Self> {
        let count = children.iter().flatten().map(|child| child.len()).sum();
        Self::of(Body::Branch { children, count })
    }

    fn of(body: Body) -> Arc<Self> {
        Arc::new(Self { body, sets: Sets::default(), hash: OnceLock::new() })
    }

    /// `entries` are sorted by key and distinct.
    pub fn from_entries(entries: Vec<Entry>, level: u32) -> Option<Arc<Self>> {
        if entries.len() <= LEAF_ENTRIES_MAX {
            return (!entries.is_empty()).then(|| Self::leaf(entries));
        }
        let mut parts: [Vec<Entry>; WAYS] = Default::default();
        for entry in entries {
            parts[way(entry.0, level)].push(entry);
        }
        Some(Self::branch(parts.map(|part| Self::from_entries(part, level + 1))))
    }

    pub fn len(&self) -> usize {
        match &self.body {
            Body::Leaf(entries) => entries.len(),
            Body::Branch { count, .. } => *count,
        }
    }

    pub fn hash(&self) -> NodeHash {
        *self.hash.get_or_init(|| codec::hash(&codec::encode(self)))
    }

    /// Spares the computation where the hash is known from the store.
    pub fn with_hash(self: Arc<Self>, hash: NodeHash) -> Arc<Self> {
        self.hash.get_or_init(|| hash);
        self
    }

    pub fn get(&self, key: StateKeyNid, level: u32) -> Option<EventNid> {
        match &self.body {
            Body::Leaf(entries) => find(entries, key).ok().map(|at| entries[at].1),
            Body::Branch { children, .. } => children[way(key, level)].as_ref()?.get(key, level + 1),
        }
    }

    pub fn insert(&self, key: StateKeyNid, event: EventNid, level: u32) -> Arc<Self> {
        match &self.body {
            Body::Leaf(entries) => insert_in_leaf(entries, key, event, level),
            Body::Branch { children, .. } => {
                let mut children = children.clone();
                let slot = &mut children[way(key, level)];
                *slot = Some(match slot {
                    Some(child) => child.insert(key, event, level + 1),
                    None => Self::leaf(vec![(key, event)]),
                });
                Self::branch(children)
            }
        }
    }

    /// `None` if nothing is left.
    pub fn remove(&self, key: StateKeyNid, level: u32) -> Option<Arc<Self>> {
        match &self.body {
            Body::Leaf(entries) => {
                let left: Vec<_> = entries.iter().copied().filter(|entry| entry.0 != key).collect();
                (!left.is_empty()).then(|| Self::leaf(left))
            }
            Body::Branch { children, .. } => {
                let mut children = children.clone();
                let slot = &mut children[way(key, level)];
                *slot = slot.as_ref().and_then(|child| child.remove(key, level + 1));
                let branch = Self::branch(children);
                Some(if branch.len() > LEAF_ENTRIES_MAX { branch } else { branch.collapsed() })
            }
        }
    }

    fn collapsed(&self) -> Arc<Self> {
        let mut entries: Vec<_> = Entries::new(Some(self)).collect();
        entries.sort_unstable();
        Self::leaf(entries)
    }
}

fn find(entries: &[Entry], key: StateKeyNid) -> Result<usize, usize> {
    entries.binary_search_by_key(&key, |entry| entry.0)
}

fn insert_in_leaf(entries: &[Entry], key: StateKeyNid, event: EventNid, level: u32) -> Arc<Node> {
    let mut entries = entries.to_vec();
    match find(&entries, key) {
        Ok(at) => entries[at].1 = event,
        Err(at) => entries.insert(at, (key, event)),
    }
    if entries.len() <= LEAF_ENTRIES_MAX {
        return Node::leaf(entries);
    }
    let mut parts: [Vec<Entry>; WAYS] = Default::default();
    for entry in entries {
        parts[way(entry.0, level)].push(entry);
    }
    Node::branch(parts.map(|part| Node::from_entries(part, level + 1)))
}

/// The entries below a node, depth first.
pub struct Entries<'a> {
    pending: Vec<&'a Node>,
    leaf: std::slice::Iter<'a, Entry>,
}

impl<'a> Entries<'a> {
    pub fn new(root: Option<&'a Node>) -> Self {
        Self { pending: root.into_iter().collect(), leaf: [].iter() }
    }
}

impl Iterator for Entries<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        loop {
            if let Some(entry) = self.leaf.next() {
                return Some(*entry);
            }
            match &self.pending.pop()?.body {
                Body::Leaf(entries) => self.leaf = entries.iter(),
                Body::Branch { children, .. } => {
                    self.pending.extend(children.iter().rev().flatten().map(|child| &**child));
                }
            }
        }
    }
}
