//! `multipart/mixed` as it comes (RFC 2046, section 5.1): heads and bounded memory, whatever the pieces are cut like.
//!
//! A body without its closing boundary is an error: what was cut off on the way must not pass for the whole.

use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use http::{HeaderMap, HeaderName, HeaderValue};
use memchr::memmem;

use crate::transport::{Pieces, TransportError};

/// A boundary (RFC 2046).
const BOUNDARY_SIZE_MAX: usize = 70;
/// What comes before the first boundary, which nobody reads.
const PREAMBLE_SIZE_MAX: usize = 8 * 1024;
/// All headers of one part.
const HEAD_SIZE_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;

#[derive(Clone, Debug, thiserror::Error)]
pub enum MultipartError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("the parts of the answer cannot be told apart: {0}")]
    Malformed(&'static str),
    #[error("the answer ends before its last part does")]
    CutOff,
}

/// The parts of a body, one after the other.
pub struct Multipart {
    body: Pieces,
    /// Read, not yet handed out.
    buffer: BytesMut,
    /// Line break, two hyphens, boundary.
    delimiter: Vec<u8>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Preamble,
    Content,
    /// The buffer starts with what follows a boundary.
    Boundary,
    End,
}

/// The boundary that a `Content-Type` of `multipart/mixed` names.
pub fn boundary(content_type: &str) -> Option<String> {
    let (kind, mut rest) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/mixed") {
        return None;
    }
    loop {
        let (name, value) = rest.split_once('=')?;
        let (value, after) = match value.trim_start().strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => value.split_at(value.find(';').unwrap_or(value.len())),
        };
        if name.trim().eq_ignore_ascii_case("boundary") {
            let value = value.trim();
            return is_boundary(value).then(|| value.to_owned());
        }
        rest = after.trim_start().strip_prefix(';')?;
    }
}

fn is_boundary(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&byte);
    !text.is_empty() && text.len() <= BOUNDARY_SIZE_MAX && text.bytes().all(allowed)
}

impl Multipart {
    pub fn new(body: Pieces, boundary: &str) -> Self {
        // The first boundary may be the very beginning: it is found like the others.
        let buffer = BytesMut::from(b"\r\n".as_slice());
        Self { body, buffer, delimiter: format!("\r\n--{boundary}").into_bytes(), state: State::Preamble }
    }

    /// The headers of the next part; `None` after the last. What was not read of this one is passed over.
    pub async fn next_part(&mut self) -> Result<Option<HeaderMap>, MultipartError> {
        let mut preamble = 0;
        while let Some(passed) = self.piece().await? {
            preamble += passed.len();
            if self.state == State::Preamble && preamble > PREAMBLE_SIZE_MAX {
                return Err(MultipartError::Malformed("there is no first part"));
            }
        }
        if self.state == State::End || self.is_last().await? {
            self.state = State::End;
            return Ok(None);
        }
        let head = self.head().await?;
        self.state = State::Content;
        Ok(Some(head))
    }

    /// The next bytes of this part; `None` at its end.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, MultipartError> {
        if matches!(self.state, State::Boundary | State::End) {
            return Ok(None);
        }
        loop {
            if let Some(at) = memmem::find(&self.buffer, &self.delimiter) {
                let piece = self.buffer.split_to(at).freeze();
                if piece.is_empty() {
                    drop(self.buffer.split_to(self.delimiter.len()));
                    self.state = State::Boundary;
                    return Ok(None);
                }
                return Ok(Some(piece));
            }
            // The end may be the beginning of a boundary.
            let certain = self.buffer.len().saturating_sub(self.delimiter.len() - 1);
            if certain > 0 {
                return Ok(Some(self.buffer.split_to(certain).freeze()));
            }
            self.fill().await?;
        }
    }

    /// Whether the boundary just passed is the closing one.
    async fn is_last(&mut self) -> Result<bool, MultipartError> {
        while self.buffer.len() < 2 {
            self.fill().await?;
        }
        Ok(self.buffer.starts_with(b"--"))
    }

    /// The rest of the boundary's line, and the headers up to the empty line.
    async fn head(&mut self) -> Result<HeaderMap, MultipartError> {
        loop {
            if let Some(at) = memmem::find(&self.buffer, b"\r\n\r\n") {
                let head = self.buffer.split_to(at + 4);
                // The last line's own break stays with it.
                return parse_head(&head[..at + 2]);
            }
            if self.buffer.len() > HEAD_SIZE_MAX {
                return Err(MultipartError::Malformed("the headers of a part are too long"));
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Result<(), MultipartError> {
        let piece = self.body.try_next().await?.ok_or(MultipartError::CutOff)?;
        self.buffer.extend_from_slice(&piece);
        Ok(())
    }
}

/// Lines, the first of which is the rest of the boundary's.
fn parse_head(head: &[u8]) -> Result<HeaderMap, MultipartError> {
    use MultipartError::Malformed;
    let text = std::str::from_utf8(head).map_err(|_| Malformed("a header is not text"))?;
    let mut lines = text.split_terminator("\r\n");
    if !lines.next().is_some_and(|rest| rest.trim_matches([' ', '\t']).is_empty()) {
        return Err(Malformed("a boundary is followed by something else"));
    }
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(Malformed("a header has no name"))?;
        let name: HeaderName = name.trim_end().parse().map_err(|_| Malformed("a header has no name"))?;
        let value = HeaderValue::from_str(value.trim()).map_err(|_| Malformed("a header has no value"))?;
        if headers.len() >= HEADERS_MAX {
            return Err(Malformed("a part has too many headers"));
        }
        headers.append(name, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt, executor::block_on, stream};
    use proptest::prelude::*;

    use super::*;

    type Part = (Vec<(String, String)>, Vec<u8>);

    fn pieces(body: &[u8], cuts: &[usize]) -> Pieces {
        let mut rest = Bytes::copy_from_slice(body);
        let mut pieces = Vec::new();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            pieces.push(Ok(rest.split_to((*cut).clamp(1, rest.len()))));
        }
        stream::iter(pieces).boxed()
    }

    fn read(body: &[u8], cuts: &[usize], boundary: &str) -> Result<Vec<Part>, MultipartError> {
        block_on(async {
            let mut multipart = Multipart::new(pieces(body, cuts), boundary);
            let mut parts = Vec::new();
            while let Some(head) = multipart.next_part().await? {
                let header = |(name, value): (&HeaderName, &HeaderValue)| {
                    (name.to_string(), value.to_str().unwrap_or_default().to_owned())
                };
                let mut content = Vec::new();
                while let Some(piece) = multipart.piece().await? {
                    assert!(!piece.is_empty());
                    content.extend_from_slice(&piece);
                }
                parts.push((head.iter().map(header).collect(), content));
            }
            Ok(parts)
        })
    }

    const USUAL: &[u8] = b"\r\n--x\r\nContent-Type: application/json\r\n\r\n{}\r\n--x\r\nContent-Type: text/plain\r\n\r\nhi\r\n--\r\n\r\n--x--\r\n";

    #[test]
    fn the_usual_answer_is_read_however_it_is_cut() {
        for cut in 1..USUAL.len() {
            let parts = read(USUAL, &[cut], "x").unwrap();
            assert_eq!(parts.len(), 2);
            assert_eq!(parts[0], (vec![("content-type".into(), "application/json".into())], b"{}".to_vec()));
            assert_eq!(parts[1].1, b"hi\r\n--\r\n");
        }
    }

    #[test]
    fn lenient_where_the_standard_is() {
        for (body, expected) in [
            ("--x\r\n\r\na\r\n--x--", vec!["a"]),
            ("preamble\r\n--x  \t\r\n\r\na\r\n--x--epilogue", vec!["a"]),
            ("--x\r\n\r\n\r\n--x--", vec![""]),
            ("--x\r\nA:b\r\n\r\n\r\n\r\n--x\r\n\r\n--\r\n--x--", vec!["\r\n", "--"]),
            ("--x--", vec![]),
        ] {
            let parts = read(body.as_bytes(), &[3], "x").unwrap();
            let contents: Vec<_> = parts.iter().map(|part| String::from_utf8_lossy(&part.1)).collect();
            assert_eq!(contents, expected, "{body:?}");
        }
    }

    #[test]
    fn what_is_cut_off_or_malformed_is_an_error() {
        for end in 0..USUAL.len() - 4 {
            assert!(matches!(read(&USUAL[..end], &[7], "x"), Err(MultipartError::CutOff)), "{end}");
        }
        let long_head = format!("--x\r\nA: {}", "b".repeat(3 * HEAD_SIZE_MAX));
        let many = format!("--x\r\n{}\r\n--x--", "A: b\r\n".repeat(HEADERS_MAX + 1));
        let preamble = "p".repeat(3 * PREAMBLE_SIZE_MAX);
        for body in [
            &*preamble,
            &*long_head,
            &*many,
            "--xy\r\n\r\na\r\n--x--",
            "--x\r\nnonsense\r\n\r\na\r\n--x--",
            "--x\r\n: a\r\n\r\na\r\n--x--",
            "--x\r\nA: \u{1}\r\n\r\na\r\n--x--",
        ] {
            assert!(
                matches!(read(body.as_bytes(), &[1000], "x"), Err(MultipartError::Malformed(_))),
                "{body:.60}"
            );
        }
        let failing = stream::iter([Ok(Bytes::from_static(b"--x\r\n\r\na")), Err(TransportError::Timeout)]);
        let mut multipart = Multipart::new(failing.boxed(), "x");
        let outcome = block_on(async {
            multipart.next_part().await?;
            while multipart.piece().await?.is_some() {}
            Ok(())
        });
        assert!(matches!(outcome, Err(MultipartError::Transport(TransportError::Timeout))));
    }

    #[test]
    fn boundaries_are_found_in_content_types() {
        for (content_type, expected) in [
            ("multipart/mixed; boundary=abc", Some("abc")),
            ("Multipart/Mixed;boundary=\"a b:c\"", Some("a b:c")),
            ("multipart/mixed; charset=\"x;y\"; Boundary=abc ; z=1", Some("abc")),
            ("multipart/mixed; charset=utf-8; boundary=abc", Some("abc")),
            ("multipart/form-data; boundary=abc", None),
            ("multipart/mixed", None),
            ("multipart/mixed; boundary=", None),
            ("multipart/mixed; boundary=\"abc", None),
            ("multipart/mixed; boundary=\"a\r\nb\"", None),
            ("multipart/mixed; boundary", None),
        ] {
            assert_eq!(boundary(content_type).as_deref(), expected, "{content_type}");
        }
        assert_eq!(boundary(&format!("multipart/mixed; boundary={}", "a".repeat(71))), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Contents are made of what boundaries are made of, so that much looks like one and is none.
        #[test]
        fn what_is_written_is_read(
            contents in prop::collection::vec(prop::collection::vec(prop::sample::select(b"\r\n-bo".to_vec()), 0..80), 1..4),
            cuts in prop::collection::vec(1_usize..20, 1..10),
        ) {
            let boundary = "bo-bob";
            let delimiter = format!("\r\n--{boundary}");
            prop_assume!(contents.iter().all(|content| {
                memmem::find(&[b"\r\n\r\n", &**content].concat(), delimiter.as_bytes()).is_none()
            }));
            let mut body = Vec::new();
            for content in &contents {
                body.extend_from_slice(format!("{delimiter}\r\nX-Y: z\r\n\r\n").as_bytes());
                body.extend_from_slice(content);
            }
            body.extend_from_slice(format!("{delimiter}--").as_bytes());
            let parts = read(&body, &cuts, boundary).unwrap();
            prop_assert_eq!(parts.into_iter().map(|part| part.1).collect::<Vec<_>>(), contents);
        }
    }
}
