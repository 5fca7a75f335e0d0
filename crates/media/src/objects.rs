//! Bytes in an object store: announced, written while they are hashed, claimed or deleted.

mod reader;
mod writer;

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use futures::StreamExt;
use myelin_core::Env;
use myelin_store::{
    Batch, CommitError, Store,
    tables::{UNCLAIMED_OBJECTS, UnclaimedObjectRecord},
};
use object_store::{GetOptions, ObjectStoreExt, path::Path};
use tokio::sync::Semaphore;

pub use self::writer::{Writer, Written};
use crate::{Backend, BytesStream, Error};

/// Characters of an object's name: as good as never drawn twice.
const NAME_LENGTH: usize = 32;

/// Cheap to clone.
#[derive(Clone)]
pub struct Objects(Arc<Shared>);

struct Shared {
    backend: Backend,
    store: Store,
    env: Env,
    /// One permit per part that is held in memory.
    parts: Arc<Semaphore>,
}

impl Objects {
    pub(crate) fn new(backend: Backend, store: Store, env: Env) -> Self {
        let parts = Arc::new(Semaphore::new(backend.parts_max()));
        Self(Arc::new(Shared { backend, store, env, parts }))
    }

    /// A new object. What is not claimed in the end is deleted.
    pub fn writer(&self) -> Writer {
        let name = self.0.env.random_string(NAME_LENGTH);
        // Two letters of directory: few enough files in each.
        let object = format!("{}/{}", &name[..2], &name[2..]);
        let unclaimed = UnclaimedObjectRecord { since_ms: self.0.env.now_ms(), doomed: false };
        let mut batch = Batch::new();
        batch.put(&UNCLAIMED_OBJECTS, &object, &unclaimed);
        Writer::new(self.clone(), object, unclaimed, self.0.store.commit(batch))
    }

    /// A whole stream as an object, refused once it is longer than `size_max`.
    pub async fn write_stream(&self, mut body: BytesStream, size_max: u64) -> Result<Written, Error> {
        let mut writer = self.writer();
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|error| Error::BrokenOff(error.to_string()))?;
            if writer.size() + chunk.len() as u64 > size_max {
                return Err(Error::TooLarge { max: size_max });
            }
            writer.write(chunk).await?;
        }
        writer.finish().await
    }

    pub async fn write_bytes(&self, bytes: Bytes) -> Result<Written, Error> {
        let mut writer = self.writer();
        writer.write(bytes).await?;
        writer.finish().await
    }

    /// The bytes of `range`, which must lie within the object, or all.
    pub async fn read(&self, object: &str, range: Option<Range<u64>>) -> Result<BytesStream, Error> {
        reader::open(&self.0.backend, object, range).await
    }

    /// The first bytes of an object.
    pub async fn read_head(&self, object: &str, size: u64) -> Result<Bytes, Error> {
        let options = GetOptions::new().with_range(Some(0..size));
        match self.0.backend.objects.get_opts(&Path::from(object), options).await {
            Ok(found) => Ok(found.bytes().await?),
            Err(object_store::Error::NotFound { .. }) => Err(Error::NotFound),
            // Nothing starts at 0 in an empty object.
            Err(_) => self.read_bytes(object).await,
        }
    }

    /// A whole object that is known to be small.
    pub async fn read_bytes(&self, object: &str) -> Result<Bytes, Error> {
        let found = self.0.backend.objects.get(&Path::from(object)).await?;
        Ok(found.bytes().await?)
    }

    /// Claims an object in the commit that refers to it; conflicts if it is being deleted already.
    pub(crate) fn claim(batch: &mut Batch, written: &Written) {
        batch.require_equal(&UNCLAIMED_OBJECTS, &written.object, &written.unclaimed);
        batch.delete(&UNCLAIMED_OBJECTS, &written.object);
    }

    /// Gives an object up in the commit after which nothing refers to it; then call [`Objects::delete_doomed`].
    pub(crate) fn doom(&self, batch: &mut Batch, object: &str) {
        let doomed = UnclaimedObjectRecord { since_ms: self.0.env.now_ms(), doomed: true };
        batch.put(&UNCLAIMED_OBJECTS, &object.to_owned(), &doomed);
    }

    /// Deletes the bytes of a doomed object, then its row: after a crash between the two it is done again.
    pub(crate) async fn delete_doomed(&self, object: &str) -> Result<(), Error> {
        match self.0.backend.objects.delete(&Path::from(object)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        self.delete_staged(object);
        let mut batch = Batch::new();
        batch.delete(&UNCLAIMED_OBJECTS, &object.to_owned());
        self.0.store.commit(batch).await.map(drop).map_err(no_conflict)
    }

    /// The same in the background; if it fails, the sweep does it.
    pub(crate) fn delete_soon(&self, doomed: Vec<String>) {
        if doomed.is_empty() {
            return;
        }
        let objects = self.clone();
        let task = async move {
            for object in doomed {
                if let Err(error) = objects.delete_doomed(&object).await {
                    tracing::warn!(%error, object, "an object that nothing refers to could not be deleted yet");
                }
            }
        };
        self.0.env.spawner.spawn("object deletion", Box::pin(task));
    }

    /// Gives up an object that was never claimed: no commit can claim it any more, then it is deleted.
    pub(crate) async fn abandon(&self, object: &str, unclaimed: &UnclaimedObjectRecord) -> Result<(), Error> {
        let object = object.to_owned();
        let mut batch = Batch::new();
        batch.require_equal(&UNCLAIMED_OBJECTS, &object, unclaimed);
        self.doom(&mut batch, &object);
        match self.0.store.commit(batch).await {
            Ok(_) => self.delete_doomed(&object).await,
            // Claimed, or already on its way out.
            Err(CommitError::Conflict { .. }) => Ok(()),
            Err(CommitError::Store(error)) => Err(error.into()),
        }
    }

    /// A crash leaves the unfinished file of an object beside it, as `<name>#<number>`.
    fn delete_staged(&self, object: &str) {
        let Some(path) = self.0.backend.directory.as_ref().map(|directory| directory.join(object)) else {
            return;
        };
        let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
        else {
            return;
        };
        let Ok(entries) = std::fs::read_dir(directory) else { return };
        let prefix = format!("{name}#");
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                std::fs::remove_file(entry.path()).ok();
            }
        }
    }
}

fn no_conflict(error: CommitError) -> Error {
    match error {
        CommitError::Conflict { .. } => Error::Contended,
        CommitError::Store(error) => error.into(),
    }
}
