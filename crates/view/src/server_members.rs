//! The users of one server whom a room has heard of. Asked for with each look of that server at the room, so what was
//! found is remembered, and the next time only members are looked at that have come or gone since.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet, ordmap::DiffItem};
use myelin_core::{EventNid, RoomNid, UserNid};
use myelin_store::tables::Membership;
use quick_cache::sync::Cache;
use ruma::{OwnedServerName, ServerName};

use crate::{Error, Interner, RoomSnapshot};

/// Servers and rooms that are remembered; each holds the members of its room, which snapshots share.
const REMEMBERED_MAX: usize = 1_000;

pub struct ServerMembers {
    interner: Arc<Interner>,
    remembered: Cache<(RoomNid, OwnedServerName), Remembered>,
}

#[derive(Clone, Default)]
struct Remembered {
    /// Of the whole room, when it was looked at.
    members: OrdMap<UserNid, (Membership, EventNid)>,
    of_server: OrdSet<UserNid>,
}

impl ServerMembers {
    pub fn new(interner: Arc<Interner>) -> Self {
        Self { interner, remembered: Cache::new(REMEMBERED_MAX) }
    }

    pub async fn of(&self, room: &RoomSnapshot, server: &ServerName) -> Result<OrdSet<UserNid>, Error> {
        let key = (room.nid(), server.to_owned());
        let mut known = self.remembered.get(&key).unwrap_or_default();
        if known.members.ptr_eq(&room.members) {
            return Ok(known.of_server);
        }
        for (user, is_there) in changes(&known.members, room) {
            if self.interner.user_id(user).await?.server_name() == server {
                match is_there {
                    true => known.of_server.insert(user),
                    false => known.of_server.remove(&user),
                };
            }
        }
        known.members = room.members.clone();
        let of_server = known.of_server.clone();
        self.remembered.insert(key, known);
        Ok(of_server)
    }
}

/// Who came (`true`) or went.
fn changes(before: &OrdMap<UserNid, (Membership, EventNid)>, room: &RoomSnapshot) -> Vec<(UserNid, bool)> {
    let changes = before.diff(&room.members).filter_map(|change| match change {
        DiffItem::Add(user, _) => Some((*user, true)),
        DiffItem::Remove(user, _) => Some((*user, false)),
        DiffItem::Update { .. } => None,
    });
    changes.collect()
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use myelin_store::{NidAllocator, Store, memory::Memory};
    use ruma::{RoomVersionId, UserId, owned_room_id, owned_server_name, server_name};

    use super::*;
    use crate::RoomInfo;

    struct World {
        members: ServerMembers,
        room: RoomSnapshot,
    }

    impl World {
        fn new() -> Self {
            let store = Store::new(Arc::new(Memory::open(Default::default())));
            let nids = Arc::new(NidAllocator::new(store.clone()));
            let interner = Arc::new(Interner::new(store, nids, owned_server_name!("a.test")));
            let version = RoomVersionId::V11;
            let info = RoomInfo {
                nid: RoomNid(7),
                room_id: owned_room_id!("!room:a.test"),
                rules: myelin_dag::room_version::rules(&version).expect("version 11"),
                version,
                room_type: None,
                create_event: EventNid(1),
            };
            Self { members: ServerMembers::new(interner), room: RoomSnapshot::new(Arc::new(info)) }
        }

        fn nid(&self, user: &str) -> UserNid {
            let user = <&UserId>::try_from(user).expect("a user id");
            self.members.interner.user(user).now_or_never().expect("in memory").expect("a number")
        }

        fn has(&mut self, user: &str, membership: Membership) {
            let (nid, server) = (self.nid(user), user.split_once(':').expect("a server").1);
            let server = <&ServerName>::try_from(server).expect("a server name");
            self.room.set_member(nid, server, false, membership, EventNid(1));
        }

        fn of_b(&self) -> Vec<UserNid> {
            let of_b = self.members.of(&self.room, server_name!("b.test")).now_or_never();
            of_b.expect("in memory").expect("members").into_iter().collect()
        }
    }

    #[test]
    fn who_comes_and_goes_is_followed_from_snapshot_to_snapshot() {
        let mut world = World::new();
        assert!(world.of_b().is_empty());
        world.has("@x:a.test", Membership::Join);
        world.has("@x:b.test", Membership::Join);
        let (x, y) = (world.nid("@x:b.test"), world.nid("@y:b.test"));
        assert_eq!(world.of_b(), [x]);
        let before = world.room.clone();
        world.has("@y:b.test", Membership::Invite);
        world.has("@x:b.test", Membership::Leave);
        assert_eq!(world.of_b(), [x, y], "the room has heard of them");
        world.room.remove_member(x, server_name!("b.test"));
        assert_eq!(world.of_b(), [y]);
        world.room = before;
        assert_eq!(world.of_b(), [x], "a snapshot of before");
    }
}
