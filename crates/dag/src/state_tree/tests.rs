use std::{
    cell::Cell,
    collections::{BTreeMap, HashMap},
};

use proptest::prelude::*;

use super::*;

fn key(n: u64) -> StateKeyNid {
    StateKeyNid(n)
}

fn event(n: u64) -> EventNid {
    EventNid(n)
}

fn tree_of(size: u64) -> StateTree {
    (1..=size).map(|n| (key(n), event(n * 3))).collect()
}

fn sorted(tree: &StateTree) -> Vec<(StateKeyNid, EventNid)> {
    let mut entries: Vec<_> = tree.iter().collect();
    entries.sort_unstable();
    entries
}

fn stored(tree: &StateTree) -> HashMap<NodeHash, Vec<u8>> {
    tree.new_nodes_since(&StateTree::new()).into_iter().collect()
}

#[test]
fn the_empty_tree_has_the_zero_root() {
    let empty = StateTree::new();
    assert_eq!((empty.root(), empty.len(), empty.is_empty()), (NodeHash([0; 16]), 0, true));
    assert_eq!(tree_of(1).remove(key(1)).root(), NodeHash::EMPTY);
    assert!(empty.new_nodes_since(&tree_of(100)).is_empty());
    assert_eq!(StateTree::load(NodeHash::EMPTY, |_| None::<Vec<u8>>), Ok(empty));
}

/// Changing the node format, the mix or the leaf size changes every root in every store: it needs a migration.
#[test]
fn the_shape_and_the_format_are_frozen() {
    assert_eq!(format!("{:?}", tree_of(3).root()), FROZEN_SMALL);
    assert_eq!(format!("{:?}", tree_of(1000).root()), FROZEN_LARGE);
}
const FROZEN_SMALL: &str = "NodeHash:3ed3e0d0c28ba70a57ea06dee8b2da3c";
const FROZEN_LARGE: &str = "NodeHash:d0d8d6c2adcf0df8dd1663cccaf7ad64";

#[test]
fn loading_asks_for_a_level_at_a_time() {
    let tree = tree_of(3000);
    let store = stored(&tree);
    let mut have: HashMap<NodeHash, Vec<u8>> = HashMap::new();
    let mut rounds = 0;
    let loaded = loop {
        match StateTree::load(tree.root(), |hash| have.get(hash)) {
            Ok(loaded) => break loaded,
            Err(Need::Nodes(hashes)) => {
                have.extend(hashes.into_iter().map(|hash| (hash, store[&hash].clone())))
            }
            Err(corrupt) => panic!("{corrupt}"),
        }
        rounds += 1;
    };
    assert!(rounds <= 5, "{rounds} rounds");
    assert_eq!((sorted(&loaded), loaded.root(), loaded.len()), (sorted(&tree), tree.root(), 3000));
}

#[test]
fn corrupt_nodes_are_noticed() {
    let tree = tree_of(200);
    let store = stored(&tree);
    for hash in store.keys() {
        for damage in [
            |bytes: &mut Vec<u8>| bytes[0] ^= 1,
            |bytes: &mut Vec<u8>| bytes.truncate(3),
            |bytes: &mut Vec<u8>| bytes.push(0),
        ] {
            let mut damaged = store.clone();
            damage(damaged.get_mut(hash).unwrap());
            assert_eq!(StateTree::load(tree.root(), |hash| damaged.get(hash)), Err(Need::Corrupt(*hash)));
        }
    }
}

/// A node that is well-formed in itself but does not fit the tree.
#[test]
fn branches_that_lie_about_their_children_are_noticed() {
    let tree = tree_of(100);
    let mut bytes = stored(&tree)[&tree.root()].clone();
    *bytes.last_mut().unwrap() += 1;
    let mut store = stored(&tree);
    let root = NodeHash::of(&bytes);
    store.insert(root, bytes);
    assert_eq!(StateTree::load(root, |hash| store.get(hash)), Err(Need::Corrupt(root)));
}

#[test]
fn children_are_the_edges_of_the_stored_graph() {
    let tree = tree_of(500);
    let store = stored(&tree);
    let mut reached = vec![tree.root()];
    let mut seen = 0;
    while let Some(hash) = reached.pop() {
        seen += 1;
        reached.extend(NodeHash::children_of(&store[&hash]).unwrap());
    }
    assert_eq!(seen, store.len());
    assert_eq!(NodeHash::children_of(b"no node"), None);
}

#[test]
fn one_change_writes_few_small_nodes() {
    for (size, nodes_max, bytes_max) in [(10, 1, 200), (2_000, 4, 800), (10_000, 5, 900)] {
        let tree = tree_of(size);
        let (mut worst_nodes, mut total_bytes) = (0, 0);
        for n in 1..=size.min(500) {
            let new = tree.insert(key(n), event(1_000_000 + n)).new_nodes_since(&tree);
            worst_nodes = worst_nodes.max(new.len());
            total_bytes += new.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        }
        let mean_bytes = total_bytes / size.min(500) as usize;
        println!("{size} keys: at most {worst_nodes} nodes, {mean_bytes} bytes on average");
        assert!(
            worst_nodes <= nodes_max && mean_bytes <= bytes_max,
            "{worst_nodes} nodes, {mean_bytes} bytes"
        );
    }
}

#[test]
fn unchanged_entries_change_nothing() {
    let tree = tree_of(100);
    assert!(tree.insert(key(5), event(15)).new_nodes_since(&tree).is_empty());
    assert!(tree.remove(key(5000)).new_nodes_since(&tree).is_empty());
    assert_eq!(tree.diff(&tree.clone()), []);
}

#[derive(Debug, Clone)]
enum Op {
    Insert(u64, u64),
    Remove(u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        3 => (1_u64..150, 1_u64..20).prop_map(|(k, v)| Op::Insert(k, v)),
        1 => (any::<u64>(), any::<u64>()).prop_map(|(k, v)| Op::Insert(k, v)),
        3 => (1_u64..150).prop_map(Op::Remove),
    ];
    prop::collection::vec(op, 0..250)
}

fn apply(ops: &[Op], tree: StateTree, map: &mut BTreeMap<StateKeyNid, EventNid>) -> StateTree {
    ops.iter().fold(tree, |tree, op| match *op {
        Op::Insert(k, v) => {
            map.insert(key(k), event(v));
            tree.insert(key(k), event(v))
        }
        Op::Remove(k) => {
            map.remove(&key(k));
            tree.remove(key(k))
        }
    })
}

proptest! {
    #[test]
    fn behaves_as_a_map_and_has_one_shape_per_content(ops in ops()) {
        let mut map = BTreeMap::new();
        let tree = apply(&ops, StateTree::new(), &mut map);
        prop_assert_eq!(sorted(&tree), map.clone().into_iter().collect::<Vec<_>>());
        prop_assert_eq!(tree.len(), map.len());
        for k in 0..151 {
            prop_assert_eq!(tree.get(key(k)), map.get(&key(k)).copied());
        }
        let rebuilt: StateTree = map.iter().rev().map(|(k, v)| (*k, *v)).collect();
        let reinserted = map.iter().rev().fold(StateTree::new(), |tree, (k, v)| tree.insert(*k, *v));
        prop_assert_eq!(tree.root(), rebuilt.root());
        prop_assert_eq!(tree.root(), reinserted.root());
    }

    #[test]
    fn diff_is_the_difference_and_new_nodes_complete_the_base(first in ops(), second in ops()) {
        let mut map = BTreeMap::new();
        let before = apply(&first, StateTree::new(), &mut map);
        let old = map.clone();
        let after = apply(&second, before.clone(), &mut map);
        let keys: std::collections::BTreeSet<_> = old.keys().chain(map.keys()).copied().collect();
        let expected: Vec<_> = keys.into_iter()
            .map(|k| (k, old.get(&k).copied(), map.get(&k).copied()))
            .filter(|(_, before, after)| before != after)
            .collect();
        let mut diff = before.diff(&after);
        diff.sort_unstable();
        prop_assert_eq!(diff, expected);

        let mut store = stored(&before);
        store.extend(after.new_nodes_since(&before));
        let loaded = StateTree::load(after.root(), |hash| store.get(hash)).unwrap();
        prop_assert_eq!(sorted(&loaded), map.into_iter().collect::<Vec<_>>());
    }

    /// The path to one leaf; eight more where a leaf becomes a branch.
    #[test]
    fn one_change_writes_a_number_of_nodes_logarithmic_in_the_size(size in 1_u64..6_000, k in any::<u64>()) {
        let tree = tree_of(size);
        let levels = 2 + (size as f64).log(8.0).ceil() as usize;
        for k in [k, 1 + k % size] {
            let new = tree.insert(key(k), event(u64::MAX)).new_nodes_since(&tree).len();
            prop_assert!(new <= levels + 8, "{} nodes for {} keys", new, size);
            prop_assert!(tree.remove(key(k)).new_nodes_since(&tree).len() <= levels);
        }
    }

    #[test]
    fn bytes_from_anywhere_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80), kind in 0_u8..2) {
        let bytes = [vec![1, kind], bytes].concat();
        let asked = Cell::new(0);
        let result = StateTree::load(NodeHash::of(&bytes), |_| {
            asked.set(asked.get() + 1);
            (asked.get() < 50).then_some(&bytes)
        });
        drop(result);
        drop(NodeHash::children_of(&bytes));
    }
}
