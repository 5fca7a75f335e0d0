//! Strings of canonical JSON: only `"`, `\` and control characters are escaped, in the shortest way.

use std::{borrow::Cow, cmp::Ordering};

/// Appends `text` as a JSON string with its quotes.
pub fn push_json_string(out: &mut String, text: &str) {
    out.push('"');
    push_escaped(out, text);
    out.push('"');
}

fn push_escaped(out: &mut String, text: &str) {
    let mut rest = text;
    while let Some(at) = rest.bytes().position(needs_escape) {
        out.push_str(&rest[..at]);
        push_escape(out, rest.as_bytes()[at]);
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
}

pub fn push_char(out: &mut String, c: char) {
    match u8::try_from(c) {
        Ok(byte) if needs_escape(byte) => push_escape(out, byte),
        _ => out.push(c),
    }
}

pub fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

fn push_escape(out: &mut String, byte: u8) {
    let short = match byte {
        0x08 => "\\b",
        b'\t' => "\\t",
        b'\n' => "\\n",
        0x0c => "\\f",
        b'\r' => "\\r",
        b'"' => "\\\"",
        b'\\' => "\\\\",
        _ => return push_unicode_escape(out, byte),
    };
    out.push_str(short);
}

fn push_unicode_escape(out: &mut String, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push_str("\\u00");
    out.push(char::from(HEX[usize::from(byte >> 4)]));
    out.push(char::from(HEX[usize::from(byte & 15)]));
}

/// Compares two escaped strings by the code points that they stand for.
pub fn compare_escaped(a: &str, b: &str) -> Ordering {
    if a.contains('\\') || b.contains('\\') { unescape(a).cmp(&unescape(b)) } else { a.cmp(b) }
}

/// What a string in *canonical* escaping stands for.
pub fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('b') => out.push('\u{8}'),
            Some('t') => out.push('\t'),
            Some('n') => out.push('\n'),
            Some('f') => out.push('\u{c}'),
            Some('r') => out.push('\r'),
            Some('u') => {
                let code =
                    chars.by_ref().take(4).fold(0, |n, digit| n * 16 + digit.to_digit(16).unwrap_or(0));
                out.extend(char::from_u32(code));
            }
            other => out.extend(other),
        }
    }
    Cow::Owned(out)
}
