//! Signatures of PDUs, with the keys for many of them brought at once.

use std::{collections::BTreeMap, future::poll_fn, sync::Arc, task::Poll};

use myelin_dag::{
    Pdu,
    checks::{Dropped, FormedPdu, RawPdu, SignatureError, VerifiedPdu, VerifyingKeys},
};
use ruma::{OwnedEventId, OwnedServerName, room_version_rules::RoomVersionRules, signatures::PublicKeyMap};
use serde_json::value::RawValue;

use super::Inbound;
use crate::keys::Wanted;

/// PDUs that are parsed or verified before others get their turn: some milliseconds.
const IN_ONE_GO: usize = 100;

impl Inbound {
    /// One outcome per PDU, in order.
    pub async fn verify(
        &self,
        formed: Vec<FormedPdu>,
        rules: &RoomVersionRules,
    ) -> Vec<Result<VerifiedPdu, Dropped>> {
        let wanted: Vec<_> = formed.iter().map(|formed| wanted(formed, rules)).collect();
        self.keys.bring(&together(&wanted)).await;
        self.verify_with(formed, &wanted, rules).await
    }

    /// The same with the keys that are here; nobody is waited for.
    pub(super) async fn verify_at_hand(
        &self,
        formed: Vec<FormedPdu>,
        rules: &RoomVersionRules,
    ) -> Vec<Result<VerifiedPdu, Dropped>> {
        let wanted: Vec<_> = formed.iter().map(|formed| wanted(formed, rules)).collect();
        self.verify_with(formed, &wanted, rules).await
    }

    /// With the keys that are here. `wanted`: for each, those that it claims to be signed by.
    async fn verify_with(
        &self,
        formed: Vec<FormedPdu>,
        wanted: &[Vec<Wanted>],
        rules: &RoomVersionRules,
    ) -> Vec<Result<VerifiedPdu, Dropped>> {
        let keys = self.keys.at_hand(&together(wanted)).await;
        let verifying = VerifyingKeys::of(&keys);
        let mut outcomes = Vec::with_capacity(formed.len());
        for (index, (formed, wanted)) in formed.into_iter().zip(wanted).enumerate() {
            if index % IN_ONE_GO == IN_ONE_GO - 1 {
                let_others_run().await;
            }
            let served = wanted.iter().all(|wanted| is_served(wanted, &keys));
            outcomes.push(if served {
                formed.verify_with(&verifying, rules)
            } else {
                // What is valid for all is less than what is valid for each.
                formed.verify(&self.keys.at_hand(wanted).await, rules)
            });
        }
        outcomes
    }

    /// Those of some PDUs, fetched because they were missing, that are events with the signatures they need; and what
    /// could not be checked for want of keys: it may be as good as the rest.
    pub async fn verified_or_keyless(&self, raws: &[Box<RawValue>], rules: &RoomVersionRules) -> Verified {
        self.verify_formed(formed(raws, rules).await, rules).await
    }

    pub(super) async fn verify_formed(&self, formed: Vec<FormedPdu>, rules: &RoomVersionRules) -> Verified {
        let wanted: Vec<_> = formed.iter().map(|formed| wanted(formed, rules)).collect();
        let names: Vec<_> = formed.iter().map(FormedPdu::claims).map(named).collect();
        self.keys.bring(&together(&wanted)).await;
        let outcomes = self.verify_with(formed, &wanted, rules).await;
        let mut verified = Verified::default();
        for (outcome, ((event_id, json), mut wanted)) in
            outcomes.into_iter().zip(names.into_iter().zip(wanted))
        {
            match outcome {
                Ok(event) => verified.events.push(event),
                Err(error) => {
                    tracing::debug!(%error, "a fetched PDU is dropped");
                    let Some(server) = keyless(&error) else { continue };
                    wanted.retain(|key| key.server == *server);
                    verified.keyless.push(KeylessPdu { event_id, json, wanted });
                }
            }
        }
        verified
    }
}

/// Those of some PDUs, fetched because they were missing, that are events.
pub(super) async fn formed(raws: &[Box<RawValue>], rules: &RoomVersionRules) -> Vec<FormedPdu> {
    let mut events = Vec::with_capacity(raws.len());
    for in_one_go in raws.chunks(IN_ONE_GO) {
        events.extend(in_one_go.iter().filter_map(|raw| match RawPdu(raw).check_format(rules) {
            Ok(formed) => Some(formed),
            Err(error) => {
                tracing::debug!(%error, "a fetched PDU is not an event");
                None
            }
        }));
        if in_one_go.len() == IN_ONE_GO {
            let_others_run().await;
        }
    }
    events
}

/// Comes back when the tasks that wait for this thread have had their turn.
async fn let_others_run() {
    let mut let_run = false;
    poll_fn(|context| {
        if std::mem::replace(&mut let_run, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// What became of the signatures of several PDUs.
#[derive(Default)]
pub struct Verified {
    pub events: Vec<VerifiedPdu>,
    pub keyless: Vec<KeylessPdu>,
}

/// An event that could not be checked.
pub struct KeylessPdu {
    pub event_id: OwnedEventId,
    /// As it travels.
    pub json: Arc<str>,
    /// The keys of one server, which were not to be had.
    pub wanted: Vec<Wanted>,
}

fn named(claims: &Pdu) -> (OwnedEventId, Arc<str>) {
    (claims.event_id.clone(), claims.json.clone())
}

/// The server for whose keys alone an event could not be checked.
pub fn keyless(error: &Dropped) -> Option<&OwnedServerName> {
    match error {
        Dropped::Signature(SignatureError::NoKnownKey(server)) => Some(server),
        _ => None,
    }
}

/// The keys that one event claims to be signed by, of the servers that must have signed it. Without them it is
/// dropped by the check itself.
pub(super) fn wanted(formed: &FormedPdu, rules: &RoomVersionRules) -> Vec<Wanted> {
    let at_ms = match rules.enforce_key_validity {
        true => formed.claims().origin_server_ts.get().into(),
        false => 0,
    };
    let keys = formed.wanted_keys(rules).into_iter().flatten();
    keys.map(|(server, key_ids)| Wanted { server, key_ids, at_ms }).collect()
}

/// Each key once, for the latest time at which it is said to have signed.
fn together(wanted: &[Vec<Wanted>]) -> Vec<Wanted> {
    let mut latest: BTreeMap<(&OwnedServerName, &Vec<String>), u64> = BTreeMap::new();
    for wanted in wanted.iter().flatten() {
        let at_ms = latest.entry((&wanted.server, &wanted.key_ids)).or_default();
        *at_ms = (*at_ms).max(wanted.at_ms);
    }
    let wanted = latest.into_iter();
    wanted
        .map(|((server, key_ids), at_ms)| Wanted { server: server.clone(), key_ids: key_ids.clone(), at_ms })
        .collect()
}

fn is_served(wanted: &Wanted, keys: &PublicKeyMap) -> bool {
    let known = keys.get(wanted.server.as_str());
    known.is_some_and(|known| wanted.key_ids.iter().any(|id| known.contains_key(id)))
}
