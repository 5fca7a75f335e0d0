//! Sizes in bytes and days of the calendar.

use super::{
    problem::Problem,
    tree::Node,
    value::{FromNode, text},
};

/// A number of bytes, written with a unit: `512KiB`, `100MiB`, `10GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteSize(pub u64);

/// The beginning of a day, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date {
    /// Milliseconds since the Unix epoch.
    pub start_ms: u64,
}

impl FromNode for ByteSize {
    const EXPECTS: &'static str = "a size, like \"100MiB\"";

    fn from_node(node: &Node) -> Result<Self, Problem> {
        let written = text::<Self>(node)?;
        let message =
            || format!("'{written}' is not a size; write a number and B, KiB, MiB or GiB, like 100MiB");
        parse_size(written).map(Self).ok_or_else(|| Problem::new(&node.origin, message()))
    }
}

impl FromNode for Date {
    const EXPECTS: &'static str = "a day, like \"2026-01-31\"";

    fn from_node(node: &Node) -> Result<Self, Problem> {
        let written = text::<Self>(node)?;
        let message = || format!("'{written}' is not a day; write year, month and day, like 2026-01-31");
        let start_ms = parse_date(written).ok_or_else(|| Problem::new(&node.origin, message()))?;
        Ok(Self { start_ms })
    }
}

fn parse_size(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit: u64 = match unit.trim() {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

fn parse_date(text: &str) -> Option<u64> {
    let shape = text.len() == 10
        && text.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    let mut parts = text.split('-').map(|part| part.parse::<u64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    if !shape || year < 1970 || !(1..=12).contains(&month) || day == 0 || day > days_of(year, month) {
        return None;
    }
    let years = (1970..year).map(|year| if is_leap(year) { 366 } else { 365 });
    let months = (1..month).map(|month| days_of(year, month));
    let days = years.sum::<u64>() + months.sum::<u64>() + day - 1;
    Some(days * 24 * 60 * 60 * 1000)
}

fn days_of(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, expected) in [
            ("0B", Some(0)),
            ("512KiB", Some(524_288)),
            ("100 MiB", Some(104_857_600)),
            ("1GiB", Some(1 << 30)),
        ] {
            assert_eq!(parse_size(text), expected, "{text}");
        }
        for bad in
            ["", "5", "MiB", "-5MiB", "1MB", "1.5GiB", "99999999999999999999B", "18446744073709551615TiB"]
        {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        for (text, days) in
            [("1970-01-01", 0), ("1970-12-31", 364), ("2000-03-01", 11_017), ("2026-01-01", 20_454)]
        {
            assert_eq!(parse_date(text), Some(days * 86_400_000), "{text}");
        }
        for bad in [
            "",
            "2026",
            "2026-13-01",
            "2026-02-29",
            "2026-00-01",
            "2026-01-00",
            "1969-12-31",
            "2026-1-1",
            "+026-01-01",
        ] {
            assert_eq!(parse_date(bad), None, "{bad}");
        }
    }
}
