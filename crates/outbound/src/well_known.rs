//! `/.well-known/matrix/server`: to whom a host delegates (Server-Server API, "Resolving server names", step 3).

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use http::Response;
use myelin_core::Env;
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use ruma::OwnedServerName;
use serde::Deserialize;
use url::Url;

use crate::{
    expiry,
    fetch::{Budget, Fetcher, Redirects},
};

/// A host that stalls must leave whoever looks for its server the time to get there without it: keys are waited for ten
/// seconds.
const BUDGET: Budget = Budget { timeout: Duration::from_secs(5), body_size_max: 50 * 1024 };
const REDIRECTS: Redirects = Redirects { follow_max: 5, plain_http: false };
/// Hosts remembered.
const HOSTS_MAX: usize = 16_384;

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const KEPT_MS_DEFAULT: u64 = 24 * HOUR_MS;
const KEPT_MS_MAX: u64 = 48 * HOUR_MS;
/// Whoever forbids caching is asked no more often than this.
const KEPT_MS_MIN: u64 = 5 * MINUTE_MS;
/// After the first failure; doubled by each further one.
const FAILURE_KEPT_MS_MIN: u64 = MINUTE_MS;
const FAILURE_KEPT_MS_MAX: u64 = HOUR_MS;

/// What hosts have said, for as long as it holds.
pub struct WellKnown {
    env: Env,
    fetcher: Arc<Fetcher>,
    hosts: Cache<String, Arc<Mutex<Entry>>>,
}

/// The delegate, or why there is none.
pub type Delegation = Result<OwnedServerName, String>;

#[derive(Default)]
struct Entry {
    said: Option<Delegation>,
    valid_until_ms: u64,
    /// The last good answer is believed until here when the host cannot be asked.
    good_until_ms: u64,
    failures: u32,
    /// Set while the host is asked: who comes meanwhile waits for the same answer.
    asking: Option<Shared<BoxFuture<'static, Delegation>>>,
}

/// Why an answer is none.
enum Failure {
    /// Nobody answered, or with a server error: it may have been different a minute ago.
    Passing(String),
    /// There is no delegation.
    Clear(String),
}

#[derive(Deserialize)]
struct Document {
    #[serde(rename = "m.server")]
    server: OwnedServerName,
}

impl WellKnown {
    pub fn new(env: Env, fetcher: Arc<Fetcher>) -> Self {
        Self { env, fetcher, hosts: Cache::new(HOSTS_MAX) }
    }

    pub async fn delegation(self: &Arc<Self>, host: &str) -> Delegation {
        let entry = self.entry(host);
        let asking = {
            let mut known = entry.lock();
            if let Some(said) = &known.said
                && self.env.now_ms() < known.valid_until_ms
            {
                return said.clone();
            }
            known.asking.get_or_insert_with(|| self.start_asking(host, entry.clone())).clone()
        };
        asking.await
    }

    /// Goes on when nobody waits any more, so that the answer is there for the next one who comes.
    fn start_asking(
        self: &Arc<Self>,
        host: &str,
        entry: Arc<Mutex<Entry>>,
    ) -> Shared<BoxFuture<'static, Delegation>> {
        let (this, host) = (self.clone(), host.to_owned());
        let asking = async move {
            // Neither who waits for it falls with it nor whoever comes later.
            let answer = AssertUnwindSafe(this.ask(&host)).catch_unwind().await;
            let answer = answer.unwrap_or_else(|_| Err(Failure::Passing("asking it panicked".to_owned())));
            let mut entry = entry.lock();
            entry.asking = None;
            entry.hear(answer, this.env.now_ms())
        };
        let asking = asking.boxed().shared();
        self.env.spawner.spawn("delegation of a host", asking.clone().map(drop).boxed());
        asking
    }

    fn entry(&self, host: &str) -> Arc<Mutex<Entry>> {
        let host = host.to_ascii_lowercase();
        let made = self.hosts.get_or_insert_with(&host, || Ok::<_, std::convert::Infallible>(Arc::default()));
        made.unwrap_or_else(|never| match never {})
    }

    async fn ask(&self, host: &str) -> Result<(OwnedServerName, Option<u64>), Failure> {
        let url = Url::parse(&format!("https://{host}/.well-known/matrix/server"))
            .map_err(|error| Failure::Clear(error.to_string()))?;
        let answer = self.fetcher.get(&url, REDIRECTS, BUDGET).await;
        let answer = answer.map_err(|error| Failure::Passing(error.to_string()))?;
        let server = read(&answer)?;
        Ok((server, expiry::lifetime_ms(answer.headers(), self.env.now_ms())))
    }
}

fn read(answer: &Response<Bytes>) -> Result<OwnedServerName, Failure> {
    match answer.status() {
        status if status.is_server_error() => Err(Failure::Passing(format!("status {status}"))),
        status if status != http::StatusCode::OK => Err(Failure::Clear(format!("status {status}"))),
        _ => serde_json::from_slice(answer.body())
            .map(|document: Document| document.server)
            .map_err(|error| Failure::Clear(format!("not what is expected there: {error}"))),
    }
}

impl Entry {
    fn hear(&mut self, answer: Result<(OwnedServerName, Option<u64>), Failure>, now_ms: u64) -> Delegation {
        let said = match answer {
            Ok((server, lifetime_ms)) => {
                self.failures = 0;
                let kept_ms = lifetime_ms.unwrap_or(KEPT_MS_DEFAULT).clamp(KEPT_MS_MIN, KEPT_MS_MAX);
                self.valid_until_ms = now_ms + kept_ms;
                self.good_until_ms = now_ms + KEPT_MS_MAX;
                Ok(server)
            }
            Err(failure) => {
                let kept_ms = FAILURE_KEPT_MS_MIN << self.failures.min(16);
                self.failures = self.failures.saturating_add(1);
                self.valid_until_ms = now_ms + kept_ms.min(FAILURE_KEPT_MS_MAX);
                self.after(failure, now_ms)
            }
        };
        self.said.insert(said).clone()
    }

    fn after(&self, failure: Failure, now_ms: u64) -> Delegation {
        match (failure, &self.said) {
            (Failure::Passing(_), Some(Ok(server))) if now_ms < self.good_until_ms => Ok(server.clone()),
            (Failure::Passing(reason) | Failure::Clear(reason), _) => Err(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use ruma::server_name;

    use super::*;

    fn good(lifetime_ms: Option<u64>) -> Result<(OwnedServerName, Option<u64>), Failure> {
        Ok((server_name!("a.org").to_owned(), lifetime_ms))
    }

    #[test]
    fn answers_are_kept_within_bounds() {
        for (lifetime_ms, kept_ms) in [
            (None, 24 * HOUR_MS),
            (Some(0), 5 * MINUTE_MS),
            (Some(HOUR_MS), HOUR_MS),
            (Some(u64::MAX), 48 * HOUR_MS),
        ] {
            let mut entry = Entry::default();
            assert!(entry.hear(good(lifetime_ms), 1000).is_ok());
            assert_eq!(entry.valid_until_ms, 1000 + kept_ms, "{lifetime_ms:?}");
        }
    }

    #[test]
    fn failures_are_kept_for_longer_and_longer_up_to_an_hour() {
        let mut entry = Entry::default();
        let mut kept = Vec::new();
        for _ in 0..8 {
            assert!(entry.hear(Err(Failure::Clear("status 404".into())), 0).is_err());
            kept.push(entry.valid_until_ms / MINUTE_MS);
        }
        assert_eq!(kept, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert!(entry.hear(good(None), 0).is_ok());
        assert!(entry.hear(Err(Failure::Clear(String::new())), 0).is_err());
        assert_eq!(entry.valid_until_ms, MINUTE_MS);
    }

    #[test]
    fn a_host_that_is_away_keeps_its_delegate_for_two_days() {
        let mut entry = Entry::default();
        assert!(entry.hear(good(Some(HOUR_MS)), 0).is_ok());
        assert!(entry.hear(Err(Failure::Passing("away".into())), HOUR_MS).is_ok());
        assert!(entry.hear(Err(Failure::Passing("away".into())), 47 * HOUR_MS).is_ok());
        assert_eq!(entry.hear(Err(Failure::Passing("away".into())), 48 * HOUR_MS), Err("away".into()));
        assert!(entry.hear(Err(Failure::Passing("away".into())), 48 * HOUR_MS + 1).is_err());
    }

    #[test]
    fn a_host_that_says_no_loses_its_delegate_at_once() {
        let mut entry = Entry::default();
        assert!(entry.hear(good(None), 0).is_ok());
        assert!(entry.hear(Err(Failure::Clear("status 404".into())), HOUR_MS).is_err());
    }

    #[test]
    fn only_a_good_document_delegates() {
        let answer = |status: u16, body: &'static str| {
            let mut answer = Response::new(Bytes::from_static(body.as_bytes()));
            *answer.status_mut() = StatusCode::from_u16(status).expect("a status");
            read(&answer)
        };
        assert!(matches!(answer(200, r#"{"m.server": "b.org:443"}"#), Ok(name) if name == "b.org:443"));
        for bad in [r#"{"m.server": 5}"#, r#"{"m.server": "https://b.org"}"#, "{}", "[]", "<html>"] {
            assert!(matches!(answer(200, bad), Err(Failure::Clear(_))), "{bad}");
        }
        assert!(matches!(answer(404, r#"{"m.server": "b.org"}"#), Err(Failure::Clear(_))));
        assert!(matches!(answer(503, ""), Err(Failure::Passing(_))));
    }
}
