//! Rooms that are known by name before anything of them is held: an invite to them came in, or they are about to be
//! joined. Such a room has a number and a version, but no head.

use std::sync::Arc;

use myelin_core::{EventNid, RoomNid};
use myelin_dag::{needs_names, room_version};
use myelin_store::{
    Batch, CommitError, NidKind,
    tables::{ROOM_NIDS, ROOMS, RoomRecord},
};
use myelin_view::RoomInfo;
use ruma::{RoomId, RoomVersionId};

use crate::{Error, Rooms};

const ATTEMPTS_MAX: usize = 5;

impl Rooms {
    /// The room's number and rules, written down now if it was not heard of before. Refused if it is held and of another
    /// version. Of a room that is only heard of, whoever said it may have lied: then the newest word counts.
    pub async fn know_room(&self, room_id: &RoomId, version: &RoomVersionId) -> Result<Arc<RoomInfo>, Error> {
        if room_version::rules(version).is_none() {
            return Err(Error::UnsupportedRoomVersion(version.to_string()));
        }
        for _ in 0..ATTEMPTS_MAX {
            if let Some(info) = self.known_room(room_id).await? {
                if info.version == *version {
                    return Ok(info);
                }
                self.correct(&info, version).await?;
                continue;
            }
            self.write_down(room_id, version).await?;
        }
        Err(Error::Busy)
    }

    /// A room that is held or was heard of.
    pub async fn known_room(&self, room_id: &RoomId) -> Result<Option<Arc<RoomInfo>>, Error> {
        match self.view.interner.lookup_room(room_id).await? {
            Some(nid) => Ok(self.view.interner.room_info(nid).await?),
            None => Ok(None),
        }
    }

    async fn correct(&self, info: &RoomInfo, version: &RoomVersionId) -> Result<(), Error> {
        let refused = || Error::InvalidParam(format!("The room has version {}.", info.version));
        let rules = room_version::rules(version).ok_or_else(refused)?;
        // What is held of it must stay readable.
        let readable = needs_names(&rules) == needs_names(&info.rules);
        if info.create_event != EventNid::NONE || !readable {
            return Err(refused());
        }
        let record = info.record();
        let mut batch = Batch::new();
        batch.require_equal(&ROOMS, &info.nid, &record);
        batch.put(&ROOMS, &info.nid, &RoomRecord { room_version: version.to_string(), ..record });
        match self.view.store.commit(batch).await {
            Ok(_) | Err(CommitError::Conflict { .. }) => Ok(()),
            Err(CommitError::Store(error)) => Err(error.into()),
        }
    }

    async fn write_down(&self, room_id: &RoomId, version: &RoomVersionId) -> Result<(), Error> {
        let nid = RoomNid(self.view.nids.allocate(NidKind::Room).await?);
        let record = RoomRecord {
            room_id: room_id.to_string(),
            room_version: version.to_string(),
            room_type: None,
            create_event: EventNid::NONE,
        };
        let mut batch = Batch::new();
        batch.require_absent(&ROOM_NIDS, &record.room_id);
        batch.put(&ROOM_NIDS, &record.room_id, &nid);
        batch.put(&ROOMS, &nid, &record);
        match self.view.store.commit(batch).await {
            Ok(_) | Err(CommitError::Conflict { .. }) => Ok(()),
            Err(CommitError::Store(error)) => Err(error.into()),
        }
    }
}
