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

/// Replacements of state events that are followed back for one event, altogether.
const STEPS_MAX: usize = 100;

/// What is known of the changes that one event brought along.
#[derive(Default)]
struct Followed {
    /// The event that another one replaced.
    replaced: HashMap<EventNid, EventNid>,
    steps: usize,
}

impl Draft<'_> {
    /// `event` was accepted, and the current state was `before`.
    pub(super) async fn watch_resets(&mut self, event: &Event, before: &StateTree) -> Result<(), Error> {
        let mut unasked = before.diff(&self.room.current_state);
        unasked.retain(|(.., now)| *now != Some(event.nid));
        if unasked.is_empty() {
            return Ok(());
        }
        let keys: Vec<StateKeyNid> = unasked.iter().map(|(key, ..)| *key).collect();
        let names = self.rooms().view.interner.state_key_names(&keys).await?;
        let mut watched: HashMap<_, _> = keys.into_iter().zip(names).collect();
        watched.retain(|_, name| is_watched(&name.event_type.as_str().into()));
        let mut followed = Followed::default();
        for (key, was, _) in unasked.iter().filter(|(key, ..)| watched.contains_key(key)) {
            self.follow_back(*key, *was, &mut followed).await?;
        }
        let found = resets(
            before,
            &self.room.current_state,
            |key| watched.contains_key(&key),
            |nid| nid == event.nid,
            |nid| followed.replaced.get(&nid).copied(),
        );
        for reset in found {
            let Some(name) = watched.get(&reset.key) else { continue };
            if !self.is_news(&reset).await? {
                self.record_reset(event, before, &reset, &name.event_type, &name.state_key);
            }
        }
        Ok(())
    }

    /// Whether this server had not seen it in its place, and nothing here had replaced it: somebody asked for it while
    /// this server was not there, and it came with a state that was fetched. Numbers grow: what was held before that which
    /// it takes the place of is none.
    async fn is_news(&self, reset: &Reset) -> Result<bool, Error> {
        let after = reset.after.filter(|_| reset.kind == ResetKind::Overturned);
        let Some(after) = after.filter(|after| reset.before.is_none_or(|before| before < *after)) else {
            return Ok(false);
        };
        let after = self.event(after).await?;
        Ok(after.state_before.is_none() || after.told)
    }

    async fn follow_back(
        &self,
        key: StateKeyNid,
        from: Option<EventNid>,
        followed: &mut Followed,
    ) -> Result<(), Error> {
        let mut at = from;
        while let Some(nid) = at.filter(|_| followed.steps < STEPS_MAX) {
            followed.steps += 1;
            let Some(root) = self.event(nid).await?.state_before else { return Ok(()) };
            at = self.rooms().view.states.load(root).await?.get(key);
            if let Some(earlier) = at {
                followed.replaced.insert(nid, earlier);
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
