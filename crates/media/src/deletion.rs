//! Deleting what a user stored.

use myelin_core::UserNid;
use myelin_store::{
    Direction,
    tables::{MediaRecord, USER_MEDIA},
};

use crate::{Error, Media, Mxc};

const PAGE: usize = 500;

/// What is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    pub media: u64,
    /// Their sizes; less is free if others had the same bytes.
    pub bytes: u64,
}

impl Deleted {
    pub(crate) fn count(&mut self, record: &MediaRecord) {
        self.media += 1;
        self.bytes += record.content.as_ref().map_or(0, |content| content.size);
    }
}

impl Media {
    /// Deletes media of any server; `false` if it is not there.
    pub async fn remove(&self, mxc: &Mxc) -> Result<bool, Error> {
        Ok(self.catalog.remove(&self.objects, mxc).await?.is_some())
    }

    /// Deletes all that a user has uploaded. Whoever uploads meanwhile keeps what came last.
    pub async fn remove_of(&self, user: UserNid) -> Result<Deleted, Error> {
        let mut deleted = Deleted::default();
        loop {
            let rows = self.view.store.scan(&USER_MEDIA, &user, Direction::Forward, PAGE).await?;
            if rows.is_empty() {
                return Ok(deleted);
            }
            for ((_, _, id), ()) in rows {
                let Some(mxc) = Mxc::new(&self.view.server_name, &id) else { continue };
                if let Some(record) = self.catalog.remove(&self.objects, &mxc).await? {
                    deleted.count(&record);
                }
            }
        }
    }
}
