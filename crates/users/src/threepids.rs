//! The addresses of accounts (Client-Server API, "Adding Account Administrative Contact Information"): each belongs to one
//! account at most, and its owner has shown that they read its mail.

use myelin_core::UserNid;
use myelin_store::{
    Batch, Direction,
    tables::{THREEPID_BINDS, THREEPID_OWNERS, THREEPIDS, ThreepidRecord, ValidationPurpose},
};

use crate::{Error, Users, transaction::transact, validation::ValidationError};

pub const EMAIL: &str = "email";
const EMAIL_SIZE_MAX: usize = 254;
/// Addresses of one account, and identity servers of one address.
const ADDRESSES_MAX: usize = 100;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Threepid {
    pub medium: String,
    pub address: String,
    pub validated_ms: u64,
    pub added_ms: u64,
}

impl Users {
    pub async fn threepids(&self, user: UserNid) -> Result<Vec<Threepid>, Error> {
        let rows = self.view.store.scan(&THREEPIDS, &user, Direction::Forward, ADDRESSES_MAX).await?;
        let threepids = rows.into_iter().map(|((_, medium, address), record)| {
            let ThreepidRecord { validated_ms, added_ms } = record;
            Threepid { medium, address, validated_ms, added_ms }
        });
        Ok(threepids.collect())
    }

    /// Whose an address is. Any spelling of it will do.
    pub async fn threepid_owner(&self, medium: &str, address: &str) -> Result<Option<UserNid>, Error> {
        let Some(address) = canonical(medium, address) else { return Ok(None) };
        Ok(self.view.store.get(&THREEPID_OWNERS, &(medium.to_owned(), address)).await?)
    }

    /// Adds the address that a session has validated.
    pub async fn add_threepid(
        &self,
        user: UserNid,
        sid: &str,
        client_secret: &str,
    ) -> Result<(), ValidationError> {
        let purpose = ValidationPurpose::Add;
        self.validated(purpose, sid, client_secret).await?.ok_or(ValidationError::NotValidated)?;
        if self.threepids(user).await?.len() >= ADDRESSES_MAX {
            return Err(ValidationError::InvalidParam("An account has at most 100 addresses."));
        }
        transact(&self.view.store, || async {
            let mut batch = Batch::new();
            self.own_validated(&mut batch, user, purpose, sid).await?;
            Ok::<_, ValidationError>((batch, ()))
        })
        .await
    }

    /// Adds that the address of a validated session belongs to the user from now on.
    pub(crate) async fn own_validated(
        &self,
        batch: &mut Batch,
        user: UserNid,
        purpose: ValidationPurpose,
        sid: &str,
    ) -> Result<(), ValidationError> {
        let session = self.use_validation(batch, purpose, sid).await?;
        let owned = (session.medium.clone(), session.address.clone());
        match self.view.store.get(&THREEPID_OWNERS, &owned).await? {
            Some(owner) if owner != user => return Err(ValidationError::InUse),
            Some(_) => {}
            None => batch.require_absent(&THREEPID_OWNERS, &owned),
        }
        let added_ms = self.now_ms();
        let validated_ms = session.validated_ms.unwrap_or(added_ms);
        batch.put(&THREEPID_OWNERS, &owned, &user);
        batch.put(&THREEPIDS, &(user, owned.0, owned.1), &ThreepidRecord { validated_ms, added_ms });
        Ok(())
    }

    /// The address is the user's no more, if it was.
    pub async fn remove_threepid(&self, user: UserNid, medium: &str, address: &str) -> Result<(), Error> {
        let Some(address) = canonical(medium, address) else { return Ok(()) };
        let owned = (medium.to_owned(), address);
        transact(&self.view.store, || async {
            let mut batch = Batch::new();
            if self.view.store.get(&THREEPID_OWNERS, &owned).await? == Some(user) {
                batch.require_equal(&THREEPID_OWNERS, &owned, &user);
                batch.delete(&THREEPID_OWNERS, &owned);
            }
            batch.delete(&THREEPIDS, &(user, owned.0.clone(), owned.1.clone()));
            Ok::<_, Error>((batch, ()))
        })
        .await
    }

    /// Adds that an account that ends leaves its addresses to others.
    pub(crate) async fn disown_threepids(&self, batch: &mut Batch, user: UserNid) -> Result<(), Error> {
        for Threepid { medium, address, .. } in self.threepids(user).await? {
            batch.delete(&THREEPID_OWNERS, &(medium.clone(), address.clone()));
            batch.delete(&THREEPIDS, &(user, medium, address));
        }
        Ok(())
    }

    /// Identity servers that an address of the user was bound at from here.
    pub async fn binds(&self, user: UserNid, medium: &str, address: &str) -> Result<Vec<String>, Error> {
        let address = canonical(medium, address).unwrap_or_default();
        let prefix = (user, medium.to_owned(), address);
        let rows = self.view.store.scan(&THREEPID_BINDS, &prefix, Direction::Forward, ADDRESSES_MAX).await?;
        Ok(rows.into_iter().map(|((_, _, _, id_server), ())| id_server).collect())
    }

    /// Every bind of a user: medium, address, identity server.
    pub async fn all_binds(&self, user: UserNid) -> Result<Vec<(String, String, String)>, Error> {
        let rows = self.view.store.scan(&THREEPID_BINDS, &user, Direction::Forward, ADDRESSES_MAX).await?;
        Ok(rows
            .into_iter()
            .map(|((_, medium, address, id_server), ())| (medium, address, id_server))
            .collect())
    }

    /// Remembers where an address was bound (`bound`), or forgets it.
    pub async fn set_bind(
        &self,
        user: UserNid,
        medium: &str,
        address: &str,
        id_server: &str,
        bound: bool,
    ) -> Result<(), Error> {
        let Some(address) = canonical(medium, address) else { return Ok(()) };
        let mut batch = Batch::new();
        let key = (user, medium.to_owned(), address, id_server.to_owned());
        match bound {
            true => batch.put(&THREEPID_BINDS, &key, &()),
            false => batch.delete(&THREEPID_BINDS, &key),
        }
        self.view.store.commit(batch).await.map_err(Error::from)?;
        Ok(())
    }
}

/// An address as it is compared (appendices, "3PID Types"); `None` if it is none of its medium.
pub fn canonical(medium: &str, address: &str) -> Option<String> {
    match medium {
        EMAIL => canonical_email(address),
        "msisdn" => {
            let digits: String = address.chars().filter(char::is_ascii_digit).collect();
            (1..=15).contains(&digits.len()).then_some(digits)
        }
        _ => None,
    }
}

/// In small letters; no more is checked than that a mail server can be asked.
pub fn canonical_email(address: &str) -> Option<String> {
    let address = address.trim();
    let (local, domain) = address.rsplit_once('@')?;
    let odd = |c: char| c.is_whitespace() || c.is_control() || "<>(),;:\\\"[]@".contains(c);
    let fits = !local.is_empty() && !domain.is_empty() && address.len() <= EMAIL_SIZE_MAX;
    let sound = fits && !local.contains(odd) && !domain.contains(odd) && !domain.starts_with('.');
    sound.then(|| address.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_one_spelling() {
        for (medium, address, expected) in [
            ("email", " Alice@Example.ORG ", Some("alice@example.org")),
            ("email", "STRAẞE@x.org", Some("straße@x.org")),
            ("email", "a+b@x.org", Some("a+b@x.org")),
            ("email", "alice", None),
            ("email", "@x.org", None),
            ("email", "a@", None),
            ("email", "a b@x.org", None),
            ("email", "a@x.org\r\nBcc: b@x.org", None),
            ("email", "<a@x.org>", None),
            ("email", "a@b@x.org", None),
            ("msisdn", "+44 7700 900123", Some("447700900123")),
            ("msisdn", "none", None),
            ("fax", "1", None),
        ] {
            assert_eq!(canonical(medium, address).as_deref(), expected, "{address}");
        }
        assert_eq!(canonical_email(&format!("{}@x.org", "a".repeat(300))), None);
    }
}
