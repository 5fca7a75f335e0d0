//! What is to be checked after what: auth events before those that they authorise.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ruma::{EventId, OwnedEventId};

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ordered {
    pub order: Vec<OwnedEventId>,
    /// Wanted, but neither in the graph nor known.
    pub missing: Vec<OwnedEventId>,
    /// In the graph, but dependent on what is missing or on themselves.
    pub left_out: Vec<OwnedEventId>,
}

/// `graph`: each event with those that it depends on.
pub fn in_order(
    graph: &HashMap<OwnedEventId, Vec<OwnedEventId>>,
    is_known: impl Fn(&EventId) -> bool,
) -> Ordered {
    let mut waiting: HashMap<&EventId, usize> = HashMap::with_capacity(graph.len());
    let mut dependents: HashMap<&EventId, Vec<&OwnedEventId>> = HashMap::new();
    let mut missing = BTreeSet::new();
    // In order, so that the outcome is the same each time.
    let sorted: BTreeMap<_, _> = graph.iter().collect();
    for (id, wanted) in sorted {
        let wanted: BTreeSet<_> = wanted.iter().filter(|id| !is_known(id)).collect();
        waiting.insert(id, wanted.len());
        for other in wanted {
            if !graph.contains_key(other) {
                missing.insert(other.clone());
            }
            dependents.entry(other).or_default().push(id);
        }
    }
    let mut ready: Vec<&OwnedEventId> = graph.keys().filter(|id| waiting[&***id] == 0).collect();
    ready.sort_unstable();
    let mut order = Vec::with_capacity(graph.len());
    while let Some(id) = ready.pop() {
        waiting.remove(&**id);
        order.push(id.clone());
        for dependent in dependents.remove(&**id).unwrap_or_default() {
            let Some(left) = waiting.get_mut(&**dependent) else { continue };
            *left -= 1;
            if *left == 0 {
                ready.push(dependent);
            }
        }
    }
    let left_out = waiting.into_keys().map(ToOwned::to_owned).collect::<BTreeSet<_>>();
    Ordered { order, missing: missing.into_iter().collect(), left_out: left_out.into_iter().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> OwnedEventId {
        format!("${name}").try_into().expect("an event id")
    }

    fn ordered(graph: &[(&str, &[&str])], known: &str) -> Ordered {
        let graph = graph.iter().map(|(of, on)| (id(of), on.iter().map(|on| id(on)).collect())).collect();
        in_order(&graph, |id| id.as_str().trim_start_matches('$') == known)
    }

    #[test]
    fn what_others_depend_on_comes_first() {
        let ordered = ordered(&[("c", &["a", "b"]), ("b", &["a"]), ("a", &["k"])], "k");
        assert_eq!(ordered.order, [id("a"), id("b"), id("c")]);
        assert!(ordered.missing.is_empty() && ordered.left_out.is_empty());
    }

    /// Runs of the simulator repeat themselves.
    #[test]
    fn what_can_come_at_the_same_time_has_an_order_of_its_own() {
        let ordered = ordered(&[("b", &["a"]), ("d", &["a"]), ("c", &["a"]), ("e", &["a"]), ("a", &[])], "k");
        assert_eq!(ordered.order, [id("a"), id("e"), id("d"), id("c"), id("b")]);
    }

    #[test]
    fn what_depends_on_the_missing_is_left_out() {
        let ordered = ordered(&[("a", &[]), ("b", &["a", "x"]), ("c", &["b"])], "k");
        assert_eq!(ordered.order, [id("a")]);
        assert_eq!((ordered.missing, ordered.left_out), (vec![id("x")], vec![id("b"), id("c")]));
    }

    #[test]
    fn circles_are_left_out() {
        let ordered = ordered(&[("a", &["b"]), ("b", &["a"]), ("c", &["c"])], "k");
        assert_eq!(ordered.left_out, [id("a"), id("b"), id("c")]);
        assert!(ordered.order.is_empty() && ordered.missing.is_empty());
    }
}
