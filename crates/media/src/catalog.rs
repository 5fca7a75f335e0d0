//! The rows of media: which URI has which bytes, and how many have them.

use myelin_core::{Env, UserNid};
use myelin_store::{
    Batch, CommitError, Direction, Store,
    tables::{
        BlobRecord, MEDIA, MEDIA_BLOBS, MEDIA_USAGE, MediaContent, MediaRecord, MediaUsageRecord,
        QUARANTINED_MEDIA, THUMBNAILS, USER_MEDIA,
    },
};

use crate::{Error, Mxc, Objects, Written, access, quota};

/// Attempts at a commit that others are in the way of.
pub(crate) const ATTEMPTS_MAX: usize = 32;
/// Thumbnails of one blob; sizes are snapped, so there are far fewer.
pub(crate) const THUMBNAILS_PER_BLOB_MAX: usize = 1000;

/// What is said of bytes that are stored.
#[derive(Clone, Debug, Default)]
pub struct Description {
    pub content_type: String,
    pub file_name: Option<String>,
}

#[derive(Clone)]
pub(crate) struct Catalog {
    pub(crate) store: Store,
    pub(crate) env: Env,
}

impl Catalog {
    pub fn new(store: Store, env: Env) -> Self {
        Self { store, env }
    }

    pub async fn media(&self, mxc: &Mxc) -> Result<Option<MediaRecord>, Error> {
        Ok(self.store.get(&MEDIA, &mxc.key()).await?)
    }

    pub async fn blob(&self, sha256: &[u8; 32]) -> Result<Option<BlobRecord>, Error> {
        Ok(self.store.get(&MEDIA_BLOBS, sha256).await?)
    }

    /// Lets one more row refer to the written bytes: those that are there already, if any, and else the new object.
    /// Says which object does not stay.
    pub async fn attach(
        &self,
        batch: &mut Batch,
        objects: &Objects,
        written: &Written,
    ) -> Result<Option<String>, Error> {
        let found = self.blob(&written.sha256).await?;
        batch.require_unchanged(&MEDIA_BLOBS, &written.sha256, found.as_ref());
        Objects::claim(batch, written);
        let (record, surplus) = match found {
            Some(blob) => {
                objects.doom(batch, &written.object);
                (BlobRecord { references: blob.references + 1, ..blob }, Some(written.object.clone()))
            }
            None => {
                let (object, size) = (written.object.clone(), written.size);
                (BlobRecord { object, size, references: 1, quarantined: false }, None)
            }
        };
        batch.put(&MEDIA_BLOBS, &written.sha256, &record);
        Ok(surplus)
    }

    /// Lets one row less refer to a blob; without any, it goes, and its thumbnails with it. Says which objects do.
    pub async fn detach(
        &self,
        batch: &mut Batch,
        objects: &Objects,
        sha256: &[u8; 32],
    ) -> Result<Vec<String>, Error> {
        let Some(blob) = self.blob(sha256).await? else { return Ok(Vec::new()) };
        batch.require_equal(&MEDIA_BLOBS, sha256, &blob);
        if blob.references > 1 {
            let record = BlobRecord { references: blob.references - 1, ..blob };
            batch.put(&MEDIA_BLOBS, sha256, &record);
            return Ok(Vec::new());
        }
        batch.delete(&MEDIA_BLOBS, sha256);
        let thumbnails =
            self.store.scan(&THUMBNAILS, sha256, Direction::Forward, THUMBNAILS_PER_BLOB_MAX).await?;
        let mut gone = vec![blob.object];
        for (key, thumbnail) in thumbnails {
            batch.delete(&THUMBNAILS, &key);
            gone.extend(thumbnail.object);
        }
        gone.iter().for_each(|object| objects.doom(batch, object));
        Ok(gone)
    }

    /// Makes `written` the content of `mxc`, in place of what it has; durable when this returns. For media of other
    /// servers, and for what this server stores for itself.
    pub async fn keep(
        &self,
        objects: &Objects,
        mxc: &Mxc,
        written: Written,
        description: &Description,
    ) -> Result<MediaRecord, Error> {
        for _ in 0..ATTEMPTS_MAX {
            let now_ms = self.env.now_ms();
            let old = self.media(mxc).await?;
            let mut batch = Batch::new();
            batch.require_unchanged(&MEDIA, &mxc.key(), old.as_ref());
            let replaced = old.as_ref().and_then(|old| old.content.as_ref()).map(|content| content.blob);
            let mut gone = Vec::new();
            if let Some(replaced) = replaced.filter(|replaced| *replaced != written.sha256) {
                gone = self.detach(&mut batch, objects, &replaced).await?;
            }
            if replaced == Some(written.sha256) {
                // The same bytes once more: the row refers to them already.
                gone.push(written.object.clone());
                Objects::claim(&mut batch, &written);
                objects.doom(&mut batch, &written.object);
            } else {
                gone.extend(self.attach(&mut batch, objects, &written).await?);
            }
            let record = MediaRecord {
                uploader: None,
                created_ms: old.as_ref().map_or(now_ms, |old| old.created_ms),
                content: Some(content(&written, description, now_ms)),
                expires_ms: None,
                quarantined: old.as_ref().is_some_and(|old| old.quarantined),
            };
            batch.put(&MEDIA, &mxc.key(), &record);
            access::first(&self.store, &mut batch, mxc, now_ms).await?;
            match self.store.commit(batch).await {
                Ok(_) => {
                    written.settled();
                    objects.delete_soon(gone);
                    return Ok(record);
                }
                Err(CommitError::Conflict { .. }) => {}
                Err(CommitError::Store(error)) => return Err(error.into()),
            }
        }
        Err(Error::Contended)
    }

    /// Takes a row away with everything that only it needs; `None` if it is not there.
    pub async fn remove(&self, objects: &Objects, mxc: &Mxc) -> Result<Option<MediaRecord>, Error> {
        for _ in 0..ATTEMPTS_MAX {
            let Some(record) = self.media(mxc).await? else { return Ok(None) };
            let mut batch = Batch::new();
            batch.require_equal(&MEDIA, &mxc.key(), &record);
            batch.delete(&MEDIA, &mxc.key());
            batch.delete(&QUARANTINED_MEDIA, &mxc.key());
            access::forget(&self.store, &mut batch, mxc).await?;
            let mut gone = Vec::new();
            if let Some(content) = &record.content {
                gone = self.detach(&mut batch, objects, &content.blob).await?;
            }
            if let Some(uploader) = record.uploader {
                self.take_from_user(&mut batch, uploader, mxc, &record).await?;
            }
            match self.store.commit(batch).await {
                Ok(_) => {
                    objects.delete_soon(gone);
                    return Ok(Some(record));
                }
                Err(CommitError::Conflict { .. }) => {}
                Err(CommitError::Store(error)) => return Err(error.into()),
            }
        }
        Err(Error::Contended)
    }

    async fn take_from_user(
        &self,
        batch: &mut Batch,
        user: UserNid,
        mxc: &Mxc,
        record: &MediaRecord,
    ) -> Result<(), Error> {
        batch.delete(&USER_MEDIA, &(user, record.created_ms, mxc.id().to_owned()));
        if let Some(expires_ms) = record.expires_ms {
            quota::delete_pending(batch, user, expires_ms, mxc);
        }
        let (Some(content), Some(usage)) = (&record.content, self.store.get(&MEDIA_USAGE, &user).await?)
        else {
            return Ok(());
        };
        let less = MediaUsageRecord {
            bytes: usage.bytes.saturating_sub(content.size),
            files: usage.files.saturating_sub(1),
            ..usage.clone()
        };
        batch.require_equal(&MEDIA_USAGE, &user, &usage);
        batch.put(&MEDIA_USAGE, &user, &less);
        Ok(())
    }
}

/// What a row says of its bytes.
pub(crate) fn content(written: &Written, description: &Description, now_ms: u64) -> MediaContent {
    MediaContent {
        blob: written.sha256,
        size: written.size,
        content_type: description.content_type.clone(),
        file_name: description.file_name.clone(),
        stored_ms: now_ms,
    }
}
