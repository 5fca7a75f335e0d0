//! Putting a transaction together from what waits and from what holds now.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use myelin_core::{Position, RoomNid, UserNid};
use myelin_dag::redaction::redact;
use myelin_store::{
    Direction,
    tables::{OUTBOX, OutboxRecord},
};
use myelin_view::{Error, Event};
use ruma::{ServerName, events::TimelineEventType};

use super::{
    Sender, SharedBody,
    queue::Destination,
    receipts::{self, Receipt},
    transaction::{self, EDUS_MAX, PDUS_MAX, PendingPdu, SIZE_MAX, Told, Transaction},
};
use crate::serve::sight::is_hidden_from_nobody;

/// EDUs from the outbox in one transaction; the others keep some room.
const OUTBOX_MAX: usize = 80;
/// Receipts and EDUs from the outbox together.
const DURABLE_EDUS_MAX: usize = 90;
/// Users in one presence EDU; the others take the next transaction.
const PRESENCE_MAX: usize = 100;
/// A body is used for several servers for so long.
const SHARED_BODY_TIME_MS: u64 = 5_000;
const SHARED_BODIES_MAX: usize = 8;

/// What was taken from the queue and is not in a transaction yet.
#[derive(Default)]
struct Load {
    pdus: Vec<PendingPdu>,
    receipts: Vec<Arc<Receipt>>,
    typing_rooms: BTreeSet<RoomNid>,
    presence: Vec<UserNid>,
    /// EDUs with which typing may go along; 0: neither that nor presence does.
    ephemeral_max: usize,
}

/// The events of a load that fit into one transaction.
#[derive(Default)]
struct Fitting {
    pdus: Vec<PendingPdu>,
    texts: Vec<Arc<str>>,
    /// From this one on the events of the load have to wait.
    rest: usize,
}

/// The outbox as far as it goes along.
#[derive(Default)]
struct Outbox {
    positions: Vec<Position>,
    edus: Vec<String>,
}

impl Sender {
    /// The transaction that is to depart next: the one that was not answered, or a new one; `None` if nothing waits.
    pub(super) async fn prepare(&self, server: &ServerName) -> Result<Option<Arc<Transaction>>, Error> {
        if let Some(unanswered) = self.unanswered(server) {
            return Ok(Some(unanswered));
        }
        self.refill(server).await?;
        let outbox = self.read_outbox(server).await?;
        let Some(load) = self.take_load(server, outbox.edus.len()) else { return Ok(None) };
        match self.assemble(server, &load, outbox).await {
            Ok((transaction, rest)) => Ok(self.keep(server, transaction, &load.pdus[rest..])),
            Err(error) => {
                self.put_back(server, load);
                Err(error)
            }
        }
    }

    fn unanswered(&self, server: &ServerName) -> Option<Arc<Transaction>> {
        self.state.lock().destinations.get(server)?.transaction.clone()
    }

    /// To-device messages and device lists, in their order.
    async fn read_outbox(&self, server: &ServerName) -> Result<Outbox, Error> {
        let waiting =
            self.state.lock().destinations.get(server).map(|queue| (queue.outbox_from, queue.careful));
        let Some((Some(from), careful)) = waiting else { return Ok(Outbox::default()) };
        if self.outbox_waits(server) {
            return Ok(Outbox::default());
        }
        let limit = if careful { 1 } else { OUTBOX_MAX };
        // What is written from here on is beyond.
        let until = self.view.store.position();
        let name = server.to_string();
        let (first, end) = ((name.clone(), from), (name, Position(u64::MAX)));
        let rows = self.view.store.range(&OUTBOX, &first, &end, Direction::Forward, limit).await?;
        if rows.is_empty()
            && let Some(queue) = self.state.lock().destinations.get_mut(server)
        {
            queue.outbox_is_empty(until);
        }
        let mut outbox = Outbox::default();
        let mut size = 0;
        for ((_, position), OutboxRecord { edu_type, json }) in rows {
            size += json.len();
            if size > SIZE_MAX && !outbox.positions.is_empty() {
                break;
            }
            outbox.positions.push(position);
            match transaction::edu(&edu_type, &json) {
                Some(edu) => outbox.edus.push(edu),
                None => tracing::error!(%server, edu_type, ?position, "an EDU is no JSON and is passed over"),
            }
        }
        Ok(outbox)
    }

    fn outbox_waits(&self, server: &ServerName) -> bool {
        let state = &mut *self.state.lock();
        let Some(queue) = state.destinations.get_mut(server) else { return false };
        std::mem::take(&mut queue.outbox_waits) && !queue.pdus.is_empty()
    }

    fn take_load(&self, server: &ServerName, edus: usize) -> Option<Load> {
        let state = &mut *self.state.lock();
        let queue = state.destinations.get_mut(server)?;
        if edus == 0 && queue.pdus.is_empty() && queue.receipts.is_empty() {
            // What has to arrive has been taken one by one.
            queue.careful = false;
        }
        let careful = queue.careful;
        let pdus_max = if careful { usize::from(edus == 0) } else { PDUS_MAX };
        let pdus: Vec<_> = queue.pdus.drain(..queue.pdus.len().min(pdus_max)).collect();
        let receipts_max = match careful {
            true => usize::from(pdus.is_empty() && edus == 0),
            false => DURABLE_EDUS_MAX.saturating_sub(edus),
        };
        let mut receipts = Vec::new();
        while receipts.len() < receipts_max
            && let Some((_, receipt)) = queue.receipts.pop_first()
        {
            receipts.push(receipt);
        }
        queue.building_from =
            pdus.iter().map(|pdu| pdu.position).chain(receipts.iter().map(|receipt| receipt.position)).min();
        let mut load = Load { pdus, receipts, ..Load::default() };
        // What is ephemeral waits until it cannot be taken for the thing that the server does not bear.
        if !careful {
            load.ephemeral_max = EDUS_MAX - 1;
            load.typing_rooms = std::mem::take(&mut queue.typing_rooms);
            while load.presence.len() < PRESENCE_MAX
                && let Some(user) = queue.presence.pop_first()
            {
                load.presence.push(user);
            }
        }
        Some(load)
    }

    fn put_back(&self, server: &ServerName, load: Load) {
        let state = &mut *self.state.lock();
        let Some(queue) = state.destinations.get_mut(server) else { return };
        prepend(queue, &load.pdus);
        load.receipts.into_iter().for_each(|receipt| queue.put_back_receipt(receipt));
        queue.typing_rooms.extend(load.typing_rooms);
        queue.presence.extend(load.presence);
        queue.building_from = None;
    }

    /// The transaction, and how many events of the load are done with.
    async fn assemble(
        &self,
        server: &ServerName,
        load: &Load,
        outbox: Outbox,
    ) -> Result<(Transaction, usize), Error> {
        let size = outbox.edus.iter().map(String::len).sum();
        let Fitting { pdus, texts, rest } = self.load_events(server, load, size).await?;
        let mut edus = outbox.edus;
        edus.extend(receipts::edus(&load.receipts));
        let places = load.ephemeral_max.saturating_sub(edus.len());
        let typing = match places {
            0 => Vec::new(),
            _ => self.typing_edus(server, &load.typing_rooms, places, &mut edus).await?,
        };
        let presence = self.presence_edu(&load.presence, &mut edus).await?;
        let from = outbox.positions.first().copied();
        let from = from.into_iter().chain(pdus.iter().map(|pdu| pdu.position));
        let from = from.chain(load.receipts.iter().map(|receipt| receipt.position)).min();
        let transaction = Transaction {
            id: format!("{}{}", self.id_prefix, self.ids.fetch_add(1, Ordering::Relaxed)),
            body: self.body(&texts, &edus),
            from,
            pdus,
            receipts: load.receipts.clone(),
            outbox: outbox.positions,
            typing,
            presence,
            edus: edus.len(),
        };
        Ok((transaction, rest))
    }

    async fn load_events(&self, server: &ServerName, load: &Load, mut size: usize) -> Result<Fitting, Error> {
        let nids: Vec<_> = load.pdus.iter().map(|pdu| pdu.event).collect();
        let loaded = self.view.events.load_many(&nids).await?;
        let mut fitting = Fitting { rest: nids.len(), ..Fitting::default() };
        for (index, (pdu, event)) in load.pdus.iter().zip(loaded).enumerate() {
            let Some(event) = event else { continue };
            let text = self.text_for(server, pdu, &event).await?;
            size += text.len();
            if size > SIZE_MAX && !fitting.pdus.is_empty() {
                fitting.rest = index;
                break;
            }
            fitting.pdus.push(*pdu);
            fitting.texts.push(text);
        }
        Ok(fitting)
    }

    /// Who is out of the room is shown that, and of anything else no more than its place in the DAG.
    async fn text_for(
        &self,
        server: &ServerName,
        pdu: &PendingPdu,
        event: &Event,
    ) -> Result<Arc<str>, Error> {
        // It may be in the room after all.
        let whole =
            event.pdu.event_type == TimelineEventType::RoomMember || is_hidden_from_nobody(&event.pdu);
        if !pdu.targeted || whole {
            return Ok(event.pdu.json.clone());
        }
        let room = self.view.rooms.load(event.room).await?;
        let room = room.ok_or_else(|| Error::Damaged(format!("{:?} has no row", event.room)))?;
        Ok(match room.has_server(server) {
            true => event.pdu.json.clone(),
            false => redact(&event.pdu, &room.info.rules),
        })
    }

    /// Servers that get the same events and nothing else get the same bytes.
    fn body(&self, texts: &[Arc<str>], edus: &[String]) -> Bytes {
        let now_ms = self.view.env.now_ms();
        let origin = &self.view.server_name;
        let made =
            || transaction::body(origin, now_ms, &texts.iter().map(|t| &**t).collect::<Vec<_>>(), edus);
        if !edus.is_empty() || texts.is_empty() {
            return made();
        }
        let mut bodies = self.bodies.lock();
        bodies.retain(|shared| shared.made_ms + SHARED_BODY_TIME_MS > now_ms);
        if let Some(shared) = bodies.iter().find(|shared| shared.is_of(texts)) {
            return shared.body.clone();
        }
        let body = made();
        if bodies.len() >= SHARED_BODIES_MAX {
            bodies.pop_front();
        }
        bodies.push_back(SharedBody { texts: texts.to_vec(), made_ms: now_ms, body: body.clone() });
        body
    }

    /// What has to arrive is kept until it is answered. `None`: there is nothing to say.
    fn keep(
        &self,
        server: &ServerName,
        transaction: Transaction,
        rest: &[PendingPdu],
    ) -> Option<Arc<Transaction>> {
        let state = &mut *self.state.lock();
        let queue = state.destinations.get_mut(server)?;
        prepend(queue, rest);
        queue.building_from = None;
        if transaction.pdus.is_empty() && transaction.edus == 0 && transaction.outbox.is_empty() {
            return None;
        }
        // Whether a start arrives is not known until the answer comes.
        for Told { room, user, typing } in &transaction.typing {
            if *typing {
                queue.told.entry((*room, *user)).or_insert(0);
            }
        }
        let transaction = Arc::new(transaction);
        if transaction.from.is_some() {
            queue.transaction = Some(transaction.clone());
        }
        Some(transaction)
    }
}

/// Before everything that has come meanwhile.
fn prepend(queue: &mut Destination, pdus: &[PendingPdu]) {
    let mut all: VecDeque<_> = pdus.iter().copied().collect();
    all.append(&mut queue.pdus);
    queue.pdus = all;
}
