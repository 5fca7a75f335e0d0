//! The PDUs of a transaction: each to its room, the rooms side by side, and each room only so long (Server-Server API,
//! "Checks performed on receipt of a PDU").

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{FutureExt, future::join_all};
use myelin_core::RoomNid;
use myelin_dag::checks::{FormedPdu, RawPdu};
use myelin_rooms::{EXTREMITIES_MAX, Error, Incoming, Received};
use myelin_store::Batch;
use myelin_view::RoomSnapshot;
use ruma::{RoomId, ServerName};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Inbound,
    policy::waits_for_policy,
    transaction::{Answers, TransactionError},
    verification::keyless,
    worker::Waiting,
};

/// How long the PDUs of one room may hold up the answer; after that they are queued.
const ROOM_BUDGET: Duration = Duration::from_secs(10);

/// How long the keys of those who end invites from elsewhere may, altogether.
const OUTSIDE_BUDGET_MS: u64 = 5_000;

const NOT_JUDGED: &str = "This server could not judge it.";

/// The PDUs of one room, in the order of the transaction.
struct InRoom {
    room: Arc<RoomSnapshot>,
    pdus: Vec<(FormedPdu, Box<RawValue>)>,
}

#[derive(Deserialize)]
struct InWhichRoom {
    room_id: String,
}

impl Inbound {
    /// When this is done, each is judged or durably queued, or nothing is to come of it.
    pub(crate) async fn receive_pdus(
        self: &Arc<Self>,
        origin: &ServerName,
        pdus: &[Box<RawValue>],
    ) -> Result<Answers, TransactionError> {
        let mut answers = Answers::new();
        let rooms = self.by_room(origin, pdus, &mut answers).await?;
        let received: Vec<_> =
            rooms.into_values().map(|room| self.receive_in_room(origin, room).boxed()).collect();
        for of_room in join_all(received).await {
            answers.extend(of_room?);
        }
        Ok(answers)
    }

    async fn by_room(
        &self,
        origin: &ServerName,
        pdus: &[Box<RawValue>],
        answers: &mut Answers,
    ) -> Result<BTreeMap<String, InRoom>, TransactionError> {
        let mut rooms: BTreeMap<String, InRoom> = BTreeMap::new();
        let until_ms = self.view.env.now_ms() + OUTSIDE_BUDGET_MS;
        let mut arriving = Batch::new();
        for raw in pdus {
            let Some(room_id) = room_id(raw) else { continue };
            let Ok(room_id) = <&RoomId>::try_from(room_id.as_str()) else { continue };
            if let Some(id) = self.ended_outside(room_id, raw, until_ms).await.map_err(storage)? {
                answers.insert(id, None);
                continue;
            }
            if !rooms.contains_key(room_id.as_str()) {
                let Some(room) = self.room_for(origin, room_id, raw, &mut arriving).await? else {
                    continue;
                };
                rooms.insert(room_id.to_string(), InRoom { room, pdus: Vec::new() });
            }
            let Some(in_room) = rooms.get_mut(room_id.as_str()) else { continue };
            match RawPdu(raw).check_format(&in_room.room.info.rules) {
                Ok(formed) => in_room.pdus.push((formed, raw.clone())),
                Err(error) => tracing::debug!(%origin, %room_id, %error, "a PDU is not an event"),
            }
        }
        if !arriving.is_empty() {
            self.view.store.commit(arriving).await.map_err(storage)?;
        }
        for in_room in rooms.values_mut() {
            if let Some(refused) = self.refusal(origin, &in_room.room).await? {
                for (formed, _) in in_room.pdus.drain(..) {
                    answers.insert(formed.event_id().to_owned(), Some(refused.clone()));
                }
            }
        }
        Ok(rooms)
    }

    /// `None`: the room is not held. Where it is being joined, the PDU waits for that.
    async fn room_for(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        raw: &RawValue,
        arriving: &mut Batch,
    ) -> Result<Option<Arc<RoomSnapshot>>, TransactionError> {
        let room = self.view.room_by_id(room_id).await.map_err(storage)?;
        if room.as_ref().is_some_and(|room| !room.local_joined.is_empty()) {
            return Ok(room);
        }
        if self.hold_arriving(room_id, origin, raw, arriving).await.map_err(storage)? {
            return Ok(None);
        }
        // The join may have come to its end just now.
        let room = self.view.room_by_id(room_id).await.map_err(storage)?;
        if room.is_none() {
            tracing::debug!(%origin, %room_id, "a PDU of a room that is not held");
        }
        Ok(room)
    }

    /// Why nothing of this origin is taken in this room.
    async fn refusal(
        &self,
        origin: &ServerName,
        room: &RoomSnapshot,
    ) -> Result<Option<String>, TransactionError> {
        if room.local_joined.is_empty() {
            return Ok(Some("Nobody of this server is in the room.".to_owned()));
        }
        let permitted = self.view.permits(room, origin).await.map_err(storage)?;
        Ok((!permitted).then(|| format!("The room does not let {origin} take part.")))
    }

    async fn receive_in_room(
        self: &Arc<Self>,
        origin: &ServerName,
        in_room: InRoom,
    ) -> Result<Answers, TransactionError> {
        let InRoom { room, pdus } = in_room;
        let (formed, raws): (Vec<FormedPdu>, Vec<_>) = pdus.into_iter().unzip();
        let pdus = formed.iter().zip(&raws);
        let mut waiting: Vec<Waiting<'_>> =
            pdus.map(|(formed, raw)| Waiting { id: formed.event_id().to_owned(), raw }).collect();
        let mut answers = Answers::new();
        if let Some(received) = self.judge_in_time(origin, &room, formed).await {
            let judged = std::mem::take(&mut waiting).into_iter().zip(received?);
            for (pdu, received) in judged {
                match received {
                    Received::Need(_) => waiting.push(pdu),
                    Received::Dropped(reason) => drop(answers.insert(pdu.id, Some(reason))),
                    Received::Stored(verdict) | Received::Known(verdict) => {
                        tracing::trace!(id = %pdu.id, ?verdict, "received");
                        answers.insert(pdu.id, None);
                    }
                }
            }
        }
        self.enqueue(origin, &room, waiting, &mut answers).await.map_err(storage)?;
        Ok(answers)
    }

    /// `None`: that would hold up the answer.
    async fn judge_in_time(
        self: &Arc<Self>,
        origin: &ServerName,
        room: &Arc<RoomSnapshot>,
        formed: Vec<FormedPdu>,
    ) -> Option<Result<Vec<Received>, TransactionError>> {
        let (env, count) = (&self.view.env, formed.len());
        let began_ms = env.now_ms();
        if count == 0 || self.slow.contains(room.nid(), began_ms) {
            return None;
        }
        let (this, by, at) = (self.clone(), origin.to_owned(), room.clone());
        let judging = async move { this.judge(&by, &at, formed).await };
        let judging = self.apart("inbound PDUs", judging.boxed());
        let judged = env.timeout(ROOM_BUDGET, judging).await;
        self.slow.held_up(room.nid(), began_ms, env.now_ms());
        Some(judged?.unwrap_or_else(|| {
            tracing::error!(%origin, room = %room.info.room_id, "PDUs make this server panic, and are dropped");
            Ok(vec![Received::Dropped(NOT_JUDGED.to_owned()); count])
        }))
    }

    async fn judge(
        &self,
        origin: &ServerName,
        room: &RoomSnapshot,
        formed: Vec<FormedPdu>,
    ) -> Result<Vec<Received>, TransactionError> {
        let verified = self.verify_at_hand(formed, &room.info.rules).await;
        let spared = self.rooms.spared_policy(room).await.map_err(storage)?;
        let mut answers: Vec<Option<Received>> = Vec::with_capacity(verified.len());
        let mut good: Vec<Incoming> = Vec::with_capacity(verified.len());
        for outcome in verified {
            match outcome {
                Ok(pdu) if waits_for_policy(spared.as_ref(), &pdu, &room.info.rules) => {
                    answers.push(Some(Received::Need(Vec::new())));
                }
                Ok(pdu) => {
                    good.push(pdu.into());
                    answers.push(None);
                }
                // Nothing else waits for the keys: it goes into the queue, and they are looked for.
                Err(error) if keyless(&error).is_some() => answers.push(Some(Received::Need(Vec::new()))),
                Err(error) => answers.push(Some(Received::Dropped(error.to_string()))),
            }
        }
        self.ask_policy_server(room, &mut good).await.map_err(storage)?;
        let received = match self.receive_all(room.nid(), &good).await {
            Ok(received) => received,
            Err(error @ Error::Store(_)) => return Err(storage(error)),
            Err(error) => {
                // That is no reason to refuse the rest of the transaction.
                tracing::error!(%origin, room = %room.info.room_id, %error, "PDUs cannot be judged now");
                vec![Received::Need(Vec::new()); good.len()]
            }
        };
        let mut received = received.into_iter();
        let dropped = || Received::Dropped("It got no answer.".to_owned());
        Ok(answers
            .into_iter()
            .map(|answer| answer.or_else(|| received.next()).unwrap_or_else(dropped))
            .collect())
    }

    /// As one change; if that fails, one by one, so that one event that cannot be judged takes no other along.
    pub(crate) async fn receive_all(&self, room: RoomNid, pdus: &[Incoming]) -> Result<Vec<Received>, Error> {
        if pdus.is_empty() {
            return Ok(Vec::new());
        }
        let outcome = self.rooms.receive_all(room, pdus).await;
        if let Ok(answers) = &outcome {
            self.have_come(room, answers, pdus);
        }
        self.merge_if_many(room);
        match outcome {
            Err(error) if pdus.len() > 1 && !matches!(error, Error::Store(_)) => {}
            outcome => return outcome,
        }
        let mut answers = Vec::with_capacity(pdus.len());
        for pdu in pdus {
            match self.rooms.receive_all(room, std::slice::from_ref(pdu)).await {
                Ok(of_one) => answers.extend(of_one),
                Err(Error::Store(error)) => return Err(error.into()),
                Err(error) => {
                    tracing::error!(event = %pdu.pdu.pdu().event_id, %error, "an event cannot be judged");
                    answers.push(Received::Dropped(NOT_JUDGED.to_owned()));
                }
            }
        }
        Ok(answers)
    }

    /// In the background: nobody waits for it.
    fn merge_if_many(&self, room: RoomNid) {
        let many = |snapshot: Arc<RoomSnapshot>| snapshot.head.extremities.len() > EXTREMITIES_MAX;
        if !self.view.rooms.cached(room).is_some_and(many) {
            return;
        }
        let rooms = self.rooms.clone();
        let task = async move {
            match rooms.merge_extremities(room).await {
                Ok(merged) => tracing::debug!(?room, merged, "forward extremities piled up"),
                Err(error) => tracing::warn!(?room, %error, "forward extremities pile up"),
            }
        };
        self.view.env.spawner.spawn("merge extremities", task.boxed());
    }
}

fn room_id(raw: &RawValue) -> Option<String> {
    serde_json::from_str::<InWhichRoom>(raw.get()).ok().map(|pdu| pdu.room_id)
}

fn storage(error: impl std::fmt::Display) -> TransactionError {
    tracing::error!(%error, "a transaction could not be stored");
    TransactionError::Storage
}
