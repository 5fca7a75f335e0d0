//! `initial_state` of a request, as far as nothing else takes its place.

use serde_json::value::RawValue;

use super::InitialState;

pub struct InitialEvents<'a>(Vec<&'a InitialState>);

impl<'a> InitialEvents<'a> {
    pub fn new(states: &'a [InitialState]) -> Self {
        Self(states.iter().collect())
    }

    pub fn get(&self, event_type: &str, state_key: &str) -> Option<&'a RawValue> {
        let found = self.0.iter().rfind(|s| s.event_type == event_type && s.state_key == state_key);
        found.map(|state| &*state.content)
    }

    pub fn has(&self, event_type: &str, state_key: &str) -> bool {
        self.get(event_type, state_key).is_some()
    }

    /// Takes it out; of several for the same key the last counts.
    pub fn take(&mut self, event_type: &str, state_key: &str) -> Option<Box<RawValue>> {
        let found = self.get(event_type, state_key).map(ToOwned::to_owned);
        self.0.retain(|s| s.event_type != event_type || s.state_key != state_key);
        found
    }

    pub fn rest(self) -> impl Iterator<Item = &'a InitialState> {
        self.0.into_iter()
    }
}
