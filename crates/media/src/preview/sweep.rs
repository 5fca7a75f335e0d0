//! Old previews and their images go.

use std::{sync::Arc, time::Duration};

use myelin_store::{
    Batch, CommitError,
    tables::{PREVIEW_IMAGES, URL_PREVIEWS, URL_PREVIEWS_BY_AGE},
};

use super::{Previews, versions::KEPT_MS};
use crate::{Error, Mxc};

const INTERVAL: Duration = Duration::from_secs(10 * 60);
/// More previews are not kept, however new they are.
const PREVIEWS_MAX: usize = 20_000;
/// Rows read and deleted at a time.
const PAGE_MAX: usize = 500;

impl Previews {
    /// Runs until the process ends.
    pub async fn run_sweep(self: Arc<Self>) {
        loop {
            self.media.view.env.clock.sleep(INTERVAL).await;
            if let Err(error) = self.sweep().await {
                tracing::warn!(%error, "old previews of URLs could not be deleted");
            }
        }
    }

    pub async fn sweep(&self) -> Result<(), Error> {
        self.sweep_versions(PREVIEWS_MAX).await?;
        self.sweep_images().await
    }

    pub(super) async fn sweep_versions(&self, kept_max: usize) -> Result<(), Error> {
        let store = &self.media.view.store;
        let old_ms = self.media.view.env.now_ms().saturating_sub(KEPT_MS);
        let mut surplus = self.count_versions().await?.saturating_sub(kept_max);
        let mut after = (0, [0; 32]);
        loop {
            let page = store.after(&URL_PREVIEWS_BY_AGE, &after, PAGE_MAX).await?;
            let mut batch = Batch::new();
            for ((made_ms, name), ()) in page {
                if made_ms > old_ms && surplus == 0 {
                    break;
                }
                surplus = surplus.saturating_sub(1);
                batch.delete(&URL_PREVIEWS, &(name, made_ms));
                batch.delete(&URL_PREVIEWS_BY_AGE, &(made_ms, name));
                after = (made_ms, name);
            }
            if batch.is_empty() {
                return Ok(());
            }
            store.commit(batch).await.map_err(failed)?;
        }
    }

    async fn count_versions(&self) -> Result<usize, Error> {
        let (mut count, mut after) = (0, (0, [0; 32]));
        loop {
            let page = self.media.view.store.after(&URL_PREVIEWS_BY_AGE, &after, PAGE_MAX).await?;
            count += page.len();
            match page.last() {
                Some((last, ())) => after = *last,
                None => return Ok(count),
            }
        }
    }

    /// The media goes before the row that remembers it: after a crash it is done again.
    async fn sweep_images(&self) -> Result<(), Error> {
        let now_ms = self.media.view.env.now_ms();
        let mut surplus = self.images_size().await?.saturating_sub(self.config.images_size_max);
        let mut after = (0, String::new());
        loop {
            let page = self.media.view.store.after(&PREVIEW_IMAGES, &after, PAGE_MAX).await?;
            let mut batch = Batch::new();
            for ((until_ms, id), image) in page {
                if until_ms > now_ms && surplus == 0 {
                    break;
                }
                surplus = surplus.saturating_sub(image.size);
                if let Some(mxc) = Mxc::new(&self.media.view.server_name, &id) {
                    self.media.remove(&mxc).await?;
                }
                after = (until_ms, id);
                batch.delete(&PREVIEW_IMAGES, &after);
            }
            if batch.is_empty() {
                return Ok(());
            }
            self.media.view.store.commit(batch).await.map_err(failed)?;
        }
    }

    async fn images_size(&self) -> Result<u64, Error> {
        let (mut size, mut after) = (0_u64, (0, String::new()));
        loop {
            let page = self.media.view.store.after(&PREVIEW_IMAGES, &after, PAGE_MAX).await?;
            size = page.iter().fold(size, |size, (_, image)| size.saturating_add(image.size));
            match page.into_iter().next_back() {
                Some((last, _)) => after = last,
                None => return Ok(size),
            }
        }
    }
}

fn failed(error: CommitError) -> Error {
    match error {
        CommitError::Conflict { .. } => Error::Contended,
        CommitError::Store(error) => error.into(),
    }
}
