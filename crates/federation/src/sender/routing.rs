//! What a log entry means for which servers.

use std::{collections::HashMap, sync::Arc};

use imbl::OrdMap;
use myelin_core::{EventNid, Position, RoomNid, UserNid};
use myelin_store::{
    Direction,
    log::LogEntry,
    tables::{PARTIAL_ROOMS, RECEIPTS, RECEIPTS_BY_POSITION, ReceiptRef, SERVER_ROOMS},
};
use myelin_view::{Error, RoomSnapshot, View};
use quick_cache::sync::Cache;
use ruma::{OwnedServerName, RoomId, ServerName, events::room::member::MembershipState};

use super::{
    receipts::{PUBLIC, Receipt},
    transaction::PendingPdu,
};

/// Rooms for which it is remembered since when servers are in them.
const ROOMS_MAX: usize = 1_000;
/// Receipts, most of them from elsewhere, among which those from here are looked for: at once ...
const RECEIPT_PAGE: usize = 500;
/// ... and so many times.
const RECEIPT_PAGES_MAX: usize = 10;

/// Since when the servers of a room are in it, as far as they are there now.
pub struct Since {
    /// The servers of the snapshot for which this was read.
    servers: OrdMap<OwnedServerName, u64>,
    joined: HashMap<OwnedServerName, Position>,
    newest: Position,
}

/// Finds the servers that an entry concerns.
pub struct Routing {
    pub(super) view: View,
    since: Cache<RoomNid, Arc<Since>>,
}

/// Something that goes to other servers.
pub enum Item {
    Pdu {
        event: EventNid,
        position: Position,
        room: Arc<RoomSnapshot>,
        /// The server whose user did it: it has the event already.
        origin: OwnedServerName,
        /// Servers whose users it takes out of the room.
        targets: Vec<OwnedServerName>,
        /// Servers that are in the room as far as is known while its members are still being fetched.
        besides: Vec<OwnedServerName>,
        /// Set if servers may have come since: they get older events with the state or from history.
        since: Option<Arc<Since>>,
    },
    Receipt {
        receipt: Arc<Receipt>,
        room: Arc<RoomSnapshot>,
    },
    Outbox {
        server: OwnedServerName,
        position: Position,
    },
    /// What goes to a server that has come into the room (see `newcomers`).
    Newcomer {
        server: OwnedServerName,
        pdus: Vec<PendingPdu>,
    },
}

impl Item {
    pub fn pdu_for(&self, server: &ServerName) -> Option<PendingPdu> {
        let Self::Pdu { event, position, room, origin, targets, besides, since } = self else { return None };
        let targeted = targets.iter().any(|target| target == server);
        let inside = room.has_server(server) || besides.iter().any(|besides| besides == server);
        let came_later = since.as_ref().is_some_and(|since| since.of(server) > *position);
        let goes = (inside && !came_later && origin != server) || targeted;
        goes.then_some(PendingPdu { position: *position, event: *event, targeted })
    }

    pub fn receipt_for(&self, server: &ServerName) -> Option<&Arc<Receipt>> {
        match self {
            Self::Receipt { receipt, room } if room.has_server(server) => Some(receipt),
            _ => None,
        }
    }
}

impl Since {
    fn of(&self, server: &ServerName) -> Position {
        self.joined.get(server).copied().unwrap_or_default()
    }
}

impl Routing {
    pub fn new(view: View) -> Self {
        Self { view, since: Cache::new(ROOMS_MAX) }
    }

    /// `None`: nothing for other servers.
    pub async fn item(&self, position: Position, entry: &LogEntry) -> Result<Option<Item>, Error> {
        match entry {
            LogEntry::Event { relay: true, .. } => self.pdu(position, entry).await,
            LogEntry::Receipt { room, user } => receipt_item(&self.view, position, *room, *user).await,
            LogEntry::Outbox { server } => Ok(OwnedServerName::try_from(server.as_str())
                .ok()
                .map(|server| Item::Outbox { server, position })),
            _ => Ok(None),
        }
    }

    /// Where users here have read in a room since then, the newest `limit`.
    pub async fn newest_receipts(
        &self,
        room: &RoomSnapshot,
        from: Position,
        limit: usize,
    ) -> Result<Vec<(Position, ReceiptRef)>, Error> {
        let (store, first) = (&self.view.store, (room.nid(), from));
        let mut end = (room.nid(), Position(u64::MAX));
        let mut found = Vec::new();
        for _ in 0..RECEIPT_PAGES_MAX {
            let table = &RECEIPTS_BY_POSITION;
            let rows = store.range(table, &first, &end, Direction::Reverse, RECEIPT_PAGE).await?;
            for ((_, position), held) in &rows {
                if held.receipt_type == PUBLIC && self.view.interner.is_local(held.user).await? {
                    found.push((*position, held.clone()));
                }
                if found.len() == limit {
                    return Ok(found);
                }
            }
            match rows.last() {
                Some((last, _)) if rows.len() == RECEIPT_PAGE => end = *last,
                _ => break,
            }
        }
        Ok(found)
    }

    async fn pdu(&self, position: Position, entry: &LogEntry) -> Result<Option<Item>, Error> {
        let LogEntry::Event { room, event, sender, member, head, .. } = entry else { return Ok(None) };
        let view = &self.view;
        let Some(room) = view.rooms.load(*room).await? else { return Ok(None) };
        let mut targets = left_by_merging(view, *event, &room).await?;
        if let Some(user) = member.filter(|user| user != sender) {
            targets.extend(removed_from(view, *event, user).await?);
        }
        let besides = besides(view, &room).await?;
        let alone = room.servers.keys().all(|server| *server == *view.server_name);
        if alone && targets.is_empty() && besides.is_empty() {
            return Ok(None);
        }
        let origin = view.interner.user_id(*sender).await?.server_name().to_owned();
        let since = match room.head.version > *head {
            true => Some(self.since(&room).await?).filter(|since| since.newest > position),
            false => None,
        };
        Ok(Some(Item::Pdu { event: *event, position, room, origin, targets, besides, since }))
    }

    async fn since(&self, room: &RoomSnapshot) -> Result<Arc<Since>, Error> {
        let held = self.since.get(&room.nid());
        if let Some(held) = held.filter(|held| held.servers.ptr_eq(&room.servers)) {
            return Ok(held);
        }
        let keys: Vec<_> = room.servers.keys().map(|server| (server.to_string(), room.nid())).collect();
        let rows = self.view.store.multi_get(&SERVER_ROOMS, &keys).await?;
        let rows = room.servers.keys().zip(rows);
        let joined: HashMap<_, _> =
            rows.filter_map(|(server, row)| Some((server.clone(), row?.position))).collect();
        let newest = joined.values().max().copied().unwrap_or_default();
        let since = Arc::new(Since { servers: room.servers.clone(), joined, newest });
        self.since.insert(room.nid(), since.clone());
        Ok(since)
    }
}

/// Those that users here sent and nobody redacted; what erased users said is not brought to others any more.
pub(super) async fn own_sticky(view: &View, events: &[EventNid]) -> Result<Vec<EventNid>, Error> {
    let mut own = Vec::new();
    for event in view.events.load_many(events).await?.into_iter().flatten() {
        let local = view.interner.is_local(event.sender).await?;
        if local && event.redacted_by.is_none() && !view.erased.contains(event.sender).await? {
            own.push(event.nid);
        }
    }
    Ok(own)
}

/// The servers that a resident server named when this one joined, while the members of the room are not here yet.
async fn besides(view: &View, room: &RoomSnapshot) -> Result<Vec<OwnedServerName>, Error> {
    let Some(partial) = view.store.get(&PARTIAL_ROOMS, &room.nid()).await? else { return Ok(Vec::new()) };
    let named = partial.servers.into_iter().chain([partial.resident]);
    let mut named: Vec<_> = named.filter_map(|name| OwnedServerName::try_from(name).ok()).collect();
    named.retain(|server| *server != *view.server_name && !room.has_server(server));
    named.sort();
    named.dedup();
    Ok(named)
}

/// The server of a user who was kicked or banned, or whose invite was taken back: it has to hear of it although it may
/// not be in the room (any more).
async fn removed_from(view: &View, event: EventNid, user: UserNid) -> Result<Option<OwnedServerName>, Error> {
    let user_id = view.interner.user_id(user).await?;
    if view.is_local(&user_id) {
        return Ok(None);
    }
    let event = view.events.load(event).await?;
    let membership = event.and_then(|event| event.pdu.membership());
    let out = matches!(membership, Some(MembershipState::Leave | MembershipState::Ban));
    Ok(out.then(|| user_id.server_name().to_owned()))
}

/// Servers whose last users a merge of branches took out of the room: they were joined on one of the branches, and the
/// state that the branches resolve to has not got that join. No event tells them, so this one has to.
async fn left_by_merging(
    view: &View,
    event: EventNid,
    room: &RoomSnapshot,
) -> Result<Vec<OwnedServerName>, Error> {
    let mut left = Vec::new();
    let Some(event) = view.events.load(event).await? else { return Ok(left) };
    let Some(root) = event.state_before.filter(|_| event.pdu.prev_events.len() > 1) else { return Ok(left) };
    let merged = view.states.load(root).await?;
    for prev in &event.pdu.prev_events {
        let Some(prev) = view.events.load_by_id(prev).await? else { continue };
        let Some(root) = prev.state_before else { continue };
        let branch = view.states.load(root).await?;
        for (_, join, now) in branch.diff(&merged) {
            let Some(join) = join else { continue };
            left.extend(server_put_out(view, join, now).await?.filter(|server| !room.has_server(server)));
        }
        // The end of the branch itself.
        let now = prev.state_key.and_then(|key| merged.get(key));
        if now != Some(prev.nid) {
            left.extend(server_put_out(view, prev.nid, now).await?.filter(|server| !room.has_server(server)));
        }
    }
    left.sort();
    left.dedup();
    Ok(left)
}

/// The server of another one's user whose join gave way to `now`, unless that is an event which takes them out: such
/// an event finds its way by itself.
async fn server_put_out(
    view: &View,
    join: EventNid,
    now: Option<EventNid>,
) -> Result<Option<OwnedServerName>, Error> {
    let Some(join) = view.events.load(join).await? else { return Ok(None) };
    if join.pdu.membership() != Some(MembershipState::Join) || !join.accepted() {
        return Ok(None);
    }
    let user = join.pdu.state_key.as_deref().and_then(|user| <&ruma::UserId>::try_from(user).ok());
    let Some(user) = user.filter(|user| !view.is_local(user)) else { return Ok(None) };
    if let Some(now) = now
        && let Some(now) = view.events.load(now).await?
    {
        let later = now.pdu.depth > join.pdu.depth;
        let stays = now.pdu.membership() == Some(MembershipState::Join);
        if stays || later {
            return Ok(None);
        }
    }
    Ok(Some(user.server_name().to_owned()))
}

/// Only what is local and public. A receipt that was replaced meanwhile has no row any more; its successor comes later in
/// the log.
async fn receipt_item(
    view: &View,
    position: Position,
    room: RoomNid,
    user: UserNid,
) -> Result<Option<Item>, Error> {
    if !view.interner.is_local(user).await? {
        return Ok(None);
    }
    let Some(room) = view.rooms.load(room).await? else { return Ok(None) };
    if room.servers.keys().all(|server| *server == *view.server_name) {
        return Ok(None);
    }
    let Some(held) = view.store.get(&RECEIPTS_BY_POSITION, &(room.nid(), position)).await? else {
        return Ok(None);
    };
    let receipt = receipt(view, position, (room.nid(), &room.info.room_id), held).await?;
    Ok(receipt.map(|receipt| Item::Receipt { receipt, room }))
}

/// What a receipt in this room says, if it is public and was not replaced meanwhile.
pub(super) async fn receipt(
    view: &View,
    position: Position,
    (room, room_id): (RoomNid, &RoomId),
    held: ReceiptRef,
) -> Result<Option<Arc<Receipt>>, Error> {
    if held.receipt_type != PUBLIC {
        return Ok(None);
    }
    let user = held.user;
    let key = (room, user, held.receipt_type, held.thread_id);
    let Some(record) = view.store.get(&RECEIPTS, &key).await? else { return Ok(None) };
    Ok(Some(Arc::new(Receipt {
        position,
        room,
        user,
        thread_id: key.3,
        room_id: room_id.to_string(),
        user_id: view.interner.user_id(user).await?.to_string(),
        event_id: record.value.event_id,
        ts_ms: record.value.ts_ms,
    })))
}
