//! Where two devices meet to sign one in by a QR code: small texts that either replaces if it has seen the last one
//! (MSC4108, MSC4388). In memory only: a restart ends them.

use std::{collections::HashMap, sync::Arc};

use myelin_core::Env;
use parking_lot::Mutex;

/// Bytes of a text.
pub const PAYLOAD_SIZE_MAX: usize = 4 * 1024;
/// How long a meeting lasts.
pub const LIFETIME_MS: u64 = 5 * 60 * 1000;
/// At once: with the longest texts about 20 MiB. The oldest one makes room.
const SESSIONS_MAX: usize = 5_000;
const ID_LENGTH: usize = 32;
const TOKEN_LENGTH: usize = 16;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub payload: String,
    /// Another one for every text.
    pub token: String,
    pub modified_ms: u64,
    pub expires_ms: u64,
}

/// The text is not the one that was seen.
#[derive(Debug, PartialEq, Eq)]
pub enum ReplaceError {
    Gone,
    Changed(Session),
}

/// The meetings of one process.
pub struct Rendezvous {
    env: Env,
    sessions: Mutex<HashMap<String, Session>>,
}

impl Rendezvous {
    pub fn new(env: Env) -> Arc<Self> {
        Arc::new(Self { env, sessions: Mutex::default() })
    }

    /// Answers its id.
    pub fn create(&self, payload: String) -> (String, Session) {
        let now_ms = self.env.now_ms();
        let session = Session {
            payload,
            token: self.env.random_string(TOKEN_LENGTH),
            modified_ms: now_ms,
            expires_ms: now_ms + LIFETIME_MS,
        };
        let id = self.env.random_string(ID_LENGTH);
        let mut sessions = self.sessions.lock();
        if sessions.len() >= SESSIONS_MAX {
            sessions.retain(|_, session| session.expires_ms > now_ms);
        }
        if sessions.len() >= SESSIONS_MAX
            && let Some(oldest) =
                sessions.iter().min_by_key(|(_, session)| session.expires_ms).map(|(id, _)| id.clone())
        {
            sessions.remove(&oldest);
        }
        sessions.insert(id.clone(), session.clone());
        (id, session)
    }

    pub fn get(&self, id: &str) -> Option<Session> {
        let now_ms = self.env.now_ms();
        self.sessions.lock().get(id).filter(|session| session.expires_ms > now_ms).cloned()
    }

    pub fn replace(&self, id: &str, token: &str, payload: String) -> Result<Session, ReplaceError> {
        let now_ms = self.env.now_ms();
        let mut sessions = self.sessions.lock();
        let session = sessions.get_mut(id).filter(|session| session.expires_ms > now_ms);
        let session = session.ok_or(ReplaceError::Gone)?;
        if session.token != token {
            return Err(ReplaceError::Changed(session.clone()));
        }
        session.payload = payload;
        session.token = self.env.random_string(TOKEN_LENGTH);
        session.modified_ms = now_ms;
        Ok(session.clone())
    }

    /// `false` if there was none.
    pub fn delete(&self, id: &str) -> bool {
        let now_ms = self.env.now_ms();
        self.sessions.lock().remove(id).is_some_and(|session| session.expires_ms > now_ms)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use myelin_testenv::Sim;

    use super::*;

    #[test]
    fn who_has_not_seen_the_last_text_does_not_replace_it() {
        let rendezvous = Rendezvous::new(Sim::new(1).env());
        let (id, first) = rendezvous.create("a".to_owned());
        let second = rendezvous.replace(&id, &first.token, "b".to_owned()).unwrap();
        assert_ne!(first.token, second.token);
        assert_eq!(
            rendezvous.replace(&id, &first.token, "c".to_owned()),
            Err(ReplaceError::Changed(second.clone()))
        );
        assert_eq!(rendezvous.get(&id), Some(second));
        assert!(rendezvous.delete(&id) && !rendezvous.delete(&id));
        assert_eq!(rendezvous.replace(&id, "x", String::new()), Err(ReplaceError::Gone));
    }

    #[test]
    fn meetings_end_and_are_bounded() {
        let sim = Sim::new(1);
        let rendezvous = Rendezvous::new(sim.env());
        let (first, _) = rendezvous.create("a".to_owned());
        sim.clock().advance(Duration::from_millis(1));
        for _ in 0..SESSIONS_MAX {
            rendezvous.create(String::new());
        }
        assert!(rendezvous.get(&first).is_none(), "the oldest made room");
        let (last, session) = rendezvous.create("z".to_owned());
        sim.clock().advance(Duration::from_millis(LIFETIME_MS));
        assert!(rendezvous.get(&last).is_none() && !rendezvous.delete(&last));
        assert_eq!(rendezvous.replace(&last, &session.token, String::new()), Err(ReplaceError::Gone));
        rendezvous.create(String::new());
        assert!(rendezvous.sessions.lock().len() <= SESSIONS_MAX);
    }
}
