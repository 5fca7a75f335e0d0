//! Tokens that clients carry: `since` / `next_batch` and the pagination tokens.
//!
//! One token, not a tuple of ten streams (DESIGN 1): a version letter, a log position and the ephemeral sequence
//! (typing, presence), which starts from the clock at boot and so never goes back.

use std::{fmt, str::FromStr};

use crate::ids::{Position, TimelineOrder};

/// `s<position>_<ephemeral>`: everything up to `position` has been seen. `s<position>_<ephemeral>_<to_device>`: but of the
/// to-device messages only those up to `to_device`, because there were too many for one answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SyncToken {
    pub position: Position,
    /// Ephemeral sequence number; see `myelin_view::ephemeral`.
    pub ephemeral: u64,
    /// `None`: the same as `position`.
    pub to_device: Option<Position>,
}

impl SyncToken {
    /// Up to where the device has its to-device messages.
    pub fn to_device_seen(&self) -> Position {
        self.to_device.unwrap_or(self.position)
    }
}

/// `t<order>`: a gap in a timeline *just after* the event at `order`. Paginating backwards from it yields events
/// with order <= it, forwards those with order > it, so a token means the same in both directions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimelineToken(pub TimelineOrder);

/// `p<state>_<owner>_<position>_<ephemeral>`: a position of a sliding sync connection (MSC4186): everything up to `position`
/// has been seen of what the connection's state says that it is told of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlidingToken {
    /// Number of the connection's state; 0 is the empty one, of which nothing is stored.
    pub state: u64,
    /// Of user, device and connection, so that one that was given to somebody else is noticed.
    pub owner: u32,
    pub position: Position,
    pub ephemeral: u64,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("'{0}' is not a token that this server gave out")]
pub struct TokenError(String);

impl fmt::Display for SyncToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}_{}", self.position.0, self.ephemeral)?;
        self.to_device.map_or(Ok(()), |seen| write!(f, "_{}", seen.0))
    }
}

impl FromStr for SyncToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let parse = || {
            let (position, rest) = text.strip_prefix('s')?.split_once('_')?;
            let (ephemeral, to_device) = rest.split_once('_').map_or((rest, None), |(e, t)| (e, Some(t)));
            let to_device = to_device.map(|seen| placed(seen).ok_or(())).transpose().ok()?;
            Some(Self { position: placed(position)?, ephemeral: number(ephemeral)?, to_device })
        };
        parse().ok_or_else(|| TokenError(text.chars().take(64).collect()))
    }
}

impl fmt::Display for SlidingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}_{}_{}_{}", self.state, self.owner, self.position.0, self.ephemeral)
    }
}

impl FromStr for SlidingToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let parse = || {
            let mut parts = text.strip_prefix('p')?.split('_');
            let token = Self {
                state: number(parts.next()?)?,
                owner: number(parts.next()?)?.try_into().ok()?,
                position: placed(parts.next()?)?,
                ephemeral: number(parts.next()?)?,
            };
            parts.next().is_none().then_some(token)
        };
        parse().ok_or_else(|| TokenError(text.chars().take(64).collect()))
    }
}

impl fmt::Display for TimelineToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}", self.0.0)
    }
}

/// Accepts a [`SyncToken`] and a [`SlidingToken`] too: their position is a gap in every timeline.
impl FromStr for TimelineToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        if let Ok(token) = text.parse::<SyncToken>() {
            return Ok(Self(token.position.into()));
        }
        if let Ok(token) = text.parse::<SlidingToken>() {
            return Ok(Self(token.position.into()));
        }
        let order = text.strip_prefix('t').and_then(|n| n.parse().ok());
        order.map(|n| Self(TimelineOrder(n))).ok_or_else(|| TokenError(text.chars().take(64).collect()))
    }
}

fn placed(text: &str) -> Option<Position> {
    number(text).map(Position).filter(|position| position.placeholder().is_none())
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
        let token = SyncToken { position: Position(42), ephemeral: 7, to_device: None };
        assert_eq!(token.to_string().parse(), Ok(token));
        let behind = SyncToken { to_device: Some(Position(9)), ..token };
        assert_eq!((behind.to_string().as_str(), behind.to_string().parse()), ("s42_7_9", Ok(behind)));
        assert_eq!((token.to_device_seen(), behind.to_device_seen()), (Position(42), Position(9)));
        assert_eq!("s42_7".parse(), Ok(TimelineToken(Position(42).into())));
        let sliding = SlidingToken { state: 7, owner: u32::MAX, position: Position(42), ephemeral: 3 };
        assert_eq!(sliding.to_string().parse(), Ok(sliding));
        assert_eq!(sliding.to_string().parse(), Ok(TimelineToken(Position(42).into())));
        for order in [-5, 0, 9] {
            let token = TimelineToken(TimelineOrder(order));
            assert_eq!(token.to_string().parse(), Ok(token));
        }
    }

    #[test]
    fn foreign_tokens_are_refused() {
        for bad in [
            "",
            "s",
            "s1",
            "s-1_0",
            "s+1_0",
            "s18446744073709551615_0",
            "s1_2_",
            "s1_2_x",
            "s1_2_3_4",
            "x1_2",
            "t",
            "t1.5",
        ] {
            assert!(bad.parse::<SyncToken>().is_err(), "{bad}");
        }
        for bad in [
            "",
            "p",
            "p1_2_3",
            "p1_2_3_4_5",
            "p1_4294967296_3_4",
            "p-1_2_3_4",
            "p1_2_18446744073709551615_0",
            "s1_2",
        ] {
            assert!(bad.parse::<SlidingToken>().is_err(), "{bad}");
        }
    }
}
