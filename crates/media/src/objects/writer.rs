//! One object on its way into the store: hashed while it is written, in parts, so that memory holds two parts at most.

use std::fmt;

use bytes::Bytes;
use futures::{FutureExt, future::Shared};
use myelin_store::{backend::CommitFuture, tables::UnclaimedObjectRecord};
use object_store::{MultipartUpload, ObjectStoreExt, PutPayload, UploadPart, path::Path};
use sha2::{Digest, Sha256};
use tokio::sync::OwnedSemaphorePermit;

use super::Objects;
use crate::Error;

/// An object that is complete and durable, and that nothing refers to yet. Dropped unclaimed, it is deleted.
#[derive(Debug)]
pub struct Written {
    pub(crate) object: String,
    pub(crate) unclaimed: UnclaimedObjectRecord,
    pub size: u64,
    pub sha256: [u8; 32],
    guard: Guard,
}

/// Deletes what was not finished or not claimed.
struct Guard(Option<(Objects, String, UnclaimedObjectRecord)>);

/// Dropped before [`Writer::finish`], it leaves nothing behind.
pub struct Writer {
    objects: Objects,
    object: String,
    unclaimed: UnclaimedObjectRecord,
    announced: Shared<futures::future::BoxFuture<'static, Result<(), Error>>>,
    hash: Sha256,
    size: u64,
    buffer: Vec<Bytes>,
    buffered: usize,
    /// For the part in `buffer`.
    permit: Option<OwnedSemaphorePermit>,
    upload: Option<Box<dyn MultipartUpload>>,
    /// The part before, which may still be under way.
    part: Option<(UploadPart, Option<OwnedSemaphorePermit>)>,
    guard: Guard,
}

impl Writer {
    pub(super) fn new(
        objects: Objects,
        object: String,
        unclaimed: UnclaimedObjectRecord,
        announced: CommitFuture,
    ) -> Self {
        let announced = announced.map(|outcome| outcome.map(drop).map_err(super::no_conflict));
        let guard = Guard(Some((objects.clone(), object.clone(), unclaimed.clone())));
        Self {
            objects,
            object,
            unclaimed,
            announced: announced.boxed().shared(),
            hash: Sha256::new(),
            size: 0,
            buffer: Vec::new(),
            buffered: 0,
            permit: None,
            upload: None,
            part: None,
            guard,
        }
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// Takes the next bytes; waits while too many are on their way already.
    pub async fn write(&mut self, chunk: Bytes) -> Result<(), Error> {
        if self.permit.is_none() {
            let permit = self.objects.0.parts.clone().acquire_owned().await;
            self.permit = permit.ok();
        }
        self.hash.update(&chunk);
        self.size += chunk.len() as u64;
        self.buffered += chunk.len();
        self.buffer.push(chunk);
        if self.buffered >= self.objects.0.backend.part_size {
            self.send_part().await?;
        }
        Ok(())
    }

    /// Completes once the object is durable.
    pub async fn finish(mut self) -> Result<Written, Error> {
        self.announced.clone().await?;
        match self.upload.take() {
            None => {
                let payload = PutPayload::from_iter(std::mem::take(&mut self.buffer));
                self.objects.0.backend.objects.put(&Path::from(&*self.object), payload).await?;
            }
            Some(upload) => {
                self.upload = Some(upload);
                if self.buffered > 0 {
                    self.send_part().await?;
                }
                self.settle_part().await?;
                if let Some(upload) = &mut self.upload {
                    upload.complete().await?;
                }
                self.upload = None;
            }
        }
        Ok(Written {
            object: std::mem::take(&mut self.object),
            unclaimed: self.unclaimed.clone(),
            size: self.size,
            sha256: std::mem::take(&mut self.hash).finalize().into(),
            guard: std::mem::replace(&mut self.guard, Guard(None)),
        })
    }

    async fn send_part(&mut self) -> Result<(), Error> {
        self.settle_part().await?;
        let upload = match &mut self.upload {
            Some(upload) => upload,
            none => {
                self.announced.clone().await?;
                let path = Path::from(&*self.object);
                none.insert(self.objects.0.backend.objects.put_multipart(&path).await?)
            }
        };
        let payload = PutPayload::from_iter(std::mem::take(&mut self.buffer));
        self.buffered = 0;
        let mut part = upload.put_part(payload);
        // Polled once, a part of a local file goes on by itself while the next one arrives.
        match futures::poll!(&mut part) {
            std::task::Poll::Ready(outcome) => outcome?,
            std::task::Poll::Pending => self.part = Some((part, self.permit.take())),
        }
        Ok(())
    }

    async fn settle_part(&mut self) -> Result<(), Error> {
        match self.part.take() {
            Some((part, _permit)) => Ok(part.await?),
            None => Ok(()),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // The object store is told to forget the parts before the object itself is given up.
        if let (Some(mut upload), Some((objects, ..))) = (self.upload.take(), &self.guard.0) {
            let abort = async move { drop(upload.abort().await) };
            objects.0.env.spawner.spawn("upload abort", Box::pin(abort));
        }
    }
}

impl Written {
    /// It was claimed, or given up in a commit.
    pub(crate) fn settled(mut self) -> String {
        self.guard.0 = None;
        std::mem::take(&mut self.object)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some((objects, object, unclaimed)) = self.0.take() else { return };
        let spawner = objects.0.env.spawner.clone();
        let task = async move {
            if let Err(error) = objects.abandon(&object, &unclaimed).await {
                tracing::debug!(%error, object, "an unfinished object stays until the sweep");
            }
        };
        spawner.spawn("object deletion", Box::pin(task));
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Guard").field(&self.0.as_ref().map(|(_, object, _)| object)).finish()
    }
}
