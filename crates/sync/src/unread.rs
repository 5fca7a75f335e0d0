//! How much of a room a user has not read (Client-Server API, "Receiving notifications", "Threaded read receipts").
//!
//! Nothing is kept per recipient: the shared rows of the room after what the user has read, plus the rows by which this
//! user differs. The main timeline costs one look-up however much is unread, as its rows carry running totals; threads
//! cost a row for each notification in one of them. Where a user stands is remembered until they read on or something
//! is targeted at them, so that a message which everybody is notified of costs its recipients no look-up at all.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use myelin_core::{RoomNid, TimelineOrder, UserNid};
use myelin_store::{
    Direction, Read,
    log::LogEntry,
    tables::{
        NOTIFIED_USERS, NOTIFYING, NOTIFYING_IN_THREADS, NotifiedSoFar, QUIET_SPANS, QuietSpanRecord,
        READ_MARKS, RECEIPTS, Totals, WITHDRAWN,
    },
};
use myelin_view::RoomSnapshot;
use quick_cache::sync::Cache;
use ruma::OwnedEventId;

use crate::{Error, Sync};

/// Receipts and marks of one user in one room: three for each thread.
const MARKS_MAX: usize = 30_000;
/// Rows that are looked at for one answer, newest first; what is unread beyond them is not counted.
const ROWS_MAX: usize = 10_000;
/// Users in rooms of whom it is remembered where they stand.
const STANDINGS_MAX: usize = 50_000;
const CHANGE_COUNTERS: usize = 1_024;
const MAIN_THREAD: &str = "main";
const READ_TYPES: [&str; 2] = ["m.read", "m.read.private"];

/// `notification_count` and `highlight_count`; the latter is part of the former.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub notification_count: u64,
    pub highlight_count: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unread {
    /// The main timeline alone.
    pub main: Counts,
    /// Threads that have unread notifications, by their roots.
    pub threads: BTreeMap<OwnedEventId, Counts>,
}

impl Unread {
    /// For clients that do not know threads.
    pub fn total(&self) -> Counts {
        self.threads.values().fold(self.main, |sum, counts| Counts {
            notification_count: sum.notification_count + counts.notification_count,
            highlight_count: sum.highlight_count + counts.highlight_count,
        })
    }
}

/// Up to where a user has read: by receipts, by speaking, by joining.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReadUpTo {
    everywhere: Option<TimelineOrder>,
    by_thread: HashMap<String, TimelineOrder>,
}

impl ReadUpTo {
    pub async fn load(read: Read<'_>, room: RoomNid, user: UserNid) -> Result<Self, Error> {
        let mut read_up_to = Self::default();
        let receipts = read.scan(&RECEIPTS, &(room, user), Direction::Forward, MARKS_MAX).await?;
        for ((.., receipt_type, thread), row) in receipts {
            if READ_TYPES.contains(&receipt_type.as_str()) {
                read_up_to.advance(thread, TimelineOrder(row.value.order));
            }
        }
        for ((.., thread), row) in
            read.scan(&READ_MARKS, &(room, user), Direction::Forward, MARKS_MAX).await?
        {
            read_up_to.advance(thread, row.position.into());
        }
        Ok(read_up_to)
    }

    fn advance(&mut self, thread: String, order: TimelineOrder) {
        if thread.is_empty() {
            self.everywhere = self.everywhere.max(Some(order));
        } else {
            let held = self.by_thread.entry(thread).or_insert(order);
            *held = order.max(*held);
        }
    }

    /// In a thread; `None` is the main timeline.
    pub fn of(&self, thread: Option<&str>) -> TimelineOrder {
        let in_thread = self.by_thread.get(thread.unwrap_or(MAIN_THREAD)).copied();
        in_thread.max(self.everywhere).unwrap_or(TimelineOrder::MIN)
    }

    /// Nothing up to here is unread in any thread.
    pub fn everywhere(&self) -> TimelineOrder {
        self.everywhere.unwrap_or(TimelineOrder::MIN)
    }
}

/// Where the shared rows count for a user, and where they do not.
#[derive(Debug, Default)]
pub(crate) struct QuietSpans(Vec<(TimelineOrder, QuietSpanRecord)>);

impl QuietSpans {
    pub async fn load(read: Read<'_>, room: &RoomSnapshot, user: UserNid) -> Result<Self, Error> {
        if !room.quiet.contains_key(&user) {
            return Ok(Self::default());
        }
        let spans = read.scan(&QUIET_SPANS, &(room.nid(), user), Direction::Forward, ROWS_MAX).await?;
        Ok(Self(spans.into_iter().map(|((.., order), span)| (order, span)).collect()))
    }

    pub fn is_quiet(&self, order: TimelineOrder) -> bool {
        let before = self.0.partition_point(|(from, _)| *from <= order);
        before.checked_sub(1).is_some_and(|last| self.0[last].1.quiet)
    }

    /// What the shared totals grew by after `order`, where they count.
    fn growth(&self, order: TimelineOrder, mut from: Totals, now: Totals) -> Sum {
        let mut sum = Sum::default();
        let mut quiet = self.is_quiet(order);
        let ends = self.0.iter().filter(|(from, _)| *from > order).map(|(_, span)| (span.totals, span.quiet));
        for (totals, quiet_from_here) in ends.chain([(now, true)]) {
            if !quiet {
                sum.notified += to_i64(totals.notified) - to_i64(from.notified);
                sum.highlighted += to_i64(totals.highlighted) - to_i64(from.highlighted);
            }
            (from, quiet) = (totals, quiet_from_here);
        }
        sum
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    notified: i64,
    highlighted: i64,
}

impl Sum {
    fn add(&mut self, notified: i64, highlighted: i64) {
        self.notified += notified;
        self.highlighted += highlighted;
    }

    fn counts(self) -> Counts {
        let notification_count = u64::try_from(self.notified).unwrap_or_default();
        let highlight_count = u64::try_from(self.highlighted).unwrap_or_default().min(notification_count);
        Counts { notification_count, highlight_count }
    }
}

/// What is known of a user in a room without asking the store again, until the user reads on or is targeted.
#[derive(Debug)]
struct Standing {
    /// Of the room when this was put together.
    in_threads: u64,
    withdrawn: u64,
    /// Up to where the user has read in the main timeline, and the totals there.
    read: TimelineOrder,
    totals: Totals,
    spans: QuietSpans,
    /// What the user's own rows add to the shared ones, less what was redacted.
    main: Sum,
    threads: BTreeMap<OwnedEventId, Counts>,
}

impl Standing {
    /// In a room where nobody was notified of anything: wherever the user has read up to, it is all zeros.
    fn before_anything() -> Self {
        let (totals, main) = Default::default();
        let (read, spans, threads) = (TimelineOrder::MIN, QuietSpans::default(), BTreeMap::new());
        Self { in_threads: 0, withdrawn: 0, read, totals, spans, main, threads }
    }

    fn holds(&self, now: NotifiedSoFar) -> bool {
        self.in_threads == now.in_threads && self.withdrawn == now.withdrawn
    }

    fn unread(&self, now: NotifiedSoFar) -> Unread {
        let mut main = self.spans.growth(self.read, self.totals, now.main);
        main.add(self.main.notified, self.main.highlighted);
        Unread { main: main.counts(), threads: self.threads.clone() }
    }
}

/// Standings that were asked for lately.
pub(crate) struct Standings {
    held: Cache<(RoomNid, UserNid), Arc<Standing>>,
    /// Counts what made standings stale, by a part of their keys: what was read before that is not kept.
    changes: Vec<AtomicU64>,
}

impl Standings {
    pub fn new() -> Self {
        let changes = std::iter::repeat_with(AtomicU64::default).take(CHANGE_COUNTERS).collect();
        Self { held: Cache::new(STANDINGS_MAX), changes }
    }

    /// Drops what an entry of the log makes stale.
    pub fn take_in(&self, entry: &LogEntry) {
        match entry {
            LogEntry::Event { room, sender, member, targeted, .. } => {
                let users = targeted.iter().chain(member).chain([sender]);
                users.for_each(|user| self.forget(*room, *user));
            }
            LogEntry::Receipt { room, user } => self.forget(*room, *user),
            _ => {}
        }
    }

    fn forget(&self, room: RoomNid, user: UserNid) {
        self.counter(room, user).fetch_add(1, Ordering::SeqCst);
        self.held.remove(&(room, user));
    }

    /// `changes`: the counter before the standing was read.
    fn keep(&self, room: RoomNid, user: UserNid, standing: &Arc<Standing>, changes: u64) {
        self.held.insert((room, user), standing.clone());
        if self.counter(room, user).load(Ordering::SeqCst) != changes {
            self.held.remove(&(room, user));
        }
    }

    fn counter(&self, room: RoomNid, user: UserNid) -> &AtomicU64 {
        let mixed = room.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ user.0.wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
        &self.changes[(mixed >> 32) as usize % CHANGE_COUNTERS]
    }
}

impl Sync {
    /// As of the newest durable event of the room.
    pub async fn unread(&self, user: UserNid, room: &RoomSnapshot) -> Result<Unread, Error> {
        let (nid, now) = (room.nid(), room.head.notified);
        if let Some(held) = self.standings.held.get(&(nid, user)).filter(|held| held.holds(now)) {
            return Ok(held.unread(now));
        }
        let changes = self.standings.counter(nid, user).load(Ordering::SeqCst);
        let standing = match now == NotifiedSoFar::default() {
            true => Arc::new(Standing::before_anything()),
            false => Arc::new(self.standing(user, room).await?),
        };
        self.standings.keep(nid, user, &standing, changes);
        Ok(standing.unread(now))
    }

    async fn standing(&self, user: UserNid, room: &RoomSnapshot) -> Result<Standing, Error> {
        let (read, now) = (self.view.store.read(), room.head.notified);
        let seen = ReadUpTo::load(read, room.nid(), user).await?;
        let spans = QuietSpans::load(read, room, user).await?;
        let totals = self.totals_at(room, seen.of(None)).await?;
        let (withdrawn, counted) = match now.withdrawn {
            0 => Default::default(),
            _ => self.withdrawn(room.nid(), &seen, &spans).await?,
        };
        let mut main = Sum::default();
        main.add(-counted.notified, -counted.highlighted);
        let mut threads = match now.in_threads {
            0 => BTreeMap::new(),
            _ => self.shared_in_threads(room.nid(), &seen, &spans).await?,
        };
        let rows = match now.targeted {
            0 => Vec::new(),
            _ => newest(read, &NOTIFIED_USERS, (room.nid(), user), seen.everywhere()).await?,
        };
        for ((.., order), row) in rows {
            if withdrawn.contains(&order) || order <= seen.of(row.thread.as_deref()) {
                continue;
            }
            let sum = match row.thread {
                Some(thread) => threads.entry(thread).or_default(),
                None => &mut main,
            };
            sum.add(row.notified.into(), row.highlighted.into());
        }
        let threads = threads.into_iter().filter_map(|(root, sum)| {
            let counts = sum.counts();
            let root = OwnedEventId::try_from(root).ok()?;
            (counts != Counts::default()).then_some((root, counts))
        });
        let (threads, read) = (threads.collect(), seen.of(None));
        let NotifiedSoFar { in_threads, withdrawn, .. } = now;
        Ok(Standing { in_threads, withdrawn, read, totals, spans, main, threads })
    }

    /// Whether something after `since` notified a user who was shown nothing of it. What the shared rows count and the
    /// user's own take back (the sender is ignored) did not.
    pub(crate) async fn notified_since(
        &self,
        user: UserNid,
        room: &RoomSnapshot,
        since: TimelineOrder,
    ) -> Result<bool, Error> {
        let (read, nid) = (self.view.store.read(), room.nid());
        let own = newest(read, &NOTIFIED_USERS, (nid, user), since).await?;
        let mut own: HashMap<TimelineOrder, (i8, i8)> =
            own.into_iter().map(|((.., order), row)| (order, (row.notified, row.highlighted))).collect();
        let spans = QuietSpans::load(read, room, user).await?;
        let shared = newest_of_room(read, &NOTIFYING, nid, since).await?.into_iter();
        let in_threads = newest_of_room(read, &NOTIFYING_IN_THREADS, nid, since).await?.into_iter();
        let shared = shared.map(|((_, order), row)| (order, row.highlight));
        for (order, highlight) in shared.chain(in_threads.map(|((_, order), row)| (order, row.highlight))) {
            // There the own rows say what notified.
            if spans.is_quiet(order) {
                continue;
            }
            if own.remove(&order) != Some((-1, -i8::from(highlight))) {
                return Ok(true);
            }
        }
        Ok(!own.is_empty())
    }

    /// The totals of the main timeline up to and including a place.
    async fn totals_at(&self, room: &RoomSnapshot, order: TimelineOrder) -> Result<Totals, Error> {
        if room.head.notified.main == Totals::default() {
            return Ok(Totals::default());
        }
        let (from, to) = ((room.nid(), TimelineOrder::MIN), (room.nid(), after(order)));
        let last = self.view.store.range(&NOTIFYING, &from, &to, Direction::Reverse, 1).await?.pop();
        Ok(last.map(|(_, row)| row.totals).unwrap_or_default())
    }

    async fn shared_in_threads(
        &self,
        room: RoomNid,
        seen: &ReadUpTo,
        spans: &QuietSpans,
    ) -> Result<BTreeMap<String, Sum>, Error> {
        let mut threads: BTreeMap<String, Sum> = BTreeMap::new();
        let rows =
            newest_of_room(self.view.store.read(), &NOTIFYING_IN_THREADS, room, seen.everywhere()).await?;
        for ((_, order), row) in rows {
            if order > seen.of(Some(&row.thread)) && !spans.is_quiet(order) {
                threads.entry(row.thread).or_default().add(1, row.highlight.into());
            }
        }
        Ok(threads)
    }

    /// What was redacted after what the user has read, and by how much the totals count it too often.
    async fn withdrawn(
        &self,
        room: RoomNid,
        seen: &ReadUpTo,
        spans: &QuietSpans,
    ) -> Result<(HashSet<TimelineOrder>, Sum), Error> {
        let rows = newest_of_room(self.view.store.read(), &WITHDRAWN, room, seen.everywhere()).await?;
        let mut sum = Sum::default();
        for ((_, order), row) in &rows {
            if let Some(highlight) = row.counted
                && *order > seen.of(None)
                && !spans.is_quiet(*order)
            {
                sum.add(1, highlight.into());
            }
        }
        Ok((rows.into_iter().map(|((_, order), _)| order).collect(), sum))
    }
}

type Rows<K, V> = Vec<(K, V)>;

async fn newest<V: myelin_store::codec::Value>(
    read: Read<'_>,
    table: &myelin_store::tables::Table<(RoomNid, UserNid, TimelineOrder), V>,
    (room, user): (RoomNid, UserNid),
    seen: TimelineOrder,
) -> Result<Rows<(RoomNid, UserNid, TimelineOrder), V>, Error> {
    let from = (room, user, after(seen));
    let to = (room, user, TimelineOrder::MAX);
    Ok(read.range(table, &from, &to, Direction::Reverse, ROWS_MAX).await?)
}

async fn newest_of_room<V: myelin_store::codec::Value>(
    read: Read<'_>,
    table: &myelin_store::tables::Table<(RoomNid, TimelineOrder), V>,
    room: RoomNid,
    seen: TimelineOrder,
) -> Result<Rows<(RoomNid, TimelineOrder), V>, Error> {
    let from = (room, after(seen));
    Ok(read.range(table, &from, &(room, TimelineOrder::MAX), Direction::Reverse, ROWS_MAX).await?)
}

fn after(order: TimelineOrder) -> TimelineOrder {
    TimelineOrder(order.0.saturating_add(1))
}

fn to_i64(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
