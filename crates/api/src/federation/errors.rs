//! What handshakes refuse, as clients and other servers see it.

use http::StatusCode;
use myelin_federation::HandshakeError;
use serde_json::Value;

use crate::ApiError;

impl From<HandshakeError> for ApiError {
    fn from(error: HandshakeError) -> Self {
        let message = error.to_string();
        match error {
            HandshakeError::Rooms(error) => error.into(),
            HandshakeError::Invalid(_) => Self::invalid_param(message),
            HandshakeError::Forbidden(_) => Self::forbidden(message),
            HandshakeError::NotFound(_) => Self::not_found(message),
            HandshakeError::IncompatibleVersion(version) => {
                Self::incompatible_room_version(message).with("room_version", version)
            }
            HandshakeError::Nowhere(_) => Self::unknown(message).with_status(StatusCode::NOT_FOUND),
            HandshakeError::UnderWay(_) => Self::unknown(message).with_status(StatusCode::GATEWAY_TIMEOUT),
            HandshakeError::Failed { .. } => Self::unknown(message).with_status(StatusCode::BAD_GATEWAY),
            HandshakeError::Refused { status, errcode, message, body } => {
                passed_on(status, &errcode, message, &body)
            }
        }
    }
}

/// The refusal of another server. What says that this one asked wrongly is none of the client's doing.
fn passed_on(status: StatusCode, errcode: &str, message: String, body: &Value) -> ApiError {
    let error = match errcode {
        "M_FORBIDDEN" => ApiError::forbidden(message),
        "M_NOT_FOUND" => ApiError::not_found(message),
        "M_UNABLE_TO_AUTHORISE_JOIN" => ApiError::unable_to_authorise_join(message),
        "M_UNABLE_TO_GRANT_JOIN" => ApiError::unable_to_grant_join(message),
        "M_INVITE_BLOCKED" => ApiError::invite_blocked(message),
        "M_UNSUPPORTED_ROOM_VERSION" => ApiError::unsupported_room_version(message),
        "M_INCOMPATIBLE_ROOM_VERSION" => {
            let version = body.get("room_version").cloned().unwrap_or_default();
            return ApiError::incompatible_room_version(message).with("room_version", version);
        }
        _ => return ApiError::unknown(message).with_status(StatusCode::BAD_GATEWAY),
    };
    error.with_status(status)
}
