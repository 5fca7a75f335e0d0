//! Memberships: what the tables say is what the current state of each room says.

use std::collections::{BTreeMap, HashMap, HashSet};

use myelin_core::{EventNid, RoomNid, StateKeyNid, UserNid};

use super::{StateNode, Verifier};
use crate::{
    Error,
    codec::AtPosition,
    maintenance::pages::{PAGE_ROWS, TypedPages},
    tables::{
        ACCOUNTS, EVENTS, MEMBERS, Membership, Placement, ROOM_HEADS, STATE_KEYS, STATE_NODES, USER_NIDS,
        USER_ROOMS, UserRoomRecord,
    },
};

type Members = BTreeMap<UserNid, EventNid>;

/// Whose membership a state key is; kept, because rooms share members.
#[derive(Default)]
struct MemberKeys(HashMap<StateKeyNid, Option<UserNid>>);

impl Verifier<'_> {
    pub(super) async fn check_members(&mut self) -> Result<(), Error> {
        self.begin("memberships");
        let mut keys = MemberKeys::default();
        let mut pages = TypedPages::of(&ROOM_HEADS);
        while let Some(rows) = pages.next(self.read()).await? {
            for (room, head) in rows {
                // An incomplete tree has been reported; what is missing from it would only be repeated here.
                if let Some(entries) = self.state_entries(head.current_state).await? {
                    let state = self.members_of(&entries, &mut keys).await?;
                    self.check_members_of_room(room, state).await?;
                }
            }
        }
        self.check_member_rows().await?;
        self.check_rooms_of_users().await
    }

    /// All entries of a state; `None` if a node is missing or unreadable, or nothing is known about nodes.
    async fn state_entries(&self, root: [u8; 16]) -> Result<Option<Vec<(StateKeyNid, EventNid)>>, Error> {
        let mut entries = Vec::new();
        let mut level = vec![root];
        level.retain(|root| *root != self.knowledge.empty_state());
        // Damage could make a circle.
        let mut seen = HashSet::new();
        while !level.is_empty() {
            let nodes = self.load_all(&STATE_NODES, level.iter().copied()).await?;
            let mut below = Vec::new();
            for (key, bytes) in level.iter().zip(&nodes) {
                let Some(bytes) = bytes.row() else { return Ok(None) };
                let Ok(node) = self.knowledge.read_node(key, bytes) else { return Ok(None) };
                if node == StateNode::default() {
                    return Ok(None);
                }
                entries.extend(node.entries);
                below.extend(node.children.into_iter().filter(|child| seen.insert(*child)));
            }
            level = below;
        }
        Ok(Some(entries))
    }

    async fn members_of(
        &self,
        entries: &[(StateKeyNid, EventNid)],
        keys: &mut MemberKeys,
    ) -> Result<Members, Error> {
        let unknown: Vec<_> =
            entries.iter().map(|(key, _)| *key).filter(|key| !keys.0.contains_key(key)).collect();
        for page in unknown.chunks(PAGE_ROWS) {
            let records = self.load_all(&STATE_KEYS, page.iter().copied()).await?;
            let user_ids = records.iter().map(|record| match record.row() {
                Some(key) if key.event_type == "m.room.member" => key.state_key.clone(),
                _ => String::new(),
            });
            let users = self.load_all(&USER_NIDS, user_ids).await?;
            keys.0.extend(page.iter().zip(users).map(|(key, user)| (*key, user.row().copied())));
        }
        let member = |(key, event): &(StateKeyNid, EventNid)| Some((keys.0.get(key).copied()??, *event));
        Ok(entries.iter().filter_map(member).collect())
    }

    /// Table and state have the same members, by the same events.
    async fn check_members_of_room(&mut self, room: RoomNid, mut state: Members) -> Result<(), Error> {
        let mut from = Some((room, UserNid(0)));
        while let Some(start) = from.take() {
            let end = (RoomNid(room.0 + 1), UserNid(0));
            let read = self.snapshot.read();
            let rows = read.range(&MEMBERS, &start, &end, crate::Direction::Forward, PAGE_ROWS).await;
            // A row that does not decode has been reported.
            let Ok(rows) = rows else { return Ok(()) };
            if rows.len() == PAGE_ROWS {
                from = rows.last().map(|((room, user), _)| (*room, UserNid(user.0 + 1)));
            }
            for (key, member) in &rows {
                let event = member.value.event;
                match state.remove(&key.1) {
                    Some(current) if current == event => {}
                    Some(current) => {
                        self.found(
                            &MEMBERS,
                            key,
                            format!("is by {event:?}, but the current state has {current:?}"),
                        );
                    }
                    None => self.found(&MEMBERS, key, "is not in the current state of the room".to_owned()),
                }
            }
            self.advance(rows.len());
        }
        for (user, event) in state {
            let problem = format!("is missing; the current state has {event:?}");
            self.found(&MEMBERS, &(room, user), problem);
        }
        Ok(())
    }

    async fn check_member_rows(&mut self) -> Result<(), Error> {
        let mut pages = TypedPages::of(&MEMBERS);
        while let Some(rows) = pages.next(self.read()).await? {
            let events = self.are_there(&EVENTS, rows.iter().map(|(_, member)| member.value.event)).await?;
            let accounts = self.are_there(&ACCOUNTS, rows.iter().map(|((_, user), _)| *user)).await?;
            let of_user = rows.iter().map(|((room, user), _)| (*user, *room));
            let user_rooms = self.are_there(&USER_ROOMS, of_user).await?;
            for (at, (key, member)) in rows.iter().enumerate() {
                if !events[at] {
                    self.found(&MEMBERS, key, format!("is by {:?}, which is not there", member.value.event));
                }
                if accounts[at] && !user_rooms[at] {
                    self.found(&MEMBERS, key, "is of a local user, but not in table 'user_rooms'".to_owned());
                }
                self.check_position(&MEMBERS, key, member);
            }
            self.advance(rows.len());
        }
        Ok(())
    }

    async fn check_rooms_of_users(&mut self) -> Result<(), Error> {
        let mut pages = TypedPages::of(&USER_ROOMS);
        while let Some(rows) = pages.next(self.read()).await? {
            let members =
                self.load_all(&MEMBERS, rows.iter().map(|((user, room), _)| (*room, *user))).await?;
            for ((key, of_user), member) in rows.iter().zip(members) {
                self.check_position(&USER_ROOMS, key, of_user);
                let UserRoomRecord { membership, event, .. } = of_user.value;
                // Since this server left the room, the user's membership in it is known from outside only.
                let newer = member.row().is_some_and(|member| member.position < of_user.position);
                let problem = match member.row() {
                    Some(_) if newer && membership != Membership::Join => continue,
                    // An invite or knock to a room that no local user is in has no row there.
                    None if member.is_missing() && membership == Membership::Join => {
                        "is joined, but not in table 'members'".to_owned()
                    }
                    Some(member)
                        if (member.value.membership, member.value.event) != (membership, event)
                            && !self.is_from_outside(event).await? =>
                    {
                        let AtPosition { value: other, .. } = member;
                        format!("is {membership:?} by {event:?}, but in table 'members' {other:?}")
                    }
                    _ => continue,
                };
                self.found(&USER_ROOMS, key, problem);
            }
            self.advance(rows.len());
        }
        Ok(())
    }

    /// An invite to a room that this server was in before, or the end of one: the room's own tables are as it left them.
    async fn is_from_outside(&mut self, event: EventNid) -> Result<bool, Error> {
        let event = self.load_all(&EVENTS, [event]).await?.pop();
        let row = event.as_ref().and_then(|event| event.row()).map(|row| &row.value);
        Ok(row.is_some_and(|event| event.placement == Placement::Outside && event.state_before.is_none()))
    }
}
