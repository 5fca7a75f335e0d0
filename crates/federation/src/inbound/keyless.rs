//! Servers whose keys are not to be had now. What they signed may be as good as the rest, so it is waited for; but not for
//! ever, or a server that shows its keys to some and not to others could keep rooms from going on here.
//!
//! In memory only: after a restart the wait begins anew.

use quick_cache::sync::Cache;
use ruma::{OwnedServerName, ServerName};

/// How long the keys of a server are waited for. A server that holds less of a state than others do disagrees with them
/// for long; a room that waits hears nothing.
const AWAITED_MS: u64 = 4 * 3_600_000;
/// So long after the wait began the next one may begin.
const ANEW_AFTER_MS: u64 = 24 * 3_600_000;
const SERVERS_MAX: usize = 10_000;

/// When the keys of a server were first not to be had, milliseconds.
pub struct Keyless(Cache<OwnedServerName, u64>);

impl Default for Keyless {
    fn default() -> Self {
        Self(Cache::new(SERVERS_MAX))
    }
}

impl Keyless {
    /// Its keys are not to be had now: whether they are waited for.
    pub fn is_awaited(&self, server: &ServerName, now_ms: u64) -> bool {
        let since_ms = self.0.get(server).filter(|since_ms| now_ms < since_ms + ANEW_AFTER_MS);
        if since_ms.is_none() {
            self.0.insert(server.to_owned(), now_ms);
        }
        now_ms < since_ms.unwrap_or(now_ms) + AWAITED_MS
    }
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::*;

    #[test]
    fn a_server_is_waited_for_once_a_day_and_not_for_long() {
        let (keyless, dead) = (Keyless::default(), server_name!("dead.test"));
        assert!(keyless.is_awaited(dead, 1_000));
        assert!(keyless.is_awaited(dead, 1_000 + AWAITED_MS - 1));
        assert!(!keyless.is_awaited(dead, 1_000 + AWAITED_MS));
        assert!(!keyless.is_awaited(dead, 1_000 + ANEW_AFTER_MS - 1));
        assert!(
            keyless.is_awaited(server_name!("other.test"), 1_000 + AWAITED_MS),
            "others wait for themselves"
        );
        assert!(keyless.is_awaited(dead, 1_000 + ANEW_AFTER_MS));
    }
}
