//! Media of other servers, as they serve it: `GET /_matrix/federation/v1/media/download/{mediaId}` (Server-Server API,
//! "Content Repository"), and the way of servers that do not have it yet.
//!
//! Must not know: what media is kept here and how.

mod multipart;

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use http::{HeaderMap, Response, StatusCode, header};
use myelin_media::{BytesStream, FetchError, FetchLimits, Fetched, Origin};
use ruma::ServerName;

use self::multipart::{Multipart, MultipartError};
use crate::{Budget, Client, Pieces, RequestError, TransportError, uri::segment};

/// How long the other server may wait for content that was not uploaded yet, milliseconds.
const UPLOAD_WAIT_MS_MAX: u128 = 20_000;
/// What surrounds the bytes: metadata, heads, boundaries.
const AROUND_SIZE_MAX: usize = 64 * 1024;
/// The JSON before the bytes, which is an empty object up to now.
const METADATA_SIZE_MAX: usize = 16 * 1024;

/// Asks other servers for media.
pub struct RemoteMedia {
    client: Arc<Client>,
}

impl RemoteMedia {
    pub fn new(client: Arc<Client>) -> Self {
        Self { client }
    }

    async fn download(
        &self,
        server: &ServerName,
        media_id: &str,
        wait: Duration,
        limits: FetchLimits,
    ) -> Result<Fetched, FetchError> {
        let budget = budget(limits);
        let wait_ms = wait.as_millis().min(UPLOAD_WAIT_MS_MAX);
        let id = segment(media_id);
        let uri = format!("/_matrix/federation/v1/media/download/{id}?timeout_ms={wait_ms}");
        match self.client.open(server, &uri, budget).await {
            Ok(answer) => self.unpack(answer, limits).await,
            Err(error) if is_unknown_endpoint(&error) => {
                let server_name = segment(server.as_str());
                let uri = format!(
                    "/_matrix/media/v3/download/{server_name}/{id}?allow_remote=false&timeout_ms={wait_ms}"
                );
                let answer = self.client.open_unsigned(server, &uri, budget).await.map_err(failed)?;
                let (head, body) = answer.into_parts();
                Ok(fetched(&head.headers, body, limits.size_max))
            }
            Err(error) => Err(failed(error)),
        }
    }

    async fn unpack(&self, answer: Response<Pieces>, limits: FetchLimits) -> Result<Fetched, FetchError> {
        let boundary = text(answer.headers(), header::CONTENT_TYPE).and_then(multipart::boundary);
        let boundary =
            boundary.ok_or_else(|| FetchError::Failed("the answer is not multipart/mixed".to_owned()))?;
        let mut parts = Multipart::new(answer.into_body(), &boundary);
        skip_metadata(&mut parts).await.map_err(malformed)?;
        let head = parts.next_part().await.map_err(malformed)?;
        let head = head.ok_or_else(|| FetchError::Failed("the answer has no second part".to_owned()))?;
        match text(&head, header::LOCATION) {
            None => Ok(fetched(&head, in_part(parts), limits.size_max)),
            Some(location) => {
                let answer = self.client.open_url(location, budget(limits)).await.map_err(failed)?;
                let (head, body) = answer.into_parts();
                Ok(fetched(&head.headers, body, limits.size_max))
            }
        }
    }
}

impl Origin for RemoteMedia {
    fn fetch<'a>(
        &'a self,
        server: &'a ServerName,
        media_id: &'a str,
        wait: Duration,
        limits: FetchLimits,
    ) -> BoxFuture<'a, Result<Fetched, FetchError>> {
        self.download(server, media_id, wait, limits).boxed()
    }
}

fn budget(limits: FetchLimits) -> Budget {
    let size_max = usize::try_from(limits.size_max).unwrap_or(usize::MAX);
    Budget { timeout: limits.timeout, body_size_max: size_max.saturating_add(AROUND_SIZE_MAX) }
}

/// The first part says nothing yet.
async fn skip_metadata(parts: &mut Multipart) -> Result<(), MultipartError> {
    let mut size = 0;
    parts.next_part().await?.ok_or(MultipartError::Malformed("there is no part"))?;
    while let Some(piece) = parts.piece().await? {
        size += piece.len();
        if size > METADATA_SIZE_MAX {
            return Err(MultipartError::Malformed("the metadata is too long"));
        }
    }
    Ok(())
}

/// Older servers do not know the endpoint; some say so without Matrix's words.
fn is_unknown_endpoint(error: &RequestError) -> bool {
    let RequestError::Status { status, errcode, .. } = error else { return false };
    match *status {
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
            errcode.is_empty() || errcode == "M_UNRECOGNIZED"
        }
        StatusCode::BAD_REQUEST => errcode == "M_UNRECOGNIZED",
        _ => false,
    }
}

fn in_part(parts: Multipart) -> Pieces {
    let pieces = stream::unfold(Some(parts), |parts| async move {
        let mut parts = parts?;
        match parts.piece().await {
            Ok(Some(piece)) => Some((Ok(piece), Some(parts))),
            Ok(None) => None,
            Err(MultipartError::Transport(error)) => Some((Err(error), None)),
            Err(error) => Some((Err(TransportError::Unreachable(error.to_string())), None)),
        }
    });
    pieces.boxed()
}

fn fetched(headers: &HeaderMap, body: Pieces, size_max: u64) -> Fetched {
    let disposition = text(headers, header::CONTENT_DISPOSITION);
    Fetched {
        content_type: text(headers, header::CONTENT_TYPE).map(str::to_owned),
        file_name: disposition.and_then(file_name),
        size: text(headers, header::CONTENT_LENGTH).and_then(|size| size.parse().ok()),
        body: bounded(body, size_max),
    }
}

/// The budget covers what surrounds the bytes as well; here they are counted alone.
fn bounded(body: Pieces, size_max: u64) -> BytesStream {
    let body = body.map_err(|error| match error {
        TransportError::TooLarge(_) => io::Error::new(io::ErrorKind::FileTooLarge, error),
        error => io::Error::other(error),
    });
    body.scan(0_u64, move |read, piece: Result<Bytes, io::Error>| {
        *read = read.saturating_add(piece.as_ref().map_or(0, |piece| piece.len() as u64));
        let too_large = || io::Error::from(io::ErrorKind::FileTooLarge);
        std::future::ready(Some(if *read > size_max { Err(too_large()) } else { piece }))
    })
    .boxed()
}

/// What a `Content-Disposition` calls the file; the form that can say everything goes first (RFC 6266, RFC 8187).
fn file_name(disposition: &str) -> Option<String> {
    let parameters = parameters(disposition);
    let find = |wanted| parameters.iter().find(|(name, _)| name == wanted).map(|(_, value)| value);
    let extended = find("filename*").and_then(|value| {
        let (charset, rest) = value.split_once('\'')?;
        let (_, encoded) = rest.split_once('\'')?;
        charset.eq_ignore_ascii_case("utf-8").then(|| percent_decoded(encoded))?
    });
    extended.or_else(|| find("filename").cloned()).filter(|name| !name.is_empty())
}

/// Names in lower case, values without their quotation marks.
fn parameters(header: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = header.split_once(';').map_or("", |(_, rest)| rest);
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim_matches([' ', '\t', ';']).to_ascii_lowercase();
        let after = after.trim_start();
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => unquoted(quoted),
            None => {
                let (value, after) = after.split_at(after.find(';').unwrap_or(after.len()));
                (value.trim().to_owned(), after)
            }
        };
        found.push((name, value));
        rest = after;
    }
    found
}

/// The value up to the closing quotation mark, and what follows it.
fn unquoted(quoted: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            c => value.push(c),
        }
    }
    (value, "")
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let hex = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        bytes.push(match byte {
            b'%' => hex(rest.next()?)? << 4 | hex(rest.next()?)?,
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn malformed(error: MultipartError) -> FetchError {
    match error {
        MultipartError::Transport(TransportError::TooLarge(_)) => FetchError::TooLarge,
        error => FetchError::Failed(error.to_string()),
    }
}

fn failed(error: RequestError) -> FetchError {
    match error {
        RequestError::Transport(TransportError::TooLarge(_)) => FetchError::TooLarge,
        RequestError::Status { errcode, .. } if errcode == "M_NOT_YET_UPLOADED" => FetchError::NotYetUploaded,
        RequestError::Status { errcode, .. } if errcode == "M_TOO_LARGE" => FetchError::TooLarge,
        RequestError::Status { status: StatusCode::NOT_FOUND, .. } => FetchError::NotFound,
        error => FetchError::Failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_found_in_all_their_forms() {
        for (disposition, expected) in [
            ("inline; filename=a.png", Some("a.png")),
            ("attachment;FILENAME=\"a \\\"b\\\"; c.png\"; x=y", Some("a \"b\"; c.png")),
            ("attachment; filename=\"fallback\"; filename*=UTF-8''%e2%82%ac%20rates", Some("€ rates")),
            ("attachment; filename*=utf-8'en'x.txt; filename=y", Some("x.txt")),
            ("attachment; filename*=latin1''x; filename=y", Some("y")),
            ("attachment; filename*=utf-8''%zz; filename=y", Some("y")),
            ("attachment; filename*=utf-8''%ff", None),
            ("attachment; filename=\"open", Some("open")),
            ("attachment; filename=", None),
            ("attachment", None),
            ("", None),
        ] {
            assert_eq!(file_name(disposition).as_deref(), expected, "{disposition}");
        }
    }

    fn status(status: u16, errcode: &str) -> RequestError {
        let status = StatusCode::from_u16(status).unwrap();
        RequestError::Status { status, errcode: errcode.to_owned(), message: String::new(), body: ().into() }
    }

    #[test]
    fn only_servers_without_the_endpoint_are_asked_the_old_way() {
        for (code, errcode, old_way) in [
            (404, "M_UNRECOGNIZED", true),
            (404, "", true),
            (405, "", true),
            (400, "M_UNRECOGNIZED", true),
            (404, "M_NOT_FOUND", false),
            (400, "", false),
            (500, "M_UNRECOGNIZED", false),
            (429, "M_LIMIT_EXCEEDED", false),
        ] {
            assert_eq!(is_unknown_endpoint(&status(code, errcode)), old_way, "{code} {errcode}");
        }
        assert!(!is_unknown_endpoint(&TransportError::Timeout.into()));
    }

    #[test]
    fn refusals_are_told_apart() {
        for (error, expected) in [
            (status(404, "M_NOT_FOUND"), FetchError::NotFound),
            (status(504, "M_NOT_YET_UPLOADED"), FetchError::NotYetUploaded),
            (status(502, "M_TOO_LARGE"), FetchError::TooLarge),
            (TransportError::TooLarge(5).into(), FetchError::TooLarge),
        ] {
            assert_eq!(failed(error), expected);
        }
        assert!(matches!(failed(status(429, "M_LIMIT_EXCEEDED")), FetchError::Failed(_)));
    }

    #[test]
    fn the_bytes_alone_are_counted() {
        let read = |size_max| {
            let pieces = stream::iter([Ok(Bytes::from_static(b"abc")), Ok(Bytes::from_static(b"de"))]);
            futures::executor::block_on(bounded(pieces.boxed(), size_max).try_collect::<Vec<_>>())
        };
        assert!(read(5).is_ok());
        assert_eq!(read(4).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
