//! What the room engine refuses, as clients see it.

use http::StatusCode;
use myelin_rooms::{Error, Sender};

use crate::{ApiError, extract::Auth};

impl<A> Auth<A> {
    /// Who acts, for the room engine.
    pub fn sender(&self) -> Sender {
        let session = self.session();
        Sender {
            user: session.user,
            user_id: session.user_id.clone(),
            guest: session.guest,
            suspended: session.suspended,
            admin: session.admin,
        }
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Forbidden(_) => Self::forbidden(message),
            Error::GuestAccess => Self::guest_access_forbidden(message),
            Error::NotFound(_) => Self::not_found(message),
            Error::InvalidParam(_) => Self::invalid_param(message),
            Error::BadJson(_) => Self::bad_json(message),
            Error::TooLarge(_) => Self::too_large(message),
            Error::BadState(_) => Self::bad_state(message).with_status(StatusCode::FORBIDDEN),
            Error::UnsupportedRoomVersion(_) => Self::unsupported_room_version(message),
            Error::RoomInUse(_) => Self::room_in_use(message),
            Error::AliasTaken(_) => Self::alias_in_use(message),
            Error::InvalidRoomState(_) => Self::invalid_room_state(message),
            Error::BadAlias(_) => Self::bad_alias(message),
            Error::DuplicateAnnotation => Self::duplicate_annotation(message),
            Error::UnableToGrantJoin => Self::unable_to_grant_join(message),
            Error::UnableToAuthoriseJoin => Self::unable_to_authorise_join(message),
            Error::StillJoining(_) => Self::unable_due_to_partial_state(message),
            Error::InviteBlocked(_) => Self::invite_blocked(message),
            Error::ServerNotices => Self::cannot_leave_server_notice_room(message),
            Error::Unknown(_) => Self::unknown(message),
            Error::Unreachable(_) => Self::unknown(message).with_status(StatusCode::BAD_GATEWAY),
            Error::Busy | Error::Unapproved(_) => Self::conflict(),
            Error::Store(error) => error.into(),
            Error::View(error) => Self::internal(error),
        }
    }
}
