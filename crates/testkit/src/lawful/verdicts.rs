//! What a server made of events beside holding them: that it rejects nothing that is lawful, that two servers do not judge
//! alike events unlike, and that redactions have happened.

use std::collections::BTreeMap;

use myelin_store::tables::VerdictRecord;
use myelin_view::Event;
use ruma::{
    OwnedEventId,
    state_res::{Event as _, check_state_dependent_auth_rules, check_state_independent_auth_rules},
};

use super::Holding;

impl Holding {
    /// What is rejected is so for a reason: by its auth events, or by the state before it.
    pub(super) fn check_rejected(&self, event: &Event) -> Result<(), String> {
        let (rules, pdu) = (&self.rules().authorization, &*event.pdu);
        let unjudged = self.partial || event.state_is_partial || self.bare.contains(&pdu.event_id);
        if unjudged || check_state_independent_auth_rules(rules, pdu, |id| self.pdu(id)).is_err() {
            return Ok(());
        }
        let state = event.state_before.and_then(|root| self.states.get(&root));
        let state = state.ok_or("it is rejected, though its auth events allow it")?;
        let before = |event_type: &_, key: &str| {
            self.pdu(state.get(&(ruma::events::StateEventType::clone(event_type), key.to_owned()))?)
        };
        match check_state_dependent_auth_rules(rules, pdu, before) {
            Ok(()) => Err("it is rejected, though the state before it allows it".to_owned()),
            Err(_) => Ok(()),
        }
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
pub(super) fn unlike_verdicts(holdings: &[&Holding]) -> Vec<String> {
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
