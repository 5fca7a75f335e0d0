//! OpenID tokens (Client-Server API, "OpenID"): they prove to a third party who somebody is, and nothing else.

use myelin_core::UserNid;
use myelin_store::{
    Batch,
    tables::{OPENID_TOKENS, OpenIdTokenRecord},
};
use ruma::OwnedUserId;

use crate::{
    Error, Users, token,
    transaction::{expired_rows, transact},
};

#[derive(Clone, Debug)]
pub struct OpenIdToken {
    pub token: String,
    pub expires_in_ms: u64,
}

impl Users {
    pub async fn create_openid_token(&self, user: UserNid) -> Result<OpenIdToken, Error> {
        let (now_ms, expires_in_ms) = (self.now_ms(), self.config.openid_token_lifetime_ms);
        let expires_ms = now_ms + expires_in_ms;
        let token = token::make_expiring(&self.view.env, token::OPENID, expires_ms);
        let key = token::expiring_key(&token).unwrap_or_else(|| token::hash(&token));
        transact(&self.view.store, || async {
            let mut batch = Batch::new();
            for expired in expired_rows(&self.view.store, &OPENID_TOKENS, now_ms).await? {
                batch.delete(&OPENID_TOKENS, &expired);
            }
            batch.put(&OPENID_TOKENS, &key, &OpenIdTokenRecord { user, expires_ms });
            Ok::<_, Error>((batch, ()))
        })
        .await?;
        Ok(OpenIdToken { token, expires_in_ms })
    }

    /// Whose token it is (`GET /_matrix/federation/v1/openid/userinfo`).
    pub async fn openid_user(&self, openid_token: &str) -> Result<Option<OwnedUserId>, Error> {
        let Some(key) = token::expiring_key(openid_token) else { return Ok(None) };
        let record = self.view.store.get(&OPENID_TOKENS, &key).await?;
        let Some(record) = record.filter(|r| r.expires_ms > self.now_ms()) else { return Ok(None) };
        let account = self.account_of(record.user).await?.filter(|a| !a.deactivated);
        match account {
            Some(_) => Ok(Some(self.view.interner.user_id(record.user).await?)),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::World;

    #[test]
    fn a_token_names_its_user_until_it_expires() {
        let world = World::new();
        world.run(async {
            let grant = world.register("alice").await;
            let user = world.users.session(&grant.access_token).await.unwrap().user;
            let made = world.users.create_openid_token(user).await.unwrap();
            let found = world.users.openid_user(&made.token).await.unwrap().unwrap();
            assert_eq!(*found, *grant.user_id);
            assert!(world.users.session(&made.token).await.is_err(), "it opens nothing else");
            assert!(world.users.openid_user(&grant.access_token).await.unwrap().is_none());
            world.advance_ms(made.expires_in_ms);
            assert!(world.users.openid_user(&made.token).await.unwrap().is_none());
        });
    }

    #[test]
    fn a_deactivated_user_is_nobody() {
        let world = World::new();
        world.run(async {
            let grant = world.register("alice").await;
            let user = world.users.session(&grant.access_token).await.unwrap().user;
            let made = world.users.create_openid_token(user).await.unwrap();
            world.users.deactivate(user, false).await.unwrap();
            assert!(world.users.openid_user(&made.token).await.unwrap().is_none());
        });
    }
}
