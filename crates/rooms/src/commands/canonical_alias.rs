//! The aliases that a room shows as its own must lead to it (Client-Server API, `PUT state`).

use std::collections::BTreeSet;

use myelin_core::RoomNid;
use myelin_store::tables::ALIASES;
use ruma::OwnedRoomAliasId;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{Error, Rooms};

#[derive(Deserialize, Default)]
struct CanonicalAlias {
    alias: Option<String>,
    alt_aliases: Option<Vec<String>>,
}

impl CanonicalAlias {
    fn all(self) -> BTreeSet<String> {
        // An empty alias is an old way to say that there is none.
        let alias = self.alias.filter(|alias| !alias.is_empty());
        alias.into_iter().chain(self.alt_aliases.into_iter().flatten()).collect()
    }
}

impl Rooms {
    /// Aliases that were there before are not checked again.
    pub(crate) async fn check_canonical_alias(
        &self,
        room: RoomNid,
        content: &RawValue,
        before: Option<&RawValue>,
    ) -> Result<(), Error> {
        let parsed: CanonicalAlias = serde_json::from_str(content.get())?;
        let before = before.and_then(|raw| serde_json::from_str(raw.get()).ok()).map(CanonicalAlias::all);
        let before = before.unwrap_or_default();
        for alias in parsed.all().difference(&before) {
            let valid = OwnedRoomAliasId::try_from(alias.as_str());
            valid.map_err(|_| Error::InvalidParam(format!("'{alias}' is not a room alias.")))?;
            let found = self.view.store.get(&ALIASES, alias).await?;
            if found.is_none_or(|found| found.room != room) {
                return Err(Error::BadAlias(alias.clone()));
            }
        }
        Ok(())
    }
}
