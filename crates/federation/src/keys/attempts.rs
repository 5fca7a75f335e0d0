//! When to ask again for a server's keys.

use std::time::Duration;

use quick_cache::sync::Cache;
use ruma::{OwnedServerName, ServerName};

/// A server is not asked again sooner, whatever keys are said to be lacking.
const INTERVAL_MS: u64 = 30_000;
/// After failures: doubled from this to at most what the caller says.
const BACKOFF_MS: u64 = 10_000;
/// Servers whose last attempt is remembered.
const SERVERS_MAX: usize = 20_000;

/// The last attempt by the server that it was about.
pub(super) struct Attempts(Cache<OwnedServerName, Attempt>);

#[derive(Clone, Copy)]
struct Attempt {
    failures: u32,
    at_ms: u64,
    next_ms: u64,
}

impl Attempts {
    /// Whether it was asked for just now, or in vain lately.
    pub(super) fn rests(&self, server: &ServerName, now_ms: u64) -> bool {
        self.0.get(server).is_some_and(|attempt| now_ms < attempt.next_ms)
    }

    pub(super) fn succeeded(&self, server: &ServerName, now_ms: u64) {
        let attempt = Attempt { failures: 0, at_ms: now_ms, next_ms: now_ms + INTERVAL_MS };
        self.0.insert(server.to_owned(), attempt);
    }

    pub(super) fn failed(&self, server: &ServerName, now_ms: u64, backoff_max: Duration) {
        let failures = self.0.get(server).map_or(0, |attempt| attempt.failures);
        let backoff_ms_max = u64::try_from(backoff_max.as_millis()).unwrap_or(u64::MAX);
        let wait_ms = BACKOFF_MS.saturating_mul(1 << failures.min(16)).min(backoff_ms_max);
        let failures = failures.saturating_add(1);
        self.0.insert(server.to_owned(), Attempt { failures, at_ms: now_ms, next_ms: now_ms + wait_ms });
    }

    /// Failures of the past say nothing any more.
    pub(super) fn is_alive(&self, server: &ServerName) {
        if let Some(mut attempt) = self.0.get(server)
            && attempt.failures > 0
        {
            attempt.next_ms = attempt.next_ms.min(attempt.at_ms + INTERVAL_MS);
            self.0.insert(server.to_owned(), attempt);
        }
    }
}

impl Default for Attempts {
    fn default() -> Self {
        Self(Cache::new(SERVERS_MAX))
    }
}
