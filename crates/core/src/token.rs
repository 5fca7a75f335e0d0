//! Tokens that clients carry: `since` / `next_batch` and the pagination tokens.
//!
//! One token, not a tuple of ten streams (DESIGN 1): a version letter, a log position and the ephemeral sequence
//! (typing, presence), which starts from the clock at boot and so never goes back.

use std::{fmt, str::FromStr};

use crate::ids::{Position, TimelineOrder};

/// `s<position>_<ephemeral>`: everything up to `position` has been seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SyncToken {
    pub position: Position,
    /// Ephemeral sequence number; see `myelin_view::ephemeral`.
    pub ephemeral: u64,
}

/// `t<order>`: a gap in a timeline *just after* the event at `order`. Paginating backwards from it yields events
/// with order <= it, forwards those with order > it, so a token means the same in both directions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimelineToken(pub TimelineOrder);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("'{0}' is not a token that this server gave out")]
pub struct TokenError(String);

impl fmt::Display for SyncToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}_{}", self.position.0, self.ephemeral)
    }
}

impl FromStr for SyncToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let parse = || {
            let (position, ephemeral) = text.strip_prefix('s')?.split_once('_')?;
            let position = Position(number(position)?);
            position.placeholder().is_none().then_some(())?;
            Some(Self { position, ephemeral: number(ephemeral)? })
        };
        parse().ok_or_else(|| TokenError(text.chars().take(64).collect()))
    }
}

impl fmt::Display for TimelineToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}", self.0.0)
    }
}

/// Accepts a [`SyncToken`] too: its position is a gap in every timeline.
impl FromStr for TimelineToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        if let Ok(token) = text.parse::<SyncToken>() {
            return Ok(Self(token.position.into()));
        }
        let order = text.strip_prefix('t').and_then(|n| n.parse().ok());
        order.map(|n| Self(TimelineOrder(n))).ok_or_else(|| TokenError(text.chars().take(64).collect()))
    }
}

/// Digits only: `u64::from_str` would also take a sign.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_round_trip() {
        let token = SyncToken { position: Position(42), ephemeral: 7 };
        assert_eq!(token.to_string().parse(), Ok(token));
        assert_eq!("s42_7".parse(), Ok(TimelineToken(TimelineOrder(42))));
        for order in [-5, 0, 9] {
            let token = TimelineToken(TimelineOrder(order));
            assert_eq!(token.to_string().parse(), Ok(token));
        }
    }

    #[test]
    fn foreign_tokens_are_refused() {
        for bad in ["", "s", "s1", "s-1_0", "s+1_0", "s18446744073709551615_0", "x1_2", "t", "t1.5"] {
            assert!(bad.parse::<SyncToken>().is_err(), "{bad}");
        }
    }
}
