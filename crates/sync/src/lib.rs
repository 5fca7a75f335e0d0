//! The read side: what a client may see, in the order in which it happened, as the JSON that it gets.
//!
//! - [`Sync::sync`]: `/v3/sync`, a reader of the commit log with the client's token as its cursor (DESIGN 1).
//! - [`Sync::sliding_sync`]: the same for clients that look through a window (MSC4186).
//! - [`visibility`]: who may see which event; asked wherever an event leaves the server.
//! - the other modules: one endpoint family each.
//!
//! Reads the store through `myelin-view` and writes nothing but receipts, read markers, thread subscriptions and what
//! sliding sync connections were told. Must not know: HTTP, how rooms are written.

pub mod access;
pub mod aggregations;
mod client_event;
pub mod context;
mod error;
pub mod filter;
pub mod json;
pub mod messages;
pub mod notifications;
mod old_sync;
pub mod receipts;
pub mod relations;
pub mod room_read;
mod room_state;
pub mod sliding;
pub mod spaces;
pub mod sticky;
pub mod thread_subscriptions;
mod timeline;
mod typing;
pub mod unread;
pub mod v2;
pub mod visibility;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use myelin_core::UserNid;
use myelin_store::tables::FILTERS;
use myelin_view::View;
use quick_cache::sync::Cache;
use ruma::OwnedUserId;

use crate::filter::Filter;

pub use client_event::Format;
pub use error::Error;
pub use timeline::Placed;

/// Parsed filters kept, of all users together.
const FILTERS_MAX: usize = 10_000;

/// A filter as JSON, stored or inline.
pub fn parse_filter(json: &str) -> Result<Filter, Error> {
    if !json.trim_start().starts_with('{') {
        return Err(Error::InvalidParam("A filter is a JSON object.".to_owned()));
    }
    serde_json::from_str(json).map_err(|e| Error::InvalidParam(format!("This is not a filter: {e}.")))
}

/// Who asks.
#[derive(Clone, Debug)]
pub struct Requester {
    pub user: UserNid,
    pub user_id: OwnedUserId,
    pub device_id: String,
}

/// The read side of one process.
pub struct Sync {
    pub(crate) view: View,
    pub(crate) lazy: v2::lazy::Memory,
    pub(crate) connections: sliding::Connections,
    pub(crate) recency: Arc<sliding::Recency>,
    pub(crate) facts: Arc<sliding::Facts>,
    filters: Cache<(UserNid, u64), Arc<Filter>>,
    pub(crate) standings: Arc<unread::Standings>,
    draining: AtomicBool,
}

impl Sync {
    pub fn new(view: View) -> Arc<Self> {
        let (lazy, filters) = (v2::lazy::Memory::default(), Cache::new(FILTERS_MAX));
        let (recency, facts) = (Arc::<sliding::Recency>::default(), Arc::<sliding::Facts>::default());
        let standings = Arc::new(unread::Standings::new());
        let told = (recency.clone(), facts.clone(), standings.clone());
        view.feed.listen(move |position, entry| {
            told.0.take_in(position, entry);
            told.1.take_in(entry);
            told.2.take_in(entry);
        });
        let connections = sliding::Connections::default();
        let draining = AtomicBool::new(false);
        Arc::new(Self { view, lazy, connections, recency, facts, filters, standings, draining })
    }

    /// A filter that the user stored, parsed once: what an id stands for never changes.
    pub async fn stored_filter(&self, user: UserNid, filter_id: &str) -> Result<Arc<Filter>, Error> {
        const UNKNOWN: &str = "There is no filter of this id.";
        let id = filter_id.parse::<u64>().map_err(|_| Error::InvalidParam(UNKNOWN.to_owned()))?;
        if let Some(filter) = self.filters.get(&(user, id)) {
            return Ok(filter);
        }
        let record = self.view.store.get(&FILTERS, &(user, id)).await?;
        let record = record.ok_or_else(|| Error::InvalidParam(UNKNOWN.to_owned()))?;
        let filter = Arc::new(parse_filter(&record.json)?);
        self.filters.insert((user, id), filter.clone());
        Ok(filter)
    }

    /// From now on no long poll waits: the process is shutting down.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
        self.view.feed.wake_everybody();
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }
}
