//! A room's state as another server gives it, with what authorises it: checked, and held as outliers.

use std::collections::HashSet;

use myelin_dag::checks::VerifiedPdu;
use myelin_rooms::Error;
use myelin_store::tables::KeylessRecord;
use myelin_view::RoomInfo;
use ruma::OwnedEventId;
use serde_json::value::RawValue;

use super::Handshakes;
use crate::{inbound::verification::Verified, keys::Wanted};

/// Keys that are written down as not to be had. What was signed by more of them is done without.
const KEYLESS_MAX: usize = 5_000;

pub(super) struct GivenState {
    /// Events of the state that are held now.
    pub ids: Vec<OwnedEventId>,
    /// Keys that were not to be had: what they signed is left out.
    pub keyless: Vec<KeylessRecord>,
    /// Events that others depend on and that were not given.
    pub missing: usize,
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
        let chain = self.inbound.verified_or_keyless(auth_chain, &info.rules).await;
        events.extend(chain.events);
        keyless.extend(chain.keyless);
        let outliers = self.rooms.take_outliers(info, events).await?;
        let left_out: HashSet<_> = outliers.left_out.iter().collect();
        ids.retain(|id| !left_out.contains(id));
        Ok(GivenState { ids, keyless: records(keyless), missing: outliers.missing.len() })
    }
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
    use super::*;

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
