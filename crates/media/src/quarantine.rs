//! Quarantine: media that nobody gets any more, though it is kept. It follows the bytes: the same file under another URI is
//! quarantined with it, also if it is uploaded again.

use std::collections::BTreeSet;

use myelin_core::UserNid;
use myelin_store::{
    Batch, CommitError, Direction,
    tables::{BlobRecord, MEDIA, MEDIA_BLOBS, MediaRecord, QUARANTINED_MEDIA, QuarantineRecord, USER_MEDIA},
};
use ruma::ServerName;

use crate::{Error, Media, Mxc, catalog::ATTEMPTS_MAX};

const PAGE: usize = 500;
/// URIs taken from one event.
const MENTIONED_MAX: usize = 100;

impl Media {
    /// Takes media out of circulation; `by` says who did. Media of other servers may be named before it was ever fetched.
    /// `false` if there is no such media here.
    pub async fn quarantine(&self, mxc: &Mxc, by: &str) -> Result<bool, Error> {
        self.set_quarantined(mxc, Some(by)).await
    }

    /// Lets it be had again, and with it the same bytes under other URIs that are not quarantined themselves.
    pub async fn unquarantine(&self, mxc: &Mxc) -> Result<bool, Error> {
        self.set_quarantined(mxc, None).await
    }

    /// Quarantines all that a user has uploaded; says how many.
    pub async fn quarantine_of(&self, user: UserNid, by: &str) -> Result<u64, Error> {
        let (mut from, mut count) = ((user, 0, String::new()), 0);
        let to = (user, u64::MAX, String::new());
        loop {
            let rows = self.view.store.range(&USER_MEDIA, &from, &to, Direction::Forward, PAGE).await?;
            let Some(((_, at_ms, id), ())) = rows.last().cloned() else { return Ok(count) };
            from = (user, at_ms, format!("{id}\0"));
            for ((_, _, id), ()) in &rows {
                let Some(mxc) = Mxc::new(&self.view.server_name, id) else { continue };
                count += u64::from(self.quarantine(&mxc, by).await?);
            }
        }
    }

    async fn set_quarantined(&self, mxc: &Mxc, by: Option<&str>) -> Result<bool, Error> {
        for _ in 0..ATTEMPTS_MAX {
            let old = self.catalog.media(mxc).await?;
            let Some(record) = old.clone().or_else(|| self.unheard_of(mxc).filter(|_| by.is_some())) else {
                return Ok(false);
            };
            let mut batch = Batch::new();
            batch.require_unchanged(&MEDIA, &mxc.key(), old.as_ref());
            if let Some(content) = &record.content
                && let Some(blob) = self.catalog.blob(&content.blob).await?
            {
                batch.require_equal(&MEDIA_BLOBS, &content.blob, &blob);
                batch.put(&MEDIA_BLOBS, &content.blob, &BlobRecord { quarantined: by.is_some(), ..blob });
            }
            if by.is_none() && record.content.is_none() && record.expires_ms.is_none() {
                // Known for its quarantine only.
                batch.delete(&MEDIA, &mxc.key());
            } else {
                batch.put(&MEDIA, &mxc.key(), &MediaRecord { quarantined: by.is_some(), ..record });
            }
            match by {
                Some(by) => {
                    let row = QuarantineRecord { by: by.to_owned(), at_ms: self.view.env.now_ms() };
                    batch.put(&QUARANTINED_MEDIA, &mxc.key(), &row);
                }
                None => batch.delete(&QUARANTINED_MEDIA, &mxc.key()),
            }
            match self.view.store.commit(batch).await {
                Ok(_) => return Ok(true),
                Err(CommitError::Conflict { .. }) => {}
                Err(CommitError::Store(error)) => return Err(error.into()),
            }
        }
        Err(Error::Contended)
    }

    /// The row of another server's media that was never fetched.
    fn unheard_of(&self, mxc: &Mxc) -> Option<MediaRecord> {
        (mxc.server() != self.view.server_name).then(|| MediaRecord {
            uploader: None,
            created_ms: self.view.env.now_ms(),
            content: None,
            expires_ms: None,
            quarantined: false,
        })
    }
}

/// The `mxc://` URIs in the text of an event, wherever they stand.
pub fn mentioned(json: &str) -> BTreeSet<Mxc> {
    const SCHEME: &str = "mxc://";
    let starts = json.match_indices(SCHEME).take(MENTIONED_MAX);
    let found = starts.filter_map(|(at, _)| {
        let rest = &json[at + SCHEME.len()..];
        let (server, rest) = rest.split_once('/')?;
        let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || *byte == b'-';
        let id = &rest[..rest.bytes().take_while(allowed).count()];
        Mxc::new(<&ServerName>::try_from(server).ok()?, id)
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::mentioned;

    #[test]
    fn uris_are_found_in_events() {
        let json = r#"{"url":"mxc://a.org/one","info":{"thumbnail_url":"mxc://b.org:8448/two-2"},
            "body":"see mxc://a.org/one, mxc://bad server/x, mxc://a.org/ and mxc://","x":"mxc://a.org/../y"}"#;
        let found: Vec<String> = mentioned(json).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["mxc://a.org/one", "mxc://b.org:8448/two-2"]);
        let many = "mxc://a.org/x ".repeat(100_000);
        assert_eq!(mentioned(&many).len(), 1);
    }
}
