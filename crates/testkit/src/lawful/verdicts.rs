//! What a server made of events: that what counts is authorised, that nothing lawful is rejected or soft-failed, that two
//! servers do not judge one event unlike, and that redactions have happened.

use std::{collections::BTreeMap, sync::Arc};

use myelin_dag::Pdu;
use myelin_store::tables::VerdictRecord;
use myelin_view::Event;
use ruma::{
    OwnedEventId,
    events::{StateEventType, TimelineEventType},
    state_res::{Event as _, StateMap, check_state_dependent_auth_rules, check_state_independent_auth_rules},
};

use super::{Holding, Map, is_soft_failed};

impl Holding {
    /// What counts is authorised by its auth events and by the state before it.
    pub(super) fn check_auth(&self, event: &Event) -> Result<(), String> {
        if self.bare.contains(&event.pdu.event_id) {
            return Ok(());
        }
        self.allowed_by_auth_events(&event.pdu)?;
        // An event of another server may have come with no more than its auth events.
        let Some(state) = event.state_before.and_then(|root| self.states.get(&root)) else { return Ok(()) };
        match event.state_is_partial {
            true => self.allowed_by_partial(state, &event.pdu),
            false => self.allowed_by(state, &event.pdu),
        }
    }

    /// What is rejected is so for a reason: by its auth events, or by the state before it.
    pub(super) fn check_rejected(&self, event: &Event) -> Result<(), String> {
        if self.allowed_by_auth_events(&event.pdu).is_err() {
            return Ok(());
        }
        let state = event.state_before.and_then(|root| self.states.get(&root));
        let state = state.ok_or("it is rejected, though its auth events allow it")?;
        let refused_while_partial =
            event.state_is_partial && self.allowed_by_partial(state, &event.pdu).is_err();
        match refused_while_partial || self.allowed_by(state, &event.pdu).is_err() {
            true => Ok(()),
            false => Err("it is rejected, though the state before it allows it".to_owned()),
        }
    }

    /// What is soft-failed was held against a state that the room had, and was not allowed by it. When it came is not
    /// written down, so any state of the room will do.
    pub(super) fn check_soft_failed(&self, event: &Event) -> Result<(), String> {
        let allows = |state: &Arc<Map>| self.allowed_by(state, &event.pdu).is_ok();
        match is_soft_failed(event) && !event.state_is_partial && self.once_current.iter().all(allows) {
            true => Err("it is soft-failed, though the room never was in a state that refuses it".to_owned()),
            false => Ok(()),
        }
    }

    /// Check 4 on receipt of a PDU: that the auth events may be named, that none of them is rejected, and that the event is
    /// allowed if they are taken as the state.
    fn allowed_by_auth_events(&self, pdu: &Pdu) -> Result<(), String> {
        let rules = &self.rules().authorization;
        check_state_independent_auth_rules(rules, pdu, |id| self.pdu(id))?;
        let mut state: StateMap<Arc<Pdu>> = StateMap::new();
        for event in pdu.auth_events.iter().filter_map(|id| self.pdu(id)).chain(self.implied_create()) {
            if let Some(key) = &event.state_key {
                state.insert((event.event_type.to_string().into(), key.clone()), event.clone());
            }
        }
        check_state_dependent_auth_rules(rules, pdu, |event_type, key| {
            state.get(&(event_type.clone(), key.to_owned())).cloned()
        })
    }

    /// The create event, where the room id says which it is.
    fn implied_create(&self) -> Option<Arc<Pdu>> {
        let implied = self.rules().authorization.room_create_event_id_as_room_id;
        let id = implied.then(|| self.info.room_id.as_str().replacen('!', "$", 1))?;
        self.pdu(<&ruma::EventId>::try_from(id.as_str()).ok()?)
    }

    fn allowed_by(&self, state: &Map, pdu: &Pdu) -> Result<(), String> {
        check_state_dependent_auth_rules(&self.rules().authorization, pdu, |event_type, key| {
            self.pdu(state.get(&(event_type.clone(), key.to_owned()))?)
        })
    }

    /// The same by a state in which members may lack: where they do, the auth events tell.
    fn allowed_by_partial(&self, state: &Map, pdu: &Pdu) -> Result<(), String> {
        let mut filled = state.clone();
        let members = pdu.auth_events.iter().filter_map(|id| self.pdu(id));
        for member in members.filter(|event| event.event_type == TimelineEventType::RoomMember) {
            if let Some(key) = &member.state_key {
                let key = (StateEventType::RoomMember, key.clone());
                filled.entry(key).or_insert_with(|| member.event_id.clone());
            }
        }
        self.allowed_by(&filled, pdu)
    }

    /// Who redacts what their own server sent has redacted it, where both are shown; and nothing is redacted by anything
    /// else than a redaction of it.
    pub(super) fn check_redaction(&self, event: &Event) -> Result<(), String> {
        if let Some(by) = event.redacted_by.filter(|by| *by != event.nid) {
            let by = self.by_nid.get(&by).and_then(|id| self.events.get(id));
            // A redaction that was redacted itself no longer says of what it is one.
            let is_of_it = by.is_some_and(|by| {
                by.accepted()
                    && (by.redacted_by.is_some() || by.pdu.redacts.as_ref() == Some(&event.pdu.event_id))
            });
            let by = by.map(|by| &by.pdu.event_id);
            return is_of_it.then_some(()).ok_or_else(|| format!("it is redacted by {by:?}"));
        }
        let redacts = event.pdu.redacts.as_ref().filter(|_| event.accepted() && event.order.is_some());
        let Some(target) = redacts.and_then(|target| self.events.get(target)) else { return Ok(()) };
        let own = target.pdu.sender.server_name() == event.pdu.sender.server_name();
        let shown = target.accepted() && target.order.is_some();
        match own && shown && target.redacted_by.is_none() && !target.pdu.rejected() {
            true => Err(format!("it redacts {}, which is as it was", target.pdu.event_id)),
            false => Ok(()),
        }
    }
}

/// Events that two servers judge unlike.
pub(super) fn unlike_verdicts<'a>(holdings: impl Iterator<Item = &'a Holding>) -> Vec<String> {
    let rejected = |event: &Event| matches!(event.verdict, VerdictRecord::Rejected { .. });
    let mut first: BTreeMap<&OwnedEventId, bool> = BTreeMap::new();
    let mut found = Vec::new();
    for holding in holdings {
        for event in holding.events.values().filter(|event| event.carries(false)) {
            let id = &event.pdu.event_id;
            if *first.entry(id).or_insert_with(|| rejected(event)) != rejected(event) {
                found.push(format!("{id} is rejected at one server and not at another"));
            }
        }
    }
    found.sort();
    found
}
