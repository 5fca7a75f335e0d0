//! What waits for one server, and how it stands with it. In memory, bounded, and without I/O.
//!
//! Invariant: whatever has to arrive and has not been answered counts in [`Destination::oldest`], wherever it is just
//! now: in the queue, in the log only, being put together, or under way.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use myelin_core::{Position, RoomNid, UserNid};
use myelin_store::tables::DestinationRecord;

use super::{
    receipts::Receipt,
    transaction::{PendingPdu, Told, Transaction},
};

/// Events kept in memory for one server; beyond, they are read from the log when their time comes.
pub const PDUS_MAX: usize = 1_000;
/// Events that go in any case, kept for a server that is away.
const TARGETED_MAX: usize = 1_000;
/// Receipts kept for one server: they are the newest of each user, room and thread.
pub const RECEIPTS_MAX: usize = 2_000;
/// With so many more the oldest are left out, all at once: one by one each would cost a look at all.
pub const RECEIPTS_SLACK: usize = 500;
/// A server is asked at most this often because it gave signs of life; each attempt in vain doubles it.
const SIGN_OF_LIFE_PAUSE_MS: u64 = 1_000;
const SIGN_OF_LIFE_DOUBLINGS_MAX: u32 = 6;
/// The same for one that is there, but refuses transactions: that it is there is no news.
const REFUSED_PAUSE_MS: u64 = 60_000;

#[derive(Default)]
pub struct Destination {
    /// Oldest first.
    pub pdus: VecDeque<PendingPdu>,
    pub receipts: BTreeMap<(RoomNid, UserNid, String), Arc<Receipt>>,
    /// The first row of the outbox that may wait.
    pub outbox_from: Option<Position>,
    /// The last one that is known of.
    outbox_until: Position,
    /// Events and receipts from here on are not in memory.
    pub missed_from: Option<Position>,
    /// What is being put together right now begins here.
    pub building_from: Option<Position>,
    /// Put together, and not answered with a success yet.
    pub transaction: Option<Arc<Transaction>>,
    /// A task is about this server.
    pub in_flight: bool,
    /// That task waits for its turn among those about servers that do not answer.
    pub queueing: bool,
    /// A sign of life came while the task waited for its turn.
    pub woken: bool,
    /// One came while an attempt was under way: should it fail, the next one is soon.
    pub heard: bool,
    /// Who was said to be typing, and when (milliseconds; 0: perhaps it has not arrived).
    pub told: BTreeMap<(RoomNid, UserNid), u64>,
    /// Rooms in which who types may differ from what was said.
    pub typing_rooms: BTreeSet<RoomNid>,
    /// Users whose presence changed.
    pub presence: BTreeSet<UserNid>,
    /// The server refused a transaction as such: until nothing waits, each event and EDU goes by itself, so that the one
    /// that it does not bear keeps back no other.
    pub careful: bool,
    /// Since then, and since something was given up, it took something.
    bears_others: bool,
    /// The first EDU of the outbox was refused by itself: an event goes before it is tried again.
    pub outbox_waits: bool,
    /// When it first failed to take what still waits, milliseconds.
    pub lacking_since_ms: Option<u64>,
    pub health: Health,
    /// The row as it stands in the table.
    pub recorded: Option<DestinationRecord>,
}

#[derive(Clone, Debug, Default)]
pub struct Health {
    /// Consecutive transactions that failed.
    pub failures: u32,
    /// Since when, milliseconds.
    pub failing_since_ms: u64,
    /// The last one of them, milliseconds.
    failed_ms: u64,
    pub retry_at_ms: u64,
    pub last_attempt_ms: u64,
    pub last_success_ms: Option<u64>,
    pub last_error: Option<String>,
    /// The server answered and refused, so it is not away.
    pub refused: bool,
    /// Attempts since the last success that were made because of a sign of life.
    pub signs_followed: u32,
}

impl Health {
    fn sign_of_life_pause_ms(&self) -> u64 {
        match self.refused {
            true => REFUSED_PAUSE_MS,
            false => SIGN_OF_LIFE_PAUSE_MS << self.signs_followed.min(SIGN_OF_LIFE_DOUBLINGS_MAX),
        }
    }
}

impl Destination {
    /// As it was when the process ended.
    pub fn restored(record: DestinationRecord) -> Self {
        let from = record.behind_from;
        let targeted = |event| PendingPdu { position: from, event, targeted: true };
        Self {
            pdus: record.targeted.iter().copied().map(targeted).collect(),
            outbox_from: Some(from),
            missed_from: Some(from),
            lacking_since_ms: (record.failures > 0).then_some(record.behind_since_ms),
            health: Health {
                failures: record.failures,
                failing_since_ms: record.behind_since_ms,
                retry_at_ms: record.retry_at_ms,
                last_success_ms: record.last_success_ms,
                last_error: record.last_error.clone(),
                ..Health::default()
            },
            recorded: Some(record),
            ..Self::default()
        }
    }

    pub fn push_pdu(&mut self, pdu: PendingPdu) {
        if self.missed_from.is_some() {
            // The log has it. What has to go in any case is kept besides.
            if pdu.targeted && self.pdus.len() < TARGETED_MAX {
                self.pdus.push_back(pdu);
            }
            return;
        }
        self.pdus.push_back(pdu);
        if self.pdus.len() > PDUS_MAX {
            self.missed_from = self.pdus.front().map(|pdu| pdu.position);
            self.pdus.retain(|pdu| pdu.targeted);
            self.pdus.truncate(TARGETED_MAX);
        }
    }

    pub fn push_receipt(&mut self, receipt: Arc<Receipt>) {
        self.receipts.insert(receipt.key(), receipt);
        if self.receipts.len() > RECEIPTS_MAX + RECEIPTS_SLACK {
            self.leave_out_old_receipts();
        }
    }

    /// Those that are not known, or newer.
    pub fn push_receipts(&mut self, receipts: Vec<Arc<Receipt>>) {
        for receipt in receipts {
            let held = self.receipts.get(&receipt.key());
            if held.is_none_or(|held| held.position < receipt.position) {
                self.receipts.insert(receipt.key(), receipt);
            }
        }
        self.leave_out_old_receipts();
    }

    fn leave_out_old_receipts(&mut self) {
        let mut positions: Vec<_> = self.receipts.values().map(|receipt| receipt.position).collect();
        let Some(excess) = positions.len().checked_sub(RECEIPTS_MAX).filter(|excess| *excess > 0) else {
            return;
        };
        let (_, oldest_kept, _) = positions.select_nth_unstable(excess);
        let oldest_kept = *oldest_kept;
        self.receipts.retain(|_, receipt| receipt.position >= oldest_kept);
    }

    /// Unless a newer one has come meanwhile.
    pub fn put_back_receipt(&mut self, receipt: Arc<Receipt>) {
        self.receipts.entry(receipt.key()).or_insert(receipt);
    }

    pub fn note_outbox(&mut self, position: Position) {
        self.outbox_from.get_or_insert(position);
        self.outbox_until = self.outbox_until.max(position);
    }

    /// The outbox was read and is empty up to `until`.
    pub fn outbox_is_empty(&mut self, until: Position) {
        if self.outbox_until <= until {
            self.outbox_from = None;
        } else if self.outbox_from.is_some() {
            self.outbox_from = Some(until.next());
        }
    }

    /// The lowest position of what has to arrive and may not have.
    pub fn oldest(&self) -> Option<Position> {
        let pdu = self.pdus.iter().map(|pdu| pdu.position).min();
        let receipt = self.receipts.values().map(|receipt| receipt.position).min();
        let under_way = self.transaction.as_ref().and_then(|transaction| transaction.from);
        [pdu, receipt, self.outbox_from, self.missed_from, self.building_from, under_way]
            .into_iter()
            .flatten()
            .min()
    }

    /// Something waits for which a transaction departs at once.
    pub fn is_urgent(&self) -> bool {
        self.transaction.is_some()
            || !self.pdus.is_empty()
            || !self.receipts.is_empty()
            || self.outbox_from.is_some()
            || self.missed_from.is_some()
    }

    /// Something waits, be it only for the schedule.
    pub fn has_work(&self) -> bool {
        self.is_urgent() || !self.typing_rooms.is_empty() || !self.presence.is_empty()
    }

    /// Whether a task may begin now.
    pub fn is_due(&self, now_ms: u64) -> bool {
        !self.in_flight && self.has_work() && (self.health.failures == 0 || self.health.retry_at_ms <= now_ms)
    }

    /// A sign of life of the server: whether it is asked again now because of that. If it was asked just now, it is
    /// asked again soon.
    pub fn wakes(&mut self, now_ms: u64) -> bool {
        if self.in_flight && !self.queueing {
            self.heard = true;
            return false;
        }
        if self.health.failures == 0 || !self.has_work() {
            return false;
        }
        self.follow_sign(now_ms)
    }

    /// Whether the next attempt is due at once.
    fn follow_sign(&mut self, now_ms: u64) -> bool {
        let health = &mut self.health;
        let soon_ms = now_ms.max(health.failed_ms + health.sign_of_life_pause_ms());
        if soon_ms < health.retry_at_ms {
            health.retry_at_ms = soon_ms;
            health.signs_followed = health.signs_followed.saturating_add(1);
        }
        health.retry_at_ms <= now_ms
    }

    /// The server took it.
    pub fn delivered(&mut self, transaction: &Transaction, now_ms: u64) {
        self.transaction = None;
        self.bears_others = self.careful;
        self.outbox_waits = false;
        if self.health.failures > 0 {
            // It says what was so when it was put together, perhaps long ago.
            self.typing_rooms.extend(transaction.typing.iter().map(|told| told.room));
            self.presence.extend(&transaction.presence);
        }
        self.health = Health {
            last_success_ms: Some(now_ms),
            last_attempt_ms: self.health.last_attempt_ms,
            ..Health::default()
        };
        for Told { room, user, typing } in &transaction.typing {
            match typing {
                true => drop(self.told.insert((*room, *user), now_ms)),
                false => drop(self.told.remove(&(*room, *user))),
            }
        }
    }

    /// It is not known whether the server took it. What has to arrive is kept as it is; what is ephemeral is said anew.
    pub fn failed(&mut self, transaction: &Transaction, now_ms: u64, wait_ms: u64, error: String) {
        if transaction.from.is_none() {
            self.transaction = None;
        }
        for Told { room, user, typing } in &transaction.typing {
            self.typing_rooms.insert(*room);
            if *typing {
                self.told.insert((*room, *user), 0);
            }
        }
        self.presence.extend(&transaction.presence);
        self.lacking_since_ms.get_or_insert(now_ms);
        let health = &mut self.health;
        if health.failures == 0 {
            health.failing_since_ms = now_ms;
        }
        health.failures = health.failures.saturating_add(1);
        health.failed_ms = now_ms;
        health.retry_at_ms = now_ms + wait_ms;
        health.last_error = Some(error);
        // That who refuses is there is no news.
        if std::mem::take(&mut self.heard) && !self.health.refused {
            self.follow_sign(now_ms);
        }
    }

    /// The server refused a transaction as such, again. First it is taken apart. `true`: it was a single thing, others got
    /// through, and it is given up; if none did, the server is the matter, and it only has to wait behind the others.
    pub fn take_apart(&mut self, transaction: &Transaction, now_ms: u64) -> bool {
        self.transaction = None;
        let given_up = self.careful && std::mem::take(&mut self.bears_others);
        if given_up {
            self.health.retry_at_ms = now_ms;
            return true;
        }
        transaction.receipts.iter().for_each(|receipt| self.put_back_receipt(receipt.clone()));
        let first = transaction.outbox.first().copied();
        self.outbox_from = first.into_iter().chain(self.outbox_from).min();
        if self.careful {
            self.outbox_waits = first.is_some();
            self.pdus.extend(&transaction.pdus);
        } else {
            self.careful = true;
            self.health.retry_at_ms = now_ms;
            transaction.pdus.iter().rev().for_each(|pdu| self.pdus.push_front(*pdu));
        }
        false
    }

    /// Who was said to be typing in a room, and not to have stopped.
    pub fn told_in(&self, room: RoomNid) -> impl Iterator<Item = UserNid> {
        self.told.range((room, UserNid(0))..=(room, UserNid(u64::MAX))).map(|((_, user), _)| *user)
    }

    /// The server may take somebody for typing who is not: it was told so, or is being told now.
    pub fn may_have_heard_otherwise(&self, room: RoomNid, typing: &BTreeSet<UserNid>) -> bool {
        self.in_flight || self.told_in(room).any(|user| !typing.contains(&user))
    }

    /// What was typed and who was there long ago is nobody's news; servers let it expire by themselves.
    pub fn forget_ephemeral(&mut self) {
        self.told.clear();
        self.typing_rooms.clear();
        self.presence.clear();
    }

    /// The row that this server should have in the table; `None`: nothing waits.
    pub fn record(&self) -> Option<DestinationRecord> {
        let behind_from = self.oldest()?;
        let under_way = self.transaction.iter().flat_map(|transaction| &transaction.pdus);
        let targeted = under_way.chain(&self.pdus).filter(|pdu| pdu.targeted);
        Some(DestinationRecord {
            behind_from,
            behind_since_ms: self.health.failing_since_ms,
            failures: self.health.failures,
            retry_at_ms: self.health.retry_at_ms,
            last_success_ms: self.health.last_success_ms,
            last_error: self.health.last_error.clone(),
            targeted: targeted.map(|pdu| pdu.event).take(TARGETED_MAX).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use myelin_core::EventNid;

    use super::*;

    fn pdu(position: u64) -> PendingPdu {
        PendingPdu {
            position: Position(position),
            event: EventNid(position),
            targeted: position % 1_000 == 7,
        }
    }

    fn transaction(from: Option<u64>, typing: Vec<Told>) -> Transaction {
        Transaction {
            id: "t".to_owned(),
            body: bytes::Bytes::new(),
            from: from.map(Position),
            pdus: Vec::new(),
            receipts: Vec::new(),
            outbox: Vec::new(),
            typing,
            presence: Vec::new(),
            edus: 0,
        }
    }

    #[test]
    fn what_does_not_fit_into_memory_is_read_from_the_log_except_what_is_targeted() {
        let mut queue = Destination::default();
        (5..=2_500).for_each(|position| queue.push_pdu(pdu(position)));
        assert_eq!(queue.missed_from, Some(Position(5)));
        let kept: Vec<_> = queue.pdus.iter().map(|pdu| pdu.position.0).collect();
        assert_eq!(kept, [7, 1_007, 2_007]);
        assert_eq!(queue.oldest(), Some(Position(5)));
        let record = queue.record().expect("it is behind");
        assert_eq!(record.behind_from, Position(5));
        assert_eq!(record.targeted.len(), 3);
        assert_eq!(Destination::restored(record).oldest(), Some(Position(5)));
    }

    #[test]
    fn the_oldest_thing_counts_wherever_it_is() {
        let mut queue = Destination::default();
        assert_eq!(queue.oldest(), None);
        assert_eq!(queue.record(), None);
        queue.push_pdu(pdu(9));
        queue.note_outbox(Position(8));
        assert_eq!(queue.oldest(), Some(Position(8)));
        queue.building_from = Some(Position(6));
        assert_eq!(queue.oldest(), Some(Position(6)));
        queue.building_from = None;
        queue.transaction = Some(Arc::new(transaction(Some(4), Vec::new())));
        assert_eq!(queue.oldest(), Some(Position(4)));
    }

    #[test]
    fn of_too_many_receipts_the_oldest_are_left_out() {
        let receipt = |position: u64| {
            Arc::new(Receipt {
                position: Position(position),
                room: RoomNid(1),
                user: UserNid(position),
                thread_id: String::new(),
                room_id: String::new(),
                user_id: String::new(),
                event_id: String::new(),
                ts_ms: 0,
            })
        };
        let mut queue = Destination::default();
        (0..10_000).for_each(|position| queue.push_receipt(receipt(position)));
        let oldest = |queue: &Destination| queue.receipts.values().map(|receipt| receipt.position.0).min();
        assert!((RECEIPTS_MAX..=RECEIPTS_MAX + RECEIPTS_SLACK).contains(&queue.receipts.len()));
        assert_eq!(oldest(&queue), Some(10_000 - queue.receipts.len() as u64));
        queue.push_receipts((9_000..11_000).map(receipt).collect());
        assert_eq!((queue.receipts.len(), oldest(&queue)), (RECEIPTS_MAX, Some(9_000)));
    }

    #[test]
    fn an_outbox_that_grew_meanwhile_is_not_empty() {
        let mut queue = Destination::default();
        queue.note_outbox(Position(3));
        queue.note_outbox(Position(9));
        queue.outbox_is_empty(Position(5));
        assert_eq!(queue.outbox_from, Some(Position(6)));
        queue.outbox_is_empty(Position(9));
        assert_eq!(queue.outbox_from, None);
    }

    #[test]
    fn a_start_that_may_not_have_arrived_is_still_followed_by_a_stop() {
        let (room, user) = (RoomNid(1), UserNid(2));
        let told = |typing| Told { room, user, typing };
        let mut queue = Destination::default();
        queue.failed(&transaction(None, vec![told(true)]), 100, 10, "away".to_owned());
        assert_eq!(queue.told.get(&(room, user)), Some(&0));
        assert!(queue.typing_rooms.contains(&room) && !queue.is_due(105) && queue.is_due(110));
        queue.failed(&transaction(None, vec![told(false)]), 110, 10, "away".to_owned());
        assert!(queue.told.contains_key(&(room, user)));
        queue.delivered(&transaction(None, vec![told(false)]), 130);
        assert!(queue.told.is_empty());
        assert_eq!(queue.health.failures, 0);
    }

    #[test]
    fn what_has_to_arrive_is_kept_as_it_is_when_it_fails() {
        let mut queue = Destination::default();
        let kept = Arc::new(transaction(Some(4), Vec::new()));
        queue.transaction = Some(kept.clone());
        queue.failed(&kept, 100, 10, "away".to_owned());
        assert!(queue.transaction.as_ref().is_some_and(|held| Arc::ptr_eq(held, &kept)));
        let ephemeral = Arc::new(transaction(None, Vec::new()));
        queue.transaction = Some(ephemeral.clone());
        queue.failed(&ephemeral, 100, 10, "away".to_owned());
        assert!(queue.transaction.is_none());
    }

    #[test]
    fn a_transaction_that_is_never_taken_is_taken_apart_and_then_given_up() {
        let mut queue = Destination::default();
        let many = Transaction {
            pdus: vec![pdu(1), pdu(2)],
            outbox: vec![Position(3)],
            ..transaction(Some(1), Vec::new())
        };
        queue.push_pdu(pdu(9));
        assert!(!queue.take_apart(&many, 5));
        let positions: Vec<_> = queue.pdus.iter().map(|pdu| pdu.position.0).collect();
        assert_eq!((positions, queue.outbox_from, queue.careful), (vec![1, 2, 9], Some(Position(3)), true));
        let one = Transaction { pdus: vec![pdu(1)], ..transaction(Some(1), Vec::new()) };
        queue.pdus.pop_front();
        assert!(!queue.take_apart(&one, 5), "nothing else got through either");
        let positions: Vec<_> = queue.pdus.iter().map(|pdu| pdu.position.0).collect();
        assert_eq!(positions, [2, 9, 1]);
        queue.delivered(&transaction(Some(2), Vec::new()), 6);
        assert!(queue.take_apart(&one, 7));
        assert!(!queue.take_apart(&one, 8), "one success gives up one thing");
    }

    #[test]
    fn a_sign_of_life_wakes_who_was_away_at_once_and_who_refuses_rarely() {
        let mut queue = Destination::default();
        queue.push_pdu(pdu(1));
        assert!(!queue.wakes(1_000_000), "nothing has failed");
        let fail = |queue: &mut Destination, now_ms| {
            queue.failed(&transaction(None, Vec::new()), now_ms, 3_600_000, "away".to_owned());
        };
        fail(&mut queue, 1_000_000);
        assert!(!queue.wakes(1_000_500) && !queue.is_due(1_000_500), "it was asked just now");
        assert!(queue.is_due(1_001_000), "what it said is not forgotten");
        assert!(queue.wakes(1_001_000));
        fail(&mut queue, 1_001_100);
        assert!(!queue.wakes(1_001_200) && !queue.is_due(1_003_000) && queue.is_due(1_003_100), "in vain");
        fail(&mut queue, 1_003_200);
        queue.health.refused = true;
        assert!(!queue.wakes(1_004_000) && !queue.is_due(1_063_000) && queue.is_due(1_063_200));
        queue.delivered(&transaction(None, Vec::new()), 1_063_300);
        fail(&mut queue, 1_070_000);
        assert!(queue.wakes(1_072_000), "a success makes up for it");
        queue.in_flight = true;
        assert!(!queue.wakes(2_000_000));
        fail(&mut queue, 2_000_000);
        assert_eq!(queue.health.retry_at_ms, 2_002_000, "it was heard during the attempt");
        queue.queueing = true;
        assert!(queue.wakes(2_004_000));
    }
}
