//! Rendezvous sessions for signing in by a QR code: `/org.matrix.msc4108/rendezvous` (MSC4108, with ETags) and
//! `/io.element.msc4388/rendezvous` (MSC4388, with tokens in the body). Neither needs an account.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use myelin_core::Env;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    ApiError, AppState, ServerConfig,
    extract::{JsonBody, MaybeAuth, Path, read_body},
    rate_limit::{Class, Limits},
    rendezvous::{PAYLOAD_SIZE_MAX, Rendezvous, ReplaceError, Session},
    respond::{Empty, Json, json_response},
};

/// A text in JSON may be longer than itself.
const BODY_SIZE_MAX: usize = 8 * PAYLOAD_SIZE_MAX;
const ETAGS: &str = "/_matrix/client/unstable/org.matrix.msc4108/rendezvous";
const TOKENS: &str = "/_matrix/client/unstable/io.element.msc4388/rendezvous";

#[derive(Deserialize)]
struct CreateBody {
    data: String,
}

#[derive(Deserialize)]
struct UpdateBody {
    sequence_token: String,
    data: String,
}

pub fn routes() -> Router<AppState> {
    Router::new()
        .route(ETAGS, post(create))
        .route(&format!("{ETAGS}/{{id}}"), get(read).put(replace).delete(delete))
        .route(TOKENS, get(discover).post(create_with_token))
        .route(
            &format!("{TOKENS}/{{id}}"),
            get(read_with_token).put(replace_with_token).delete(delete_with_token),
        )
}

async fn create(
    limits: Limits,
    State(rendezvous): State<Arc<Rendezvous>>,
    State(config): State<Arc<ServerConfig>>,
    request: Request,
) -> Result<Response, ApiError> {
    limits.check_address(Class::RegistrationCheck)?;
    let (id, session) = rendezvous.create(payload(request).await?);
    let base_url = config.well_known.client_base_url.clone();
    let base_url = base_url.unwrap_or_else(|| format!("https://{}", config.server_name));
    let body = json!({ "url": format!("{base_url}{ETAGS}/{id}") }).to_string();
    Ok(described(json_response(StatusCode::CREATED, body), &session))
}

async fn read(
    limits: Limits,
    State(rendezvous): State<Arc<Rendezvous>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    limits.check_address(Class::Read)?;
    let session = rendezvous.get(&id).ok_or_else(gone)?;
    if etag(&headers, &header::IF_NONE_MATCH)?.is_some_and(|seen| seen == session.token) {
        return Ok(described(StatusCode::NOT_MODIFIED.into_response(), &session));
    }
    let mut response = Response::new(Body::from(session.payload.clone()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    // Whatever strangers put here is no page of this server.
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(described(response, &session))
}

async fn replace(
    limits: Limits,
    State(rendezvous): State<Arc<Rendezvous>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, ApiError> {
    limits.check_address(Class::Write)?;
    let seen = etag(&headers, &header::IF_MATCH)?;
    let seen = seen.ok_or_else(|| ApiError::missing_param("This needs the header If-Match."))?;
    match rendezvous.replace(&id, &seen, payload(request).await?) {
        Ok(session) => Ok(described(StatusCode::ACCEPTED.into_response(), &session)),
        Err(ReplaceError::Gone) => Err(gone()),
        Err(ReplaceError::Changed(session)) => {
            let message = "The payload has changed since you read it.";
            let error = ApiError::new(StatusCode::PRECONDITION_FAILED, "M_CONCURRENT_WRITE", message);
            Ok(described(error.into_response(), &session))
        }
    }
}

async fn delete(
    limits: Limits,
    State(rendezvous): State<Arc<Rendezvous>>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    limits.check_address(Class::Write)?;
    if rendezvous.delete(&id) { Ok(StatusCode::NO_CONTENT) } else { Err(gone()) }
}

async fn discover(_: MaybeAuth) -> Json<Value> {
    Json(json!({ "create_available": true }))
}

async fn create_with_token(
    limits: Limits,
    _: MaybeAuth,
    State(rendezvous): State<Arc<Rendezvous>>,
    State(env): State<Env>,
    JsonBody(body): JsonBody<CreateBody, BODY_SIZE_MAX>,
) -> Result<Json<Value>, ApiError> {
    limits.check_address(Class::RegistrationCheck)?;
    let (id, session) = rendezvous.create(fitting(body.data)?);
    let expires_in_ms = session.expires_ms.saturating_sub(env.now_ms());
    Ok(Json(json!({ "id": id, "sequence_token": session.token, "expires_in_ms": expires_in_ms })))
}

async fn read_with_token(
    limits: Limits,
    State(rendezvous): State<Arc<Rendezvous>>,
    State(env): State<Env>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    limits.check_address(Class::Read)?;
    let session = rendezvous.get(&id).ok_or_else(gone)?;
    let expires_in_ms = session.expires_ms.saturating_sub(env.now_ms());
    let answer = json!({
        "sequence_token": session.token, "data": session.payload, "expires_in_ms": expires_in_ms
    });
    let mut response = Json(answer).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

async fn replace_with_token(
    limits: Limits,
    State(rendezvous): State<Arc<Rendezvous>>,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<UpdateBody, BODY_SIZE_MAX>,
) -> Result<Json<Value>, ApiError> {
    limits.check_address(Class::Write)?;
    match rendezvous.replace(&id, &body.sequence_token, fitting(body.data)?) {
        Ok(session) => Ok(Json(json!({ "sequence_token": session.token }))),
        Err(ReplaceError::Gone) => Err(gone()),
        Err(ReplaceError::Changed(_)) => Err(ApiError::new(
            StatusCode::CONFLICT,
            "IO_ELEMENT_MSC4388_CONCURRENT_WRITE",
            "The data has changed since you read it.",
        )),
    }
}

async fn delete_with_token(
    limits: Limits,
    State(rendezvous): State<Arc<Rendezvous>>,
    Path(id): Path<String>,
) -> Result<Empty, ApiError> {
    limits.check_address(Class::Write)?;
    if rendezvous.delete(&id) { Ok(Empty) } else { Err(gone()) }
}

/// A text of announced length.
async fn payload(request: Request) -> Result<String, ApiError> {
    let headers = request.headers();
    let content_type =
        headers.get(header::CONTENT_TYPE).filter(|_| headers.contains_key(header::CONTENT_LENGTH));
    let content_type = content_type
        .ok_or_else(|| ApiError::missing_param("This needs the headers Content-Type and Content-Length."))?;
    let kind = content_type.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    if !kind.trim().eq_ignore_ascii_case("text/plain") {
        return Err(ApiError::invalid_param("The Content-Type of a payload is text/plain."));
    }
    let bytes = read_body(request, PAYLOAD_SIZE_MAX).await?;
    String::from_utf8(bytes.into()).map_err(|_| ApiError::invalid_param("The payload is not UTF-8."))
}

fn fitting(data: String) -> Result<String, ApiError> {
    if data.len() <= PAYLOAD_SIZE_MAX {
        return Ok(data);
    }
    Err(ApiError::too_large(format!("The data is larger than {PAYLOAD_SIZE_MAX} bytes.")))
}

/// Of a strong, single ETag, with or without its quotes.
fn etag(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let text = value.to_str().ok().map(|text| text.trim_matches('"'));
    let text = text.filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    let text =
        text.ok_or_else(|| ApiError::invalid_param(format!("{name} is not an ETag of this server.")))?;
    Ok(Some(text.to_owned()))
}

fn described(mut response: Response, session: &Session) -> Response {
    let date = |ms| {
        let text = http_date(ms);
        HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("0"))
    };
    let headers = response.headers_mut();
    if let Ok(etag) = HeaderValue::try_from(format!("\"{}\"", session.token)) {
        headers.insert(header::ETAG, etag);
    }
    headers.insert(header::EXPIRES, date(session.expires_ms));
    headers.insert(header::LAST_MODIFIED, date(session.modified_ms));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("ETag"));
    response
}

/// As HTTP writes dates.
fn http_date(ms: u64) -> String {
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_millis(ms))
}

fn gone() -> ApiError {
    ApiError::not_found("There is no such rendezvous session, or it has ended.")
}
