//! Resolutions that have been made, for who asks for the same one again and for who asks for one that differs by what
//! has happened since in one branch of a fork.
//!
//! The states determine the outcome, and they are known by their roots: what a draft made that never became durable does
//! no harm here. Only a change of mind about whether an event is rejected makes others of them ([`Resolutions::forget`]):
//! until it is durable or withdrawn, its room is resolved without what is here.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use myelin_core::RoomNid;
use myelin_dag::{StateTree, resolve::Resolution, state_tree::NodeHash};
use quick_cache::{Weighter, sync::Cache};

/// Outcomes that are kept. In a room with a fork every message asks for the same one until somebody merges.
const OUTCOMES_MAX: usize = 128;
/// Sum of the events in dispute of the resolutions that can be gone on from, plus a constant each. Those of one fork
/// share most of them.
const EVENTS_MAX: u64 = 100_000;
/// So few that the cache is one piece, into which a large one fits.
const EXPECTED_FORKS: usize = 32;
const WEIGHT_OF_A_FORK: u64 = 64;

type Roots = Vec<NodeHash>;

/// Where a resolution is found that can be gone on from.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Place {
    /// By the roots of all states but one.
    AllButOne(Roots),
    /// The last one of a room: where events come in and are made here in turns, two states change at once.
    Last(RoomNid),
}

pub struct Resolutions {
    outcomes: Cache<Roots, StateTree>,
    forks: Cache<Place, Arc<Resolution>, ByEvents>,
    /// Counts how often all were forgotten.
    generation: AtomicU64,
}

#[derive(Clone)]
struct ByEvents;

impl Weighter<Place, Arc<Resolution>> for ByEvents {
    fn weight(&self, _: &Place, resolution: &Arc<Resolution>) -> u64 {
        resolution.weight().unwrap_or(0) + WEIGHT_OF_A_FORK
    }
}

impl Default for Resolutions {
    fn default() -> Self {
        Self {
            outcomes: Cache::new(OUTCOMES_MAX),
            forks: Cache::with_weighter(EXPECTED_FORKS, EVENTS_MAX, ByEvents),
            generation: AtomicU64::new(0),
        }
    }
}

impl Resolutions {
    /// `roots`, here and below, are sorted.
    pub fn outcome(&self, roots: &Roots) -> Option<StateTree> {
        self.outcomes.get(roots)
    }

    /// One from states of which most were these, if there is one.
    pub fn nearby(&self, room: RoomNid, roots: &Roots) -> Option<Arc<Resolution>> {
        let nearest = (0..roots.len()).find_map(|at| self.forks.get(&without(roots, at)));
        nearest.or_else(|| self.forks.get(&Place::Last(room)))
    }

    /// To be looked at before anything that a resolution is made of.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// `since`: the generation when the resolution was begun.
    pub fn keep(&self, room: RoomNid, roots: Roots, resolution: Resolution, since: u64) {
        if since != self.generation() {
            return;
        }
        self.outcomes.insert(roots.clone(), resolution.state.clone());
        if resolution.weight().is_none() {
            return;
        }
        let resolution = Arc::new(resolution);
        for at in 0..roots.len() {
            self.forks.insert(without(&roots, at), resolution.clone());
        }
        self.forks.insert(Place::Last(room), resolution);
        if since != self.generation() {
            self.clear();
        }
    }

    /// An event that counted is rejected now, or was to be.
    pub fn forget(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.clear();
    }

    fn clear(&self) {
        self.outcomes.clear();
        self.forks.clear();
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.outcomes.len()
    }
}

fn without(roots: &Roots, at: usize) -> Place {
    let mut rest = roots.clone();
    rest.remove(at);
    Place::AllButOne(rest)
}
