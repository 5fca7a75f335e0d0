//! Media on its way from another server: one writes, any number read along.
//!
//! What came first is held in memory, so that an ordinary image is on its way to the client before it is complete here.
//! Of what is larger, the rest is read from the object store once it is all there: a slow reader holds nothing up, and
//! memory is bounded.

use std::{io, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt, stream};
use myelin_store::tables::MediaContent;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{BytesStream, Error, Objects, catalog::Catalog};

/// Held in memory of one arrival.
const HELD_SIZE_MAX: u64 = 2 * 1024 * 1024;

/// What is known before the bytes are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub content_type: String,
    pub file_name: Option<String>,
    pub size: Option<u64>,
    pub since_ms: u64,
}

pub struct Arrival {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    head: Option<Head>,
    held: Vec<Bytes>,
    held_size: u64,
    is_full: bool,
    end: Option<Result<MediaContent, Error>>,
}

/// The side that fetches. Dropped before it said how it ended, it has failed.
pub struct Incoming(Arc<Arrival>);

impl Arrival {
    pub fn begin() -> (Arc<Self>, Incoming) {
        let arrival = Arc::new(Self { state: Mutex::default(), changed: watch::Sender::new(()) });
        (arrival.clone(), Incoming(arrival))
    }

    /// Once the other server has begun to answer.
    pub async fn head(&self) -> Result<Head, Error> {
        self.once(|state| match (&state.head, &state.end) {
            (Some(head), None | Some(Ok(_))) => Some(Ok(head.clone())),
            (_, Some(Err(error))) => Some(Err(error.clone())),
            (None, Some(Ok(_)) | None) => None,
        })
        .await
    }

    /// Once all of it is stored.
    pub async fn content(&self) -> Result<MediaContent, Error> {
        self.once(|state| state.end.clone()).await
    }

    async fn once<T>(&self, ready: impl Fn(&State) -> Option<T>) -> T {
        let mut changes = self.changed.subscribe();
        loop {
            if let Some(value) = ready(&self.state.lock()) {
                return value;
            }
            // The sender is part of this: it outlives the wait.
            changes.changed().await.ok();
        }
    }

    /// The bytes from the first one on.
    pub fn stream(self: Arc<Self>, catalog: Catalog, objects: Objects) -> BytesStream {
        let reader = Reader { arrival: self, catalog, objects, piece: 0, read: 0, rest: None };
        let pieces = stream::unfold(Some(reader), |reader| async move {
            let mut reader = reader?;
            match reader.next().await {
                Ok(Some(piece)) => Some((Ok(piece), Some(reader))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        });
        pieces.boxed()
    }
}

impl Incoming {
    pub fn begins(&self, head: Head) {
        self.change(|state| state.head = Some(head));
    }

    pub fn brings(&self, piece: &Bytes) {
        self.change(|state| {
            state.is_full |= state.held_size + piece.len() as u64 > HELD_SIZE_MAX;
            if !state.is_full {
                state.held_size += piece.len() as u64;
                state.held.push(piece.clone());
            }
        });
    }

    pub fn ends(self, end: Result<MediaContent, Error>) {
        self.change(|state| state.end = Some(end));
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.state.lock());
        self.0.changed.send_replace(());
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let broken = || Err(Error::Unreachable("it was given up".to_owned()));
        self.change(|state| {
            state.end.get_or_insert_with(broken);
        });
    }
}

struct Reader {
    arrival: Arc<Arrival>,
    catalog: Catalog,
    objects: Objects,
    /// How many of the pieces in memory were read.
    piece: usize,
    read: u64,
    rest: Option<BytesStream>,
}

enum Next {
    Piece(Bytes),
    Stored(MediaContent),
    Failed(Error),
}

impl Reader {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if let Some(rest) = &mut self.rest {
            return rest.next().await.transpose();
        }
        let at = self.piece;
        let next = self.arrival.once(|state| match (state.held.get(at), &state.end) {
            (_, Some(Err(error))) => Some(Next::Failed(error.clone())),
            (Some(piece), _) => Some(Next::Piece(piece.clone())),
            (None, Some(Ok(content))) => Some(Next::Stored(content.clone())),
            (None, None) => None,
        });
        match next.await {
            Next::Piece(piece) => {
                self.piece += 1;
                self.read += piece.len() as u64;
                Ok(Some(piece))
            }
            Next::Stored(content) if content.size == self.read => Ok(None),
            Next::Stored(content) => {
                let rest = self.stored(&content).await.map_err(io::Error::other)?;
                self.rest.insert(rest).next().await.transpose()
            }
            Next::Failed(error) => Err(io::Error::other(error)),
        }
    }

    async fn stored(&mut self, content: &MediaContent) -> Result<BytesStream, Error> {
        let blob = self.catalog.blob(&content.blob).await?.filter(|blob| !blob.quarantined);
        let blob = blob.ok_or(Error::NotFound)?;
        self.objects.read(&blob.object, Some(self.read..blob.size)).await
    }
}
