//! What can go wrong on the way to another server, said so that an operator understands it.

use std::{fmt, net::IpAddr, time::Duration};

use ruma::OwnedServerName;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The configuration does not allow it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// No address, no connection, or it broke.
    #[error("{step}: {reason}")]
    Unreachable { step: Step, reason: String },
    #[error("{step}: it took longer than {} s", after.as_secs_f32())]
    TimedOut { step: Step, after: Duration },
    /// The certificate, or the handshake.
    #[error("TLS with {host}: {reason}")]
    Tls { host: String, reason: String },
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    #[error("redirects: {0}")]
    Redirect(String),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{0} is refused by the lists of allowed and denied servers")]
    Server(OwnedServerName),
    #[error("{host} has the address {address}, which is in a refused range")]
    Address { host: String, address: IpAddr },
    #[error("{0} URLs are not fetched")]
    Scheme(String),
}

/// Where on the way it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Resolve,
    /// To a host and port, with the address if one was tried.
    Connect(String),
    /// All connections are in use.
    Queue,
    Send,
    Answer,
    Body,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve => f.write_str("looking up the server"),
            Self::Connect(to) => write!(f, "connecting to {to}"),
            Self::Queue => f.write_str("waiting for a free connection"),
            Self::Send => f.write_str("sending the request"),
            Self::Answer => f.write_str("waiting for the answer"),
            Self::Body => f.write_str("reading the answer"),
        }
    }
}

impl Error {
    pub(crate) fn unreachable(step: Step, reason: impl fmt::Display) -> Self {
        Self::Unreachable { step, reason: reason.to_string() }
    }

    /// Whether no byte of the request can have arrived, so that it may go to another address.
    pub(crate) fn is_before_sending(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Tls { .. } => true,
            Self::Unreachable { step, .. } | Self::TimedOut { step, .. } => {
                matches!(step, Step::Resolve | Step::Connect(_))
            }
            Self::TooLarge(_) | Self::Redirect(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_say_what_was_tried() {
        let connect = Step::Connect("a.org:8448 (192.0.2.1)".into());
        for (error, message) in [
            (
                Error::unreachable(connect.clone(), "connection refused"),
                "connecting to a.org:8448 (192.0.2.1): connection refused",
            ),
            (
                Error::TimedOut { step: Step::Answer, after: Duration::from_millis(1500) },
                "waiting for the answer: it took longer than 1.5 s",
            ),
            (
                Refusal::Address { host: "a.org".into(), address: [127, 0, 0, 1].into() }.into(),
                "a.org has the address 127.0.0.1, which is in a refused range",
            ),
        ] {
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn only_what_cannot_have_arrived_is_tried_elsewhere() {
        assert!(Error::unreachable(Step::Resolve, "").is_before_sending());
        assert!(Error::Tls { host: String::new(), reason: String::new() }.is_before_sending());
        assert!(!Error::unreachable(Step::Send, "").is_before_sending());
        assert!(!Error::TimedOut { step: Step::Answer, after: Duration::ZERO }.is_before_sending());
        assert!(!Error::TooLarge(1).is_before_sending());
    }
}
