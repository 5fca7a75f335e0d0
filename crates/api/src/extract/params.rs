//! Path and query parameters, percent-decoded.

use axum::extract::{FromRequestParts, rejection::PathRejection};
use http::request::Parts;
use serde::de::DeserializeOwned;

use crate::ApiError;

/// The parameters of the path, in order. Identifiers of ruma check their own grammar: `M_INVALID_PARAM`.
pub struct Path<T>(pub T);

/// The query string. Keys may repeat (`via`); what does not parse is `M_INVALID_PARAM`, what lacks `M_MISSING_PARAM`.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(params)) => Ok(Self(params)),
            Err(PathRejection::FailedToDeserializePathParams(error)) => {
                Err(ApiError::invalid_param(error.body_text()))
            }
            Err(error) => Err(ApiError::internal(error)),
        }
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        parse_query(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

fn parse_query<T: DeserializeOwned>(query: &str) -> Result<T, ApiError> {
    serde_html_form::from_str(query).map_err(|error| {
        let reason = error.to_string();
        let message = format!("The query string is not as it should be: {reason}.");
        if reason.starts_with("missing field") {
            ApiError::missing_param(message)
        } else {
            ApiError::invalid_param(message)
        }
    })
}

#[cfg(test)]
mod tests {
    use ruma::OwnedRoomId;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Params {
        limit: u32,
        room: Option<OwnedRoomId>,
        #[serde(default)]
        via: Vec<String>,
    }

    #[test]
    fn query_strings_parse() {
        let params: Params = parse_query("limit=5&room=%21a%3Ab&via=x&via=y&unknown=1").unwrap();
        assert_eq!((params.limit, params.via.len()), (5, 2));
        assert_eq!(params.room.unwrap(), "!a:b");
    }

    #[test]
    fn bad_query_strings_are_named() {
        let errcode = |query| parse_query::<Params>(query).unwrap_err().errcode();
        assert_eq!(errcode(""), "M_MISSING_PARAM");
        assert_eq!(errcode("limit=many"), "M_INVALID_PARAM");
        assert_eq!(errcode("limit=-1"), "M_INVALID_PARAM");
        assert_eq!(errcode("limit=1&limit=2"), "M_INVALID_PARAM");
        assert_eq!(errcode("limit=1&room=nonsense"), "M_INVALID_PARAM");
    }
}
