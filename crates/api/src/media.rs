//! Bodies that are not JSON: taking uploads in and giving media out, streamed both ways (Client-Server API, "Content
//! repository").

pub mod disposition;
mod range;

use std::{io, time::Duration};

use axum::{body::Body, extract::Request, response::Response};
use futures::TryStreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use myelin_media::{
    BytesStream, Download, Error, Mxc, Wants,
    thumbnails::{Method, Size},
};
use ruma::ServerName;
use serde::Deserialize;

use self::range::{Asked, asked};
use crate::ApiError;

/// The specification's policy: whatever is shown can do nothing.
const CONTENT_SECURITY_POLICY: &str = "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; \
    style-src 'unsafe-inline'; object-src 'self';";
const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
/// The bytes of a URI never change; caches that others share ask again after a day, since media may be quarantined.
const CACHED_PRIVATELY: &str = "private, max-age=31536000, immutable";
const CACHED_PUBLICLY: &str = "public, max-age=86400, immutable";
/// The specification's default.
const TIMEOUT_MS: u64 = 20_000;

/// Who may keep an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Whoever showed an access token.
    Private,
    Public,
}

#[derive(Deserialize)]
pub struct DownloadParams {
    allow_remote: Option<bool>,
    /// Nothing is redirected.
    #[serde(rename = "allow_redirect")]
    _allow_redirect: Option<bool>,
    timeout_ms: Option<u64>,
}

impl DownloadParams {
    pub fn wants(&self) -> Wants {
        wants(self.allow_remote, self.timeout_ms)
    }
}

#[derive(Deserialize)]
pub struct ThumbnailParams {
    width: u32,
    height: u32,
    method: Option<String>,
    animated: Option<bool>,
    allow_remote: Option<bool>,
    #[serde(rename = "allow_redirect")]
    _allow_redirect: Option<bool>,
    timeout_ms: Option<u64>,
}

impl ThumbnailParams {
    pub fn wants(&self) -> Wants {
        wants(self.allow_remote, self.timeout_ms)
    }

    pub fn size(&self) -> Result<Size, ApiError> {
        if self.width == 0 || self.height == 0 {
            return Err(ApiError::invalid_param("A thumbnail has a width and a height."));
        }
        let method = match self.method.as_deref() {
            None | Some("scale") => Method::Scale,
            Some("crop") => Method::Crop,
            Some(_) => return Err(ApiError::invalid_param("The method is 'crop' or 'scale'.")),
        };
        let animated = self.animated.unwrap_or(false);
        Ok(Size { width: self.width, height: self.height, method, animated })
    }
}

fn wants(allow_remote: Option<bool>, timeout_ms: Option<u64>) -> Wants {
    Wants {
        allow_remote: allow_remote.unwrap_or(true),
        timeout: Duration::from_millis(timeout_ms.unwrap_or(TIMEOUT_MS)),
        stored_before_ms: None,
    }
}

/// A URI from a path. What cannot be one does not exist.
pub fn known(server: &ServerName, id: &str) -> Result<Mxc, ApiError> {
    Mxc::new(server, id).ok_or_else(not_found)
}

/// The body of a request as it arrives.
pub fn body_of(request: Request) -> BytesStream {
    Box::pin(request.into_body().into_data_stream().map_err(io::Error::other))
}

/// Media as an answer: all of it, a range, or nothing if the client has it already.
pub async fn respond(
    found: Download,
    file_name: Option<&str>,
    request: &HeaderMap,
    audience: Audience,
) -> Result<Response, ApiError> {
    let etag = found.sha256.as_ref().map(etag);
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    describe(headers, &found, file_name, audience);
    if let Some(etag) = &etag {
        headers.insert(header::ETAG, etag.clone());
    }
    if etag.as_ref().is_some_and(|etag| range::is_held(request, etag)) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    let size = found.size.filter(|_| found.has_ranges());
    let range = match size.map_or(Asked::All, |size| asked(request, etag.as_ref(), size)) {
        Asked::All => None,
        Asked::Part(range) => Some(range),
        Asked::Beyond => {
            let size = size.unwrap_or_default();
            *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            insert(response.headers_mut(), header::CONTENT_RANGE, &format!("bytes */{size}"));
            response.headers_mut().remove(header::CONTENT_DISPOSITION);
            return Ok(response);
        }
    };
    let headers = response.headers_mut();
    if let Some(length) = range.as_ref().map(|range| range.end - range.start).or(found.size) {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    if let (Some(range), Some(size)) = (&range, size) {
        insert(headers, header::CONTENT_RANGE, &format!("bytes {}-{}/{size}", range.start, range.end - 1));
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    *response.body_mut() = Body::from_stream(found.read(range).await?);
    Ok(response)
}

fn describe(headers: &mut HeaderMap, found: &Download, file_name: Option<&str>, audience: Audience) {
    let file_name = match file_name {
        Some(given) => myelin_media::sanitize::file_name(given),
        None => found.file_name.clone(),
    };
    let disposition = disposition::header(&found.content_type, file_name.as_deref());
    insert(headers, header::CONTENT_TYPE, &found.content_type);
    insert(headers, header::CONTENT_DISPOSITION, &disposition);
    insert(headers, header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY);
    insert(headers, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    insert(headers, CROSS_ORIGIN_RESOURCE_POLICY, "cross-origin");
    let cached = if audience == Audience::Private { CACHED_PRIVATELY } else { CACHED_PUBLICLY };
    insert(headers, header::CACHE_CONTROL, cached);
    if found.has_ranges() {
        insert(headers, header::ACCEPT_RANGES, "bytes");
    }
}

/// What cannot stand in a header is left out.
fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn etag(sha256: &[u8; 32]) -> HeaderValue {
    let hex: String = sha256[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    HeaderValue::from_str(&format!("\"{hex}\"")).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

fn not_found() -> ApiError {
    ApiError::not_found("There is no such media.")
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        match error {
            Error::NotFound => not_found(),
            Error::NotYetUploaded => Self::new(
                StatusCode::GATEWAY_TIMEOUT,
                "M_NOT_YET_UPLOADED",
                "The content has not been uploaded yet.",
            ),
            Error::CannotOverwrite => {
                Self::new(StatusCode::CONFLICT, "M_CANNOT_OVERWRITE_MEDIA", "This URI has content already.")
            }
            Error::Forbidden(message) => Self::forbidden(message),
            Error::TooLarge { max } => {
                Self::too_large(format!("This is larger than this server takes, which is {max} bytes."))
            }
            Error::TooManyPixels { max } => {
                Self::too_large(format!("No thumbnails are made of images with more than {max} pixels."))
            }
            Error::RemoteTooLarge => {
                Self::too_large("The other server's media is larger than this server takes.")
                    .with_status(StatusCode::BAD_GATEWAY)
            }
            Error::QuotaExceeded => {
                Self::forbidden("You have uploaded as much as one user may upload to this server.")
            }
            Error::TooManyPending { retry_after_ms } => Self::limit_exceeded(retry_after_ms),
            Error::Busy => Self::limit_exceeded(1000),
            Error::CannotThumbnail(reason) => {
                Self::unknown(format!("No thumbnail can be made of this: {reason}."))
            }
            Error::BrokenOff(reason) => Self::unknown(format!("The upload broke off: {reason}.")),
            Error::Unreachable(reason) => Self::unknown(format!("The media could not be fetched: {reason}."))
                .with_status(StatusCode::BAD_GATEWAY),
            Error::Contended => Self::conflict(),
            Error::Store(error) => error.into(),
            Error::View(error) => error.into(),
            error @ Error::Objects(_) => Self::internal(error),
        }
    }
}
