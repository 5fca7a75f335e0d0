//! What reads for other servers may fail with.

use http::StatusCode;
use myelin_federation::serve::Error;

use crate::ApiError;

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        match error {
            Error::NotInRoom => Self::forbidden("Your server is not in this room."),
            Error::Banned => Self::forbidden("Your server is banned from this room."),
            Error::Partial => Self::new(
                StatusCode::FORBIDDEN,
                "M_UNABLE_DUE_TO_PARTIAL_STATE",
                "This server has not finished joining the room. Ask another one, or later.",
            ),
            Error::UnknownEvent => Self::not_found("This event is not here."),
            Error::NothingThere => Self::not_found("There is no event in that direction."),
            Error::View(error) => error.into(),
            Error::Rooms(error) => error.into(),
            Error::Sync(error) => error.into(),
            Error::Store(error) => error.into(),
        }
    }
}
