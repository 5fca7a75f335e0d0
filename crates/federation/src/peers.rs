//! What is known about the health of other servers, for those who are about to ask them something.
//!
//! Pull (requests that this server makes because somebody waits for the answer) and push (transactions, see
//! [`crate::sender`]) are seen apart: a server that takes long over transactions may still answer a look-up. Here is pull;
//! an answer of any kind is a sign of life for both.

use std::collections::HashMap;

use http::StatusCode;
use myelin_core::Env;
use parking_lot::{Mutex, RwLock};
use ruma::{OwnedServerName, ServerName};

use crate::transport::TransportError;

/// A server that has just failed is spared for two seconds, after each further failure for twice as long, at most this.
const REST_MS_MAX: u64 = 60_000;
/// Servers whose failures are remembered; names come from others, so there must be an end.
const FAILING_MAX: usize = 10_000;

type Listener = Box<dyn Fn(&ServerName) + Send + Sync>;

pub struct Peers {
    env: Env,
    /// Consecutive failures by server, with the time of the last one; who answers has no entry.
    failing: Mutex<HashMap<OwnedServerName, Failing>>,
    on_sign_of_life: RwLock<Vec<Listener>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failing {
    pub times: u32,
    pub last_ms: u64,
    pub error: String,
}

impl Peers {
    pub fn new(env: Env) -> Self {
        Self { env, failing: Mutex::default(), on_sign_of_life: RwLock::default() }
    }

    /// Called whenever a server answers or asks; must be quick.
    pub fn on_sign_of_life(&self, listener: impl Fn(&ServerName) + Send + Sync + 'static) {
        self.on_sign_of_life.write().push(Box::new(listener));
    }

    /// An authenticated request came from this server.
    pub fn heard_from(&self, server: &ServerName) {
        self.failing.lock().remove(server);
        self.on_sign_of_life.read().iter().for_each(|listener| listener(server));
    }

    pub fn answered(&self, server: &ServerName, status: StatusCode) {
        if status.is_server_error() {
            self.note_failure(server, status.to_string());
        } else {
            self.heard_from(server);
        }
    }

    pub fn failed(&self, server: &ServerName, error: &TransportError) {
        self.note_failure(server, error.to_string());
    }

    pub fn failing(&self, server: &ServerName) -> Option<Failing> {
        self.failing.lock().get(server).cloned()
    }

    /// Whether the server has failed just now: who has alternatives had better ask them.
    pub fn rests(&self, server: &ServerName) -> bool {
        let now = self.env.now_ms();
        self.failing(server).is_some_and(|failing| now < failing.last_ms + failing.rest_ms())
    }

    fn note_failure(&self, server: &ServerName, error: String) {
        let now = self.env.now_ms();
        let mut failing = self.failing.lock();
        if failing.len() >= FAILING_MAX {
            failing.retain(|_, failing| now < failing.last_ms + failing.rest_ms());
        }
        if failing.len() >= FAILING_MAX {
            failing.clear();
        }
        let times = failing.get(server).map_or(0, |failing| failing.times).saturating_add(1);
        failing.insert(server.to_owned(), Failing { times, last_ms: now, error });
    }
}

impl Failing {
    fn rest_ms(&self) -> u64 {
        (1_000 << self.times.min(16)).min(REST_MS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use myelin_testenv::Sim;
    use ruma::server_name;

    use super::*;

    #[test]
    fn a_server_that_fails_rests_ever_longer_until_it_answers() {
        let sim = Sim::new(1);
        let peers = Peers::new(sim.env());
        let server = server_name!("away.test");
        assert!(!peers.rests(server));
        peers.failed(server, &TransportError::Timeout);
        sim.clock().advance(Duration::from_millis(1_900));
        assert!(peers.rests(server));
        sim.clock().advance(Duration::from_millis(200));
        assert!(!peers.rests(server));
        (0..20).for_each(|_| peers.answered(server, StatusCode::BAD_GATEWAY));
        sim.clock().advance(Duration::from_secs(59));
        assert!(peers.rests(server));
        peers.answered(server, StatusCode::NOT_FOUND);
        assert!(!peers.rests(server), "an answer is a sign of life");
    }

    #[test]
    fn every_sign_of_life_is_told() {
        let sim = Sim::new(1);
        let peers = Peers::new(sim.env());
        let heard = Arc::new(Mutex::new(Vec::new()));
        let listener = heard.clone();
        peers.on_sign_of_life(move |server| listener.lock().push(server.to_owned()));
        let server = server_name!("a.test");
        peers.heard_from(server);
        peers.answered(server, StatusCode::OK);
        peers.answered(server, StatusCode::BAD_GATEWAY);
        peers.failed(server, &TransportError::Timeout);
        assert_eq!(*heard.lock(), [server, server]);
    }
}
