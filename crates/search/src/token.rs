//! `next_batch` of a search: the last hit that was looked at, and the group that it goes on in.

use std::{fmt, str::FromStr};

use myelin_core::{RoomNid, UserNid};

use crate::{Error, collector::Hit};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    pub after: Hit,
    pub group: Option<Group>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    Room(RoomNid),
    Sender(UserNid),
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.after.key, self.after.event)?;
        match self.group {
            None => Ok(()),
            Some(Group::Room(RoomNid(nid))) => write!(f, "_r{nid}"),
            Some(Group::Sender(UserNid(nid))) => write!(f, "_u{nid}"),
        }
    }
}

impl FromStr for Token {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parse = || {
            let mut parts = text.split('_');
            let after = Hit { key: number(parts.next()?)?, event: number(parts.next()?)?, ..Hit::default() };
            let group = match parts.next().map(|group| group.split_at_checked(1)) {
                None => None,
                Some(Some(("r", nid))) => Some(Group::Room(RoomNid(number(nid)?))),
                Some(Some(("u", nid))) => Some(Group::Sender(UserNid(number(nid)?))),
                Some(_) => return None,
            };
            parts.next().is_none().then_some(Self { after, group })
        };
        parse().ok_or_else(|| Error::InvalidParam("next_batch is not a token of a search.".to_owned()))
    }
}

fn number(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_round_trip() {
        let after = Hit { key: 7, event: 9, ..Hit::default() };
        for group in [None, Some(Group::Room(RoomNid(3))), Some(Group::Sender(UserNid(4)))] {
            let token = Token { after, group };
            assert_eq!(token.to_string().parse::<Token>().ok(), Some(token));
        }
        for bad in ["", "1", "1_", "-1_2", "1_2_", "1_2_x3", "1_2_r", "1_2_r3_4", "s1_2", "1_2_é"] {
            let parsed = bad.parse::<Token>();
            assert!(parsed.is_err(), "{bad}: {parsed:?}");
        }
    }
}
