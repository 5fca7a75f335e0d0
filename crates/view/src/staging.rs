//! Events on their way into the store, and what becomes visible with each.
//!
//! A log entry can be read the moment it is durable, before the writer that waits for it has run again. So the writer
//! leaves here what readers shall find with the entry, and whoever comes first (the writer or the [`crate::Feed`])
//! puts it in place.
//!
//! Must not know: how events are made.

use std::{collections::HashMap, sync::Arc};

use myelin_core::{EventNid, Position};
use parking_lot::Mutex;

use crate::{Event, Events, RoomSnapshot, RoomViews};

/// What becomes visible with one event.
pub struct Landing {
    pub event: Arc<Event>,
    /// An older event that this one redacted, in its new form.
    pub redacted: Option<Arc<Event>>,
    /// The room as of this commit; left with the last event of the commit only.
    pub snapshot: Option<Arc<RoomSnapshot>>,
}

pub struct Staging {
    events: Arc<Events>,
    rooms: Arc<RoomViews>,
    landings: Mutex<HashMap<EventNid, Landing>>,
}

impl Staging {
    pub(crate) fn new(events: Arc<Events>, rooms: Arc<RoomViews>) -> Self {
        Self { events, rooms, landings: Mutex::default() }
    }

    /// Before the commit.
    pub fn stage(&self, landing: Landing) {
        self.events.insert(landing.event.clone());
        self.landings.lock().insert(landing.event.nid, landing);
    }

    /// The event is durable, in the timeline at `position`. `false` if nothing is staged for it: it has landed
    /// before, or another process made it.
    pub fn land(&self, event: EventNid, position: Position) -> bool {
        // Held to the end: who finds nothing staged relies on everything being in place.
        let mut landings = self.landings.lock();
        let Some(landing) = landings.remove(&event) else { return false };
        self.events.insert(Arc::new(landing.event.placed(position.into())));
        if let Some(redacted) = landing.redacted {
            self.events.insert(redacted);
        }
        if let Some(snapshot) = landing.snapshot {
            self.rooms.publish(snapshot);
        }
        true
    }

    /// The event is durable, but not in the timeline: soft-failed or rejected.
    pub fn land_outside(&self, event: EventNid) {
        let mut landings = self.landings.lock();
        let landing = landings.remove(&event);
        if let Some(snapshot) = landing.and_then(|landing| landing.snapshot) {
            self.rooms.publish(snapshot);
        }
    }

    /// The commit failed.
    pub fn withdraw(&self, event: EventNid) {
        self.landings.lock().remove(&event);
        self.events.forget(event);
    }
}
