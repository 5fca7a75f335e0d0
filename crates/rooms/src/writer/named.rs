//! The forward extremities that an event made here names, where there are more than may be named: the newest, and those
//! after which the room is as the event needs it. What others branch off from before somebody came cannot shut them out.

use std::sync::Arc;

use myelin_core::{EventNid, StateKeyNid, limits::PREV_EVENTS_MAX};
use myelin_dag::{NewEvent, StateTree, auth_types};
use myelin_view::Event;

use super::Draft;
use crate::Error;

impl Draft<'_> {
    /// Whether an event made here refers to all forward extremities.
    pub(crate) fn names_all_extremities(&self) -> bool {
        self.room.head.extremities.len() <= PREV_EVENTS_MAX
    }

    /// Newest first.
    pub(crate) async fn named_extremities(&self, event: &NewEvent) -> Result<Vec<Arc<Event>>, Error> {
        let nids = match self.names_all_extremities() {
            true => self.room.head.extremities.clone(),
            false => self.chosen_extremities(event).await?,
        };
        let mut named = Vec::with_capacity(nids.len());
        for nid in nids {
            named.push(self.event(nid).await?);
        }
        Ok(named)
    }

    /// The state before an event that names these: the current state, unless that is made of more than can be named.
    pub(crate) async fn state_after_named(&self, named: &[Arc<Event>]) -> Result<StateTree, Error> {
        if self.names_all_extremities() {
            return Ok(self.room.current_state.clone());
        }
        self.state_after_all(named).await
    }

    async fn chosen_extremities(&self, event: &NewEvent) -> Result<Vec<EventNid>, Error> {
        let extremities = &self.room.head.extremities;
        let mut lacking = self.authorities_now(event).await?;
        // No more than an event has auth events, which is less than may be named.
        let mut chosen = Vec::with_capacity(PREV_EVENTS_MAX);
        for (index, nid) in extremities.iter().enumerate() {
            if lacking.is_empty() {
                break;
            }
            let state = self.state_after(&*self.event(*nid).await?).await?;
            let before = lacking.len();
            lacking.retain(|(key, value)| state.get(*key) != Some(*value));
            if lacking.len() < before {
                chosen.push(index);
            }
        }
        let others: Vec<_> = (0..extremities.len()).filter(|index| !chosen.contains(index)).collect();
        chosen.extend(others.into_iter().take(PREV_EVENTS_MAX.saturating_sub(chosen.len())));
        chosen.sort_unstable();
        Ok(chosen.into_iter().filter_map(|index| extremities.get(index).copied()).collect())
    }

    /// What of the current state allows an event.
    async fn authorities_now(&self, event: &NewEvent) -> Result<Vec<(StateKeyNid, EventNid)>, Error> {
        let (kind, key) = (&event.event_type, event.state_key.as_deref());
        let types = auth_types(&self.room.info.rules, kind, &event.sender, key, &event.content);
        let types = types.map_err(|rejection| Error::BadJson(rejection.reason))?;
        let mut authorities = Vec::with_capacity(types.len());
        for (event_type, state_key) in types {
            let key = self.rooms.view.interner.lookup_state_key(&event_type.to_string(), &state_key).await?;
            let entry = key.and_then(|key| Some((key, self.room.current_state.get(key)?)));
            authorities.extend(entry);
        }
        Ok(authorities)
    }
}
