//! Numeric ids, unique under concurrency and across processes: blocks are leased from a counter row by
//! compare-and-swap and handed out from memory.

use parking_lot::Mutex;

use crate::{
    Batch, CommitError, Error, Store,
    tables::{Counter, NID_COUNTERS},
};

/// Which sequence an id comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum NidKind {
    User = 1,
    Room = 2,
    Event = 3,
    StateKey = 4,
    /// Filters, reports and other small things.
    Misc = 5,
}

const KINDS: usize = 6;
/// Ids leased at a time: a crash loses at most this many numbers per kind.
const BLOCK: u64 = 4096;

pub struct NidAllocator {
    store: Store,
    free: Mutex<[std::ops::Range<u64>; KINDS]>,
}

impl NidAllocator {
    pub fn new(store: Store) -> Self {
        Self { store, free: Mutex::new(std::array::from_fn(|_| 0..0)) }
    }

    pub async fn allocate(&self, kind: NidKind) -> Result<u64, Error> {
        loop {
            if let Some(nid) = self.free.lock()[kind as usize].next() {
                return Ok(nid);
            }
            self.lease(kind).await?;
        }
    }

    /// Takes the next block; what a racing task leased meanwhile is used up first.
    async fn lease(&self, kind: NidKind) -> Result<(), Error> {
        let key = kind as u8;
        let loaded = self.store.get(&NID_COUNTERS, &key).await?;
        let start = loaded.as_ref().map_or(1, |c| c.next);
        let mut batch = Batch::new();
        batch.require_unchanged(&NID_COUNTERS, &key, loaded.as_ref());
        batch.put(&NID_COUNTERS, &key, &Counter { next: start + BLOCK });
        match self.store.commit(batch).await {
            Ok(_) => {
                let mut free = self.free.lock();
                if free[kind as usize].is_empty() {
                    free[kind as usize] = start..start + BLOCK;
                }
                Ok(())
            }
            Err(CommitError::Conflict { .. }) => Ok(()),
            Err(CommitError::Store(error)) => Err(error),
        }
    }
}
