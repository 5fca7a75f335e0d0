//! Reports of rooms, events and users, kept for the server's administrators (Client-Server API, "Reporting Content").

use myelin_core::UserNid;
use myelin_store::{
    Batch, NidKind,
    tables::{REPORTS, ReportRecord},
};
use ruma::{EventId, RoomId, UserId};

use crate::{Error, Users, transaction::transact};

const REASON_SIZE_MAX: usize = 8 * 1024;

/// What is reported.
#[derive(Clone, Copy, Debug)]
pub enum Reported<'a> {
    Room(&'a RoomId),
    /// An event of a room that the reporter is joined to.
    Event(&'a RoomId, &'a EventId),
    User(&'a UserId),
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum ReportError {
    #[error("the room was not found")]
    NoRoom,
    #[error("the event was not found or you are not joined to the room")]
    NoEvent,
    #[error("the user was not found")]
    NoUser,
    #[error("a reason has at most {REASON_SIZE_MAX} bytes")]
    Reason,
    #[error(transparent)]
    Failed(#[from] Error),
}

impl Users {
    pub async fn report(
        &self,
        reporter: UserNid,
        reported: Reported<'_>,
        reason: Option<String>,
        score: Option<i64>,
    ) -> Result<(), ReportError> {
        if reason.as_ref().is_some_and(|reason| reason.len() > REASON_SIZE_MAX) {
            return Err(ReportError::Reason);
        }
        let at_ms = self.now_ms();
        let blank =
            ReportRecord { reporter, room: None, event: None, reported_user: None, reason, score, at_ms };
        let record = match reported {
            Reported::Room(room_id) => self.report_room(blank, room_id).await?,
            Reported::Event(room_id, event_id) => self.report_event(blank, room_id, event_id).await?,
            Reported::User(user_id) => self.report_user(blank, user_id).await?,
        };
        let number = self.view.nids.allocate(NidKind::Misc).await.map_err(Error::from)?;
        transact(&self.view.store, || async {
            let mut batch = Batch::new();
            batch.put(&REPORTS, &number, &record);
            Ok((batch, ()))
        })
        .await
    }

    async fn report_room(&self, blank: ReportRecord, room_id: &RoomId) -> Result<ReportRecord, ReportError> {
        let room = self.view.interner.lookup_room(room_id).await.map_err(Error::from)?;
        Ok(ReportRecord { room: Some(room.ok_or(ReportError::NoRoom)?), ..blank })
    }

    async fn report_event(
        &self,
        blank: ReportRecord,
        room_id: &RoomId,
        event_id: &EventId,
    ) -> Result<ReportRecord, ReportError> {
        let room = self.view.room_by_id(room_id).await.map_err(Error::from)?;
        let room = room.filter(|room| room.is_joined(blank.reporter)).ok_or(ReportError::NoEvent)?;
        let event = self.view.events.load_by_id(event_id).await.map_err(Error::from)?;
        let event = event.filter(|e| e.room == room.nid() && e.accepted()).ok_or(ReportError::NoEvent)?;
        Ok(ReportRecord { room: Some(event.room), event: Some(event.nid), ..blank })
    }

    /// Remote users may be known to others only: they are taken as they are.
    async fn report_user(&self, blank: ReportRecord, user_id: &UserId) -> Result<ReportRecord, ReportError> {
        if self.view.is_local(user_id) && self.account(user_id).await?.is_none() {
            return Err(ReportError::NoUser);
        }
        Ok(ReportRecord { reported_user: Some(user_id.to_string()), ..blank })
    }
}

#[cfg(test)]
mod tests {
    use ruma::{event_id, room_id, user_id};

    use super::*;
    use crate::testing::World;

    #[test]
    fn a_reported_user_is_written_down() {
        let world = World::new();
        world.run(async {
            let grant = world.register("alice").await;
            let alice = world.users.session(&grant.access_token).await.unwrap().user;
            let remote = Reported::User(user_id!("@spam:elsewhere.org"));
            world.users.report(alice, remote, Some("spam".to_owned()), None).await.unwrap();
            let rows = world.view.store.read().all(&REPORTS, 10).await.unwrap();
            let [(_, report)] = &rows[..] else { panic!("{rows:?}") };
            assert_eq!((report.reporter, report.reason.as_deref()), (alice, Some("spam")));
            assert_eq!(report.reported_user.as_deref(), Some("@spam:elsewhere.org"));
        });
    }

    #[test]
    fn what_does_not_exist_is_not_reported() {
        let world = World::new();
        world.run(async {
            let grant = world.register("alice").await;
            let alice = world.users.session(&grant.access_token).await.unwrap().user;
            let (room, event) = (room_id!("!r:example.org"), event_id!("$e:example.org"));
            let report = |what| world.users.report(alice, what, None, None);
            assert!(matches!(report(Reported::Room(room)).await, Err(ReportError::NoRoom)));
            assert!(matches!(report(Reported::Event(room, event)).await, Err(ReportError::NoEvent)));
            let nobody = Reported::User(user_id!("@nobody:example.org"));
            assert!(matches!(report(nobody).await, Err(ReportError::NoUser)));
            let long = Some("x".repeat(REASON_SIZE_MAX + 1));
            let refused = world.users.report(alice, Reported::Room(room), long, None).await;
            assert!(matches!(refused, Err(ReportError::Reason)));
        });
    }
}
