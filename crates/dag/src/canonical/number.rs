//! What numbers may be, and how they are written.

use myelin_core::limits::JSON_INTEGER_MAX;

use super::JsonError;

/// Longer integers are beyond the range of a double, and so of most parsers.
pub const INTEGER_LENGTH_MAX: usize = 308;

#[derive(Clone, Copy)]
pub enum Numbers {
    /// Any, as they are.
    Any,
    /// Integers of 54 bits, no fractions, exponents or `-0` (specification appendices, "Canonical JSON").
    Canonical,
    /// Any, written as Python writes them: that is what rooms of versions 1 to 5 have been signed over. Integers have at
    /// most so many digits.
    Lenient { length_max: usize },
}

impl Numbers {
    /// Appends `text`, a number of JSON that begins at byte `at`.
    pub fn push(self, out: &mut String, text: &str, at: usize, is_integer: bool) -> Result<(), JsonError> {
        match self {
            Self::Any => out.push_str(text),
            Self::Canonical => {
                check_integer(text, at, is_integer)?;
                out.push_str(text);
            }
            Self::Lenient { length_max } if is_integer => match text {
                "-0" => out.push('0'),
                _ if text.len() > length_max => return Err(JsonError::NumberTooLarge { at }),
                _ => out.push_str(text),
            },
            Self::Lenient { .. } => match text.parse::<f64>() {
                Ok(float) if float.is_finite() => push_float(out, float),
                _ => return Err(JsonError::NumberTooLarge { at }),
            },
        }
        Ok(())
    }
}

fn check_integer(text: &str, at: usize, is_integer: bool) -> Result<(), JsonError> {
    if !is_integer || text == "-0" {
        return Err(JsonError::NotAnInteger { at });
    }
    match text.parse::<i64>() {
        Ok(n) if n.unsigned_abs() <= JSON_INTEGER_MAX.unsigned_abs() => Ok(()),
        _ => Err(JsonError::IntegerOutOfRange { at }),
    }
}

/// Python's `repr`: the shortest digits that mean this number, with an exponent below 1e-4 and from 1e16 on.
fn push_float(out: &mut String, float: f64) {
    let text = format!("{float:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let digits = mantissa.trim_start_matches('-').replace('.', "");
    if mantissa.starts_with('-') {
        out.push('-');
    }
    match usize::try_from(exponent) {
        Ok(exponent) if exponent < 16 => push_positional(out, &digits, exponent + 1),
        Err(_) if exponent >= -4 => {
            out.push_str("0.");
            (1..exponent.unsigned_abs()).for_each(|_| out.push('0'));
            out.push_str(&digits);
        }
        _ => push_scientific(out, &digits, exponent),
    }
}

/// `point` digits stand before the point.
fn push_positional(out: &mut String, digits: &str, point: usize) {
    let (whole, fraction) = digits.split_at(point.min(digits.len()));
    out.push_str(whole);
    (whole.len()..point).for_each(|_| out.push('0'));
    out.push('.');
    out.push_str(if fraction.is_empty() { "0" } else { fraction });
}

fn push_scientific(out: &mut String, digits: &str, exponent: i32) {
    let (first, rest) = digits.split_at(1);
    out.push_str(first);
    if !rest.is_empty() {
        out.push('.');
        out.push_str(rest);
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    out.push_str(&format!("e{sign}{:02}", exponent.unsigned_abs()));
}

#[cfg(test)]
mod tests {
    use ruma::room_version_rules::AuthorizationRules;

    use super::super::{JsonError, canonicalize_for};

    fn lenient(text: &str) -> Result<String, JsonError> {
        canonicalize_for(&AuthorizationRules::V1, text.as_bytes())
    }

    /// The right-hand sides are Python's.
    #[test]
    fn numbers_of_old_rooms_are_written_as_python_writes_them() {
        for (text, expected) in [
            ("0.0", "0.0"),
            ("-0.0", "-0.0"),
            ("-0", "0"),
            ("1e15", "1000000000000000.0"),
            ("1e16", "1e+16"),
            ("1.50", "1.5"),
            ("1e2", "100.0"),
            ("0.0001", "0.0001"),
            ("0.00001", "1e-05"),
            ("0.00123", "0.00123"),
            ("1.5E300", "1.5e+300"),
            ("123456789.125", "123456789.125"),
            ("5e-324", "5e-324"),
            ("1.7976931348623157e308", "1.7976931348623157e+308"),
            ("5.114698E4", "51146.98"),
            ("1e22", "1e+22"),
            ("-2.5e-7", "-2.5e-07"),
            ("9007199254740993.0", "9007199254740992.0"),
            ("1e-999", "0.0"),
            ("9007199254740993", "9007199254740993"),
            ("-123456789012345678901234567890", "-123456789012345678901234567890"),
        ] {
            assert_eq!(lenient(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_no_parser_can_hold_is_refused() {
        for text in ["1e309".to_owned(), "-1.5e999".to_owned(), "1".repeat(309)] {
            assert_eq!(lenient(&text), Err(JsonError::NumberTooLarge { at: 0 }), "{text}");
        }
        assert!(lenient(&"9".repeat(308)).is_ok());
    }

    #[test]
    fn from_version_6_on_only_canonical_integers_are_taken() {
        for text in ["1.5", "9007199254740992", "-0"] {
            assert!(canonicalize_for(&AuthorizationRules::V6, text.as_bytes()).is_err(), "{text}");
            assert!(lenient(text).is_ok());
        }
    }
}
