//! When media was last asked for, by the day. Reading writes nothing: what was read is noted in memory, and once a minute
//! the rows of those that have another day are written.

use std::collections::HashMap;

use myelin_core::Env;
use myelin_store::{
    Batch, Store,
    tables::{MEDIA_ACCESS, MEDIA_BY_ACCESS, MediaAccessRecord},
};
use parking_lot::Mutex;

use crate::{Error, Mxc};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// Accesses held in memory: of one day, those written already included. Beyond that some are noted twice or not at all.
const NOTED_MAX: usize = 100_000;
/// Rows of one commit.
const BATCH_MAX: usize = 1000;

pub(crate) fn day(now_ms: u64) -> u64 {
    now_ms / DAY_MS
}

/// Accesses of this process.
pub(crate) struct Accesses {
    store: Store,
    env: Env,
    noted: Mutex<Noted>,
}

#[derive(Default)]
struct Noted {
    day: u64,
    /// Asked for on that day; `true` once the row says so.
    media: HashMap<Mxc, bool>,
}

impl Accesses {
    pub fn new(store: Store, env: Env) -> Self {
        Self { store, env, noted: Mutex::default() }
    }

    pub fn note(&self, mxc: &Mxc) {
        let today = day(self.env.now_ms());
        let mut noted = self.noted.lock();
        if noted.day != today {
            *noted = Noted { day: today, media: HashMap::new() };
        }
        if noted.media.len() >= NOTED_MAX {
            noted.media.retain(|_, written| !*written);
        }
        if noted.media.len() < NOTED_MAX && !noted.media.contains_key(mxc) {
            noted.media.insert(mxc.clone(), false);
        }
    }

    /// Writes what is noted and not written.
    pub async fn write(&self) -> Result<(), Error> {
        let (today, mut waiting) = self.waiting();
        while !waiting.is_empty() {
            let some = waiting.split_off(waiting.len().saturating_sub(BATCH_MAX));
            let mut batch = Batch::new();
            for mxc in &some {
                touch(&self.store, &mut batch, mxc, today).await?;
            }
            if !batch.is_empty() {
                // Blind: whoever deletes the media meanwhile deletes a row of access by its day, and the sweep finds the rest.
                self.store.commit(batch).await.map_err(|error| match error {
                    myelin_store::CommitError::Conflict { .. } => Error::Contended,
                    myelin_store::CommitError::Store(error) => error.into(),
                })?;
            }
            let mut noted = self.noted.lock();
            if noted.day == today {
                for mxc in some {
                    noted.media.insert(mxc, true);
                }
            }
        }
        Ok(())
    }

    fn waiting(&self) -> (u64, Vec<Mxc>) {
        let noted = self.noted.lock();
        let waiting = noted.media.iter().filter(|(_, written)| !**written).map(|(mxc, _)| mxc.clone());
        let mut waiting: Vec<Mxc> = waiting.collect();
        waiting.sort();
        (noted.day, waiting)
    }
}

/// The row of something that is there now.
pub(crate) async fn first(store: &Store, batch: &mut Batch, mxc: &Mxc, now_ms: u64) -> Result<(), Error> {
    let (server, id) = mxc.key();
    let today = day(now_ms);
    if let Some(old) = store.get(&MEDIA_ACCESS, &mxc.key()).await? {
        batch.delete(&MEDIA_BY_ACCESS, &(old.day, server.clone(), id.clone()));
    }
    batch.put(&MEDIA_ACCESS, &mxc.key(), &MediaAccessRecord { day: today });
    batch.put(&MEDIA_BY_ACCESS, &(today, server, id), &());
    Ok(())
}

pub(crate) async fn forget(store: &Store, batch: &mut Batch, mxc: &Mxc) -> Result<(), Error> {
    let (server, id) = mxc.key();
    if let Some(old) = store.get(&MEDIA_ACCESS, &mxc.key()).await? {
        batch.delete(&MEDIA_BY_ACCESS, &(old.day, server, id));
        batch.delete(&MEDIA_ACCESS, &mxc.key());
    }
    Ok(())
}

/// Moves a row to `today`; nothing if it is there already, or if there is none.
async fn touch(store: &Store, batch: &mut Batch, mxc: &Mxc, today: u64) -> Result<(), Error> {
    let (server, id) = mxc.key();
    let Some(old) = store.get(&MEDIA_ACCESS, &mxc.key()).await? else { return Ok(()) };
    if old.day >= today {
        return Ok(());
    }
    batch.delete(&MEDIA_BY_ACCESS, &(old.day, server.clone(), id.clone()));
    batch.put(&MEDIA_ACCESS, &mxc.key(), &MediaAccessRecord { day: today });
    batch.put(&MEDIA_BY_ACCESS, &(today, server, id), &());
    Ok(())
}
