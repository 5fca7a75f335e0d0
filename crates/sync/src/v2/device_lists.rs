//! `device_lists` of a sync, and `/keys/changes` (Client-Server API, "Tracking the device list for a user").
//!
//! *Changed*: whose devices or keys changed, of those who share a room with the user, and who shares one since. *Left*:
//! who shares none any more. Both in time proportional to what changed: device lists by position, members by the
//! difference of two states of the rooms whose state changed.

use std::collections::BTreeSet;

use myelin_core::{EventNid, Position, RoomNid, SyncToken, UserNid};
use myelin_dag::state_tree::StateTree;
use myelin_store::{
    Direction,
    tables::{DEVICE_LISTS_BY_POSITION, Membership},
};

use super::{Changes, Context, Request};
use crate::{Error, Requester, Sync, json, json::Object, room_state::state_at};

/// Device lists read for one answer.
const LISTS_MAX: usize = 1_000_000;
const MEMBER: &str = "m.room.member";

#[derive(Debug, Default, PartialEq, Eq)]
struct DeviceLists {
    changed: BTreeSet<UserNid>,
    left: BTreeSet<UserNid>,
}

/// Who came into rooms of the user and who went, in the interval.
#[derive(Default)]
struct Movement {
    came: BTreeSet<UserNid>,
    went: BTreeSet<UserNid>,
}

impl Sync {
    pub(crate) async fn push_device_lists(
        &self,
        context: &Context<'_>,
        changes: &Changes,
        body: &mut Object<'_>,
    ) -> Result<bool, Error> {
        let Some(since) = context.since else { return Ok(false) };
        let lists = self.device_lists(context, changes, since).await?;
        if lists == DeviceLists::default() {
            return Ok(false);
        }
        self.write_device_lists(&lists, body.key("device_lists")).await?;
        Ok(true)
    }

    /// `GET /keys/changes`. What changed after `to` may be among it.
    pub async fn key_changes(
        &self,
        requester: Requester,
        from: SyncToken,
        to: SyncToken,
    ) -> Result<String, Error> {
        let request = Request::of(requester, Some(from));
        let now = self.view.feed.caught_up().await;
        let mut context = self.standing_on(&request, now, Some(from).filter(|from| from.position <= now));
        let mut lists = DeviceLists::default();
        if let Some(since) = context.since.filter(|since| *since < to.position) {
            let changes = Changes::find(self, &mut context).await?;
            lists = self.device_lists(&context, &changes, since).await?;
        }
        let mut json = String::new();
        self.write_device_lists(&lists, &mut json).await?;
        Ok(json)
    }

    async fn write_device_lists(&self, lists: &DeviceLists, out: &mut String) -> Result<(), Error> {
        let mut object = Object::open(out);
        for (key, users) in [("changed", &lists.changed), ("left", &lists.left)] {
            let mut names = Vec::with_capacity(users.len());
            for user in users {
                names.push(json::string(self.view.interner.user_id(*user).await?.as_str()));
            }
            object.array(key, names);
        }
        object.close();
        Ok(())
    }

    async fn device_lists(
        &self,
        context: &Context<'_>,
        changes: &Changes,
        since: Position,
    ) -> Result<DeviceLists, Error> {
        let user = context.request.requester.user;
        let mut changed = self.changed_lists(changes, since, context.now).await?;
        let own = changed.remove(&user);
        let Movement { came, went } = self.movement(context, changes, since).await?;
        let mut strangers: BTreeSet<_> = changed.iter().chain(&came).chain(&went).copied().collect();
        strangers.remove(&user);
        self.leave_strangers(changes, &mut strangers).await?;
        let shares = |other: &UserNid| *other != user && !strangers.contains(other);
        let mut changed: BTreeSet<_> = changed.into_iter().chain(came).filter(shares).collect();
        changed.extend(changes.signed.iter().copied());
        changed.extend(own.then_some(user));
        let left = went.into_iter().filter(|other| strangers.contains(other)).collect();
        Ok(DeviceLists { changed, left })
    }

    async fn changed_lists(
        &self,
        changes: &Changes,
        since: Position,
        now: Position,
    ) -> Result<BTreeSet<UserNid>, Error> {
        if let Some(lists) = &changes.device_lists {
            return Ok(lists.clone());
        }
        let (from, to) = (since.next(), now.next());
        let store = &self.view.store;
        let rows = store.range(&DEVICE_LISTS_BY_POSITION, &from, &to, Direction::Forward, LISTS_MAX).await?;
        Ok(rows.into_iter().map(|(_, row)| row.user).collect())
    }

    async fn movement(
        &self,
        context: &Context<'_>,
        changes: &Changes,
        since: Position,
    ) -> Result<Movement, Error> {
        let mut movement = Movement::default();
        for room in changes.memberships.keys() {
            self.own_movement(context, changes, *room, since, &mut movement).await?;
        }
        for room in &changes.completed {
            if let Some(snapshot) = self.view.rooms.load(*room).await? {
                movement.came.extend(snapshot.joined().map(|(user, _)| user));
            }
        }
        let others = changes.changed.iter().filter(|room| !changes.memberships.contains_key(room));
        for room in others.filter(|room| changes.state_may_have_changed(**room)) {
            let (before, after) = (
                state_at(&self.view, *room, since.into()).await?,
                state_at(&self.view, *room, context.now.into()).await?,
            );
            self.compare_members(&before, &after, &mut movement).await?;
        }
        Ok(movement)
    }

    /// In a room that the user themselves came into or left: everybody in it came or went with it.
    async fn own_movement(
        &self,
        context: &Context<'_>,
        changes: &Changes,
        room: RoomNid,
        since: Position,
        movement: &mut Movement,
    ) -> Result<(), Error> {
        let joined = changes.rooms.get(&room).is_some_and(|room| room.membership == Membership::Join);
        let was_joined = self.was_inside_at(context, room, since).await?;
        if joined && let Some(snapshot) = self.view.rooms.load(room).await? {
            movement.came.extend(snapshot.joined().map(|(user, _)| user));
        }
        if was_joined {
            let before = state_at(&self.view, room, since.into()).await?;
            self.compare_members(&before, &StateTree::new(), movement).await?;
        }
        Ok(())
    }

    async fn compare_members(
        &self,
        before: &StateTree,
        after: &StateTree,
        movement: &mut Movement,
    ) -> Result<(), Error> {
        for (key, old, new) in before.diff(after) {
            let name = self.view.interner.state_key_name(key).await?;
            if name.event_type != MEMBER {
                continue;
            }
            let Ok(user_id) = <&ruma::UserId>::try_from(name.state_key.as_str()) else { continue };
            let Some(user) = self.view.interner.lookup_user(user_id).await? else { continue };
            match (self.is_join(old).await?, self.is_join(new).await?) {
                (false, true) => drop(movement.came.insert(user)),
                (true, false) => drop(movement.went.insert(user)),
                _ => {}
            }
        }
        Ok(())
    }

    async fn is_join(&self, event: Option<EventNid>) -> Result<bool, Error> {
        let Some(nid) = event else { return Ok(false) };
        let event = self.view.events.load(nid).await?;
        let membership = event.and_then(|event| event.pdu.membership());
        Ok(membership.as_ref().map(Membership::from) == Some(Membership::Join))
    }

    /// Takes out who shares a room with the user.
    async fn leave_strangers(
        &self,
        changes: &Changes,
        strangers: &mut BTreeSet<UserNid>,
    ) -> Result<(), Error> {
        let joined = changes.rooms.iter().filter(|(_, room)| room.membership == Membership::Join);
        for (room, _) in joined {
            if strangers.is_empty() {
                break;
            }
            let Some(room) = self.view.rooms.load(*room).await? else { continue };
            strangers.retain(|user| !room.is_joined(*user));
        }
        Ok(())
    }
}
