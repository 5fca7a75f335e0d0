use std::sync::{Arc, OnceLock};

use myelin_core::{EventNid, Position, RoomNid, StateKeyNid, TimelineOrder, UserNid};
use myelin_dag::{client_form, pdu::Pdu, state_tree::NodeHash};
use myelin_store::{
    codec::AtPosition,
    tables::{EventRecord, Placement, SentBy, VerdictRecord},
};
use ruma::OwnedEventId;

use crate::{Error, RoomInfo};

/// Events that only merge forward extremities: clients are not shown them.
pub const DUMMY_EVENT: &str = "org.matrix.dummy_event";

/// In place of the device, where an event was sent by nobody's device but because its time had come (MSC4140); the
/// transaction id is the delay id.
pub const DELAYED_BY: &str = "";

/// A PDU with what this server decided about it. Immutable: a redaction makes a new one.
#[derive(Debug)]
pub struct Event {
    pub nid: EventNid,
    pub room: RoomNid,
    pub sender: UserNid,
    /// Set for state events.
    pub state_key: Option<StateKeyNid>,
    /// Root of the room state before this event; `None` for outliers.
    pub state_before: Option<NodeHash>,
    /// Of that state something lacks: the room was partially joined, and is not complete yet or was left before it was.
    pub state_is_partial: bool,
    /// That state is what another server told, or follows from such a one.
    pub state_is_told: bool,
    /// `None` if it is not in the timeline. For an event whose commit is still under way this is a placeholder; the
    /// timeline table has the truth.
    pub order: Option<TimelineOrder>,
    /// To be judged again when it comes again, as a state that another server told had a say; see [`Placement::Told`].
    pub told: bool,
    pub verdict: VerdictRecord,
    pub transaction: Option<SentBy>,
    pub redacted_by: Option<EventNid>,
    pub pdu: Arc<Pdu>,
    client_form: OnceLock<Arc<str>>,
}

impl Event {
    pub fn from_row(nid: EventNid, row: AtPosition<EventRecord>, room: &RoomInfo) -> Result<Self, Error> {
        let record = row.value;
        let event_id = OwnedEventId::try_from(record.event_id.as_str())
            .map_err(|e| Error::Damaged(format!("event id '{}': {e}", record.event_id)))?;
        let pdu = Pdu::parse(record.json.into(), event_id, &room.rules)
            .map_err(|e| Error::Damaged(format!("{nid:?} does not parse: {e}")))?;
        let rejected = matches!(record.verdict, VerdictRecord::Rejected { .. });
        let pdu = if rejected { pdu.into_rejected() } else { pdu };
        Ok(Self {
            nid,
            room: record.room,
            sender: record.sender,
            state_key: record.state_key,
            state_before: record.state_before.map(NodeHash),
            state_is_partial: record.state_is_partial,
            state_is_told: record.state_is_told,
            order: order_of(record.placement, row.position),
            told: record.placement == Placement::Told,
            verdict: record.verdict,
            transaction: record.transaction,
            redacted_by: record.redacted_by,
            pdu: Arc::new(pdu),
            client_form: OnceLock::new(),
        })
    }

    /// An event made or received here, on its way into the store; see [`Event::row`].
    #[expect(clippy::too_many_arguments, reason = "the columns of a row; a builder would only repeat them")]
    pub fn new(
        nid: EventNid,
        room: RoomNid,
        sender: UserNid,
        state_key: Option<StateKeyNid>,
        state_before: Option<NodeHash>,
        verdict: VerdictRecord,
        transaction: Option<SentBy>,
        pdu: Arc<Pdu>,
    ) -> Self {
        Self {
            nid,
            room,
            sender,
            state_key,
            state_before,
            state_is_partial: false,
            state_is_told: false,
            order: None,
            told: false,
            verdict,
            transaction,
            redacted_by: None,
            pdu,
            client_form: OnceLock::new(),
        }
    }

    /// The same event with the state before it and what became of it by that, outside the timeline.
    pub fn judged(&self, state_before: NodeHash, verdict: VerdictRecord, pdu: Arc<Pdu>) -> Self {
        let (transaction, state_key) = (self.transaction.clone(), self.state_key);
        Self::new(self.nid, self.room, self.sender, state_key, Some(state_before), verdict, transaction, pdu)
    }

    /// The same event, whose state before it follows from what another server told.
    #[must_use]
    pub fn of_told_state(self, state_is_told: bool) -> Self {
        Self { state_is_told, ..self }
    }

    /// Whether the states after it may be others once the truth is known.
    pub fn is_doubtful(&self) -> bool {
        self.state_is_told || self.told
    }

    /// The same event, to be judged again when it comes again.
    pub fn by_told_state(self) -> Self {
        Self { told: true, ..self }
    }

    /// The same event on its way into the timeline.
    pub fn shown(&self) -> Self {
        Self { told: false, ..self.copy() }
    }

    /// The row to store. `position` may be a placeholder for a new event.
    pub fn row(&self, placement: Placement, position: Position) -> AtPosition<EventRecord> {
        let value = EventRecord {
            room: self.room,
            event_id: self.pdu.event_id.as_str().to_owned(),
            sender: self.sender,
            state_key: self.state_key,
            state_before: self.state_before.map(|hash| hash.0),
            state_is_partial: self.state_is_partial,
            state_is_told: self.state_is_told,
            placement,
            verdict: self.verdict.clone(),
            transaction: self.transaction.clone(),
            redacted_by: self.redacted_by,
            json: self.pdu.json.to_string(),
        };
        AtPosition { position, value }
    }

    /// The same event in a room of whose state something may be still to come.
    #[must_use]
    pub fn of_partial_state(self, state_is_partial: bool) -> Self {
        Self { state_is_partial, ..self }
    }

    /// The same event with the whole state before it.
    pub fn with_state(&self, root: NodeHash) -> Self {
        Self { state_before: Some(root), state_is_partial: false, ..self.copy() }
    }

    /// Whether the states of events that come after it follow from its own: not if it has none, or one of which something
    /// lacks, unless the room is still being completed (`partial`) and all are worked out again then.
    pub fn carries(&self, partial: bool) -> bool {
        self.state_before.is_some() && (partial || !self.state_is_partial)
    }

    /// The same event with its place in the timeline, once that is known.
    pub fn placed(&self, order: TimelineOrder) -> Self {
        Self { order: Some(order), told: false, ..self.copy() }
    }

    /// The same event after a redaction.
    pub fn redacted(&self, pdu: Arc<Pdu>, by: EventNid) -> Self {
        Self { pdu, redacted_by: Some(by), client_form: OnceLock::new(), ..self.copy() }
    }

    /// The same event with a redacted PDU, as somebody sees it who was not there when an erased user sent it.
    pub fn erased(&self, pdu: Arc<Pdu>) -> Self {
        Self { pdu, client_form: OnceLock::new(), ..self.copy() }
    }

    pub fn accepted(&self) -> bool {
        self.verdict == VerdictRecord::Accepted
    }

    pub fn is_rejected(&self) -> bool {
        matches!(self.verdict, VerdictRecord::Rejected { .. })
    }

    /// The client form without `room_id`, without `unsigned` and still open at its end (see
    /// [`client_form::OpenEvent`]); built on first use and kept.
    pub fn client_form(&self) -> &Arc<str> {
        self.client_form.get_or_init(|| client_form::open_event(&self.pdu).as_str().into())
    }

    /// Approximate size in memory, bytes.
    pub fn weight(&self) -> usize {
        // JSON, content and client form are about the same length each.
        512 + 3 * self.pdu.json.len()
    }

    fn copy(&self) -> Self {
        Self {
            nid: self.nid,
            room: self.room,
            sender: self.sender,
            state_key: self.state_key,
            state_before: self.state_before,
            state_is_partial: self.state_is_partial,
            state_is_told: self.state_is_told,
            order: self.order,
            told: self.told,
            verdict: self.verdict.clone(),
            transaction: self.transaction.clone(),
            redacted_by: self.redacted_by,
            pdu: self.pdu.clone(),
            client_form: self.client_form.clone(),
        }
    }
}

/// Where a row has to stand for an event to have this place in the timeline.
pub fn placement_of(order: Option<TimelineOrder>) -> (Placement, Position) {
    match order {
        None => (Placement::Outside, Position::ZERO),
        Some(order) => match order.position() {
            Some(position) => (Placement::Live, position),
            None => (Placement::Backfilled(order.0), Position::ZERO),
        },
    }
}

fn order_of(placement: Placement, position: Position) -> Option<TimelineOrder> {
    match placement {
        Placement::Live => Some(position.into()),
        Placement::Backfilled(order) => Some(TimelineOrder(order)),
        Placement::Outside | Placement::Told => None,
    }
}
