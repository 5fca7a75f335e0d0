//! What is known about the health of other servers, for those who are about to ask them something.
//!
//! Pull (requests that this server makes because somebody waits for the answer) and push (transactions, see
//! [`crate::sender`]) are seen apart: a server that takes long over transactions may still answer a look-up.

use std::collections::HashMap;

use http::StatusCode;
use myelin_core::Env;
use parking_lot::{Mutex, RwLock};
use ruma::{OwnedServerName, ServerName};

use crate::transport::TransportError;

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

    fn note_failure(&self, server: &ServerName, error: String) {
        let now = self.env.now_ms();
        let mut failing = self.failing.lock();
        let times = failing.get(server).map_or(0, |failing| failing.times) + 1;
        failing.insert(server.to_owned(), Failing { times, last_ms: now, error });
    }
}
