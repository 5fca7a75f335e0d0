//! Previews of URLs (`GET /_matrix/client/v1/media/preview_url`): what a page says about itself, as OpenGraph, with its
//! image as media of this server.
//!
//! What is fetched is named by whoever writes a message: everything is bounded, and [`Pages`](crate::Pages) refuses what is
//! not public. Must not know: how pages are fetched.

mod charset;
mod entities;
mod graph;
mod html;
mod making;
mod oembed;
mod patterns;
mod picture;
mod robots;
mod summary;
mod sweep;
#[cfg(test)]
mod tests;
mod tokens;
mod versions;

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::{
    FutureExt,
    channel::oneshot,
    future::{BoxFuture, Shared},
};
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use url::Url;

pub use self::patterns::Patterns;
use self::{making::Making, versions::Versions};
use crate::{Error, Media};

const URL_SIZE_MAX: usize = 2_048;
/// Made at the same time; whoever wants more comes back.
const MAKING_MAX: usize = 32;
/// How long what failed is not tried again.
const FAILED_MS: u64 = 60_000;
const FAILURES_MAX: usize = 5_000;

#[derive(Clone, Debug)]
pub struct Config {
    pub enabled: bool,
    pub patterns: Patterns,
    /// Bytes of a page that are read; what it says about itself is at its beginning.
    pub page_size_max: usize,
    /// A larger image is left out.
    pub image_size_max: u64,
    /// All images together; the oldest go first.
    pub images_size_max: u64,
    /// For each page, document and image.
    pub timeout: Duration,
    /// After this a page is looked at again.
    pub fresh_for: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: false,
            patterns: Patterns::default(),
            page_size_max: 1024 * 1024,
            image_size_max: 10 * 1024 * 1024,
            images_size_max: 2 * 1024 * 1024 * 1024,
            timeout: Duration::from_secs(10),
            fresh_for: Duration::from_secs(24 * 60 * 60),
        }
    }
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum PreviewError {
    #[error("previews of URLs are turned off")]
    Off,
    #[error("{0}")]
    InvalidUrl(&'static str),
    /// By the lists of this server, or because of where it leads.
    #[error("{0}")]
    Refused(String),
    #[error("too many previews are being made")]
    Busy,
    #[error("{0}")]
    Failed(String),
    #[error(transparent)]
    Media(#[from] Error),
}

/// OpenGraph properties: a JSON object.
pub type Json = Arc<str>;
type Outcome = Result<Json, PreviewError>;
type Waiting = Shared<BoxFuture<'static, Outcome>>;

/// The previews that this server makes.
pub struct Previews {
    media: Arc<Media>,
    config: Config,
    versions: Versions,
    making: Mutex<HashMap<Url, Waiting>>,
    failures: Cache<Url, (u64, PreviewError)>,
}

impl Previews {
    pub fn new(media: Arc<Media>, config: Config) -> Arc<Self> {
        let versions = Versions::new(media.view.store.clone(), &config);
        Arc::new(Self {
            media,
            config,
            versions,
            making: Mutex::default(),
            failures: Cache::new(FAILURES_MAX),
        })
    }

    /// The preview of a URL, if possible as it was at `ts_ms`.
    pub async fn preview(self: &Arc<Self>, url: &str, ts_ms: Option<u64>) -> Outcome {
        if !self.config.enabled {
            return Err(PreviewError::Off);
        }
        let url = cleaned(url)?;
        if !self.config.patterns.permit(&url) {
            return Err(PreviewError::Refused("This server makes no previews of this URL.".to_owned()));
        }
        let now_ms = self.media.view.env.now_ms();
        if let Some(json) = self.versions.find(&url, ts_ms, now_ms).await? {
            return Ok(json);
        }
        match self.failures.get(&url) {
            Some((until_ms, error)) if now_ms < until_ms => Err(error),
            _ => self.join(url)?.await,
        }
    }

    /// Waits for whoever makes this preview already, or makes it. It is made to its end, whoever hangs up.
    fn join(self: &Arc<Self>, url: Url) -> Result<Waiting, PreviewError> {
        let mut making = self.making.lock();
        if let Some(waiting) = making.get(&url) {
            return Ok(waiting.clone());
        }
        if making.len() >= MAKING_MAX {
            return Err(PreviewError::Busy);
        }
        let (done, outcome) = oneshot::channel();
        let given_up = |_| Err(PreviewError::Failed("the preview was given up".to_owned()));
        let waiting = outcome.map(move |outcome| outcome.unwrap_or_else(given_up)).boxed().shared();
        making.insert(url.clone(), waiting.clone());
        drop(making);
        let this = self.clone();
        let task = async move {
            let leaving = Leaving { previews: &this, url: &url };
            let outcome = this.make(&url).await;
            // The next who asks finds the row, or the failure.
            drop(leaving);
            done.send(outcome).ok();
        };
        self.media.view.env.spawner.spawn("url preview", task.boxed());
        Ok(waiting)
    }

    async fn make(&self, url: &Url) -> Outcome {
        let outcome = match (Making { media: &self.media, config: &self.config }).preview(url).await {
            Ok(json) => self.keep(url, json).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &outcome {
            tracing::debug!(%error, %url, "a preview could not be made");
            self.failures.insert(url.clone(), (self.media.view.env.now_ms() + FAILED_MS, error.clone()));
        }
        outcome
    }

    async fn keep(&self, url: &Url, json: String) -> Outcome {
        let json: Json = json.into();
        self.versions.add(url, &json, self.media.view.env.now_ms()).await?;
        Ok(json)
    }
}

struct Leaving<'a> {
    previews: &'a Previews,
    url: &'a Url,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.previews.making.lock().remove(self.url);
    }
}

/// A URL of the web, without what is not sent to a server.
fn cleaned(text: &str) -> Result<Url, PreviewError> {
    if text.len() > URL_SIZE_MAX {
        return Err(PreviewError::InvalidUrl("The URL is too long."));
    }
    let mut url = Url::parse(text).map_err(|_| PreviewError::InvalidUrl("This is not a URL."))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(PreviewError::InvalidUrl("Only http and https URLs have previews."));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(PreviewError::InvalidUrl("URLs with a user name or a password have no previews."));
    }
    url.set_fragment(None);
    Ok(url)
}
