//! What is done from time to time: accesses are written down, and whatever nobody needs any more is deleted. Each step
//! may be repeated or broken off anywhere.

use std::{sync::Arc, time::Duration};

use myelin_store::{
    Batch, Direction,
    tables::{MEDIA_BY_ACCESS, PENDING_MEDIA, UNCLAIMED_OBJECTS},
};

use crate::{Deleted, Error, Media, Mxc, access::day};

const WRITE_EVERY: Duration = Duration::from_secs(60);
/// In units of [`WRITE_EVERY`]: the first sweep comes soon after the start, in case the process starts often.
const SWEEP_EVERY: u64 = 60;
const SWEEP_FIRST: u64 = 5;
/// An upload that takes longer is given up.
const UPLOAD_MS_MAX: u64 = 12 * 60 * 60 * 1000;
/// Rows looked at in one go; what is left waits for the next sweep.
const ROWS_MAX: usize = 10_000;
const PAGE: usize = 500;
/// Between pages, so that others get at the store.
const PAUSE: Duration = Duration::from_millis(50);

impl Media {
    /// Runs for ever. Spawn it once per process.
    pub async fn run(self: Arc<Self>) {
        let mut minutes = 0_u64;
        loop {
            self.view.env.clock.sleep(WRITE_EVERY).await;
            if let Err(error) = self.accesses.write().await {
                tracing::warn!(%error, "when media was asked for could not be written down");
            }
            minutes += 1;
            if minutes % SWEEP_EVERY == SWEEP_FIRST
                && let Err(error) = self.sweep().await
            {
                tracing::warn!(%error, "media that nobody needs could not all be deleted");
            }
        }
    }

    /// Writes down now what has been asked for.
    pub async fn write_accesses(&self) -> Result<(), Error> {
        self.accesses.write().await
    }

    /// Deletes what was never finished, what expired, and what is past its retention.
    pub async fn sweep(&self) -> Result<(), Error> {
        self.sweep_objects().await?;
        self.sweep_pending().await?;
        self.sweep_retention().await
    }

    async fn sweep_objects(&self) -> Result<(), Error> {
        let too_old_ms = self.view.env.now_ms().saturating_sub(UPLOAD_MS_MAX);
        for (object, row) in self.view.store.read().all(&UNCLAIMED_OBJECTS, ROWS_MAX).await? {
            let outcome = match row.doomed {
                true => self.objects.delete_doomed(&object).await,
                false if row.since_ms <= too_old_ms => self.objects.abandon(&object, &row).await,
                false => Ok(()),
            };
            if let Err(error) = outcome {
                tracing::warn!(%error, object, "an object that nothing refers to could not be deleted yet");
            }
        }
        Ok(())
    }

    async fn sweep_pending(&self) -> Result<(), Error> {
        let now_ms = self.view.env.now_ms();
        for (key, ()) in self.view.store.read().all(&PENDING_MEDIA, ROWS_MAX).await? {
            if key.1 > now_ms {
                continue;
            }
            let mxc = Mxc::new(&self.view.server_name, &key.2);
            let Some(mxc) = mxc else { continue };
            let still_pending =
                self.catalog.media(&mxc).await?.is_some_and(|record| record.content.is_none());
            if still_pending {
                self.catalog.remove(&self.objects, &mxc).await?;
            }
            let mut batch = Batch::new();
            batch.delete(&PENDING_MEDIA, &key);
            self.view.store.commit(batch).await.map_err(|_| Error::Contended)?;
        }
        Ok(())
    }

    async fn sweep_retention(&self) -> Result<(), Error> {
        let retention = &self.config.retention;
        if let Some(local) = retention.local {
            self.delete_unused(local, Kind::Local).await?;
        }
        if let Some(remote) = retention.remote {
            self.delete_unused(remote, Kind::Remote).await?;
        }
        Ok(())
    }

    /// Deletes media of one kind that nobody has asked for in `unused`, which is rounded to days.
    pub async fn delete_unused(&self, unused: Duration, kind: Kind) -> Result<Deleted, Error> {
        let unused_ms = u64::try_from(unused.as_millis()).unwrap_or(u64::MAX);
        // A day counts from its end: nothing goes too early.
        let until_day = day(self.view.env.now_ms().saturating_sub(unused_ms));
        let until = (until_day, String::new(), String::new());
        let mut from = (0, String::new(), String::new());
        let mut deleted = Deleted::default();
        // What was asked for since the rows were last written must not be deleted.
        self.accesses.write().await?;
        loop {
            let rows =
                self.view.store.range(&MEDIA_BY_ACCESS, &from, &until, Direction::Forward, PAGE).await?;
            let Some(((last_day, server, id), ())) = rows.last().cloned() else { return Ok(deleted) };
            from = (last_day, server, format!("{id}\0"));
            for ((_, server, id), ()) in &rows {
                let local = *server == self.view.server_name.as_str();
                if local != (kind == Kind::Local) {
                    continue;
                }
                let mxc = Mxc::parse(&format!("mxc://{server}/{id}"));
                let Some(mxc) = mxc else { continue };
                if let Some(record) = self.catalog.media(&mxc).await?.filter(|record| !record.quarantined) {
                    self.catalog.remove(&self.objects, &mxc).await?;
                    deleted.count(&record);
                }
            }
            self.view.env.clock.sleep(PAUSE).await;
        }
    }
}

/// Whose media.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Local,
    Remote,
}
