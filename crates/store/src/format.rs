//! The format version of a store: stamped into a fresh one, checked in every other.

use std::sync::Arc;

use crate::{
    Batch, CommitError, Error, Store,
    backend::Backend,
    tables::{FORMAT, META, META_FORMAT},
};

impl Store {
    /// The store on `backend`, if this binary can read it. Migrations would run here.
    pub async fn open(backend: Arc<dyn Backend>) -> Result<Self, Error> {
        let store = Self::new(backend);
        loop {
            match store.get(&META, &META_FORMAT.to_owned()).await? {
                Some(stamp) => return check(&stamp).map(|()| store),
                None => stamp_format(&store).await?,
            }
        }
    }
}

async fn stamp_format(store: &Store) -> Result<(), Error> {
    let mut batch = Batch::new();
    batch.require_absent(&META, &META_FORMAT.to_owned());
    batch.put(&META, &META_FORMAT.to_owned(), &FORMAT.to_string().into_bytes());
    match store.commit(batch).await {
        // Another process opened it at the same time: see what it wrote.
        Ok(_) | Err(CommitError::Conflict { .. }) => Ok(()),
        Err(CommitError::Store(error)) => Err(error),
    }
}

/// In the place of the format while [`crate::maintenance::copy`] is at work.
pub(crate) const UNFINISHED_COPY: &[u8] = b"unfinished copy";

fn check(stamp: &[u8]) -> Result<(), Error> {
    let corrupt = |reason: &str| Error::Corrupt { table: META.name, reason: reason.to_owned() };
    if stamp == UNFINISHED_COPY {
        return Err(corrupt("this is a copy that was interrupted; delete it and copy again"));
    }
    let found: Option<u32> = std::str::from_utf8(stamp).ok().and_then(|text| text.parse().ok());
    match found {
        Some(found) if found > FORMAT => Err(Error::NewerFormat { found, known: FORMAT }),
        Some(_) => Ok(()),
        None => Err(corrupt("the format is not a number")),
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::*;
    use crate::memory::{Memory, MemoryDisk};

    fn open_with(stamp: Option<&[u8]>) -> (Result<Store, Error>, MemoryDisk) {
        let disk = MemoryDisk::default();
        if let Some(stamp) = stamp {
            let mut batch = Batch::new();
            batch.put(&META, &META_FORMAT.to_owned(), &stamp.to_vec());
            block_on(Store::new(Arc::new(Memory::open(disk.clone()))).commit(batch)).unwrap();
        }
        (block_on(Store::open(Arc::new(Memory::open(disk.clone())))), disk)
    }

    #[test]
    fn a_fresh_store_is_stamped_and_opens_again() {
        let (store, disk) = open_with(None);
        let stamp = block_on(store.unwrap().get(&META, &META_FORMAT.to_owned())).unwrap();
        assert_eq!(stamp, Some(FORMAT.to_string().into_bytes()));
        assert!(block_on(Store::open(Arc::new(Memory::open(disk)))).is_ok());
    }

    #[test]
    fn a_newer_format_is_refused() {
        let newer = (FORMAT + 1).to_string();
        let refused = open_with(Some(newer.as_bytes())).0.err().unwrap();
        assert!(matches!(refused, Error::NewerFormat { known: FORMAT, .. }));
        assert!(refused.to_string().contains("start the newer version"), "{refused}");
    }

    #[test]
    fn a_damaged_stamp_is_refused() {
        for stamp in [&b""[..], b"one", b"\xff"] {
            let refused = open_with(Some(stamp)).0.err();
            assert!(matches!(refused, Some(Error::Corrupt { table: "meta", .. })), "{refused:?}");
        }
    }
}
