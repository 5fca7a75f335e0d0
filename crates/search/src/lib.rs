//! Search over what users may see: messages, names and topics (Client-Server API, "Server Side Search"), and users ("User
//! Directory"). One full-text index per process that follows the log.
//!
//! - [`Search::room_events`]: `POST /search`.
//! - [`Search::directory`]: `POST /user_directory/search`.
//! - [`Search::run`]: keeps the index up. Where nobody runs it (simulations), every search does so first.
//!
//! The index holds numbers and words only, and what it says is a proposal: every hit is loaded from the store and shown
//! to `sync::visibility::Viewer` before it leaves. How far it is lies in the index itself, committed with its documents
//! ([`progress`]); an index that is lost, older or another one's is made anew.
//!
//! Must not know: HTTP, how rooms are written.

mod backfill;
mod clauses;
mod collector;
mod directory;
mod documents;
mod error;
mod follow;
mod index;
mod progress;
mod room_events;
mod schema;
mod text;
mod token;

use std::{path::PathBuf, sync::Arc};

use myelin_core::Position;
use myelin_sync::Sync;
use myelin_view::View;

pub use directory::{DirectoryResults, DirectoryVisibility, FoundUser};
pub use error::Error;
pub use room_events::{Criteria, GroupKey, Order, Surrounding};
pub use schema::Searched;

/// Where the index lies.
#[derive(Clone, Debug)]
pub enum Place {
    /// Gone with the process.
    Memory,
    /// A directory of its own, made if it is not there. Whatever is in it may be deleted.
    Directory(PathBuf),
}

/// The search of one process. Share it through an `Arc`.
pub struct Search {
    view: View,
    sync: Arc<Sync>,
    index: index::Index,
    following: follow::Following,
    visibility: DirectoryVisibility,
}

impl Search {
    /// Opens nothing yet.
    pub fn new(view: View, sync: Arc<Sync>, place: Place, visibility: DirectoryVisibility) -> Arc<Self> {
        let index = index::Index::new(place, view.env.clone(), view.server_name.clone());
        let search =
            Arc::new(Self { sync, index, following: follow::Following::default(), visibility, view });
        search.show_progress();
        search
    }

    /// What an operator sees of it (`/metrics`).
    fn show_progress(self: &Arc<Self>) {
        let metrics = &self.view.metrics;
        let (behind, left) = (Arc::downgrade(self), Arc::downgrade(self));
        metrics.gauge(
            "myelin_search_behind",
            "Entries of the log that the search index has not taken in.",
            &[],
            move || {
                let search = behind.upgrade();
                search.map_or(0, |search| search.behind())
            },
        );
        metrics.gauge(
            "myelin_search_backfill_left",
            "Events (by number) that the search index has yet to go through from before it was made.",
            &[],
            move || left.upgrade().map_or(0, |search| search.index.backfill_left()),
        );
    }

    fn behind(&self) -> u64 {
        let Position(searchable) = self.index.searchable();
        self.view.store.position().0.saturating_sub(searchable)
    }
}
