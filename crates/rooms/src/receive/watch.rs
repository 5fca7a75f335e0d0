//! The state-reset watch: changes of the current state that no accepted event asked for are recorded, for operators to
//! see (the pure part is `myelin_dag::resets`).

use std::collections::HashMap;

use myelin_core::{EventNid, StateKeyNid};
use myelin_dag::{
    StateTree,
    resets::{Reset, ResetKind, is_watched, resets},
};
use myelin_store::tables::{STATE_RESETS, StateResetRecord};
use myelin_view::Event;

use crate::{Error, writer::Draft};

/// Replacements of one state event that are followed back.
const STEPS_MAX: usize = 100;

impl Draft<'_> {
    /// `event` was accepted, and the current state was `before`.
    pub(super) async fn watch_resets(&mut self, event: &Event, before: &StateTree) -> Result<(), Error> {
        let changes = before.diff(&self.room.current_state);
        if changes.iter().all(|(.., now)| *now == Some(event.nid)) {
            return Ok(());
        }
        let keys: Vec<StateKeyNid> = changes.iter().map(|(key, ..)| *key).collect();
        let names = self.rooms().view.interner.state_key_names(&keys).await?;
        let watched: HashMap<_, _> = keys.iter().copied().zip(names).collect();
        let mut replaced = HashMap::new();
        for (key, was, now) in &changes {
            if *now != Some(event.nid) {
                self.follow_back(*key, *was, &mut replaced).await?;
            }
        }
        let found = resets(
            before,
            &self.room.current_state,
            |key| watched.get(&key).is_some_and(|name| is_watched(&name.event_type.as_str().into())),
            |nid| nid == event.nid,
            |nid| replaced.get(&nid).copied(),
        );
        for reset in found {
            let Some(name) = watched.get(&reset.key) else { continue };
            self.record_reset(event, before, &reset, &name.event_type, &name.state_key);
        }
        Ok(())
    }

    async fn follow_back(
        &self,
        key: StateKeyNid,
        from: Option<EventNid>,
        replaced: &mut HashMap<EventNid, EventNid>,
    ) -> Result<(), Error> {
        let mut at = from;
        for _ in 0..STEPS_MAX {
            let Some(nid) = at else { return Ok(()) };
            let Some(root) = self.event(nid).await?.state_before else { return Ok(()) };
            at = self.rooms().view.states.load(root).await?.get(key);
            if let Some(earlier) = at {
                replaced.insert(nid, earlier);
            }
        }
        Ok(())
    }

    fn record_reset(
        &mut self,
        by: &Event,
        before: &StateTree,
        reset: &Reset,
        event_type: &str,
        state_key: &str,
    ) {
        let kind = match reset.kind {
            ResetKind::Dropped => "dropped",
            ResetKind::Reverted => "reverted",
            ResetKind::Overturned => "overturned",
        };
        tracing::warn!(
            room_id = %self.room.info.room_id, by = %by.pdu.event_id, event_type, state_key, kind,
            "state resolution changed what no event asked for"
        );
        let help = "Changes of rooms by state resolution that no event asked for.";
        self.rooms().view.metrics.counter("myelin_state_resets_total", help, &[("kind", kind)]).add(1);
        let record = StateResetRecord {
            room: by.room,
            by: by.nid,
            event_type: event_type.to_owned(),
            state_key: state_key.to_owned(),
            kind: kind.to_owned(),
            before: reset.before,
            after: reset.after,
            state_before: before.root().0,
            state_after: self.room.current_state.root().0,
        };
        let key = (self.rooms().view.env.now_ms(), format!("{} {event_type} {state_key}", by.pdu.event_id));
        self.batch.put(&STATE_RESETS, &key, &record);
    }
}
