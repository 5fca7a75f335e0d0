//! The extensions of sliding sync: to-device messages (MSC3885), encryption (MSC3884), account data (MSC3959), receipts
//! (MSC3960), typing (MSC3961), thread subscriptions (MSC4308), and sticky events ([`super::sticky`]).
//!
//! Those about rooms tell of the rooms of the answer's window for which they are on; each room says since when.

use std::collections::BTreeSet;

use myelin_core::{Position, RoomNid, TimelineOrder};
use myelin_store::{Direction, tables::RECEIPTS};
use ruma::{EventId, OwnedEventId};

use super::{
    Answering, array_of, push_by_room,
    request::{PerRoom, Stream},
    room::Told,
    told::Task,
    window::Window,
};
use crate::{Error, Sync, filter::EventFilter, json::Object, v2, v2::ephemeral::Receipt};

/// Receipts of one user in one room.
const OWN_RECEIPTS_MAX: usize = 1_000;

/// A room that the answer looked at, for what is beside its events.
pub(super) struct ToldRoom {
    task: Task,
    /// The client starts with it anew.
    anew: bool,
    shown: BTreeSet<OwnedEventId>,
    shown_since: Option<TimelineOrder>,
}

impl ToldRoom {
    pub fn new(task: Task, told: Option<Told>) -> Self {
        let told = told.map(|told| (told.anew, told.shown, told.shown_since));
        let (anew, shown, shown_since) = told.unwrap_or_default();
        Self { task, anew, shown, shown_since }
    }

    pub fn shows(&self, event_id: &EventId) -> bool {
        self.shown.contains(event_id)
    }

    /// Since when an extension is to tell of it; `None`: from the start.
    fn since_of(&self, extension: PerRoom) -> Option<Position> {
        self.task.since_of(extension).filter(|_| !self.anew)
    }
}

impl Sync {
    /// Whether there is anything worth waking the client for.
    pub(super) async fn push_extensions(
        &self,
        answering: &mut Answering<'_>,
        window: &Window,
        rooms: &[ToldRoom],
        out: &mut String,
    ) -> Result<bool, Error> {
        let extensions = &answering.request.extensions;
        let mut out = Object::open(out);
        let mut news = false;
        if let Some(wanted) = &extensions.to_device {
            news |= self.push_to_device(answering, wanted, &mut out).await?;
        }
        if extensions.e2ee {
            let mut e2ee = out.object("e2ee");
            news |= self.push_device_lists(&answering.context, &answering.changes, &mut e2ee).await?;
            self.push_key_stock(&answering.context, &mut e2ee).await?;
            e2ee.close();
        }
        if extensions.account_data.is_some() {
            news |= self.push_all_account_data(answering, rooms, &mut out).await?;
        }
        if extensions.receipts.is_some() {
            news |= self.push_receipts(answering, rooms, &mut out).await?;
        }
        if extensions.typing.is_some() {
            news |= self.push_typing(answering, rooms, &mut out).await?;
        }
        if let Some(limit) = extensions.thread_subscriptions {
            let (since, now) = (answering.position.unwrap_or(Position::ZERO), answering.context.now);
            let user = answering.request.requester.user;
            let changes = self.thread_subscriptions(user, since, now, limit).await?;
            if !changes.is_empty() {
                news = true;
                changes.push("prev_batch", out.object("io.element.msc4308.thread_subscriptions"));
            }
        }
        if let Some(wanted) = &extensions.sticky_events {
            news |= self.push_sticky(answering, wanted, window, rooms, &mut out).await?;
        }
        out.close();
        Ok(news)
    }

    /// The extension has a token of its own: messages up to it are deleted.
    async fn push_to_device(
        &self,
        answering: &mut Answering<'_>,
        wanted: &Stream,
        out: &mut Object<'_>,
    ) -> Result<bool, Error> {
        let since = wanted.position("to_device")?.unwrap_or(Position::ZERO);
        let now = answering.context.now;
        // From a store that was set back to a backup: what it says was delivered is not known here.
        answering.context.to_device_since =
            Some(since).filter(|since| *since <= now).unwrap_or(Position::ZERO);
        let limit = wanted.limit.clamp(1, v2::MESSAGES_MAX);
        let inbox = self.inbox(&answering.context, limit).await?;
        let mut to_device = out.object("to_device");
        to_device.string("next_batch", &inbox.delivered_until.unwrap_or(now).0.to_string());
        to_device.array("events", &inbox.messages);
        to_device.close();
        Ok(!inbox.messages.is_empty())
    }

    async fn push_all_account_data(
        &self,
        answering: &Answering<'_>,
        rooms: &[ToldRoom],
        out: &mut Object<'_>,
    ) -> Result<bool, Error> {
        let global = self.account_data_of_user(&answering.context, &answering.changes).await?;
        let mut by_room = Vec::new();
        for room in wanting(rooms, PerRoom::ACCOUNT_DATA) {
            let events = self.account_data_of(answering, room).await?;
            if !events.is_empty() {
                by_room.push((room.task.info.room_id.as_str(), array_of(&events)));
            }
        }
        let news = !global.is_empty() || !by_room.is_empty();
        if news {
            let mut account_data = out.object("account_data");
            account_data.array("global", &global);
            push_by_room(&mut account_data, &by_room);
            account_data.close();
        }
        Ok(news)
    }

    async fn account_data_of(
        &self,
        answering: &Answering<'_>,
        room: &ToldRoom,
    ) -> Result<Vec<String>, Error> {
        let (task, since) = (&room.task, room.since_of(PerRoom::ACCOUNT_DATA));
        let unchanged = !answering.changes.account_data.contains_key(&task.room);
        if since.is_some() && unchanged && !task.was_out_of_sight {
            return Ok(Vec::new());
        }
        self.account_data_since(&answering.context, task.room, since, &EventFilter::default()).await
    }

    async fn push_receipts(
        &self,
        answering: &Answering<'_>,
        rooms: &[ToldRoom],
        out: &mut Object<'_>,
    ) -> Result<bool, Error> {
        let mut by_room = Vec::new();
        for room in wanting_inside(rooms, PerRoom::RECEIPTS) {
            let receipts = self.receipts_of(answering, room).await?;
            let event = self.receipt_event(answering.request.requester.user, receipts).await?;
            by_room.extend(event.map(|event| (room.task.info.room_id.as_str(), event)));
        }
        Ok(push_extension(out, "receipts", &by_room))
    }

    /// What was read since; of a timeline that the client did not have, who read the events that it shows, and what the user
    /// has read of the room.
    async fn receipts_of(&self, answering: &Answering<'_>, room: &ToldRoom) -> Result<Vec<Receipt>, Error> {
        let (task, now) = (&room.task, answering.context.now);
        let since = room.since_of(PerRoom::RECEIPTS);
        let mut receipts = Vec::new();
        if since.is_some() && (task.was_out_of_sight || answering.changes.may_have_receipts(task.room)) {
            receipts = self.receipts_since(task.room, since, now).await?;
        }
        if since.is_none() || task.expands_timeline() {
            receipts.extend(self.receipts_of_shown(answering, room).await?);
        }
        Ok(receipts)
    }

    async fn receipts_of_shown(
        &self,
        answering: &Answering<'_>,
        room: &ToldRoom,
    ) -> Result<Vec<Receipt>, Error> {
        let user = answering.request.requester.user;
        let mut receipts = self.own_receipts(room.task.room, user).await?;
        // A receipt is set after what it is for has come.
        if let Some(order) = room.shown_since {
            let before = order.position().map_or(Position::ZERO, |first| Position(first.0.saturating_sub(1)));
            let later = self.receipts_since(room.task.room, Some(before), answering.context.now).await?;
            let for_shown = |receipt: &Receipt| room.shown.iter().any(|id| *id == receipt.1.event_id);
            receipts.extend(later.into_iter().filter(|receipt| receipt.0.0 != user && for_shown(receipt)));
        }
        Ok(receipts)
    }

    async fn own_receipts(&self, room: RoomNid, user: myelin_core::UserNid) -> Result<Vec<Receipt>, Error> {
        let prefix = (room, user);
        let rows = self.view.store.scan(&RECEIPTS, &prefix, Direction::Forward, OWN_RECEIPTS_MAX).await?;
        Ok(rows.into_iter().map(|((_, user, kind, thread), row)| ((user, kind, thread), row.value)).collect())
    }

    async fn push_typing(
        &self,
        answering: &Answering<'_>,
        rooms: &[ToldRoom],
        out: &mut Object<'_>,
    ) -> Result<bool, Error> {
        let mut by_room = Vec::new();
        for room in wanting_inside(rooms, PerRoom::TYPING) {
            let known = room.since_of(PerRoom::TYPING);
            // Whoever stopped while the client looked elsewhere has to be seen to have stopped.
            let since = if room.task.was_out_of_sight { 0 } else { answering.context.since_ephemeral };
            let event = self.typing_event(room.task.room, known.map(|_| since)).await?;
            by_room.extend(event.map(|event| (room.task.info.room_id.as_str(), event)));
        }
        Ok(push_extension(out, "typing", &by_room))
    }
}

/// Whether there was anything to say.
fn push_extension(out: &mut Object<'_>, name: &str, by_room: &[(&str, String)]) -> bool {
    let news = !by_room.is_empty();
    if news {
        let mut extension = out.object(name);
        push_by_room(&mut extension, by_room);
        extension.close();
    }
    news
}

impl Stream {
    /// `None`: from the start.
    pub(super) fn position(&self, extension: &str) -> Result<Option<Position>, Error> {
        let since = self.since.as_deref().map(str::parse::<u64>).transpose();
        let foreign = |_| format!("extensions.{extension}.since: this server did not give it out.");
        since.map(|since| since.map(Position)).map_err(foreign).map_err(Error::InvalidParam)
    }
}

fn wanting(rooms: &[ToldRoom], extension: PerRoom) -> Vec<&ToldRoom> {
    rooms.iter().filter(|room| room.task.interest.wants(extension)).collect()
}

/// Of those that the user is in.
fn wanting_inside(rooms: &[ToldRoom], extension: PerRoom) -> Vec<&ToldRoom> {
    wanting(rooms, extension).into_iter().filter(|room| room.task.is_joined()).collect()
}
