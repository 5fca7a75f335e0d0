//! `Content-Disposition`: what a browser may show, and the name of the file (Client-Server API, "Serving inline content";
//! RFC 6266, RFC 8187).

use std::fmt::Write;

/// Types that a browser may show: none of them is a document that runs scripts.
const INLINE: [&str; 26] = [
    "text/css",
    "text/plain",
    "text/csv",
    "application/json",
    "application/ld+json",
    "image/jpeg",
    "image/gif",
    "image/png",
    "image/apng",
    "image/webp",
    "image/avif",
    "video/mp4",
    "video/webm",
    "video/ogg",
    "video/quicktime",
    "audio/mp4",
    "audio/webm",
    "audio/aac",
    "audio/mpeg",
    "audio/ogg",
    "audio/wave",
    "audio/wav",
    "audio/x-wav",
    "audio/x-pn-wav",
    "audio/flac",
    "audio/x-flac",
];

pub fn header(content_type: &str, file_name: Option<&str>) -> String {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let mut out = if INLINE.contains(&essence.as_str()) { "inline" } else { "attachment" }.to_owned();
    let Some(file_name) = file_name else { return out };
    if file_name.bytes().all(is_plain) {
        // Writing to a string cannot fail.
        let _ = write!(out, "; filename={file_name}");
    } else if file_name.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        let quoted = file_name.replace('\\', "\\\\").replace('"', "\\\"");
        let _ = write!(out, "; filename=\"{quoted}\"");
    } else {
        out.push_str("; filename*=utf-8''");
        for byte in file_name.bytes() {
            match byte {
                byte if is_plain(byte) => out.push(char::from(byte)),
                byte => drop(write!(out, "%{byte:02X}")),
            }
        }
    }
    out
}

/// Needs neither quotes nor escapes: `attr-char` of RFC 8187, which is less than `token`.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::header;

    #[test]
    fn only_harmless_types_are_shown() {
        for (content_type, shown) in [
            ("image/png", true),
            ("Image/PNG", true),
            ("text/plain; charset=utf-8", true),
            ("text/html", false),
            ("image/svg+xml", false),
            ("application/xhtml+xml", false),
            ("application/octet-stream", false),
            ("image/png2", false),
            ("", false),
        ] {
            let expected = if shown { "inline" } else { "attachment" };
            assert_eq!(header(content_type, None), expected, "{content_type}");
        }
    }

    #[test]
    fn names_are_escaped() {
        for (name, expected) in [
            ("cat.png", "inline; filename=cat.png"),
            ("my cat.png", "inline; filename=\"my cat.png\""),
            ("a\"b\\c", "inline; filename=\"a\\\"b\\\\c\""),
            ("a;b", "inline; filename=\"a;b\""),
            ("Kätzchen 1.png", "inline; filename*=utf-8''K%C3%A4tzchen%201.png"),
        ] {
            assert_eq!(header("image/png", Some(name)), expected);
        }
    }
}
