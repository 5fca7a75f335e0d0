//! Walking two trees at once, past everything they share.

use std::sync::Arc;

use myelin_core::{EventNid, StateKeyNid};

use super::{
    Change, NodeHash, codec,
    node::{Body, Entries, Node},
};

pub fn diff(a: Option<&Node>, b: Option<&Node>) -> Vec<Change> {
    let mut changes = Vec::new();
    walk(a, b, &mut changes);
    changes
}

fn walk(a: Option<&Node>, b: Option<&Node>, changes: &mut Vec<Change>) {
    if same(a, b) {
        return;
    }
    match (a.map(|a| &a.body), b.map(|b| &b.body)) {
        (Some(Body::Branch { children: a, .. }), Some(Body::Branch { children: b, .. })) => {
            a.iter().zip(b).for_each(|(a, b)| walk(a.as_deref(), b.as_deref(), changes));
        }
        _ => merge(sorted(a), sorted(b), changes),
    }
}

/// Invariant: equal hashes mean equal contents (128 bits of SHA-256).
fn same(a: Option<&Node>, b: Option<&Node>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => std::ptr::eq(a, b) || a.len() == b.len() && a.hash() == b.hash(),
        (None, None) => true,
        _ => false,
    }
}

fn sorted(node: Option<&Node>) -> Vec<(StateKeyNid, EventNid)> {
    let mut entries: Vec<_> = Entries::new(node).collect();
    entries.sort_unstable();
    entries
}

fn merge(a: Vec<(StateKeyNid, EventNid)>, b: Vec<(StateKeyNid, EventNid)>, changes: &mut Vec<Change>) {
    let (mut a, mut b) = (a.into_iter().peekable(), b.into_iter().peekable());
    loop {
        let key = match (a.peek(), b.peek()) {
            (Some(a), Some(b)) => a.0.min(b.0),
            (Some(one), None) | (None, Some(one)) => one.0,
            (None, None) => return,
        };
        let before = a.next_if(|entry| entry.0 == key).map(|entry| entry.1);
        let after = b.next_if(|entry| entry.0 == key).map(|entry| entry.1);
        if before != after {
            changes.push((key, before, after));
        }
    }
}

pub fn new_nodes<'n>(
    node: Option<&'n Arc<Node>>,
    bases: impl Iterator<Item = &'n Arc<Node>>,
) -> Vec<(NodeHash, Vec<u8>)> {
    let mut nodes = Vec::new();
    let bases: Vec<&Node> = bases.map(|base| &**base).collect();
    collect(node.map(|node| &**node), &bases, &mut nodes);
    nodes
}

fn collect(node: Option<&Node>, bases: &[&Node], nodes: &mut Vec<(NodeHash, Vec<u8>)>) {
    let there = |node: &Node| bases.iter().any(|base| same(Some(node), Some(base)));
    let Some(node) = node.filter(|node| !there(node)) else { return };
    nodes.push((node.hash(), codec::encode(node)));
    let Body::Branch { children, .. } = &node.body else { return };
    for (way, child) in children.iter().enumerate() {
        let below = bases.iter().filter_map(|base| match &base.body {
            Body::Branch { children, .. } => children[way].as_deref(),
            Body::Leaf(_) => None,
        });
        collect(child.as_deref(), &below.collect::<Vec<_>>(), nodes);
    }
}
