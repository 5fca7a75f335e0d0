//! What look-ups on other servers may fail with, as clients are told.

use http::StatusCode;
use myelin_federation::{RequestError, TransportError, remote::Error};

use crate::ApiError;

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::NotFound(server) => Self::not_found(format!("There is no such thing on {server}.")),
            Error::Here(error) => error.into(),
            Error::Failed { error: RequestError::Transport(TransportError::Refused(_)), server } => {
                Self::forbidden(format!("This server does not federate with {server}."))
            }
            Error::Failed { error: RequestError::Transport(TransportError::Timeout), server } => Self::new(
                StatusCode::GATEWAY_TIMEOUT,
                "M_UNKNOWN",
                format!("{server} did not answer in time."),
            ),
            Error::Failed { error: RequestError::Status { status: StatusCode::FORBIDDEN, .. }, server } => {
                Self::forbidden(format!("{server} does not tell."))
            }
            Error::Failed { server, .. } => {
                tracing::info!(%message, "a look-up failed");
                let message = format!("{server} could not be asked.");
                Self::new(StatusCode::BAD_GATEWAY, "M_UNKNOWN", message)
            }
        }
    }
}
