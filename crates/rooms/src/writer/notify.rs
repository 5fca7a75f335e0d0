//! Whom an event notifies, decided and written down in the commit that brings it (Client-Server API, "Push Notifications").
//!
//! Those who have only default rules share one decision and at most one row, however many they are. Asked one by one
//! are those whom the event names and those whose own rules look at something that it has; a row of theirs says by how
//! much they differ. For who mutes a room the shared rows do not count from some place on (`quiet_spans`).

use myelin_core::{Position, TimelineOrder, UserNid};
use myelin_push::{Circumstances, Outcome, Permissions, Rule, Ruleset, Subject, shared};
use myelin_store::{
    codec::AtPosition,
    tables::{
        NOTIFIED_USERS, NOTIFYING, NOTIFYING_IN_THREADS, NotifiedUserRecord, NotifyingRecord, QUIET_SPANS,
        QuietSpanRecord, READ_MARKS, ReadMarkRecord, ThreadNotifyingRecord, WITHDRAWN, WithdrawnRecord,
    },
};
use myelin_view::{Event, Rulebook};
use ruma::{
    OwnedEventId, UserId,
    events::{TimelineEventType, room::power_levels::UserPowerLevel},
};

use super::{Draft, member_id};
use crate::Error;

/// From a reaction to an edit to the event in a thread.
const RELATION_HOPS_MAX: usize = 3;
const MAIN_THREAD: &str = "main";
/// Users whom one event can mention.
const MENTIONS_MAX: usize = 1_000;

/// What is the same for everybody whom an event may notify.
struct Notice<'a> {
    event: &'a Event,
    subject: Subject<'a>,
    permissions: Permissions,
    thread: Option<OwnedEventId>,
    order: TimelineOrder,
    /// What the shared rules say.
    shared: Outcome,
    /// For whom something is written down.
    targeted: Vec<UserNid>,
}

impl Draft<'_> {
    /// Called for an event that enters the timeline as news, with the room as it was before. Who is notified of it
    /// otherwise than the shared rules say.
    pub(super) async fn notify(&mut self, event: &Event, position: Position) -> Result<Vec<UserNid>, Error> {
        if event.redacted_by.is_some() {
            return Ok(Vec::new());
        }
        let event_type = event.pdu.event_type.to_string();
        let pdu = &event.pdu;
        let (id, room_id, state_key) = (&pdu.event_id, &pdu.room_id, pdu.state_key.as_deref());
        let subject = Subject::new(id, room_id, &pdu.sender, &event_type, state_key, &pdu.content);
        let thread = self.thread_of(event).await?;
        let speaks = self.room.local_joined.contains(&event.sender);
        let listeners = self.room.local_joined.len() - usize::from(speaks);
        let invited = self.invited(event).await?;
        let order = TimelineOrder::from(position);
        let (permissions, shared, targeted) = (Permissions::default(), Outcome::NOTHING, Vec::new());
        let mut notice = Notice { event, subject, permissions, thread, order, shared, targeted };
        if listeners > 0 || invited.is_some() {
            let book = self.rooms.view.push_rules.current().await?;
            self.notify_all(&mut notice, &book, invited).await?;
        }
        let says = !event.pdu.is_state() && event.pdu.event_type != TimelineEventType::RoomRedaction;
        if speaks && (says || notice.shared.notify) {
            let thread = notice.thread.as_ref().map_or(MAIN_THREAD, |root| root.as_str()).to_owned();
            self.mark_read(event.sender, thread, position);
        }
        self.room.head.notified.targeted += u64::from(!notice.targeted.is_empty());
        Ok(notice.targeted)
    }

    /// What came before is read: the user joined here, or spoke.
    pub(super) fn mark_read(&mut self, user: UserNid, thread: String, position: Position) {
        let mark = AtPosition { position, value: ReadMarkRecord };
        self.batch.put(&READ_MARKS, &(self.room.nid(), user, thread), &mark);
    }

    /// A redacted event counts no longer.
    pub(crate) async fn withdraw_notification(&mut self, target: &Event) -> Result<(), Error> {
        let Some(order) = target.order.filter(|order| order.0 >= 0) else { return Ok(()) };
        let key = (target.room, order);
        let counted = self.rooms.view.store.get(&NOTIFYING, &key).await?.map(|row| row.highlight);
        self.batch.delete(&NOTIFYING_IN_THREADS, &key);
        self.batch.put(&WITHDRAWN, &key, &WithdrawnRecord { counted });
        self.room.head.notified.withdrawn += 1;
        Ok(())
    }

    async fn notify_all(
        &mut self,
        notice: &mut Notice<'_>,
        book: &Rulebook,
        invited: Option<UserNid>,
    ) -> Result<(), Error> {
        let asked = self.asked(notice, book).await?;
        let rules = asked.iter().chain(&invited).filter_map(|user| book.own(*user));
        if notice.subject.mentions_room() || rules.into_iter().any(|rules| rules.asks_permissions()) {
            notice.permissions = self.permissions(notice.event.pdu.sender.as_ref()).await?;
        }
        let decided = shared().decide(&notice.subject, &self.circumstances(notice, None, None));
        notice.shared = decided.map_or(Outcome::NOTHING, |rule| rule.outcome);
        for user in asked {
            self.notify_one(notice, user, book.of(user)).await?;
        }
        if let Some(user) = invited {
            let user_id = self.rooms.view.interner.user_id(user).await?;
            let rules = book.of(user);
            let rule = rules.decide(&notice.subject, &self.circumstances(notice, Some(&user_id), None));
            if self.put_difference(notice, user, rule, Outcome::NOTHING) {
                notice.targeted.push(user);
            }
        }
        if let Some(rule) = decided {
            self.put_shared(notice, rule);
        }
        Ok(())
    }

    /// The joined local users who are not like everybody to this event.
    async fn asked(&self, notice: &Notice<'_>, book: &Rulebook) -> Result<Vec<UserNid>, Error> {
        let joined = &self.room.local_joined;
        let mut asked = book.index.concerned(&notice.subject, joined);
        for named in notice.subject.mentioned().take(MENTIONS_MAX) {
            let Ok(named) = <&UserId>::try_from(named) else { continue };
            if self.is_local(named)
                && let Some(user) = self.rooms.view.interner.lookup_user(named).await?
                && joined.contains(&user)
            {
                asked.insert(user);
            }
        }
        let quiet = self.room.quiet.iter().filter(|(user, quiet)| **quiet && joined.contains(*user));
        asked.extend(quiet.map(|(user, _)| *user));
        asked.remove(&notice.event.sender);
        Ok(asked.into_iter().collect())
    }

    async fn notify_one(
        &mut self,
        notice: &mut Notice<'_>,
        user: UserNid,
        rules: &Ruleset,
    ) -> Result<(), Error> {
        let held = self.room.quiet.get(&user).copied().unwrap_or_default();
        let quiet = self.quiet(notice, user, rules, held);
        let user_id = self.rooms.view.interner.user_id(user).await?;
        let name = if rules.asks_display_name() { self.display_name(user).await? } else { None };
        let around = self.circumstances(notice, Some(&user_id), name.as_deref());
        let rule = rules.decide(&notice.subject, &around);
        let base = if quiet { Outcome::NOTHING } else { notice.shared };
        if self.put_difference(notice, user, rule, base) || quiet != held {
            notice.targeted.push(user);
        }
        Ok(())
    }

    /// Whether the shared rows count for nothing with this user. That changes where it makes a difference.
    fn quiet(&mut self, notice: &Notice<'_>, user: UserNid, rules: &Ruleset, held: bool) -> bool {
        let wanted = rules.is_quiet_in(&self.room.info.room_id);
        if held == wanted || !notice.shared.notify {
            return held;
        }
        let span = QuietSpanRecord { quiet: wanted, totals: self.room.head.notified.main };
        self.batch.put(&QUIET_SPANS, &(self.room.nid(), user, notice.order), &span);
        self.room.quiet.insert(user, wanted);
        wanted
    }

    /// Whether there is any.
    fn put_difference(
        &mut self,
        notice: &Notice<'_>,
        user: UserNid,
        rule: Option<&Rule>,
        base: Outcome,
    ) -> bool {
        let outcome = rule.map_or(Outcome::NOTHING, |rule| rule.outcome);
        if outcome == base {
            return false;
        }
        let actions = rule.filter(|_| outcome.notify).map(|rule| serde_json::to_string(&rule.actions));
        let record = NotifiedUserRecord {
            event: notice.event.nid,
            thread: notice.thread.as_ref().map(ToString::to_string),
            notified: i8::from(outcome.notify) - i8::from(base.notify),
            highlighted: i8::from(outcome.highlight) - i8::from(base.highlight),
            actions: actions.and_then(Result::ok),
            highlight: outcome.highlight,
        };
        self.batch.put(&NOTIFIED_USERS, &(self.room.nid(), user, notice.order), &record);
        true
    }

    fn put_shared(&mut self, notice: &Notice<'_>, rule: &Rule) {
        if !rule.outcome.notify {
            return;
        }
        let (key, event) = ((self.room.nid(), notice.order), notice.event.nid);
        let (rule_id, highlight) = (rule.rule_id.clone(), rule.outcome.highlight);
        if let Some(thread) = &notice.thread {
            let record = ThreadNotifyingRecord { event, thread: thread.to_string(), rule_id, highlight };
            self.room.head.notified.in_threads += 1;
            return self.batch.put(&NOTIFYING_IN_THREADS, &key, &record);
        }
        let totals = &mut self.room.head.notified.main;
        totals.notified += 1;
        totals.highlighted += u64::from(highlight);
        let record = NotifyingRecord { event, rule_id, highlight, totals: *totals };
        self.batch.put(&NOTIFYING, &key, &record);
    }

    fn circumstances<'a>(
        &self,
        notice: &'a Notice<'_>,
        owner: Option<&'a UserId>,
        display_name: Option<&'a str>,
    ) -> Circumstances<'a> {
        let member_count = self.room.joined_count;
        Circumstances { owner, display_name, member_count, permissions: &notice.permissions }
    }

    /// A local user who is not in the room and is asked to come.
    async fn invited(&self, event: &Event) -> Result<Option<UserNid>, Error> {
        let Some(user_id) = member_id(&event.pdu) else { return Ok(None) };
        let invites = event.pdu.membership() == Some(ruma::events::room::member::MembershipState::Invite);
        if !invites || !self.is_local(&user_id) {
            return Ok(None);
        }
        let user = self.rooms.view.interner.lookup_user(&user_id).await?;
        Ok(user.filter(|user| !self.room.local_joined.contains(user)))
    }

    async fn display_name(&self, user: UserNid) -> Result<Option<String>, Error> {
        Ok(self.member_event(user).await?.and_then(|event| event.pdu.content_field("displayname")))
    }

    /// What the sender may do by the power levels of the room.
    async fn permissions(&self, sender: &UserId) -> Result<Permissions, Error> {
        let level = self.power_levels(|levels| match levels.of_user(sender) {
            UserPowerLevel::Int(level) => level.into(),
            _ => i64::MAX,
        });
        let level = level.await?;
        let event = self.state_event("m.room.power_levels", "").await?;
        let needed = event.and_then(|event| event.pdu.integer_levels());
        let needed = needed.as_ref().and_then(|levels| levels.get("notifications")?.as_object());
        let needed = needed.into_iter().flatten();
        Ok(Permissions::new(level, needed.filter_map(|(key, level)| Some((key.clone(), level.as_i64()?)))))
    }

    /// The root of the thread that an event is in, itself or by what it relates to ("Threaded read receipts").
    async fn thread_of(&self, event: &Event) -> Result<Option<OwnedEventId>, Error> {
        let mut relation = event.pdu.relates_to();
        for _ in 0..RELATION_HOPS_MAX {
            let Some(related) = relation else { return Ok(None) };
            if related.rel_type == "m.thread" {
                return Ok(Some(related.event_id));
            }
            let target = self.find(&related.event_id).await?;
            let target = target.filter(|target| target.room == event.room);
            relation = target.and_then(|target| target.pdu.relates_to());
        }
        Ok(None)
    }
}
