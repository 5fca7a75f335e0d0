use http::StatusCode;
use ruma::OwnedServerName;
use serde_json::Value;

use crate::RequestError;

/// Why a handshake came to nothing. The messages are for the person or the server that asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HandshakeError {
    #[error(transparent)]
    Rooms(#[from] myelin_rooms::Error),
    /// `M_INVALID_PARAM`: the event is not what this handshake is for.
    #[error("{0}")]
    Invalid(String),
    /// `M_FORBIDDEN`.
    #[error("{0}")]
    Forbidden(String),
    /// `M_NOT_FOUND`.
    #[error("{0}")]
    NotFound(String),
    /// `M_INCOMPATIBLE_ROOM_VERSION`: the asking server does not say that it knows it.
    #[error("The room has version '{0}', which your server does not say that it supports.")]
    IncompatibleVersion(String),
    /// `404 M_UNKNOWN`: nobody is known who could be asked.
    #[error("No server is known that is in the room {0}. Give one with 'via'.")]
    Nowhere(String),
    /// `504 M_UNKNOWN`: it may still come to a good end.
    #[error("Joining the room {0} takes long, and goes on. Try again in a while.")]
    UnderWay(String),
    /// What another server answered, to be passed on.
    #[error("{message}")]
    Refused { status: StatusCode, errcode: String, message: String, body: Value },
    /// `502`: nobody who was asked could help.
    #[error("{server}: {reason}")]
    Failed { server: OwnedServerName, reason: String },
}

impl HandshakeError {
    pub(super) fn of_request(server: &ruma::ServerName, error: RequestError) -> Self {
        match error {
            RequestError::Status { status, errcode, message, body }
                if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS =>
            {
                let message = match message.is_empty() {
                    true => format!("{server} answers: {status}"),
                    false => format!("{server} says: {message}"),
                };
                Self::Refused { status, errcode, message, body }
            }
            other => Self::failed(server, other.to_string()),
        }
    }

    pub(super) fn failed(server: &ruma::ServerName, reason: impl Into<String>) -> Self {
        Self::Failed { server: server.to_owned(), reason: reason.into() }
    }

    /// Whether it is of no use to ask another server: the room itself said no, or a server has let the user in.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::Refused { errcode, .. } => {
                matches!(errcode.as_str(), "M_FORBIDDEN" | "M_INCOMPATIBLE_ROOM_VERSION")
            }
            Self::UnderWay(_) | Self::Rooms(myelin_rooms::Error::Store(_)) => true,
            _ => false,
        }
    }

    /// Of the failures of several servers the one that says most about the room is told.
    pub(super) fn telling(&self) -> u8 {
        match self {
            Self::Failed { .. } => 0,
            Self::Refused { errcode, .. } if errcode.starts_with("M_UNABLE_TO_") => 2,
            _ => 1,
        }
    }
}
