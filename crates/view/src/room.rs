use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use myelin_core::{EventNid, RoomNid, UserNid};
use myelin_dag::{room_version, state_tree::StateTree};
use myelin_store::tables::{Membership, RoomHead, RoomRecord};
use ruma::{OwnedRoomId, OwnedServerName, RoomVersionId, ServerName, room_version_rules::RoomVersionRules};

use crate::Error;

/// What never changes about a room.
#[derive(Debug)]
pub struct RoomInfo {
    pub nid: RoomNid,
    pub room_id: OwnedRoomId,
    pub version: RoomVersionId,
    pub rules: RoomVersionRules,
    /// The `type` of the create event.
    pub room_type: Option<String>,
    pub create_event: EventNid,
}

impl RoomInfo {
    pub fn from_record(nid: RoomNid, record: RoomRecord) -> Result<Self, Error> {
        let damaged = |what: &str| Error::Damaged(format!("room '{}' has a bad {what}", record.room_id));
        let room_id = OwnedRoomId::try_from(record.room_id.as_str()).map_err(|_| damaged("room id"))?;
        let version =
            RoomVersionId::try_from(record.room_version.as_str()).map_err(|_| damaged("version"))?;
        let rules = room_version::rules(&version).ok_or_else(|| damaged("version"))?;
        Ok(Self {
            nid,
            room_id,
            version,
            rules,
            room_type: record.room_type,
            create_event: record.create_event,
        })
    }

    pub fn record(&self) -> RoomRecord {
        RoomRecord {
            room_id: self.room_id.to_string(),
            room_version: self.version.to_string(),
            room_type: self.room_type.clone(),
            create_event: self.create_event,
        }
    }
}

/// A room at one head, immutable. Cloning and changing one member costs O(log members).
#[derive(Clone, Debug)]
pub struct RoomSnapshot {
    pub info: Arc<RoomInfo>,
    pub head: RoomHead,
    pub current_state: StateTree,
    /// Everybody the room has heard of, from the current state.
    pub members: OrdMap<UserNid, (Membership, EventNid)>,
    /// Joined users of this server: who is woken by a change.
    pub local_joined: OrdSet<UserNid>,
    /// The servers that take part in the room, this one included, with the number of their joined users.
    pub servers: OrdMap<OwnedServerName, u64>,
    pub joined_count: u64,
    pub invited_count: u64,
    /// Most members are still to come: the room was joined just now (see `partial_rooms`). Then `servers` has those that
    /// were named, each with one user too many.
    pub partial: bool,
    /// It is partial, and not only for want of the keys of some servers, which may take a day.
    pub members_omitted: bool,
    /// The newest event that does not join on to what stands before it in the timeline.
    pub gap: Option<EventNid>,
    /// Users of this server for whom it was written down whether the shared push rules count for them (`quiet_spans`),
    /// with what was written last: `true` if they do not.
    pub quiet: OrdMap<UserNid, bool>,
}

impl RoomSnapshot {
    /// A room of which nothing is held.
    pub fn new(info: Arc<RoomInfo>) -> Self {
        let head = RoomHead {
            version: 0,
            current_state: [0; 16],
            extremities: Vec::new(),
            depth: 0,
            backfilled: 0,
            notified: Default::default(),
        };
        Self {
            info,
            head,
            current_state: StateTree::new(),
            members: OrdMap::new(),
            servers: OrdMap::new(),
            local_joined: OrdSet::new(),
            joined_count: 0,
            invited_count: 0,
            partial: false,
            members_omitted: false,
            gap: None,
            quiet: OrdMap::new(),
        }
    }

    pub fn nid(&self) -> RoomNid {
        self.info.nid
    }

    pub fn membership(&self, user: UserNid) -> Option<Membership> {
        self.members.get(&user).map(|(membership, _)| *membership)
    }

    pub fn is_joined(&self, user: UserNid) -> bool {
        self.membership(user) == Some(Membership::Join)
    }

    pub fn joined(&self) -> impl Iterator<Item = (UserNid, EventNid)> + '_ {
        let joined = self.members.iter().filter(|(_, (membership, _))| *membership == Membership::Join);
        joined.map(|(user, (_, event))| (*user, *event))
    }

    /// Records a membership and keeps the counts in step. `server` is that of the user.
    pub fn set_member(
        &mut self,
        user: UserNid,
        server: &ServerName,
        local: bool,
        membership: Membership,
        event: EventNid,
    ) {
        let before = self.members.insert(user, (membership, event)).map(|(membership, _)| membership);
        self.count(server, before, Some(membership));
        match (local, membership) {
            (true, Membership::Join) => drop(self.local_joined.insert(user)),
            _ => drop(self.local_joined.remove(&user)),
        }
    }

    /// Servers that are said to be in the room, before their users are known.
    pub fn expect_servers<'a>(&mut self, servers: impl IntoIterator<Item = &'a ServerName>) {
        self.partial = true;
        for server in servers {
            *self.servers.entry(server.to_owned()).or_default() += 1;
        }
    }

    /// The users are known now.
    pub fn no_longer_expect<'a>(&mut self, servers: impl IntoIterator<Item = &'a ServerName>) {
        self.partial = false;
        self.members_omitted = false;
        servers.into_iter().for_each(|server| self.count_out(server));
    }

    /// The member event is gone from the current state (state resolution took it away).
    pub fn remove_member(&mut self, user: UserNid, server: &ServerName) {
        let before = self.members.remove(&user).map(|(membership, _)| membership);
        self.count(server, before, None);
        self.local_joined.remove(&user);
    }

    /// Whether a user of that server is joined.
    pub fn has_server(&self, server: &ServerName) -> bool {
        self.servers.contains_key(server)
    }

    fn count(&mut self, server: &ServerName, before: Option<Membership>, after: Option<Membership>) {
        for (count, of) in
            [(&mut self.joined_count, Membership::Join), (&mut self.invited_count, Membership::Invite)]
        {
            *count += u64::from(after == Some(of));
            *count -= u64::from(before == Some(of));
        }
        match (before == Some(Membership::Join), after == Some(Membership::Join)) {
            (false, true) => *self.servers.entry(server.to_owned()).or_default() += 1,
            (true, false) => self.count_out(server),
            _ => {}
        }
    }

    fn count_out(&mut self, server: &ServerName) {
        let left = self.servers.get_mut(server).map(|joined| {
            *joined -= 1;
            *joined
        });
        if left == Some(0) {
            self.servers.remove(server);
        }
    }
}
