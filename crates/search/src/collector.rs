//! The best hits below a mark, and how many there are in all. In a strict order, so that it does not matter how the index is
//! cut into segments.

use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc};

use tantivy::{
    DocId, Score, SegmentOrdinal, SegmentReader,
    collector::{Collector, SegmentCollector},
    columnar::ColumnValues,
};

use crate::schema::{AT, EVENT, ROOM, USER};

/// A document that was found. Greater is better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hit {
    /// By what hits are ordered: a time, or the bits of a score.
    pub key: u64,
    pub event: u64,
    pub room: u64,
    pub user: u64,
}

#[derive(Clone, Copy, Debug)]
pub struct Best {
    pub by_score: bool,
    /// Hits that are less than this only.
    pub below: Option<Hit>,
    pub keep: usize,
}

#[derive(Debug, Default)]
pub struct Found {
    /// Best first.
    pub hits: Vec<Hit>,
    /// Whether there are more below the mark than were kept.
    pub more: bool,
    /// Above the mark as well.
    pub matches: u64,
}

pub struct InSegment {
    best: Best,
    columns: Columns,
    heap: BinaryHeap<Reverse<Hit>>,
    below_mark: u64,
    matches: u64,
}

struct Columns {
    at: Arc<dyn ColumnValues<u64>>,
    event: Arc<dyn ColumnValues<u64>>,
    room: Arc<dyn ColumnValues<u64>>,
    user: Arc<dyn ColumnValues<u64>>,
}

impl Collector for Best {
    type Fruit = Found;
    type Child = InSegment;

    fn for_segment(&self, _: SegmentOrdinal, segment: &SegmentReader) -> tantivy::Result<InSegment> {
        let column = |name: &str| segment.fast_fields().column_first_or_default::<u64>(name);
        let columns =
            Columns { at: column(AT)?, event: column(EVENT)?, room: column(ROOM)?, user: column(USER)? };
        Ok(InSegment { best: *self, columns, heap: BinaryHeap::new(), below_mark: 0, matches: 0 })
    }

    fn requires_scoring(&self) -> bool {
        self.by_score
    }

    fn merge_fruits(&self, fruits: Vec<(Vec<Hit>, u64, u64)>) -> tantivy::Result<Found> {
        let mut found = Found::default();
        let mut below_mark = 0;
        for (hits, below, matches) in fruits {
            found.hits.extend(hits);
            below_mark += below;
            found.matches += matches;
        }
        found.hits.sort_unstable_by(|a, b| b.cmp(a));
        found.hits.truncate(self.keep);
        found.more = below_mark > found.hits.len() as u64;
        Ok(found)
    }
}

impl SegmentCollector for InSegment {
    type Fruit = (Vec<Hit>, u64, u64);

    fn collect(&mut self, doc: DocId, score: Score) {
        self.matches += 1;
        let key = match self.best.by_score {
            // Scores are positive: their bits are in their order.
            true => u64::from(score.max(0.0).to_bits()),
            false => self.columns.at.get_val(doc),
        };
        let full = self.heap.len() >= self.best.keep;
        if full && self.heap.peek().is_some_and(|Reverse(least)| key < least.key) {
            let below = self.best.below.is_none_or(|mark| key <= mark.key);
            self.below_mark += u64::from(below);
            return;
        }
        let columns = &self.columns;
        let (event, room, user) =
            (columns.event.get_val(doc), columns.room.get_val(doc), columns.user.get_val(doc));
        let hit = Hit { key, event, room, user };
        // A mark names no room and no user: an event is in one room, and has one sender.
        if self.best.below.is_some_and(|mark| (hit.key, hit.event) >= (mark.key, mark.event)) {
            return;
        }
        self.below_mark += 1;
        self.heap.push(Reverse(hit));
        if full {
            self.heap.pop();
        }
    }

    fn harvest(self) -> Self::Fruit {
        (self.heap.into_iter().map(|Reverse(hit)| hit).collect(), self.below_mark, self.matches)
    }
}
