//! Making a thumbnail once, however many ask for it, and keeping it.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use futures::{FutureExt, channel::oneshot, future::Shared};
use myelin_core::Env;
use myelin_store::{
    Batch, CommitError, Direction, Store,
    tables::{MEDIA_BLOBS, MediaContent, THUMBNAILS, ThumbnailRecord},
};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::{Config, Size, render};
use crate::{
    Error, Media, Objects,
    catalog::{ATTEMPTS_MAX, THUMBNAILS_PER_BLOB_MAX},
};

/// Computations that run or wait to run; who comes then is told to come back.
const WAITING_MAX: usize = 256;
/// Blobs that are remembered as no images, so that nobody makes the server try again and again.
const HOPELESS_MAX: usize = 10_000;

type Outcome = Result<ThumbnailRecord, Error>;
type Key = ([u8; 32], Size);

pub(crate) struct Thumbnails(Arc<Shop>);

struct Shop {
    config: Config,
    turns: Semaphore,
    under_way: Mutex<HashMap<Key, Shared<oneshot::Receiver<Outcome>>>>,
    hopeless: quick_cache::sync::Cache<[u8; 32], Arc<str>>,
}

/// All that a computation needs once nobody may be waiting for it any more.
struct Work {
    shop: Arc<Shop>,
    store: Store,
    env: Env,
    objects: Objects,
    object: String,
    blob: [u8; 32],
    size: Size,
}

impl Thumbnails {
    pub fn new(config: &Config) -> Self {
        Self(Arc::new(Shop {
            turns: Semaphore::new(config.concurrent_max.max(1)),
            config: config.clone(),
            under_way: Mutex::default(),
            hopeless: quick_cache::sync::Cache::new(HOPELESS_MAX),
        }))
    }

    /// Makes the thumbnail, or waits for whoever makes it.
    pub async fn made(&self, media: &Media, content: &MediaContent, object: &str, size: Size) -> Outcome {
        if let Some(reason) = self.0.hopeless.get(&content.blob) {
            return Err(Error::CannotThumbnail(reason.to_string()));
        }
        if content.size > self.0.config.source_size_max {
            return Err(Error::TooLarge { max: self.0.config.source_size_max });
        }
        let waiting = {
            let mut under_way = self.0.under_way.lock();
            match under_way.get(&(content.blob, size)) {
                Some(waiting) => waiting.clone(),
                None if under_way.len() >= WAITING_MAX => return Err(Error::Busy),
                None => {
                    let (sender, receiver) = oneshot::channel();
                    let waiting = receiver.shared();
                    under_way.insert((content.blob, size), waiting.clone());
                    let work = Work {
                        shop: self.0.clone(),
                        store: media.view.store.clone(),
                        env: media.view.env.clone(),
                        objects: media.objects.clone(),
                        object: object.to_owned(),
                        blob: content.blob,
                        size,
                    };
                    let task = async move { drop(sender.send(work.run().await)) };
                    media.view.env.spawner.spawn("thumbnail", task.boxed());
                    waiting
                }
            }
        };
        waiting.await.unwrap_or(Err(Error::Busy))
    }
}

impl Work {
    async fn run(self) -> Outcome {
        let outcome = self.work().await;
        if let Err(Error::CannotThumbnail(reason)) = &outcome {
            self.shop.hopeless.insert(self.blob, reason.as_str().into());
        }
        self.shop.under_way.lock().remove(&(self.blob, self.size));
        outcome
    }

    async fn work(&self) -> Outcome {
        let _turn = self.shop.turns.acquire().await;
        // The head tells whether it is worth loading.
        let head = self.objects.read_head(&self.object, render::HEAD_SIZE).await?;
        render::format_of(&head)?;
        let bytes = self.objects.read_bytes(&self.object).await?;
        let (size, config) = (self.size, self.shop.config.clone());
        let rendered = self.env.blocking(move || render::render(&bytes, size, &config)).await;
        let rendered =
            rendered.unwrap_or_else(|| Err(Error::CannotThumbnail("its decoder failed".to_owned())))?;
        self.keep(rendered).await
    }

    async fn keep(&self, rendered: render::Rendered) -> Outcome {
        let record = |object, sha256, size| ThumbnailRecord {
            object,
            sha256,
            size,
            content_type: rendered.content_type.to_owned(),
            width: rendered.width,
            height: rendered.height,
        };
        let Some(bytes) = rendered.bytes else {
            let record = record(None, self.blob, 0);
            self.commit(&record, |_| ()).await?;
            return Ok(record);
        };
        let size = bytes.len() as u64;
        let written = self.objects.write_bytes(Bytes::from(bytes)).await?;
        let record = record(Some(written.object.clone()), written.sha256, size);
        if self.commit(&record, |batch| Objects::claim(batch, &written)).await? {
            written.settled();
        }
        Ok(record)
    }

    /// Whether it is kept: not if the blob is gone meanwhile, or has too many already.
    async fn commit(&self, record: &ThumbnailRecord, claim: impl Fn(&mut Batch)) -> Result<bool, Error> {
        for _ in 0..ATTEMPTS_MAX {
            let Some(blob) = self.store.get(&MEDIA_BLOBS, &self.blob).await? else {
                return Err(Error::NotFound);
            };
            let max = THUMBNAILS_PER_BLOB_MAX;
            if self.store.scan(&THUMBNAILS, &self.blob, Direction::Forward, max).await?.len() >= max {
                return Err(Error::Busy);
            }
            let mut batch = Batch::new();
            batch.require_equal(&MEDIA_BLOBS, &self.blob, &blob);
            batch.put(&THUMBNAILS, &self.size.key(&self.blob), record);
            claim(&mut batch);
            match self.store.commit(batch).await {
                Ok(_) => return Ok(true),
                Err(CommitError::Conflict { .. }) => {}
                Err(CommitError::Store(error)) => return Err(error.into()),
            }
        }
        Err(Error::Contended)
    }
}
