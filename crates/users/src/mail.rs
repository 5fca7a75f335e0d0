//! The port for mail: what is said, and to whom. How it gets there is not known here.

use std::{fmt, sync::Arc};

use futures::future::BoxFuture;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    pub to: String,
    pub subject: String,
    /// Plain text.
    pub text: String,
}

/// Why a mail was not taken: for the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MailError(pub String);

pub trait Mailer: Send + Sync + 'static {
    /// Completes when the next mail server has taken it.
    fn send(&self, mail: Mail) -> BoxFuture<'_, Result<(), MailError>>;
}

/// How this server writes to people.
#[derive(Clone)]
pub struct MailSetup {
    pub mailer: Arc<dyn Mailer>,
    /// Where the links in mails lead: the base URL of this server, without a slash at its end.
    pub base_url: String,
    /// Hosts to which somebody may be sent on after a link was followed (`next_link`).
    pub next_link_hosts: Vec<String>,
    /// Whether an account needs an e-mail address.
    pub required: bool,
}

impl fmt::Debug for MailSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MailSetup").field("base_url", &self.base_url).finish_non_exhaustive()
    }
}
