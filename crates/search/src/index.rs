//! The index itself: opening it, writing changes together with how far they go, and looking things up.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use myelin_core::{Env, EventNid, Position};
use parking_lot::RwLock;
use ruma::OwnedServerName;
use tantivy::{
    IndexReader, IndexWriter, ReloadPolicy, TantivyError,
    indexer::{IndexWriterOptions, NoMergePolicy},
    query::Query,
};
use tokio::sync::watch;

use crate::{
    Error, Place,
    collector::{Best, Found},
    progress::Progress,
    schema::{Change, Fields},
};

/// The directory inside the one that is configured: what is deleted with an index is the index.
const DIRECTORY: &str = "search-index";
/// Bytes of documents that are gathered before a segment is written: the least that the engine takes.
const WRITER_BYTES: usize = 15_000_000;

pub struct Index {
    place: Place,
    env: Env,
    server_name: OwnedServerName,
    pub fields: Fields,
    /// `None`: not open. Taken out while somebody writes, so that whatever is left half done is opened again.
    pub slot: futures::lock::Mutex<Option<Writing>>,
    reader: RwLock<Option<IndexReader>>,
    searchable: watch::Sender<Position>,
    backfill_left: AtomicU64,
}

/// An open index and what is on its way into it.
pub struct Writing {
    writer: Option<IndexWriter>,
    reader: IndexReader,
    pub progress: Progress,
    pub changes: Vec<Change>,
    /// Since the last commit.
    pub uncommitted: usize,
    /// When the first of them came.
    pub uncommitted_since_ms: u64,
    pub committed_log: Position,
}

impl Index {
    pub fn new(place: Place, env: Env, server_name: OwnedServerName) -> Self {
        let place = match place {
            Place::Directory(path) => Place::Directory(path.join(DIRECTORY)),
            Place::Memory => Place::Memory,
        };
        Self {
            place,
            env,
            server_name,
            fields: Fields::default(),
            slot: futures::lock::Mutex::new(None),
            reader: RwLock::new(None),
            searchable: watch::Sender::new(Position::ZERO),
            backfill_left: AtomicU64::new(0),
        }
    }

    /// What is held if it goes on from there; `None` if there is nothing or it cannot be used.
    pub async fn reopen(&self, now: Position) -> Result<Option<Writing>, Error> {
        let Place::Directory(path) = self.place.clone() else { return Ok(None) };
        let (fields, server_name) = (self.fields.clone(), self.server_name.clone());
        let opened = self.env.blocking(move || {
            let index = held(&path, &fields)?;
            let payload = index.load_metas().ok()?.payload?;
            let progress = Progress::read(&payload, server_name.as_str(), now)?;
            Some(Writing::open(&index, progress))
        });
        opened.await.ok_or(Error::Stopped)?.transpose().map_err(Into::into)
    }

    /// An empty index; what was there is deleted.
    pub async fn begin(&self, now: Position) -> Result<Writing, Error> {
        let (place, fields) = (self.place.clone(), self.fields.clone());
        let progress = Progress::begin(self.server_name.as_str(), now);
        let opened = self.env.blocking(move || {
            let index = match &place {
                Place::Memory => tantivy::Index::create_in_ram(fields.schema.clone()),
                Place::Directory(path) => {
                    clear(path)?;
                    tantivy::Index::create_in_dir(path, fields.schema.clone())?
                }
            };
            let writing = Writing::open(&index, progress)?;
            if let (Place::Memory, Some(writer)) = (place, &writing.writer) {
                // A simulation must not depend on when a merge ends.
                writer.set_merge_policy(Box::new(NoMergePolicy));
            }
            Ok::<_, Error>(writing)
        });
        opened.await.ok_or(Error::Stopped)?
    }

    /// From now on searches look here.
    pub fn show(&self, writing: &Writing) {
        *self.reader.write() = Some(writing.reader.clone());
        self.advance(writing);
    }

    /// Hands the changes to the writer; with `commit` they can be found and are durable when this returns.
    pub async fn write(&self, writing: &mut Writing, commit: bool) -> Result<(), Error> {
        let mut writer = writing.writer.take().ok_or(Error::Stopped)?;
        let changes = std::mem::take(&mut writing.changes);
        let payload = commit.then(|| writing.progress.payload());
        let reader = writing.reader.clone();
        let written = self.env.blocking(move || {
            for Change { key, document } in changes {
                writer.delete_term(key);
                if let Some(document) = document {
                    writer.add_document(document)?;
                }
            }
            if let Some(payload) = payload {
                let mut prepared = writer.prepare_commit()?;
                prepared.set_payload(&payload);
                prepared.commit()?;
                reader.reload()?;
            }
            Ok::<_, TantivyError>(writer)
        });
        writing.writer = Some(written.await.ok_or(Error::Stopped)??);
        if commit {
            (writing.uncommitted, writing.committed_log) = (0, writing.progress.log);
            self.advance(writing);
        }
        Ok(())
    }

    /// Nothing waits to be written: what is in the log can be found.
    pub fn advance(&self, writing: &Writing) {
        let progress = &writing.progress;
        let left = match progress.events_below {
            // Not known before the first page.
            EventNid(u64::MAX) => 0,
            EventNid(below) => below,
        };
        self.backfill_left.store(left, Ordering::Relaxed);
        self.searchable.send_replace(progress.log);
    }

    /// Everything in the log up to here can be found.
    pub fn searchable(&self) -> Position {
        *self.searchable.borrow()
    }

    pub async fn searchable_up_to(&self, position: Position) {
        // The sender lives as long as self.
        self.searchable.subscribe().wait_for(|searchable| *searchable >= position).await.ok();
    }

    pub fn backfill_left(&self) -> u64 {
        self.backfill_left.load(Ordering::Relaxed)
    }

    /// Looks up what has been committed.
    pub async fn look_up(&self, query: Box<dyn Query>, best: Best) -> Result<Found, Error> {
        let Some(reader) = self.reader.read().clone() else { return Ok(Found::default()) };
        let found = self.env.blocking(move || reader.searcher().search(&*query, &best));
        Ok(found.await.ok_or(Error::Stopped)??)
    }
}

impl Writing {
    fn open(index: &tantivy::Index, progress: Progress) -> Result<Self, TantivyError> {
        let options = IndexWriterOptions::builder()
            .num_worker_threads(1)
            .num_merge_threads(1)
            .memory_budget_per_thread(WRITER_BYTES)
            .build();
        let writer = index.writer_with_options(options)?;
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        let committed_log = progress.log;
        Ok(Self {
            writer: Some(writer),
            reader,
            progress,
            changes: Vec::new(),
            uncommitted: 0,
            uncommitted_since_ms: 0,
            committed_log,
        })
    }

    pub fn push(&mut self, change: Change, now_ms: u64) {
        if self.uncommitted == 0 {
            self.uncommitted_since_ms = now_ms;
        }
        self.uncommitted += 1;
        self.changes.push(change);
    }
}

/// `None` if there is no index that this version can go on with.
fn held(path: &Path, fields: &Fields) -> Option<tantivy::Index> {
    if !path.join("meta.json").exists() {
        return None;
    }
    match tantivy::Index::open_in_dir(path) {
        Ok(index) if index.schema() == fields.schema => Some(index),
        Ok(_) => None,
        Err(error) => {
            tracing::warn!(%error, "the search index cannot be opened and is made anew");
            None
        }
    }
}

fn clear(path: &PathBuf) -> std::io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::create_dir_all(path)
}
