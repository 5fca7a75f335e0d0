//! One media repository.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use myelin_core::UserNid;
use myelin_store::{
    Store,
    memory::{Memory, MemoryDisk},
    tables::{MEDIA_BLOBS, UNCLAIMED_OBJECTS},
};
use myelin_testenv::Sim;
use myelin_view::View;
use ruma::server_name;

use crate::{
    Backend, BytesStream, Config, Download, Error, Media, Mxc, NoOrigin, NoPages, Setup, Upload, Wants,
};

pub const ALICE: UserNid = UserNid(1);
pub const BOB: UserNid = UserNid(2);

pub struct World {
    pub sim: Sim,
    pub disk: MemoryDisk,
    pub backend: Backend,
    pub media: Arc<Media>,
}

impl World {
    pub fn new() -> Self {
        Self::with(|_| ())
    }

    pub fn with(configure: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        configure(&mut config);
        Self::open(Sim::new(1), MemoryDisk::default(), Backend::memory(), config)
    }

    pub fn open(sim: Sim, disk: MemoryDisk, backend: Backend, config: Config) -> Self {
        let store = Store::new(Arc::new(Memory::open(disk.clone())));
        let view = View::new(store, sim.env(), server_name!("here.test").to_owned());
        let (origin, pages) = (Arc::new(NoOrigin), Arc::new(NoPages));
        let media = Media::new(Setup { view, config, objects: backend.clone(), origin, pages });
        Self { sim, disk, backend, media }
    }

    /// The same disk and objects in another process.
    pub fn restarted(&self) -> Self {
        let config = self.media.config.clone();
        Self::open(self.sim.rebooted(), self.disk.clone(), self.backend.clone(), config)
    }

    pub fn upload(&self, user: UserNid, content: &[u8]) -> Result<Mxc, Error> {
        self.sim.block_on(self.media.upload(user, sent(content)))
    }

    pub fn open_media(&self, mxc: &Mxc) -> Result<Download, Error> {
        let wants = Wants { timeout: Duration::ZERO, ..Wants::default() };
        self.sim.block_on(self.media.open(mxc, &wants))
    }

    pub fn content(&self, mxc: &Mxc) -> Result<Vec<u8>, Error> {
        let found = self.open_media(mxc)?;
        Ok(self.sim.block_on(collected(found)))
    }

    /// Blobs, objects that are not claimed, and objects that really lie in the object store; after all is done.
    pub fn counts(&self) -> (usize, usize, usize) {
        self.sim.settle();
        let store = &self.media.view.store;
        self.sim.block_on(async {
            let blobs = store.read().all(&MEDIA_BLOBS, 1000).await.unwrap().len();
            let unclaimed = store.read().all(&UNCLAIMED_OBJECTS, 1000).await.unwrap().len();
            (blobs, unclaimed, self.backend.objects.list(None).count().await)
        })
    }

    pub fn pass(&self, duration: Duration) {
        self.sim.clock().advance(duration);
        self.sim.settle();
    }
}

pub async fn collected(found: Download) -> Vec<u8> {
    let stream = found.read(None).await.unwrap();
    let chunks: Vec<Bytes> = stream.try_collect().await.unwrap();
    chunks.concat()
}

pub fn sent(content: &[u8]) -> Upload {
    let chunks: Vec<_> = content.chunks(1000).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
    sent_as(chunks)
}

pub fn sent_as(chunks: Vec<Result<Bytes, io::Error>>) -> Upload {
    let body: BytesStream = Box::pin(futures::stream::iter(chunks));
    Upload {
        content_type: Some("text/plain".to_owned()),
        file_name: Some("a.txt".to_owned()),
        size: None,
        body,
    }
}
