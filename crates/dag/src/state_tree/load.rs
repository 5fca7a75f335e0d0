//! From stored nodes to a tree, level by level.

use std::{collections::HashMap, sync::Arc};

use super::{
    LEAF_ENTRIES_MAX, NodeHash,
    codec::{self, Raw},
    node::{Children, Node},
};

/// Deeper than any key is long: bytes that pretend so are corrupt.
const LEVELS_MAX: usize = 22;

/// What stands between the driver and the tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Need {
    /// These nodes are wanted next; one multi-get will do.
    #[error("{} nodes of the state tree are to be fetched", .0.len())]
    Nodes(Vec<NodeHash>),
    /// The store gave bytes for this hash that are not that node.
    #[error("the state tree node {0:?} is corrupt")]
    Corrupt(NodeHash),
}

pub fn load<B: AsRef<[u8]>>(
    root: NodeHash,
    fetch: impl Fn(&NodeHash) -> Option<B>,
) -> Result<Option<Arc<Node>>, Need> {
    if root == NodeHash::EMPTY {
        return Ok(None);
    }
    let mut levels = Vec::new();
    let mut wanted = vec![root];
    while !wanted.is_empty() {
        let level = read_level(&wanted, &fetch)?;
        wanted = level.iter().flat_map(|(_, raw)| children_of(raw)).collect();
        levels.push(level);
        if levels.len() > LEVELS_MAX {
            return Err(Need::Corrupt(root));
        }
    }
    assemble(levels).map(|mut nodes| nodes.remove(&root))
}

type Level = Vec<(NodeHash, Raw)>;

fn read_level<B: AsRef<[u8]>>(
    wanted: &[NodeHash],
    fetch: &impl Fn(&NodeHash) -> Option<B>,
) -> Result<Level, Need> {
    let mut level = Vec::with_capacity(wanted.len());
    let mut missing = Vec::new();
    for hash in wanted {
        match fetch(hash) {
            Some(bytes) => level.push((*hash, read(*hash, bytes.as_ref())?)),
            None => missing.push(*hash),
        }
    }
    if missing.is_empty() { Ok(level) } else { Err(Need::Nodes(missing)) }
}

fn read(hash: NodeHash, bytes: &[u8]) -> Result<Raw, Need> {
    let raw = codec::decode(bytes).filter(|_| codec::hash(bytes) == hash);
    raw.ok_or(Need::Corrupt(hash))
}

fn children_of(raw: &Raw) -> impl Iterator<Item = NodeHash> + '_ {
    let children = match raw {
        Raw::Leaf(_) => [].as_slice(),
        Raw::Branch(children) => children,
    };
    children.iter().map(|child| child.hash)
}

/// Builds the nodes from the lowest level up; gives those of the topmost.
fn assemble(levels: Vec<Level>) -> Result<HashMap<NodeHash, Arc<Node>>, Need> {
    let mut below = HashMap::new();
    for level in levels.into_iter().rev() {
        let nodes = level.into_iter().map(|(hash, raw)| Ok((hash, node(hash, raw, &below)?)));
        below = nodes.collect::<Result<_, _>>()?;
    }
    Ok(below)
}

fn node(hash: NodeHash, raw: Raw, below: &HashMap<NodeHash, Arc<Node>>) -> Result<Arc<Node>, Need> {
    let node = match raw {
        Raw::Leaf(entries) => Node::leaf(entries),
        Raw::Branch(refs) => {
            let mut children = Children::default();
            for child in refs {
                let node = below.get(&child.hash).filter(|node| node.len() as u64 == child.count);
                children[child.way] = Some(node.ok_or(Need::Corrupt(hash))?.clone());
            }
            let branch = Node::branch(children);
            if branch.len() <= LEAF_ENTRIES_MAX {
                return Err(Need::Corrupt(hash));
            }
            branch
        }
    };
    Ok(node.with_hash(hash))
}
