//! `GET /_matrix/client/v3/notifications`: what a user was notified of, newest first, of all their rooms together.
//!
//! Put together from the rows that the counts stand on ([`crate::unread`]): first the newest row of each room is asked for,
//! then rooms are read in that order until nothing in the others can be newer.

use std::collections::{BTreeMap, HashMap, HashSet, hash_map::Entry};

use myelin_core::{EventNid, RoomNid, TimelineOrder};
use myelin_push::edit;
use myelin_store::{
    Direction,
    codec::{KeyPart, Value},
    tables::{
        ACCOUNT_DATA, Membership, NOTIFIED_USERS, NOTIFYING, NOTIFYING_IN_THREADS, READ_MARKS, Table,
        WITHDRAWN,
    },
};
use myelin_view::RoomSnapshot;
use ruma::push::Ruleset;
use serde_json::json;

use crate::{
    Error, Requester, Sync,
    client_event::{Format, Writer},
    json::{Object, push_array},
    unread::{QuietSpans, ReadUpTo},
    visibility::Viewer,
};

const LIMIT_DEFAULT: u64 = 20;
const LIMIT_MAX: u64 = 100;
/// Rows of one room and table that are looked at for one answer.
const ROWS_MAX: usize = 1_000;
const NOTIFY_ONLY: &str = r#"["notify"]"#;

#[derive(Clone, Debug, Default)]
pub struct NotificationsRequest {
    pub from: Option<String>,
    pub limit: Option<u64>,
    pub only_highlights: bool,
}

/// An event that notified the user.
#[derive(Clone, Debug)]
struct Notification {
    room: RoomNid,
    order: TimelineOrder,
    event: EventNid,
    thread: Option<String>,
    actions: Actions,
    highlight: bool,
}

#[derive(Clone, Debug)]
enum Actions {
    /// Of the user's own rule, as JSON.
    Own(String),
    /// Of the default rule with this id.
    Default(String),
}

/// What is found of one room.
#[derive(Default)]
struct Found {
    notifications: Vec<Notification>,
    /// There may be more before this place, and there is none from it on.
    stopped_at: Option<TimelineOrder>,
}

impl Sync {
    pub async fn notifications(
        &self,
        requester: &Requester,
        request: &NotificationsRequest,
    ) -> Result<String, Error> {
        let before = match request.from.as_deref() {
            Some(token) => parse(token)?,
            None => TimelineOrder::MAX,
        };
        let limit = request.limit.unwrap_or(LIMIT_DEFAULT).clamp(1, LIMIT_MAX) as usize;
        self.view.feed.caught_up().await;
        let rooms = self.rooms_by_newest(requester, before).await?;
        let mut found = Found::default();
        for (newest, room) in rooms {
            let full = found.notifications.get(limit - 1).is_some_and(|last| last.order > newest);
            if full || found.stopped_at.is_some_and(|stopped| stopped > newest) {
                let next = TimelineOrder(newest.0.saturating_add(1));
                found.stopped_at = found.stopped_at.max(Some(next));
                break;
            }
            let of_room = self.notifications_of(requester, room, before, request.only_highlights).await?;
            found.stopped_at = found.stopped_at.max(of_room.stopped_at);
            found.notifications.extend(of_room.notifications);
            found.notifications.sort_by_key(|notification| std::cmp::Reverse(notification.order));
        }
        // What is older than where a room was left off may have gaps: it comes with the next page.
        if let Some(stopped) = found.stopped_at {
            found.notifications.retain(|notification| notification.order >= stopped);
        }
        let more = found.notifications.len() > limit;
        found.notifications.truncate(limit);
        let next = match found.notifications.last() {
            Some(last) if more => Some(last.order),
            _ => found.stopped_at,
        };
        self.write_notifications(requester, &found.notifications, next).await
    }

    /// Joined rooms with the order of the newest row that may be a notification, newest first.
    async fn rooms_by_newest(
        &self,
        requester: &Requester,
        before: TimelineOrder,
    ) -> Result<Vec<(TimelineOrder, RoomNid)>, Error> {
        let held = self.view.user_rooms.load(requester.user).await?;
        let mut rooms = Vec::new();
        for (room, _) in held.iter().filter(|(_, room)| room.membership == Membership::Join) {
            let (room, user) = (*room, requester.user);
            let main = self.rows(&NOTIFYING, &(room, TimelineOrder::MIN), &(room, before), 1).await?;
            let threads =
                self.rows(&NOTIFYING_IN_THREADS, &(room, TimelineOrder::MIN), &(room, before), 1).await?;
            let (from, to) = ((room, user, TimelineOrder::MIN), (room, user, before));
            let own = self.rows(&NOTIFIED_USERS, &from, &to, 1).await?;
            let shared = main.first().map(|((_, order), _)| *order);
            let threads = threads.first().map(|((_, order), _)| *order);
            let newest = shared.max(threads).max(own.first().map(|((.., order), _)| *order));
            rooms.extend(newest.map(|newest| (newest, room)));
        }
        rooms.sort_unstable_by(|a, b| b.cmp(a));
        Ok(rooms)
    }

    async fn notifications_of(
        &self,
        requester: &Requester,
        room: RoomNid,
        before: TimelineOrder,
        only_highlights: bool,
    ) -> Result<Found, Error> {
        let Some(snapshot) = self.view.rooms.load(room).await? else { return Ok(Found::default()) };
        let user = requester.user;
        let joined = self.view.store.get(&READ_MARKS, &(room, user, String::new())).await?;
        let since = joined.map_or(TimelineOrder::MIN, |row| row.position.into());
        let (from, to) = ((room, since), (room, before));
        let main = self.rows(&NOTIFYING, &from, &to, ROWS_MAX).await?;
        let threads = self.rows(&NOTIFYING_IN_THREADS, &from, &to, ROWS_MAX).await?;
        let own = self.rows(&NOTIFIED_USERS, &(room, user, since), &(room, user, before), ROWS_MAX).await?;
        let stops = [
            stop(main.iter().map(|((_, order), _)| *order)),
            stop(threads.iter().map(|((_, order), _)| *order)),
            stop(own.iter().map(|((.., order), _)| *order)),
        ];
        let spans = QuietSpans::load(self.view.store.read(), &snapshot, user).await?;
        let mut found: BTreeMap<TimelineOrder, Notification> = BTreeMap::new();
        let shared =
            main.into_iter()
                .map(|((_, order), row)| (order, row.event, None, row.rule_id, row.highlight))
                .chain(threads.into_iter().map(|((_, order), row)| {
                    (order, row.event, Some(row.thread), row.rule_id, row.highlight)
                }));
        for (order, event, thread, rule_id, highlight) in shared.filter(|row| !spans.is_quiet(row.0)) {
            let actions = Actions::Default(rule_id);
            found.insert(order, Notification { room, order, event, thread, actions, highlight });
        }
        for ((.., order), row) in own {
            found.remove(&order);
            if let Some(actions) = row.actions {
                let (event, thread, highlight) = (row.event, row.thread, row.highlight);
                let actions = Actions::Own(actions);
                found.insert(order, Notification { room, order, event, thread, actions, highlight });
            }
        }
        let withdrawn: HashSet<_> = self
            .rows(&WITHDRAWN, &from, &to, ROWS_MAX)
            .await?
            .into_iter()
            .map(|((_, order), _)| order)
            .collect();
        let stopped_at = stops.into_iter().flatten().max();
        let wanted = |notification: &Notification| {
            !withdrawn.contains(&notification.order)
                && (notification.highlight || !only_highlights)
                && stopped_at.is_none_or(|stopped| notification.order >= stopped)
        };
        let notifications = found.into_values().filter(wanted).collect();
        let notifications = self.seen_by(requester, &snapshot, notifications).await?;
        Ok(Found { notifications, stopped_at })
    }

    /// Those of others that the user may see.
    async fn seen_by(
        &self,
        requester: &Requester,
        room: &RoomSnapshot,
        notifications: Vec<Notification>,
    ) -> Result<Vec<Notification>, Error> {
        let mut viewer = Viewer::new(&self.view, room, requester.user, &requester.user_id).await?;
        let nids: Vec<_> = notifications.iter().map(|notification| notification.event).collect();
        let events = self.view.events.load_many(&nids).await?;
        let mut seen = Vec::with_capacity(notifications.len());
        for (notification, event) in notifications.into_iter().zip(events) {
            let Some(event) = event.filter(|event| event.sender != requester.user) else { continue };
            if viewer.see(&event).await?.is_some() {
                seen.push(notification);
            }
        }
        Ok(seen)
    }

    async fn write_notifications(
        &self,
        requester: &Requester,
        notifications: &[Notification],
        next: Option<TimelineOrder>,
    ) -> Result<String, Error> {
        let rules = self.rules(requester).await?;
        let writer = Writer {
            view: &self.view,
            requester,
            now_ms: self.view.env.now_ms(),
            format: Format::Client,
            event_fields: None,
            with_room_id: false,
        };
        let mut read: HashMap<RoomNid, ReadUpTo> = HashMap::new();
        let mut items = Vec::with_capacity(notifications.len());
        for notification in notifications {
            if let Entry::Vacant(unknown) = read.entry(notification.room) {
                let store = self.view.store.read();
                let loaded = ReadUpTo::load(store, notification.room, requester.user).await?;
                unknown.insert(loaded);
            }
            let up_to = read.get(&notification.room).map(|read| read.of(notification.thread.as_deref()));
            let is_read = up_to.is_some_and(|up_to| notification.order <= up_to);
            items.extend(self.write_notification(&writer, notification, &rules, is_read).await?);
        }
        let mut json = String::new();
        let mut out = Object::open(&mut json);
        push_array(out.key("notifications"), items);
        if let Some(next) = next {
            out.string("next_token", &next.0.to_string());
        }
        out.close();
        Ok(json)
    }

    async fn write_notification(
        &self,
        writer: &Writer<'_>,
        notification: &Notification,
        rules: &Ruleset,
        is_read: bool,
    ) -> Result<Option<String>, Error> {
        let Some(room) = self.view.rooms.load(notification.room).await? else { return Ok(None) };
        let Some(event) = self.view.events.load(notification.event).await? else { return Ok(None) };
        let requester = writer.requester;
        let mut viewer = Viewer::new(&self.view, &room, requester.user, &requester.user_id).await?;
        let Some(seen) = viewer.see(&event).await? else { return Ok(None) };
        let actions = match &notification.actions {
            Actions::Own(actions) => actions.clone(),
            Actions::Default(rule_id) => actions_of(rules, rule_id),
        };
        let mut json = String::new();
        let mut out = Object::open(&mut json);
        out.raw("actions", &actions);
        out.raw("event", &writer.write(&event, seen, None).await?);
        out.bool("read", is_read);
        out.string("room_id", room.info.room_id.as_str());
        out.number("ts", event.pdu.origin_server_ts.get().into());
        out.close();
        Ok(Some(json))
    }

    async fn rules(&self, requester: &Requester) -> Result<Ruleset, Error> {
        let key = (requester.user, RoomNid::GLOBAL, "m.push_rules".to_owned());
        let stored = self.view.store.get(&ACCOUNT_DATA, &key).await?;
        Ok(edit::load(&requester.user_id, stored.as_ref().map(|row| row.value.json.as_str())))
    }

    /// Newest first, `from < key < to`.
    async fn rows<K: KeyPart, V: Value>(
        &self,
        table: &Table<K, V>,
        from: &K,
        to: &K,
        limit: usize,
    ) -> Result<Vec<(K, V)>, Error> {
        Ok(self.view.store.range(table, from, to, Direction::Reverse, limit).await?)
    }
}

/// Where reading stopped, if there may be more.
fn stop(orders: impl Iterator<Item = TimelineOrder>) -> Option<TimelineOrder> {
    let orders: Vec<_> = orders.collect();
    orders.last().copied().filter(|_| orders.len() == ROWS_MAX)
}

/// How a default rule notifies this user: its tweaks are theirs to change.
fn actions_of(rules: &Ruleset, rule_id: &str) -> String {
    let rule = rules.override_.get(rule_id).or_else(|| rules.underride.get(rule_id));
    rule.map_or_else(|| NOTIFY_ONLY.to_owned(), |rule| json!(rule.actions).to_string())
}

fn parse(token: &str) -> Result<TimelineOrder, Error> {
    let order = token.parse().map(TimelineOrder);
    order.map_err(|_| Error::InvalidParam("from: this is not a token of this endpoint.".to_owned()))
}
