use ruma::UserId;

use crate::{ApiError, Session};

/// Paths that begin with `/user/{userId}` or `/profile/{userId}` and change something are everybody's own.
pub(super) fn require_own(session: &Session, user_id: &UserId) -> Result<(), ApiError> {
    if session.user_id == user_id {
        return Ok(());
    }
    Err(ApiError::forbidden("You can only do this for yourself."))
}
