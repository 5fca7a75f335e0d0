//! Ranges and what a client holds already (RFC 9110, "Range Requests", "Conditional Requests"). One range per request;
//! whoever asks for several gets everything, as the RFC allows.

use std::ops::Range;

use http::{HeaderMap, HeaderName, HeaderValue, header};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    All,
    /// Not empty, and within the size.
    Part(Range<u64>),
    /// Nothing of what is asked for is there.
    Beyond,
}

/// What part of `size` bytes a request asks for.
pub fn asked(request: &HeaderMap, etag: Option<&HeaderValue>, size: u64) -> Asked {
    let Some(range) = text(request, header::RANGE) else { return Asked::All };
    // Of another version than the client holds a part of, it gets everything.
    if request.get(header::IF_RANGE).is_some_and(|condition| Some(condition) != etag) {
        return Asked::All;
    }
    parse(range, size)
}

/// Whether the client holds what it would get.
pub fn is_held(request: &HeaderMap, etag: &HeaderValue) -> bool {
    let Some(condition) = text(request, header::IF_NONE_MATCH) else { return false };
    let mut tags = condition.split(',').map(|tag| tag.trim().trim_start_matches("W/"));
    tags.any(|tag| tag == "*" || tag.as_bytes() == etag.as_bytes())
}

fn text(request: &HeaderMap, name: HeaderName) -> Option<&str> {
    request.get(name)?.to_str().ok()
}

fn parse(range: &str, size: u64) -> Asked {
    let Some((unit, spec)) = range.split_once('=') else { return Asked::All };
    let Some((first, last)) = spec.split_once('-') else { return Asked::All };
    if !unit.trim().eq_ignore_ascii_case("bytes") || spec.contains(',') {
        return Asked::All;
    }
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| saturating(text));
    match (first.trim(), last.trim()) {
        ("", "") => Asked::All,
        ("", suffix) => match number(suffix) {
            None => Asked::All,
            Some(0) => Asked::Beyond,
            Some(_) if size == 0 => Asked::Beyond,
            Some(length) => Asked::Part(size.saturating_sub(length)..size),
        },
        (first, last) => {
            let last = if last.is_empty() { Some(u64::MAX) } else { number(last) };
            match (number(first), last) {
                (Some(first), Some(last)) if first > last => Asked::All,
                (Some(first), Some(_)) if first >= size => Asked::Beyond,
                (Some(first), Some(last)) => Asked::Part(first..last.saturating_add(1).min(size)),
                _ => Asked::All,
            }
        }
    }
}

/// Digits as a number; too many of them are as many as there can be.
fn saturating(digits: &str) -> u64 {
    digits.parse().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_rfc_says() {
        for (range, expected) in [
            ("bytes=0-0", Asked::Part(0..1)),
            ("bytes=2-5", Asked::Part(2..6)),
            ("bytes=5-", Asked::Part(5..10)),
            ("bytes=5-99", Asked::Part(5..10)),
            ("bytes=-3", Asked::Part(7..10)),
            ("bytes=-30", Asked::Part(0..10)),
            ("Bytes = 1 - 2", Asked::Part(1..3)),
            ("bytes=0-99999999999999999999999", Asked::Part(0..10)),
            ("bytes=10-", Asked::Beyond),
            ("bytes=99999999999999999999999-", Asked::Beyond),
            ("bytes=-0", Asked::Beyond),
            ("bytes=5-2", Asked::All),
            ("bytes=0-1,3-4", Asked::All),
            ("bytes=-", Asked::All),
            ("bytes=a-b", Asked::All),
            ("bytes=+1-2", Asked::All),
            ("bytes", Asked::All),
            ("items=0-1", Asked::All),
        ] {
            assert_eq!(parse(range, 10), expected, "{range}");
        }
        assert_eq!(parse("bytes=0-", 0), Asked::Beyond);
        assert_eq!(parse("bytes=-1", 0), Asked::Beyond);
    }

    #[test]
    fn whatever_is_asked_for_lies_within() {
        let numbers =
            ["", "0", "1", "5", "9", "10", "11", "18446744073709551615", "18446744073709551616", "-1", "x"];
        for size in [0, 1, 10] {
            for first in numbers {
                for last in numbers {
                    if let Asked::Part(range) = parse(&format!("bytes={first}-{last}"), size) {
                        assert!(
                            range.start < range.end && range.end <= size,
                            "{first}-{last} of {size}: {range:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn conditions_compare_tags() {
        let tag = HeaderValue::from_static("\"abc\"");
        let with = |name: HeaderName, value: &'static str| {
            HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
        };
        for (condition, held) in
            [("\"abc\"", true), ("W/\"abc\"", true), ("\"x\", \"abc\"", true), ("*", true), ("\"x\"", false)]
        {
            assert_eq!(is_held(&with(header::IF_NONE_MATCH, condition), &tag), held, "{condition}");
        }
        assert!(!is_held(&HeaderMap::new(), &tag));
        for (condition, expected) in [("\"abc\"", Asked::Part(0..1)), ("\"x\"", Asked::All)] {
            let mut request = with(header::IF_RANGE, condition);
            request.insert(header::RANGE, HeaderValue::from_static("bytes=0-0"));
            assert_eq!(asked(&request, Some(&tag), 10), expected);
        }
    }
}
