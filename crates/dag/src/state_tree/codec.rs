//! Nodes as bytes.
//!
//! Version 1. The first byte is the version, the second the kind.
//! Leaf: the number of entries, then per entry in key order the distance from the key before (from 0 for the first)
//! and the event. Branch: a byte with one bit per child that is there, then per child its hash (16 bytes) and the
//! number of entries below it. Numbers are LEB128.

use myelin_core::{EventNid, StateKeyNid};
use sha2::{Digest, Sha256};

use super::{
    LEAF_ENTRIES_MAX, NodeHash,
    node::{Body, Entry, Node, WAYS},
};

const VERSION: u8 = 1;
const LEAF: u8 = 0;
const BRANCH: u8 = 1;

/// A node as read, its children not yet.
pub enum Raw {
    Leaf(Vec<Entry>),
    Branch(Vec<ChildRef>),
}

pub struct ChildRef {
    pub way: usize,
    pub hash: NodeHash,
    pub count: u64,
}

pub fn hash(bytes: &[u8]) -> NodeHash {
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    let mut hash = [0; 16];
    hash.copy_from_slice(&digest[..16]);
    NodeHash(hash)
}

pub fn encode(node: &Node) -> Vec<u8> {
    let mut out = Vec::with_capacity(192);
    out.push(VERSION);
    match &node.body {
        Body::Leaf(entries) => encode_leaf(&mut out, entries),
        Body::Branch { children, .. } => {
            out.push(BRANCH);
            let bit = |(way, child): (usize, &Option<_>)| u8::from(child.is_some()) << way;
            out.push(children.iter().enumerate().map(bit).sum());
            for child in children.iter().flatten() {
                out.extend_from_slice(&child.hash().0);
                push_number(&mut out, child.len() as u64);
            }
        }
    }
    out
}

fn encode_leaf(out: &mut Vec<u8>, entries: &[Entry]) {
    out.push(LEAF);
    push_number(out, entries.len() as u64);
    let mut before = 0;
    for (key, event) in entries {
        push_number(out, key.0 - before);
        push_number(out, event.0);
        before = key.0;
    }
}

/// `None` if the bytes are no node.
pub fn decode(bytes: &[u8]) -> Option<Raw> {
    let (head, mut rest) = bytes.split_at_checked(2)?;
    let raw = match head {
        [VERSION, LEAF] => Raw::Leaf(decode_leaf(&mut rest)?),
        [VERSION, BRANCH] => Raw::Branch(decode_branch(&mut rest)?),
        _ => return None,
    };
    rest.is_empty().then_some(raw)
}

pub fn children(bytes: &[u8]) -> Option<Vec<NodeHash>> {
    match decode(bytes)? {
        Raw::Leaf(_) => Some(Vec::new()),
        Raw::Branch(children) => Some(children.into_iter().map(|child| child.hash).collect()),
    }
}

fn decode_leaf(rest: &mut &[u8]) -> Option<Vec<Entry>> {
    let count = usize::try_from(take_number(rest)?).ok().filter(|n| (1..=LEAF_ENTRIES_MAX).contains(n))?;
    let mut entries = Vec::with_capacity(count);
    let mut key = 0_u64;
    for index in 0..count {
        let distance = take_number(rest)?;
        if index > 0 && distance == 0 {
            return None;
        }
        key = key.checked_add(distance)?;
        entries.push((StateKeyNid(key), EventNid(take_number(rest)?)));
    }
    Some(entries)
}

fn decode_branch(rest: &mut &[u8]) -> Option<Vec<ChildRef>> {
    let (&present, tail) = rest.split_first()?;
    *rest = tail;
    let ways = (0..WAYS).filter(|way| present & (1 << way) != 0);
    ways.map(|way| {
        let (hash, tail) = rest.split_first_chunk::<16>()?;
        *rest = tail;
        Some(ChildRef { way, hash: NodeHash(*hash), count: take_number(rest)? })
    })
    .collect()
}

fn push_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = rest.split_first()?;
        *rest = tail;
        let part = u64::from(byte & 0x7f);
        number |= part.checked_shl(shift).filter(|shifted| shifted >> shift == part)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}
