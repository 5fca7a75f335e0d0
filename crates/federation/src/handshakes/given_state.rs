//! A room's state as another server gives it, with what authorises it: checked, and held as outliers.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use myelin_dag::{Pdu, checks::VerifiedPdu};
use myelin_rooms::{Error, LeftOut};
use myelin_store::tables::KeylessRecord;
use myelin_view::RoomInfo;
use ruma::OwnedEventId;
use serde_json::value::RawValue;

use super::Handshakes;
use crate::{
    inbound::verification::{KeylessPdu, Verified},
    keys::Wanted,
};

/// Keys that are written down as not to be had. What was signed by more of them is done without.
const KEYLESS_MAX: usize = 5_000;
/// What lacks for want of them is kept as it was given, up to so many events and bytes.
const LEFT_OUT_MAX: usize = 5_000;
const LEFT_OUT_BYTES_MAX: usize = 16 * 1024 * 1024;

pub(super) struct GivenState {
    /// Events of the state that are held now.
    pub ids: Vec<OwnedEventId>,
    pub lacking: Lacking,
    /// Events that others depend on and that were not given.
    pub missing: usize,
}

/// What of a state could not be checked.
#[derive(Default)]
pub(super) struct Lacking {
    /// Keys that were not to be had: what they signed is left out.
    pub keyless: Vec<KeylessRecord>,
    /// That, and what it authorises.
    pub left_out: Vec<LeftOut>,
}

impl Handshakes {
    pub(super) async fn take_state(
        &self,
        info: &RoomInfo,
        state: &[Box<RawValue>],
        auth_chain: &[Box<RawValue>],
    ) -> Result<GivenState, Error> {
        let Verified { mut events, mut keyless } = self.inbound.verified_or_keyless(state, &info.rules).await;
        let own = |event: &&VerifiedPdu| event.pdu().room_id == info.room_id && event.pdu().is_state();
        let mut ids: Vec<_> = events.iter().filter(own).map(|event| event.pdu().event_id.clone()).collect();
        let in_state = keyless.iter().map(|pdu| &pdu.event_id).chain(&ids);
        let in_state: HashSet<OwnedEventId> = in_state.cloned().collect();
        let chain = self.inbound.verified_or_keyless(auth_chain, &info.rules).await;
        events.extend(chain.events);
        keyless.extend(chain.keyless);
        let texts: BTreeMap<_, _> = match keyless.is_empty() {
            true => BTreeMap::new(),
            false => events.iter().map(text).collect(),
        };
        let outliers = self.rooms.take_outliers(info, events).await?;
        let left_out: HashSet<_> = outliers.left_out.iter().collect();
        ids.retain(|id| !left_out.contains(id));
        let dependent = outliers.left_out.iter().filter_map(|id| Some((id.clone(), texts.get(id)?.clone())));
        let wanted = keyless.iter().flat_map(|pdu| pdu.wanted.iter().cloned()).collect();
        let unchecked = keyless.into_iter().map(|KeylessPdu { event_id, json, .. }| (event_id, json));
        let left_out = of_room(info, unchecked.chain(dependent), &in_state);
        let lacking = Lacking { keyless: records(wanted), left_out };
        Ok(GivenState { ids, lacking, missing: outliers.missing.len() })
    }
}

fn text(event: &VerifiedPdu) -> (OwnedEventId, Arc<str>) {
    (event.pdu().event_id.clone(), event.pdu().json.clone())
}

/// The state events of this room, each once, and one for each key of the state: whom others give two would take neither.
fn of_room(
    info: &RoomInfo,
    events: impl Iterator<Item = (OwnedEventId, Arc<str>)>,
    in_state: &HashSet<OwnedEventId>,
) -> Vec<LeftOut> {
    let (mut seen, mut keys) = (HashSet::new(), HashSet::new());
    let mut bytes = 0;
    let mut left_out = Vec::new();
    for (event_id, json) in events {
        let Ok(pdu) = Pdu::parse(json, event_id, &info.rules) else { continue };
        let Pdu { event_id, room_id, event_type, state_key: Some(state_key), json, .. } = pdu else {
            continue;
        };
        bytes += json.len();
        if left_out.len() >= LEFT_OUT_MAX || bytes > LEFT_OUT_BYTES_MAX {
            tracing::warn!(room_id = %info.room_id, "more lacks of a state than is kept");
            break;
        }
        if room_id == info.room_id && seen.insert(event_id.clone()) {
            let of_state = in_state.contains(&event_id) && keys.insert((event_type, state_key));
            left_out.push(LeftOut { event_id, json, of_state });
        }
    }
    left_out
}

/// Each key once, with the earliest time at which it signed: when it is valid for that, there is something to be had.
pub(super) fn records(keyless: Vec<Wanted>) -> Vec<KeylessRecord> {
    let mut records: Vec<KeylessRecord> = Vec::new();
    let mut wanted = keyless;
    wanted.retain(|wanted| !wanted.key_ids.is_empty());
    wanted.sort_by(|a, b| (&a.server, &a.key_ids, a.at_ms).cmp(&(&b.server, &b.key_ids, b.at_ms)));
    for Wanted { server, key_ids, at_ms } in wanted {
        let server = server.to_string();
        if records.last().is_none_or(|last| last.server != server || last.key_ids != key_ids) {
            records.push(KeylessRecord { server, key_ids, at_ms });
        }
    }
    records.truncate(KEYLESS_MAX);
    records
}

pub(super) fn wanted(record: &KeylessRecord) -> Option<Wanted> {
    let server = record.server.as_str().try_into().ok()?;
    Some(Wanted { server, key_ids: record.key_ids.clone(), at_ms: record.at_ms })
}

#[cfg(test)]
mod tests {
    use ruma::room_id;
    use serde_json::json;

    use super::*;

    fn room(version: &ruma::RoomVersionId) -> RoomInfo {
        RoomInfo {
            nid: myelin_core::RoomNid(1),
            room_id: room_id!("!r:a.org").to_owned(),
            version: version.clone(),
            rules: version.rules().expect("known"),
            room_type: None,
            create_event: myelin_core::EventNid(1),
        }
    }

    fn pdu(n: usize, room: &str, state_key: &str, filling: usize) -> (OwnedEventId, Arc<str>) {
        let json = json!({
            "type": "m.room.topic", "room_id": room, "sender": "@u:b.org", "state_key": state_key,
            "content": { "topic": "x".repeat(filling) }, "origin_server_ts": 1, "depth": 1,
            "prev_events": [], "auth_events": [], "hashes": {}, "signatures": {}
        });
        (format!("$event{n}").try_into().expect("an event id"), json.to_string().into())
    }

    #[test]
    fn one_event_of_the_room_is_kept_for_each_key_of_the_state() {
        let info = room(&ruma::RoomVersionId::V11);
        let events = [
            pdu(1, "!r:a.org", "a", 0),
            pdu(1, "!r:a.org", "a", 0),
            pdu(2, "!r:a.org", "a", 0),
            pdu(3, "!elsewhere:a.org", "b", 0),
            pdu(4, "!r:a.org", "c", 0),
        ];
        let in_state = events[..4].iter().map(|(id, _)| id.clone()).collect();
        let kept = of_room(&info, events.into_iter(), &in_state);
        let kept: Vec<_> = kept.iter().map(|kept| (kept.event_id.as_str(), kept.of_state)).collect();
        assert_eq!(kept, [("$event1", true), ("$event2", false), ("$event4", false)]);
    }

    #[test]
    fn what_is_kept_has_an_end() {
        let info = room(&ruma::RoomVersionId::V11);
        let many = (0..LEFT_OUT_MAX + 5).map(|n| pdu(n, "!r:a.org", &n.to_string(), 0));
        assert_eq!(of_room(&info, many, &HashSet::new()).len(), LEFT_OUT_MAX);
        let large = (0..20).map(|n| pdu(n, "!r:a.org", &n.to_string(), 1024 * 1024));
        assert_eq!(of_room(&info, large, &HashSet::new()).len(), 15, "of 16 MiB");
    }

    #[test]
    fn a_key_is_awaited_once_for_the_earliest_that_it_signed() {
        let wanted = |server: &str, key_id: &str, at_ms| Wanted {
            server: server.try_into().unwrap(),
            key_ids: vec![key_id.to_owned()],
            at_ms,
        };
        let lacking = vec![
            Wanted { server: "c.org".try_into().unwrap(), key_ids: Vec::new(), at_ms: 1 },
            wanted("b.org", "1", 7),
            wanted("a.org", "1", 5),
            wanted("b.org", "1", 3),
            wanted("b.org", "2", 9),
        ];
        let kept: Vec<_> = records(lacking)
            .into_iter()
            .map(|record| (record.server, record.key_ids[0].clone(), record.at_ms))
            .collect();
        let expected = [("a.org", "1", 5), ("b.org", "1", 3), ("b.org", "2", 9)];
        assert_eq!(kept, expected.map(|(server, key, at_ms)| (server.to_owned(), key.to_owned(), at_ms)));
        let many = (0..KEYLESS_MAX + 3).map(|n| wanted("a.org", &n.to_string(), 1)).collect();
        assert_eq!(records(many).len(), KEYLESS_MAX);
    }
}
