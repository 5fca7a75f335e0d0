use ruma::{EventId, OwnedRoomAliasId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId};

use crate::policy::Unapproved;

/// Why a command was not carried out. The messages are for the person who asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// `M_FORBIDDEN`.
    #[error("{0}")]
    Forbidden(String),
    /// `M_GUEST_ACCESS_FORBIDDEN`.
    #[error("Guests may not join this room.")]
    GuestAccess,
    /// `M_NOT_FOUND`.
    #[error("{0}")]
    NotFound(String),
    /// `M_INVALID_PARAM`.
    #[error("{0}")]
    InvalidParam(String),
    /// `M_BAD_JSON`.
    #[error("{0}")]
    BadJson(String),
    /// `M_TOO_LARGE`.
    #[error("{0}")]
    TooLarge(String),
    /// `M_BAD_STATE`: the target is not in the membership which this changes.
    #[error("{0}")]
    BadState(String),
    /// `M_UNSUPPORTED_ROOM_VERSION`.
    #[error("This server does not support room version '{0}'.")]
    UnsupportedRoomVersion(String),
    /// `M_ROOM_IN_USE`.
    #[error("The alias {0} is taken already.")]
    RoomInUse(OwnedRoomAliasId),
    /// `409 M_UNKNOWN`, as the specification has it for aliases.
    #[error("Room alias {0} already exists.")]
    AliasTaken(OwnedRoomAliasId),
    /// `M_INVALID_ROOM_STATE`.
    #[error("The room cannot be created like this: {0}")]
    InvalidRoomState(String),
    /// `M_BAD_ALIAS`.
    #[error("The alias {0} does not point to this room.")]
    BadAlias(String),
    /// `M_DUPLICATE_ANNOTATION`.
    #[error("You have annotated this event in the same way already.")]
    DuplicateAnnotation,
    /// `M_UNABLE_TO_GRANT_JOIN`.
    #[error("Nobody of this server in the room may let you in.")]
    UnableToGrantJoin,
    /// `M_UNABLE_TO_AUTHORISE_JOIN`.
    #[error("This server does not know the rooms that let you join this one.")]
    UnableToAuthoriseJoin,
    /// `M_UNABLE_DUE_TO_PARTIAL_STATE`: members of the room are still to come, and the answer needs them.
    #[error("This server has not finished joining the room {0}. Try again later.")]
    StillJoining(OwnedRoomId),
    /// `M_INVITE_BLOCKED`.
    #[error("{0} does not accept invitations.")]
    InviteBlocked(OwnedUserId),
    /// `400 M_UNKNOWN`.
    #[error("{0}")]
    Unknown(String),
    /// An invite that the other server has not signed.
    #[error("The invite has to be signed by {0} first.")]
    Unreachable(OwnedServerName),
    /// `M_CANNOT_LEAVE_SERVER_NOTICE_ROOM`.
    #[error("An invite of the server to its notices cannot be rejected.")]
    ServerNotices,
    /// To be shown to the policy server first: of use inside this crate only.
    #[error("The policy server of the room has not been asked.")]
    Unapproved(Box<Unapproved>),
    /// Other writers were first, time and again. Trying again helps.
    #[error("The room is busy with other changes. Try again.")]
    Busy,
    #[error(transparent)]
    View(myelin_view::Error),
    #[error(transparent)]
    Store(#[from] myelin_store::Error),
}

impl Error {
    /// As clients know it.
    pub fn errcode(&self) -> &'static str {
        match self {
            Self::Forbidden(_) => "M_FORBIDDEN",
            Self::GuestAccess => "M_GUEST_ACCESS_FORBIDDEN",
            Self::NotFound(_) => "M_NOT_FOUND",
            Self::InvalidParam(_) => "M_INVALID_PARAM",
            Self::BadJson(_) => "M_BAD_JSON",
            Self::TooLarge(_) => "M_TOO_LARGE",
            Self::BadState(_) => "M_BAD_STATE",
            Self::DuplicateAnnotation => "M_DUPLICATE_ANNOTATION",
            Self::BadAlias(_) => "M_BAD_ALIAS",
            Self::StillJoining(_) => "M_UNABLE_DUE_TO_PARTIAL_STATE",
            Self::InviteBlocked(_) => "M_INVITE_BLOCKED",
            Self::ServerNotices => "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM",
            _ => "M_UNKNOWN",
        }
    }

    pub(crate) fn unknown_room(room_id: &RoomId) -> Self {
        Self::NotFound(format!("This server does not know the room {room_id}."))
    }

    pub(crate) fn unknown_event(event_id: &EventId) -> Self {
        Self::NotFound(format!("There is no event {event_id} in this room."))
    }

    pub(crate) fn not_in_room(room_id: &RoomId) -> Self {
        Self::Forbidden(format!("You are not in the room {room_id}."))
    }

    pub(crate) fn damaged(what: impl Into<String>) -> Self {
        Self::View(myelin_view::Error::Damaged(what.into()))
    }
}

impl From<myelin_view::Error> for Error {
    fn from(error: myelin_view::Error) -> Self {
        match error {
            myelin_view::Error::Store(error) => Self::Store(error),
            other => Self::View(other),
        }
    }
}

impl From<myelin_dag::BuildError> for Error {
    fn from(error: myelin_dag::BuildError) -> Self {
        let message = format!("This cannot be an event: {error}.");
        if error.is_too_large() { Self::TooLarge(message) } else { Self::BadJson(message) }
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::BadJson(error.to_string())
    }
}
