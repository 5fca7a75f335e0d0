//! State trees by root. A tree is loaded level by level and shared from then on.

use std::{collections::HashMap, sync::Arc};

use myelin_dag::state_tree::{Need, NodeHash, StateTree};
use myelin_store::{Store, tables::STATE_NODES};
use quick_cache::{Weighter, sync::Cache};

use crate::Error;

/// Weight of all trees kept.
const CACHE_WEIGHT: u64 = 200_000;
/// A tree weighs an eighth of its entries: trees of one room share most of their nodes.
const ENTRIES_PER_WEIGHT: u64 = 8;
const WEIGHT_OF_A_TREE: u64 = 16;
const EXPECTED_TREES: usize = 2_000;

#[derive(Clone)]
struct ByEntries;

impl Weighter<NodeHash, StateTree> for ByEntries {
    fn weight(&self, _: &NodeHash, tree: &StateTree) -> u64 {
        tree.len() as u64 / ENTRIES_PER_WEIGHT + WEIGHT_OF_A_TREE
    }
}

pub struct States {
    store: Store,
    cache: Cache<NodeHash, StateTree, ByEntries>,
}

impl States {
    pub fn new(store: Store) -> Self {
        Self { store, cache: Cache::with_weighter(EXPECTED_TREES, CACHE_WEIGHT, ByEntries) }
    }

    pub async fn load(&self, root: NodeHash) -> Result<StateTree, Error> {
        if let Some(tree) = self.cache.get(&root) {
            return Ok(tree);
        }
        let mut nodes: HashMap<NodeHash, Arc<[u8]>> = HashMap::new();
        loop {
            match StateTree::load(root, |hash| nodes.get(hash).cloned()) {
                Ok(tree) => {
                    self.cache.insert(root, tree.clone());
                    return Ok(tree);
                }
                Err(Need::Nodes(missing)) => self.fetch(&missing, &mut nodes).await?,
                Err(other) => return Err(Error::Damaged(format!("state {root:?}: {other:?}"))),
            }
        }
    }

    /// Keeps a tree that was made here.
    pub fn insert(&self, tree: StateTree) {
        self.cache.insert(tree.root(), tree);
    }

    async fn fetch(
        &self,
        missing: &[NodeHash],
        into: &mut HashMap<NodeHash, Arc<[u8]>>,
    ) -> Result<(), Error> {
        let keys: Vec<[u8; 16]> = missing.iter().map(|hash| hash.0).collect();
        for (hash, bytes) in missing.iter().zip(self.store.multi_get(&STATE_NODES, &keys).await?) {
            let bytes = bytes.ok_or_else(|| Error::Damaged(format!("state node {hash:?} is missing")))?;
            into.insert(*hash, bytes.into());
        }
        Ok(())
    }
}
