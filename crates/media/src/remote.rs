//! Media of other servers: fetched once, whoever asks, and kept while there is room.

mod arrival;
mod eviction;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    io,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use futures::{FutureExt, StreamExt};
use myelin_core::{Env, patterns::wildcard};
use myelin_store::tables::MediaContent;
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use ruma::{OwnedServerName, ServerName};
use tokio::sync::Semaphore;

use self::arrival::{Arrival, Head, Incoming};
use crate::{
    Download, Error, FetchError, FetchLimits, Media, Mxc, Objects, Origin, Wants,
    catalog::{Catalog, Description},
    download::Source,
    sanitize,
};

/// Fetched at the same time, in all and from one server, where requests of other kinds need connections too.
const FETCHES_MAX: usize = 32;
const FETCHES_PER_SERVER_MAX: usize = 6;
/// Wanted at the same time, those that wait for their turn included.
const ARRIVALS_MAX: usize = 1_000;
/// How long a server that could not give something is not asked for it again.
const MISSING_MS: u64 = 2 * 60_000;
const FAILED_MS: u64 = 60_000;
const TOO_LARGE_MS: u64 = 60 * 60_000;
const FAILURES_MAX: usize = 10_000;

#[derive(Clone, Debug)]
pub struct Config {
    /// One file, bytes.
    pub size_max: u64,
    /// All that is kept of other servers, bytes; beyond that, what was not asked for the longest goes.
    pub kept_size_max: Option<u64>,
    /// From the question to the last byte.
    pub timeout: Duration,
    /// If not empty, only media of these servers. `*` stands for any characters.
    pub allow: Vec<String>,
    /// Never media of these servers.
    pub deny: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            size_max: 100 * 1024 * 1024,
            kept_size_max: Some(10 * 1024 * 1024 * 1024),
            timeout: Duration::from_secs(10 * 60),
            allow: Vec::new(),
            deny: Vec::new(),
        }
    }
}

impl Config {
    /// Whether media of `server` may be had.
    fn permits(&self, server: &ServerName) -> bool {
        let (name, host) = (server.as_str().to_ascii_lowercase(), server.host().to_ascii_lowercase());
        let among = |patterns: &[String]| {
            patterns.iter().any(|pattern| {
                let pattern = pattern.to_ascii_lowercase();
                wildcard(&pattern, &name) || wildcard(&pattern, &host)
            })
        };
        !among(&self.deny) && (self.allow.is_empty() || among(&self.allow))
    }
}

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Remote(Arc<Shared>);

struct Shared {
    env: Env,
    catalog: Catalog,
    objects: Objects,
    origin: Arc<dyn Origin>,
    config: Config,
    arriving: Mutex<HashMap<Mxc, Arc<Arrival>>>,
    /// Why something could not be had, and until when that is believed.
    failures: Cache<Mxc, (u64, Error)>,
    turns: Semaphore,
    turns_by_server: Mutex<HashMap<OwnedServerName, Arc<Semaphore>>>,
    /// Bytes that came since the last count.
    added: AtomicU64,
}

impl Remote {
    pub fn new(
        env: Env,
        catalog: Catalog,
        objects: Objects,
        origin: Arc<dyn Origin>,
        config: Config,
    ) -> Self {
        Self(Arc::new(Shared {
            env,
            catalog,
            objects,
            origin,
            config,
            arriving: Mutex::default(),
            failures: Cache::new(FAILURES_MAX),
            turns: Semaphore::new(FETCHES_MAX),
            turns_by_server: Mutex::default(),
            added: AtomicU64::new(0),
        }))
    }

    /// Joins the fetch that is under way, or starts one.
    fn fetch(&self, mxc: &Mxc, wants: &Wants) -> Result<Arc<Arrival>, Error> {
        let shared = &self.0;
        if let Some((until_ms, error)) = shared.failures.get(mxc)
            && shared.env.now_ms() < until_ms
        {
            return Err(error);
        }
        let mut arriving = shared.arriving.lock();
        if let Some(arrival) = arriving.get(mxc) {
            return Ok(arrival.clone());
        }
        if arriving.len() >= ARRIVALS_MAX {
            return Err(Error::Unreachable("too much is being fetched already".to_owned()));
        }
        let (arrival, incoming) = Arrival::begin();
        arriving.insert(mxc.clone(), arrival.clone());
        drop(arriving);
        let fetching = Fetching { remote: self.clone(), mxc: mxc.clone(), wait: wants.timeout };
        shared.env.spawner.spawn("remote media", fetching.run(incoming).boxed());
        Ok(arrival)
    }

    fn turns_at(&self, server: &ServerName) -> Arc<Semaphore> {
        let mut by_server = self.0.turns_by_server.lock();
        by_server.retain(|_, turns| Arc::strong_count(turns) > 1);
        let turns = by_server.entry(server.to_owned());
        turns.or_insert_with(|| Arc::new(Semaphore::new(FETCHES_PER_SERVER_MAX))).clone()
    }
}

impl Media {
    pub(crate) async fn open_remote(&self, mxc: &Mxc, wants: &Wants) -> Result<Download, Error> {
        if let Some(content) = self.remote_here(mxc).await? {
            return self.stored(&content).await;
        }
        let arrival = self.arrival(mxc, wants).await?;
        let Head { content_type, file_name, size, since_ms } = arrival.head().await?;
        let stream = arrival.stream(self.catalog.clone(), self.objects.clone());
        let (sha256, bytes) = (None, Source::Arriving(stream));
        Ok(Download { content_type, file_name, size, sha256, stored_ms: since_ms, bytes })
    }

    /// Media of another server, complete.
    pub(crate) async fn remote_content(&self, mxc: &Mxc, wants: &Wants) -> Result<MediaContent, Error> {
        match self.remote_here(mxc).await? {
            Some(content) => Ok(content),
            None => self.arrival(mxc, wants).await?.content().await,
        }
    }

    /// What is kept already. What an administrator took away is not there, and not asked for again.
    async fn remote_here(&self, mxc: &Mxc) -> Result<Option<MediaContent>, Error> {
        match self.catalog.media(mxc).await? {
            Some(record) if record.quarantined => Err(Error::NotFound),
            record => Ok(record.and_then(|record| record.content)),
        }
    }

    async fn arrival(&self, mxc: &Mxc, wants: &Wants) -> Result<Arc<Arrival>, Error> {
        if !wants.allow_remote || !self.remote.0.config.permits(mxc.server()) {
            return Err(Error::NotFound);
        }
        self.remote.fetch(mxc, wants)
    }
}

/// One fetch. It goes on when nobody waits for it any more: somebody will.
struct Fetching {
    remote: Remote,
    mxc: Mxc,
    /// How long the other server may wait for content that is still to come there.
    wait: Duration,
}

impl Fetching {
    async fn run(self, incoming: Incoming) {
        let leaving = Leaving(&self);
        let end = self.fetch(&incoming).await;
        if let Err(error) = &end {
            tracing::debug!(%error, mxc = %self.mxc, "media of another server could not be fetched");
            self.remember(error);
        }
        incoming.ends(end);
        drop(leaving);
    }

    async fn fetch(&self, incoming: &Incoming) -> Result<MediaContent, Error> {
        let shared = &self.remote.0;
        let at_server = self.remote.turns_at(self.mxc.server());
        let _turns = (at_server.acquire().await, shared.turns.acquire().await);
        // Somebody's fetch may have ended between the look at the rows and the look at what is arriving.
        let record = shared.catalog.media(&self.mxc).await?;
        if record.as_ref().is_some_and(|record| record.quarantined) {
            return Err(Error::NotFound);
        }
        if let Some(content) = record.and_then(|record| record.content) {
            incoming.begins(head_of(&content));
            return Ok(content);
        }
        let size_max = shared.config.size_max;
        let limits = FetchLimits { size_max, timeout: shared.config.timeout };
        let fetched = shared.origin.fetch(self.mxc.server(), self.mxc.id(), self.wait, limits).await?;
        if fetched.size.is_some_and(|size| size > size_max) {
            return Err(Error::RemoteTooLarge);
        }
        let description = Description {
            content_type: sanitize::content_type(fetched.content_type.as_deref()),
            file_name: fetched.file_name.as_deref().and_then(sanitize::file_name),
        };
        incoming.begins(Head {
            content_type: description.content_type.clone(),
            file_name: description.file_name.clone(),
            size: fetched.size,
            since_ms: shared.env.now_ms(),
        });
        let mut body = fetched.body;
        let mut writer = shared.objects.writer();
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(broken_off)?;
            if writer.size() + piece.len() as u64 > size_max {
                return Err(Error::RemoteTooLarge);
            }
            incoming.brings(&piece);
            writer.write(piece).await?;
        }
        if fetched.size.is_some_and(|size| size != writer.size()) {
            return Err(Error::Unreachable("it is not as long as was said".to_owned()));
        }
        let written = writer.finish().await?;
        shared.added.fetch_add(written.size, std::sync::atomic::Ordering::Relaxed);
        let record = shared.catalog.keep(&shared.objects, &self.mxc, written, &description).await?;
        record.content.filter(|_| !record.quarantined).ok_or(Error::NotFound)
    }

    fn remember(&self, error: &Error) {
        let kept_ms = match error {
            Error::NotYetUploaded => return,
            Error::NotFound => MISSING_MS,
            Error::RemoteTooLarge => TOO_LARGE_MS,
            _ => FAILED_MS,
        };
        let until_ms = self.remote.0.env.now_ms() + kept_ms;
        self.remote.0.failures.insert(self.mxc.clone(), (until_ms, error.clone()));
    }
}

/// However a fetch ends, the next who asks starts anew.
struct Leaving<'a>(&'a Fetching);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.remote.0.arriving.lock().remove(&self.0.mxc);
    }
}

fn head_of(content: &MediaContent) -> Head {
    Head {
        content_type: content.content_type.clone(),
        file_name: content.file_name.clone(),
        size: Some(content.size),
        since_ms: content.stored_ms,
    }
}

fn broken_off(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::FileTooLarge => Error::RemoteTooLarge,
        _ => Error::Unreachable(error.to_string()),
    }
}

impl From<FetchError> for Error {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::NotFound => Self::NotFound,
            FetchError::NotYetUploaded => Self::NotYetUploaded,
            FetchError::TooLarge => Self::RemoteTooLarge,
            FetchError::Failed(reason) => Self::Unreachable(reason),
        }
    }
}
