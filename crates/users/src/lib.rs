//! Accounts, sessions, devices, profiles, account data: everything that belongs to a user and not to a room.
//!
//! - [`session`](Users::session): who an access token belongs to; the hot path, answered from memory.
//! - [`registration`], [`registration_tokens`], [`shared_secret`]: how accounts come to be.
//! - [`login`], [`refresh`](Users::refresh), [`devices`]: how sessions come and go.
//! - [`uia`]: user-interactive authentication, its sessions and stages.
//! - [`keys`], [`cross_signing`]: public keys for end-to-end encryption; [`remote_devices`]: those of remote users.
//! - [`key_backup`]: room keys that clients encrypted for themselves.
//! - [`to_device`]: messages between devices; [`dehydrated_devices`] receive them while nobody is logged in.
//! - [`push_rules`], [`pushers`]: what a user wants to be notified of, and where.
//! - [`profile`], [`account_data`], [`tags`], [`filters`], [`openid`].
//! - [`threepids`], [`validation`]: e-mail addresses of accounts and the proof that they are theirs; [`mail`] is behind a port.
//! - [`departure`]: what remains to be done in rooms after a deactivation; rooms are behind a port.
//!
//! Every change is one commit with preconditions, so that concurrent registrations of one name or uses of one token
//! happen exactly once. Must not know: HTTP, what a sync response looks like, how a room works.

mod account;
pub mod account_data;
mod config;
pub mod cross_signing;
mod deactivation;
pub mod dehydrated_devices;
pub mod departure;
pub mod device_lists;
pub mod devices;
mod error;
pub mod filters;
mod grant;
pub mod key_backup;
pub mod keys;
pub mod login;
pub mod mail;
pub mod mutual_rooms;
pub mod openid;
mod outgoing;
mod password;
pub mod profile;
pub mod push_rules;
pub mod pushers;
mod refresh;
pub mod registration;
pub mod registration_tokens;
pub mod remote_devices;
pub mod reports;
mod session;
pub mod shared_secret;
pub mod tags;
#[cfg(test)]
mod testing;
pub mod threepids;
pub mod to_device;
mod token;
mod transaction;
pub mod uia;
mod username;
pub mod validation;

use std::sync::Arc;

use myelin_store::log::LogEntry;
use myelin_view::View;

pub use account::{Account, AccountSummary, ModerationError, SetPasswordError};
pub use config::{Config, PasswordCost, RegistrationMode};
pub use error::Error;
pub use grant::{DeviceRequest, DeviceRequestError, Grant, LoginOrigin};
pub use password::PasswordError;
pub use refresh::RefreshError;
pub use session::{Session, SessionError};
pub use username::{UsernameError, parse_username};

/// One process's accounts. Share it through an `Arc`.
pub struct Users {
    view: View,
    config: Config,
    sessions: Arc<session::SessionCache>,
    passwords: password::Passwords,
    nonces: shared_secret::Nonces,
    open_uia_sessions: uia::OpenSessions,
    sent_mails: validation::SentMails,
    departures: departure::Signal,
    turns: keys::Turns,
    inbox_sizes: to_device::InboxSizes,
    stale_lists: tokio::sync::Notify,
}

impl Users {
    /// Follows `view.feed`, so that what other nodes change is not served from memory.
    pub fn new(view: View, config: Config) -> Self {
        let sessions = Arc::new(session::SessionCache::new(config.sessions_cached_max));
        let followed = sessions.clone();
        view.feed.listen(move |_, entry| {
            if let LogEntry::Account { user } = entry {
                followed.forget(*user);
            }
        });
        Self {
            sessions,
            passwords: password::Passwords::new(view.env.clone(), config.password_cost),
            nonces: shared_secret::Nonces::default(),
            open_uia_sessions: uia::OpenSessions::default(),
            sent_mails: validation::SentMails::default(),
            departures: departure::Signal::default(),
            turns: keys::Turns::default(),
            inbox_sizes: to_device::InboxSizes::default(),
            stale_lists: tokio::sync::Notify::new(),
            view,
            config,
        }
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    fn now_ms(&self) -> u64 {
        self.view.env.now_ms()
    }
}
