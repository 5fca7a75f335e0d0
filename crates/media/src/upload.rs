//! Uploads of local users: streamed into the object store, then made known in one commit.

use std::time::Duration;

use futures::StreamExt;
use myelin_core::UserNid;
use myelin_store::{
    Batch, CommitError,
    tables::{MEDIA, MediaRecord, USER_MEDIA},
};

use crate::{
    BytesStream, Error, Media, Mxc, Written, access,
    catalog::{ATTEMPTS_MAX, Description, content},
    quota, sanitize,
};

/// Characters of the ids that this server gives: as good as never drawn twice, and nobody guesses one.
const MEDIA_ID_LENGTH: usize = 24;
/// Nothing arrives for so long: the sender is gone, or means to hold the server up.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// What a user sends.
pub struct Upload {
    pub content_type: Option<String>,
    pub file_name: Option<String>,
    /// As announced; the body may be longer.
    pub size: Option<u64>,
    pub body: BytesStream,
}

impl Media {
    /// `POST /upload`: stores the content under a new URI.
    pub async fn upload(&self, user: UserNid, upload: Upload) -> Result<Mxc, Error> {
        let max = self.size_max(user).await?;
        let (written, description) = self.receive(upload, max).await?;
        let mxc = self.new_mxc();
        self.publish(user, &mxc, written, &description, None).await?;
        Ok(mxc)
    }

    /// `PUT /upload/{serverName}/{mediaId}`: the content of a URI that was created before.
    pub async fn upload_to(&self, user: UserNid, mxc: &Mxc, upload: Upload) -> Result<(), Error> {
        self.created_by(user, mxc).await?;
        let max = self.size_max(user).await?;
        let (written, description) = self.receive(upload, max).await?;
        let pending = self.created_by(user, mxc).await?;
        self.publish(user, mxc, written, &description, Some(pending)).await?;
        self.arrived.notify_waiters();
        Ok(())
    }

    /// A URI of this server that nothing has yet.
    pub fn new_mxc(&self) -> Mxc {
        let id = self.view.env.random_string(MEDIA_ID_LENGTH);
        Mxc::new(&self.view.server_name, &id).unwrap_or_else(|| unreachable!("random ids are valid"))
    }

    /// The largest upload that `user` may make now.
    async fn size_max(&self, user: UserNid) -> Result<SizeMax, Error> {
        let free = quota::free(&self.view.store, &self.config, user, self.view.env.now_ms()).await?;
        Ok(SizeMax { upload: self.config.upload_size_max, free })
    }

    async fn receive(&self, upload: Upload, max: SizeMax) -> Result<(Written, Description), Error> {
        max.check(upload.size.unwrap_or(0))?;
        let mut body = upload.body;
        let mut writer = self.objects.writer();
        let idle = || Error::BrokenOff("nothing came for too long".to_owned());
        while let Some(chunk) = self.view.env.timeout(IDLE_TIMEOUT, body.next()).await.ok_or_else(idle)? {
            let chunk = chunk.map_err(|error| Error::BrokenOff(error.to_string()))?;
            max.check(writer.size() + chunk.len() as u64)?;
            writer.write(chunk).await?;
        }
        let written = writer.finish().await?;
        let description = Description {
            content_type: sanitize::content_type(upload.content_type.as_deref()),
            file_name: upload.file_name.as_deref().and_then(sanitize::file_name),
        };
        Ok((written, description))
    }

    /// One commit: the row, its bytes, and what the user has now.
    async fn publish(
        &self,
        user: UserNid,
        mxc: &Mxc,
        written: Written,
        description: &Description,
        pending: Option<MediaRecord>,
    ) -> Result<(), Error> {
        let (store, config) = (&self.view.store, &self.config);
        let _in_turn = self.users.lock(user).await;
        for _ in 0..ATTEMPTS_MAX {
            let now_ms = self.view.env.now_ms();
            let mut batch = Batch::new();
            batch.require_unchanged(&MEDIA, &mxc.key(), pending.as_ref());
            quota::count(store, config, &mut batch, user, written.size, now_ms).await?;
            let surplus = self.catalog.attach(&mut batch, &self.objects, &written).await?;
            let created_ms = pending.as_ref().map_or(now_ms, |pending| pending.created_ms);
            let record = MediaRecord {
                uploader: Some(user),
                created_ms,
                content: Some(content(&written, description, now_ms)),
                expires_ms: None,
                quarantined: pending.as_ref().is_some_and(|pending| pending.quarantined),
            };
            batch.put(&MEDIA, &mxc.key(), &record);
            batch.put(&USER_MEDIA, &(user, created_ms, mxc.id().to_owned()), &());
            if let Some(expires_ms) = pending.as_ref().and_then(|pending| pending.expires_ms) {
                quota::delete_pending(&mut batch, user, expires_ms, mxc);
            }
            access::first(store, &mut batch, mxc, now_ms).await?;
            match store.commit(batch).await {
                Ok(_) => {
                    written.settled();
                    self.objects.delete_soon(surplus.into_iter().collect());
                    return Ok(());
                }
                Err(CommitError::Conflict { .. }) if pending.is_some() => {
                    // Somebody else may have been first at this very URI.
                    if self.catalog.media(mxc).await? != pending {
                        return Err(Error::CannotOverwrite);
                    }
                }
                Err(CommitError::Conflict { .. }) => {}
                Err(CommitError::Store(error)) => return Err(error.into()),
            }
        }
        Err(Error::Contended)
    }
}

/// Two limits that refuse in different words.
#[derive(Clone, Copy)]
struct SizeMax {
    upload: u64,
    free: u64,
}

impl SizeMax {
    fn check(self, size: u64) -> Result<(), Error> {
        match size {
            size if size > self.upload => Err(Error::TooLarge { max: self.upload }),
            size if size > self.free => Err(Error::QuotaExceeded),
            _ => Ok(()),
        }
    }
}
