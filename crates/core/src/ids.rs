//! Numeric ids and the orders of events.
//!
//! Three orders are kept apart by type (house rule): [`Position`] is the place of a change in the commit log,
//! [`TimelineOrder`] is the place of an event in its room's timeline as this server shows it (live events: their
//! position; events filled in from history: negative), and depth (an untrusted hint of the sender) stays a plain field
//! of a PDU.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! nid {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}:{}", stringify!($name), self.0)
            }
        }
    };
}

nid!(
    /// An interned user id, local or remote. 0 is never given out.
    UserNid
);
nid!(
    /// An interned room id. 0 is never given out; tables use it for "no room" (global account data).
    RoomNid
);
nid!(
    /// An interned event id: one per PDU that this server holds, whatever its verdict.
    EventNid
);
nid!(
    /// An interned `(type, state_key)` pair.
    StateKeyNid
);

impl EventNid {
    /// Stands for an event that is not known. Numbers are given out from 1.
    pub const NONE: Self = Self(0);
}

impl RoomNid {
    /// Stands for "no room" in keys that hold global and per-room data side by side.
    pub const GLOBAL: Self = Self(0);
}

/// The place of one log entry in the commit log; 1 is the first. Commit order is position order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Position(pub u64);

impl Position {
    pub const ZERO: Self = Self(0);
    /// Positions from here up are placeholders (see [`Position::of_entry`]).
    const PLACEHOLDERS: u64 = u64::MAX - u32::MAX as u64;

    /// Stands for "the position which entry `index` of this batch will get"; the store replaces it at commit
    /// wherever it occurs in a key or at the head of a `Stamped` value.
    pub const fn of_entry(index: u32) -> Self {
        Self(Self::PLACEHOLDERS + index as u64)
    }

    /// The entry index if this is a placeholder.
    pub const fn placeholder(self) -> Option<u32> {
        if self.0 >= Self::PLACEHOLDERS { Some((self.0 - Self::PLACEHOLDERS) as u32) } else { None }
    }

    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.placeholder() {
            Some(index) => write!(f, "Position:of_entry({index})"),
            None => write!(f, "Position:{}", self.0),
        }
    }
}

/// The place of an event in its room's timeline. Live events stand at the place of their log position; before each is
/// room for events that are filled in later ([`TimelineOrder::PLACES`]). What is filled in from before all that was held
/// gets negative numbers, counting down.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug)]
#[serde(transparent)]
pub struct TimelineOrder(pub i64);

impl TimelineOrder {
    pub const MIN: Self = Self(i64::MIN);
    pub const MAX: Self = Self(i64::MAX);
    /// From one position to the next.
    pub const PLACES: i64 = 1 << 20;

    /// The position if the event is live, i.e. was appended to the end of the timeline.
    pub fn position(self) -> Option<Position> {
        let live = self.0 >= 0 && self.0 % Self::PLACES == 0;
        live.then(|| Position((self.0 / Self::PLACES).unsigned_abs()))
    }

    /// The last live place that is before this one, whether anything stands there or not.
    #[must_use]
    pub fn live_before(self) -> Self {
        Self(self.0.saturating_sub(1).div_euclid(Self::PLACES).saturating_mul(Self::PLACES))
    }

    /// The first live place that is not before this one.
    #[must_use]
    pub fn live_from(self) -> Self {
        let before = self.live_before();
        if before.0 > i64::MAX - Self::PLACES { Self::MAX } else { Self(before.0 + Self::PLACES) }
    }
}

/// A placeholder position stays a placeholder (`i64::MAX - u32::MAX + index`).
impl From<Position> for TimelineOrder {
    fn from(position: Position) -> Self {
        match position.placeholder() {
            Some(index) => Self(i64::MAX - i64::from(u32::MAX) + i64::from(index)),
            None => {
                Self(i64::try_from(position.0).map_or(i64::MAX, |order| order.saturating_mul(Self::PLACES)))
            }
        }
    }
}

impl TimelineOrder {
    /// The entry index if this came from a placeholder position.
    pub fn placeholder(self) -> Option<u32> {
        let base = i64::MAX - i64::from(u32::MAX);
        (self.0 >= base && self.0 != i64::MAX).then(|| (self.0 - base) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn between_live_places_is_room() {
        let live = |n| TimelineOrder::from(Position(n));
        let filled = TimelineOrder(live(7).0 - 5);
        assert_eq!((live(7).position(), filled.position()), (Some(Position(7)), None));
        assert_eq!((filled.live_before(), filled.live_from()), (live(6), live(7)));
        assert_eq!((live(7).live_before(), live(7).live_from()), (live(6), live(7)));
        assert_eq!(TimelineOrder(-3).position(), None);
        assert_eq!(
            (TimelineOrder::MAX.live_from(), TimelineOrder(-3).live_from()),
            (TimelineOrder::MAX, live(0))
        );
        assert_eq!(live(u64::from(u32::MAX)).position(), Some(Position(u64::from(u32::MAX))));
        assert_eq!(TimelineOrder::from(Position::of_entry(3)).placeholder(), Some(3));
    }
}
