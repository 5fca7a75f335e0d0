//! Names and their numbers agree in both directions, and no counter will give a number out again.

use std::fmt::Debug;

use myelin_core::{EventNid, RoomNid, StateKeyNid, UserNid};

use super::Verifier;
use crate::{
    Error, NidKind,
    codec::{AtPosition, KeyPart, Value},
    maintenance::pages::TypedPages,
    tables::{
        EVENT_NIDS, EVENTS, EventRecord, NID_COUNTERS, Name, ROOM_NIDS, ROOMS, RoomRecord, STATE_KEY_NIDS,
        STATE_KEYS, StateKeyRecord, Table, USER_IDS, USER_NIDS,
    },
};

/// An interned kind of name: the two tables, and how a record names itself.
struct Interned<'a, K, N, R> {
    numbers: &'a Table<K, N>,
    records: &'a Table<N, R>,
    name_of: fn(&R) -> K,
    kind: NidKind,
    number_of: fn(&N) -> u64,
}

impl Verifier<'_> {
    pub(super) async fn check_interned(&mut self) -> Result<(), Error> {
        self.begin("names");
        let users: Interned<'_, String, UserNid, Name> = Interned {
            numbers: &USER_NIDS,
            records: &USER_IDS,
            name_of: |record| record.0.clone(),
            kind: NidKind::User,
            number_of: |nid| nid.0,
        };
        self.check_both_ways(&users).await?;
        let rooms: Interned<'_, String, RoomNid, RoomRecord> = Interned {
            numbers: &ROOM_NIDS,
            records: &ROOMS,
            name_of: |record| record.room_id.clone(),
            kind: NidKind::Room,
            number_of: |nid| nid.0,
        };
        self.check_both_ways(&rooms).await?;
        let events: Interned<'_, String, EventNid, AtPosition<EventRecord>> = Interned {
            numbers: &EVENT_NIDS,
            records: &EVENTS,
            name_of: |record| record.value.event_id.clone(),
            kind: NidKind::Event,
            number_of: |nid| nid.0,
        };
        self.check_both_ways(&events).await?;
        let state_keys: Interned<'_, (String, String), StateKeyNid, StateKeyRecord> = Interned {
            numbers: &STATE_KEY_NIDS,
            records: &STATE_KEYS,
            name_of: |record| (record.event_type.clone(), record.state_key.clone()),
            kind: NidKind::StateKey,
            number_of: |nid| nid.0,
        };
        self.check_both_ways(&state_keys).await
    }

    async fn check_both_ways<K, N, R>(&mut self, interned: &Interned<'_, K, N, R>) -> Result<(), Error>
    where
        K: KeyPart + PartialEq + Debug,
        N: KeyPart + Value + Copy + PartialEq + Debug,
        R: Value,
    {
        self.check_names(interned).await?;
        self.check_records(interned).await
    }

    async fn check_names<K, N, R>(&mut self, interned: &Interned<'_, K, N, R>) -> Result<(), Error>
    where
        K: KeyPart + PartialEq + Debug,
        N: KeyPart + Value + Copy + PartialEq + Debug,
        R: Value,
    {
        let mut pages = TypedPages::of(interned.numbers);
        while let Some(rows) = pages.next(self.read()).await? {
            let records = self.load_all(interned.records, rows.iter().map(|(_, nid)| *nid)).await?;
            for ((name, nid), record) in rows.iter().zip(&records) {
                let problem = match record.row().map(interned.name_of) {
                    None if record.is_missing() => {
                        format!("stands for {nid:?}, which table '{}' does not have", interned.records.name)
                    }
                    Some(other) if other != *name => format!("stands for {nid:?}, which is {other:?}"),
                    _ => continue,
                };
                self.found(interned.numbers, name, problem);
            }
            self.advance(rows.len());
        }
        Ok(())
    }

    async fn check_records<K, N, R>(&mut self, interned: &Interned<'_, K, N, R>) -> Result<(), Error>
    where
        K: KeyPart + PartialEq + Debug,
        N: KeyPart + Value + Copy + PartialEq + Debug,
        R: Value,
    {
        let counter = self.load_all(&NID_COUNTERS, [interned.kind as u8]).await?;
        let free = counter.first().and_then(|counter| counter.row()).map_or(1, |counter| counter.next);
        let mut pages = TypedPages::of(interned.records);
        while let Some(rows) = pages.next(self.read()).await? {
            let names = rows.iter().map(|(_, record)| (interned.name_of)(record));
            let numbers = self.load_all(interned.numbers, names).await?;
            for ((nid, record), number) in rows.iter().zip(&numbers) {
                let name = (interned.name_of)(record);
                if number.is_missing() {
                    let problem = format!("is {name:?}, which is not in table '{}'", interned.numbers.name);
                    self.found(interned.records, nid, problem);
                } else if let Some(other) = number.row().filter(|other| *other != nid) {
                    self.found(
                        interned.records,
                        nid,
                        format!("is {name:?}, but that name stands for {other:?}"),
                    );
                }
                if (interned.number_of)(nid) >= free {
                    let problem =
                        format!("the counter stands at {free}: the number would be given out again");
                    self.found(interned.records, nid, problem);
                }
            }
            self.advance(rows.len());
        }
        Ok(())
    }
}
