//! What administrators see.

use myelin_core::UserNid;
use myelin_store::{
    Direction,
    tables::{
        MEDIA_ACCESS, MEDIA_USAGE, MediaRecord, MediaUsageRecord, QUARANTINED_MEDIA, QuarantineRecord,
        USER_MEDIA,
    },
};

use crate::{Error, Media, Mxc};

const USERS_MAX: usize = 100_000;

/// One medium.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaInfo {
    pub mxc: Mxc,
    pub record: MediaRecord,
    /// Days since 1970 (UTC).
    pub last_access_day: Option<u64>,
    pub quarantine: Option<QuarantineRecord>,
}

/// Where a page of a user's media ends, for the next one.
pub type After = (u64, String);

impl Media {
    pub async fn info(&self, mxc: &Mxc) -> Result<Option<MediaInfo>, Error> {
        let Some(record) = self.catalog.media(mxc).await? else { return Ok(None) };
        let store = &self.view.store;
        Ok(Some(MediaInfo {
            last_access_day: store.get(&MEDIA_ACCESS, &mxc.key()).await?.map(|row| row.day),
            quarantine: store.get(&QUARANTINED_MEDIA, &mxc.key()).await?,
            mxc: mxc.clone(),
            record,
        }))
    }

    /// What a user has uploaded, oldest first, from `after` on; and where the next page goes on.
    pub async fn media_of(
        &self,
        user: UserNid,
        after: Option<&After>,
        limit: usize,
    ) -> Result<(Vec<MediaInfo>, Option<After>), Error> {
        let from = after.map_or((0, String::new()), |(at_ms, id)| (*at_ms, format!("{id}\0")));
        let (from, to) = ((user, from.0, from.1), (user, u64::MAX, String::new()));
        let rows = self.view.store.range(&USER_MEDIA, &from, &to, Direction::Forward, limit).await?;
        let next = rows.last().filter(|_| rows.len() == limit);
        let next = next.map(|((_, at_ms, id), ())| (*at_ms, id.clone()));
        let mut found = Vec::new();
        for ((_, _, id), ()) in &rows {
            let Some(mxc) = Mxc::new(&self.view.server_name, id) else { continue };
            found.extend(self.info(&mxc).await?);
        }
        Ok((found, next))
    }

    pub async fn usage_of(&self, user: UserNid) -> Result<MediaUsageRecord, Error> {
        Ok(self.view.store.get(&MEDIA_USAGE, &user).await?.unwrap_or_default())
    }

    /// What every local user has stored, who has most first.
    pub async fn usage(&self) -> Result<Vec<(UserNid, MediaUsageRecord)>, Error> {
        let mut rows = self.view.store.read().all(&MEDIA_USAGE, USERS_MAX).await?;
        rows.sort_by_key(|(user, usage)| (std::cmp::Reverse(usage.bytes), user.0));
        Ok(rows)
    }

    pub async fn quarantined(&self, limit: usize) -> Result<Vec<(Mxc, QuarantineRecord)>, Error> {
        let rows = self.view.store.read().all(&QUARANTINED_MEDIA, limit).await?;
        let named =
            rows.into_iter().map(|((server, id), row)| (Mxc::parse(&format!("mxc://{server}/{id}")), row));
        Ok(named.filter_map(|(mxc, row)| Some((mxc?, row))).collect())
    }
}
