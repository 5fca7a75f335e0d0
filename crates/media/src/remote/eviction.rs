//! Room for media of other servers: what was not asked for the longest goes first, and can be fetched again.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use myelin_store::tables::{MEDIA, MEDIA_BY_ACCESS};

use crate::{Error, Media, Mxc};

/// Looked at so often whether there is too much; rows are counted only when something came.
const INTERVAL: Duration = Duration::from_secs(10 * 60);
/// Rows read at a time.
const PAGE_MAX: usize = 1_000;
/// Down to so many hundredths of what is allowed, so that it is not done again at once.
const DOWN_TO: u64 = 90;

impl Media {
    /// Runs until the process ends.
    pub async fn run_eviction(self: Arc<Self>) {
        loop {
            if self.remote.0.added.swap(0, Ordering::Relaxed) > 0
                && let Err(error) = self.evict().await
            {
                tracing::warn!(%error, "room for media of other servers could not be made");
            }
            self.view.env.clock.sleep(INTERVAL).await;
        }
    }

    /// Deletes media of other servers until what is kept fits; says how many.
    pub async fn evict(&self) -> Result<usize, Error> {
        let Some(max) = self.remote.0.config.kept_size_max else { return Ok(0) };
        let kept = self.kept_size().await?;
        match kept > max {
            true => self.delete_oldest(kept - max / 100 * DOWN_TO).await,
            false => Ok(0),
        }
    }

    fn is_remote(&self, server: &str) -> bool {
        server != self.view.server_name.as_str()
    }

    /// Bytes of all media of other servers, each counted as if nothing were shared.
    async fn kept_size(&self) -> Result<u64, Error> {
        let (mut after, mut size) = ((String::new(), String::new()), 0_u64);
        loop {
            let page = self.view.store.after(&MEDIA, &after, PAGE_MAX).await?;
            for ((server, _), record) in &page {
                if self.is_remote(server) {
                    size = size.saturating_add(record.content.as_ref().map_or(0, |content| content.size));
                }
            }
            match page.into_iter().next_back() {
                Some((last, _)) => after = last,
                None => return Ok(size),
            }
        }
    }

    async fn delete_oldest(&self, surplus: u64) -> Result<usize, Error> {
        let (mut freed, mut deleted) = (0_u64, 0);
        let mut after = (0, String::new(), String::new());
        while freed < surplus {
            let page = self.view.store.after(&MEDIA_BY_ACCESS, &after, PAGE_MAX).await?;
            let Some((last, ())) = page.last() else { break };
            after = last.clone();
            for ((_, server, id), ()) in page {
                if freed >= surplus {
                    break;
                }
                if self.is_remote(&server) {
                    let size = self.delete_kept(&server, &id).await?;
                    freed = freed.saturating_add(size.unwrap_or(0));
                    deleted += usize::from(size.is_some());
                }
            }
        }
        Ok(deleted)
    }

    /// The size of what was deleted. What an administrator has taken away stays, so that it is not fetched again.
    async fn delete_kept(&self, server: &str, id: &str) -> Result<Option<u64>, Error> {
        let Some(mxc) = Mxc::parse(&format!("mxc://{server}/{id}")) else { return Ok(None) };
        let record = self.catalog.media(&mxc).await?.filter(|record| !record.quarantined);
        let Some(content) = record.and_then(|record| record.content) else { return Ok(None) };
        Ok(self.remove(&mxc).await?.then_some(content.size))
    }
}
