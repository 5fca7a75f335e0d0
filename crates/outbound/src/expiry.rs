//! For how long an HTTP answer may be kept (RFC 9111, as far as the well-known document needs it).

use http::{HeaderMap, header};

/// Milliseconds, if the answer says anything about it; 0 if it must not be kept.
pub fn lifetime_ms(headers: &HeaderMap, now_ms: u64) -> Option<u64> {
    from_cache_control(headers).or_else(|| from_expires(headers, now_ms))
}

fn from_cache_control(headers: &HeaderMap) -> Option<u64> {
    let values = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let directives: Vec<String> = values
        .flat_map(|value| value.split(','))
        .map(|directive| directive.trim().to_ascii_lowercase())
        .collect();
    if directives.iter().any(|directive| directive == "no-store" || directive == "no-cache") {
        return Some(0);
    }
    let seconds = directives.iter().find_map(|directive| directive.strip_prefix("max-age="))?;
    seconds.trim_matches('"').parse::<u64>().ok().map(|seconds| seconds.saturating_mul(1000))
}

/// A date that cannot be read is in the past.
fn from_expires(headers: &HeaderMap, now_ms: u64) -> Option<u64> {
    let value = headers.get(header::EXPIRES)?;
    let date = value.to_str().ok().and_then(|text| httpdate::parse_http_date(text).ok());
    let since_epoch =
        date.and_then(|date| date.duration_since(std::time::UNIX_EPOCH).ok()).unwrap_or_default();
    Some(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX).saturating_sub(now_ms))
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn headers_say_how_long() {
        // 784,111,777 s is the date below.
        let now = 784_111_777_000 - 60_000;
        for (expected, headers) in [
            (None, &[][..]),
            (Some(3_600_000), &[("cache-control", "public, Max-Age=3600")]),
            (Some(3_600_000), &[("cache-control", "public"), ("cache-control", "max-age=\"3600\"")]),
            (Some(0), &[("cache-control", "no-store, max-age=5")]),
            (Some(0), &[("cache-control", "no-cache")]),
            (None, &[("cache-control", "max-age=soon")]),
            (Some(60_000), &[("expires", "Sun, 06 Nov 1994 08:49:37 GMT")]),
            (Some(0), &[("expires", "0")]),
            (Some(0), &[("expires", "Sun, 06 Nov 1983 08:49:37 GMT")]),
            (Some(5_000), &[("expires", "Sun, 06 Nov 1994 08:49:37 GMT"), ("cache-control", "max-age=5")]),
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            assert_eq!(lifetime_ms(&map, now), expected, "{headers:?}");
        }
    }
}
