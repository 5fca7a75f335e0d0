//! Character references (HTML, "Named character references"): numbers, and the names that people write.

use encoding_rs::WINDOWS_1252;

/// From U+00A0 on.
const LATIN1: [&str; 96] = [
    "nbsp", "iexcl", "cent", "pound", "curren", "yen", "brvbar", "sect", "uml", "copy", "ordf", "laquo",
    "not", "shy", "reg", "macr", "deg", "plusmn", "sup2", "sup3", "acute", "micro", "para", "middot",
    "cedil", "sup1", "ordm", "raquo", "frac14", "frac12", "frac34", "iquest", "Agrave", "Aacute", "Acirc",
    "Atilde", "Auml", "Aring", "AElig", "Ccedil", "Egrave", "Eacute", "Ecirc", "Euml", "Igrave", "Iacute",
    "Icirc", "Iuml", "ETH", "Ntilde", "Ograve", "Oacute", "Ocirc", "Otilde", "Ouml", "times", "Oslash",
    "Ugrave", "Uacute", "Ucirc", "Uuml", "Yacute", "THORN", "szlig", "agrave", "aacute", "acirc", "atilde",
    "auml", "aring", "aelig", "ccedil", "egrave", "eacute", "ecirc", "euml", "igrave", "iacute", "icirc",
    "iuml", "eth", "ntilde", "ograve", "oacute", "ocirc", "otilde", "ouml", "divide", "oslash", "ugrave",
    "uacute", "ucirc", "uuml", "yacute", "thorn", "yuml",
];
const OTHERS: [(&str, char); 36] = [
    ("amp", '&'),
    ("lt", '<'),
    ("gt", '>'),
    ("quot", '"'),
    ("apos", '\''),
    ("num", '#'),
    ("excl", '!'),
    ("colon", ':'),
    ("comma", ','),
    ("period", '.'),
    ("lpar", '('),
    ("rpar", ')'),
    ("OElig", 'Œ'),
    ("oelig", 'œ'),
    ("Scaron", 'Š'),
    ("scaron", 'š'),
    ("Yuml", 'Ÿ'),
    ("ndash", '–'),
    ("mdash", '—'),
    ("lsquo", '‘'),
    ("rsquo", '’'),
    ("sbquo", '‚'),
    ("ldquo", '“'),
    ("rdquo", '”'),
    ("bdquo", '„'),
    ("dagger", '†'),
    ("bull", '•'),
    ("hellip", '…'),
    ("permil", '‰'),
    ("prime", '′'),
    ("lsaquo", '‹'),
    ("rsaquo", '›'),
    ("euro", '€'),
    ("trade", '™'),
    ("rarr", '→'),
    ("larr", '←'),
];
/// Longer references are none.
const REFERENCE_SIZE_MAX: usize = 12;

/// What is no reference stays as it is.
pub fn decode(text: &str) -> String {
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        let (before, after) = rest.split_at(at);
        decoded.push_str(before);
        let within = &after.as_bytes()[1..after.len().min(REFERENCE_SIZE_MAX)];
        let end = within.iter().position(|byte| *byte == b';').map(|end| end + 1);
        match end.and_then(|end| Some((end, referred(&after[1..end])?))) {
            Some((end, character)) => {
                decoded.push(character);
                rest = &after[end + 1..];
            }
            None => {
                decoded.push('&');
                rest = &after[1..];
            }
        }
    }
    decoded.push_str(rest);
    decoded
}

fn referred(name: &str) -> Option<char> {
    match name.strip_prefix('#') {
        Some(number) => match number.strip_prefix(['x', 'X']) {
            Some(hex) => numbered(u32::from_str_radix(hex, 16).ok()?),
            None => numbered(number.parse().ok()?),
        },
        None => {
            let latin1 = LATIN1.iter().position(|known| *known == name);
            let latin1 = latin1.and_then(|at| char::from_u32(u32::try_from(at).ok()? + 0xa0));
            latin1
                .or_else(|| OTHERS.iter().find(|(known, _)| *known == name).map(|(_, character)| *character))
        }
    }
}

fn numbered(number: u32) -> Option<char> {
    match u8::try_from(number) {
        Ok(0) => Some(char::REPLACEMENT_CHARACTER),
        // Numbers of control characters are meant as those of Windows.
        Ok(byte @ 0x80..=0x9f) => WINDOWS_1252.decode(&[byte]).0.chars().next(),
        _ => Some(char::from_u32(number).unwrap_or(char::REPLACEMENT_CHARACTER)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_decoded_and_the_rest_stays() {
        for (text, expected) in [
            ("", ""),
            ("a &amp; b &lt;c&gt;", "a & b <c>"),
            ("&eacute;&Eacute;&nbsp;&yuml;&hellip;&euro;", "éÉ\u{a0}ÿ…€"),
            ("&#233;&#xe9;&#XE9;&#128512;", "ééé😀"),
            ("&#146;&#0;&#xD800;&#x110000;", "’\u{fffd}\u{fffd}\u{fffd}"),
            ("&;&#;&#x;&#-5;&unknown;&amp", "&;&#;&#x;&#-5;&unknown;&amp"),
            ("?a=1&b=2;&ü;&&amp;", "?a=1&b=2;&ü;&&"),
            ("&#99999999999;", "&#99999999999;"),
        ] {
            assert_eq!(decode(text), expected, "{text}");
        }
    }

    #[test]
    fn names_are_where_they_belong() {
        let of = |name: &str| decode(&format!("&{name};"));
        for (name, character) in
            [("copy", "©"), ("szlig", "ß"), ("times", "×"), ("divide", "÷"), ("thorn", "þ")]
        {
            assert_eq!(of(name), character);
        }
    }
}
