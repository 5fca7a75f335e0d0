//! URIs that are created before their content (MSC2246, Client-Server API `POST /_matrix/media/v1/create`).

use myelin_core::UserNid;
use myelin_store::{
    Batch, CommitError,
    tables::{MEDIA, MediaRecord, PENDING_MEDIA},
};

use crate::{Error, Media, Mxc, catalog::ATTEMPTS_MAX, quota};

/// A URI whose content is to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    pub mxc: Mxc,
    pub expires_ms: u64,
}

impl Media {
    pub async fn create(&self, user: UserNid) -> Result<Created, Error> {
        let _in_turn = self.users.lock(user).await;
        for _ in 0..ATTEMPTS_MAX {
            let now_ms = self.view.env.now_ms();
            let created = Created { mxc: self.new_mxc(), expires_ms: now_ms + self.unused_expires_ms() };
            let mut batch = Batch::new();
            quota::count_pending(&self.view.store, &self.config, &mut batch, user, now_ms).await?;
            let record = MediaRecord {
                uploader: Some(user),
                created_ms: now_ms,
                content: None,
                expires_ms: Some(created.expires_ms),
                quarantined: false,
            };
            batch.require_absent(&MEDIA, &created.mxc.key());
            batch.put(&MEDIA, &created.mxc.key(), &record);
            batch.put(&PENDING_MEDIA, &(user, created.expires_ms, created.mxc.id().to_owned()), &());
            match self.view.store.commit(batch).await {
                Ok(_) => return Ok(created),
                Err(CommitError::Conflict { .. }) => {}
                Err(CommitError::Store(error)) => return Err(error.into()),
            }
        }
        Err(Error::Contended)
    }

    /// The row of a URI that `user` created and that still waits for its content.
    pub(crate) async fn created_by(&self, user: UserNid, mxc: &Mxc) -> Result<MediaRecord, Error> {
        let record = self.catalog.media(mxc).await?.filter(|_| mxc.server() == self.view.server_name);
        let record = record.ok_or(Error::NotFound)?;
        if record.uploader != Some(user) {
            return Err(Error::Forbidden("Somebody else created this URI."));
        }
        if record.content.is_some() {
            return Err(Error::CannotOverwrite);
        }
        if is_expired(&record, self.view.env.now_ms()) {
            return Err(Error::NotFound);
        }
        Ok(record)
    }

    fn unused_expires_ms(&self) -> u64 {
        u64::try_from(self.config.unused_expires_after.as_millis()).unwrap_or(u64::MAX / 4)
    }
}

/// Whether the content can no longer come.
pub(crate) fn is_expired(record: &MediaRecord, now_ms: u64) -> bool {
    record.content.is_none() && record.expires_ms.is_none_or(|expires_ms| expires_ms <= now_ms)
}
