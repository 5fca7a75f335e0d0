//! Pushers (Client-Server API, "Push notifications"): where a user's notifications are to go. A pusher belongs to the
//! device that set it, and goes with it.

use myelin_core::UserNid;
use myelin_store::{
    Batch, Direction,
    tables::{PUSHER_OWNERS, PUSHERS, PusherRecord},
};

use crate::{Error, Users, transaction::transact};

pub const PUSHERS_PER_USER_MAX: usize = 100;
/// Users of one app on one phone.
const OWNERS_MAX: usize = 1_000;

#[derive(Debug, Clone, thiserror::Error)]
pub enum PusherError {
    #[error("you have too many pushers (at most {PUSHERS_PER_USER_MAX})")]
    TooMany,
    #[error(transparent)]
    Failed(#[from] Error),
}

/// What tells the pushers of a user apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PusherId {
    pub app_id: String,
    pub pushkey: String,
}

impl Users {
    pub async fn pushers(&self, user: UserNid) -> Result<Vec<(PusherId, PusherRecord)>, Error> {
        let (store, limit) = (&self.view.store, PUSHERS_PER_USER_MAX + 1);
        let rows = store.scan(&PUSHERS, &user, Direction::Forward, limit).await?;
        Ok(rows.into_iter().map(|((_, app_id, pushkey), row)| (PusherId { app_id, pushkey }, row)).collect())
    }

    /// Adds a pusher or replaces it. Unless `append`, other users lose theirs for the same app and pushkey: the phone
    /// has changed hands.
    pub async fn set_pusher(
        &self,
        user: UserNid,
        id: &PusherId,
        pusher: &PusherRecord,
        append: bool,
    ) -> Result<(), PusherError> {
        let key = (user, id.app_id.clone(), id.pushkey.clone());
        transact(&self.view.store, || async {
            let mut batch = Batch::new();
            let held = self.view.store.get(&PUSHERS, &key).await.map_err(Error::from)?;
            if held.is_none() && self.pushers(user).await?.len() >= PUSHERS_PER_USER_MAX {
                return Err(PusherError::TooMany);
            }
            batch.require_unchanged(&PUSHERS, &key, held.as_ref());
            batch.put(&PUSHERS, &key, pusher);
            batch.put(&PUSHER_OWNERS, &(key.1.clone(), key.2.clone(), user), &());
            if !append {
                self.take_over(&mut batch, user, id).await?;
            }
            Ok((batch, ()))
        })
        .await
    }

    pub async fn delete_pusher(&self, user: UserNid, id: &PusherId) -> Result<(), Error> {
        transact(&self.view.store, || async {
            let mut batch = Batch::new();
            let key = (user, id.app_id.clone(), id.pushkey.clone());
            if self.view.store.get(&PUSHERS, &key).await?.is_some() {
                delete(&mut batch, user, id);
            }
            Ok((batch, ()))
        })
        .await
    }

    /// Adds the deletion of what a device has set.
    pub(crate) async fn delete_pushers_of(
        &self,
        batch: &mut Batch,
        user: UserNid,
        device_id: &str,
    ) -> Result<(), Error> {
        for (id, _) in self.pushers(user).await?.iter().filter(|(_, pusher)| pusher.device_id == device_id) {
            delete(batch, user, id);
        }
        Ok(())
    }

    async fn take_over(&self, batch: &mut Batch, user: UserNid, id: &PusherId) -> Result<(), Error> {
        let prefix = (id.app_id.clone(), id.pushkey.clone());
        let owners = self.view.store.scan(&PUSHER_OWNERS, &prefix, Direction::Forward, OWNERS_MAX).await?;
        for ((.., owner), ()) in owners.into_iter().filter(|((.., owner), ())| *owner != user) {
            delete(batch, owner, id);
        }
        Ok(())
    }
}

fn delete(batch: &mut Batch, user: UserNid, id: &PusherId) {
    batch.delete(&PUSHERS, &(user, id.app_id.clone(), id.pushkey.clone()));
    batch.delete(&PUSHER_OWNERS, &(id.app_id.clone(), id.pushkey.clone(), user));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;

    fn pusher(device_id: &str) -> PusherRecord {
        PusherRecord {
            kind: "http".to_owned(),
            app_display_name: "App".to_owned(),
            device_display_name: "Phone".to_owned(),
            profile_tag: None,
            lang: "en".to_owned(),
            data: "{}".to_owned(),
            device_id: device_id.to_owned(),
            since_ms: 0,
        }
    }

    fn id(pushkey: &str) -> PusherId {
        PusherId { app_id: "app".to_owned(), pushkey: pushkey.to_owned() }
    }

    #[test]
    fn a_phone_that_changes_hands_notifies_its_new_owner_only() {
        let world = World::new();
        world.run(async {
            let (alice, bob, eve) = (UserNid(1), UserNid(2), UserNid(3));
            let users = &world.users;
            users.set_pusher(alice, &id("k"), &pusher("A"), false).await.unwrap();
            users.set_pusher(bob, &id("k"), &pusher("B"), true).await.unwrap();
            assert_eq!(users.pushers(alice).await.unwrap().len(), 1, "appended");
            users.set_pusher(eve, &id("k"), &pusher("E"), false).await.unwrap();
            assert_eq!(users.pushers(alice).await.unwrap(), []);
            assert_eq!(users.pushers(bob).await.unwrap(), []);
            assert_eq!(users.pushers(eve).await.unwrap(), [(id("k"), pusher("E"))]);
            users.delete_pusher(eve, &id("k")).await.unwrap();
            users.delete_pusher(eve, &id("k")).await.unwrap();
            let read = world.view.store.read();
            assert_eq!(read.all(&PUSHERS, 9).await.unwrap(), []);
            assert_eq!(read.all(&PUSHER_OWNERS, 9).await.unwrap(), []);
        });
    }

    #[test]
    fn pushers_go_with_their_device() {
        let world = World::new();
        world.run(async {
            let grant = world.register("alice").await;
            let session = world.users.session(&grant.access_token).await.unwrap();
            let (user, device) = (session.user, session.device_id.to_string());
            world.users.set_pusher(user, &id("own"), &pusher(&device), false).await.unwrap();
            world.users.set_pusher(user, &id("other"), &pusher("OTHER"), false).await.unwrap();
            world.users.delete_devices(user, &[device]).await.unwrap();
            assert_eq!(world.users.pushers(user).await.unwrap(), [(id("other"), pusher("OTHER"))]);
        });
    }

    #[test]
    fn pushers_are_bounded() {
        let world = World::new();
        world.run(async {
            for n in 0..PUSHERS_PER_USER_MAX {
                world.users.set_pusher(UserNid(1), &id(&n.to_string()), &pusher("A"), false).await.unwrap();
            }
            let one_more = world.users.set_pusher(UserNid(1), &id("x"), &pusher("A"), false).await;
            assert!(matches!(one_more, Err(PusherError::TooMany)));
            world.users.set_pusher(UserNid(1), &id("0"), &pusher("B"), false).await.unwrap();
        });
    }
}
