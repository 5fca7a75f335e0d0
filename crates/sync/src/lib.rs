//! The read side: what a client may see, in the order in which it happened, as the JSON that it gets.
//!
//! - [`Sync::sync`]: `/v3/sync`, a reader of the commit log with the client's token as its cursor (DESIGN 1).
//! - [`visibility`]: who may see which event; asked wherever an event leaves the server.
//! - the other modules: one endpoint family each.
//!
//! Reads the store through `myelin-view` and writes nothing but receipts and read markers. Must not know: HTTP,
//! how rooms are written.

pub mod aggregations;
mod client_event;
mod error;
pub mod filter;
mod ignored;
mod json;
mod room_state;
mod timeline;
pub mod v2;
pub mod visibility;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use myelin_core::UserNid;
use myelin_view::View;
use ruma::OwnedUserId;

pub use client_event::Format;
pub use error::Error;
pub use ignored::Ignored;

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
    pub(crate) ignored: Ignored,
    pub(crate) lazy: v2::lazy::Memory,
    draining: AtomicBool,
}

impl Sync {
    pub fn new(view: View) -> Arc<Self> {
        let ignored = Ignored::new(&view);
        Arc::new(Self { view, ignored, lazy: v2::lazy::Memory::default(), draining: AtomicBool::new(false) })
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
