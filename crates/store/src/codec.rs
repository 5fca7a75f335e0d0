//! Keys and values as bytes.
//!
//! Keys preserve order: integers big-endian, signed integers with the sign bit flipped, strings ended by `00 01` with
//! inner NULs escaped as `00 ff` (an end of one byte would be mistaken for an escape before a hash that starts with
//! `ff`). Values are one version byte and a postcard body; see [`Record`].

use myelin_core::{EventNid, Position, RoomNid, StateKeyNid, TimelineOrder, UserNid};
use serde::{Serialize, de::DeserializeOwned};

use crate::backend::{Stamp, Stamped};

pub type DecodeResult<T> = Result<T, String>;

/// A component of a key, or a whole one.
pub trait KeyPart: Sized {
    fn encode(&self, out: &mut Stamped);
    /// Takes its bytes from the front of `input`.
    fn decode(input: &mut &[u8]) -> DecodeResult<Self>;

    fn to_key(&self) -> Stamped {
        let mut out = Stamped::default();
        self.encode(&mut out);
        out
    }
}

/// A value of a table.
pub trait Value: Sized {
    fn encode(&self) -> Stamped;
    fn decode(bytes: &[u8]) -> DecodeResult<Self>;
}

/// A struct stored as `version byte, postcard`. When its layout changes: raise `VERSION` and convert in
/// `decode_older`.
pub trait Record: Serialize + DeserializeOwned {
    const VERSION: u8 = 1;

    fn decode_older(version: u8, _body: &[u8]) -> DecodeResult<Self> {
        Err(format!("value version {version} is unknown, expected {}", Self::VERSION))
    }
}

impl<T: Record> Value for T {
    fn encode(&self) -> Stamped {
        // Invariant: records hold no maps with non-string keys or other things that postcard refuses.
        let bytes =
            postcard::to_extend(self, vec![T::VERSION]).expect("records are encodable by construction");
        Stamped { bytes, stamps: Vec::new() }
    }

    fn decode(bytes: &[u8]) -> DecodeResult<Self> {
        let (version, body) = bytes.split_first().ok_or("empty value")?;
        if *version == T::VERSION {
            postcard::from_bytes(body).map_err(|e| e.to_string())
        } else {
            T::decode_older(*version, body)
        }
    }
}

/// A record that knows the position of the commit that wrote it: `8 bytes position, value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AtPosition<V> {
    pub position: Position,
    pub value: V,
}

impl<V: Record> Value for AtPosition<V> {
    fn encode(&self) -> Stamped {
        let mut out = Stamped::default();
        self.position.encode(&mut out);
        out.bytes.extend(self.value.encode().bytes);
        out
    }

    fn decode(mut bytes: &[u8]) -> DecodeResult<Self> {
        let position = Position::decode(&mut bytes)?;
        Ok(Self { position, value: V::decode(bytes)? })
    }
}

/// Raw bytes without a version, for values whose own format is versioned (state tree nodes, bitmaps).
impl Value for Vec<u8> {
    fn encode(&self) -> Stamped {
        Stamped { bytes: self.clone(), stamps: Vec::new() }
    }

    fn decode(bytes: &[u8]) -> DecodeResult<Self> {
        Ok(bytes.to_vec())
    }
}

/// Sets: the key says it all.
impl Value for () {
    fn encode(&self) -> Stamped {
        Stamped::default()
    }

    fn decode(_: &[u8]) -> DecodeResult<Self> {
        Ok(())
    }
}

macro_rules! nid_value {
    ($($name:ident),*) => {$(
        impl Value for $name {
            fn encode(&self) -> Stamped {
                Stamped { bytes: self.0.to_be_bytes().to_vec(), stamps: Vec::new() }
            }

            fn decode(mut bytes: &[u8]) -> DecodeResult<Self> {
                <Self as KeyPart>::decode(&mut bytes)
            }
        }

        impl KeyPart for $name {
            fn encode(&self, out: &mut Stamped) {
                out.bytes.extend(self.0.to_be_bytes());
            }

            fn decode(input: &mut &[u8]) -> DecodeResult<Self> {
                take_u64(input).map($name)
            }
        }
    )*};
}
nid_value!(UserNid, RoomNid, EventNid, StateKeyNid);

impl KeyPart for Position {
    fn encode(&self, out: &mut Stamped) {
        if let Some(entry) = self.placeholder() {
            out.stamps.push(Stamp { offset: out.bytes.len() as u32, entry, signed: false });
        }
        out.bytes.extend(self.0.to_be_bytes());
    }

    fn decode(input: &mut &[u8]) -> DecodeResult<Self> {
        take_u64(input).map(Self)
    }
}

impl KeyPart for TimelineOrder {
    fn encode(&self, out: &mut Stamped) {
        if let Some(entry) = self.placeholder() {
            out.stamps.push(Stamp { offset: out.bytes.len() as u32, entry, signed: true });
        }
        out.bytes.extend(((self.0 as u64) ^ (1 << 63)).to_be_bytes());
    }

    fn decode(input: &mut &[u8]) -> DecodeResult<Self> {
        take_u64(input).map(|n| Self((n ^ (1 << 63)) as i64))
    }
}

impl KeyPart for u64 {
    fn encode(&self, out: &mut Stamped) {
        out.bytes.extend(self.to_be_bytes());
    }

    fn decode(input: &mut &[u8]) -> DecodeResult<Self> {
        take_u64(input)
    }
}

impl KeyPart for u8 {
    fn encode(&self, out: &mut Stamped) {
        out.bytes.push(*self);
    }

    fn decode(input: &mut &[u8]) -> DecodeResult<Self> {
        let (first, rest) = input.split_first().ok_or("key is too short")?;
        *input = rest;
        Ok(*first)
    }
}

impl<const N: usize> KeyPart for [u8; N] {
    fn encode(&self, out: &mut Stamped) {
        out.bytes.extend(self);
    }

    fn decode(input: &mut &[u8]) -> DecodeResult<Self> {
        let (head, rest) = input.split_first_chunk::<N>().ok_or("key is too short")?;
        *input = rest;
        Ok(*head)
    }
}

/// What follows a NUL byte in a string of a key. The end sorts first, so that a string sorts before those it begins.
const STRING_END: u8 = 0x01;
const ESCAPED_NUL: u8 = 0xff;

impl KeyPart for String {
    fn encode(&self, out: &mut Stamped) {
        out.bytes.reserve(self.len() + 2);
        for byte in self.bytes() {
            out.bytes.push(byte);
            if byte == 0 {
                out.bytes.push(ESCAPED_NUL);
            }
        }
        out.bytes.extend([0, STRING_END]);
    }

    fn decode(input: &mut &[u8]) -> DecodeResult<Self> {
        let mut text = Vec::new();
        loop {
            let (byte, rest) = input.split_first().ok_or("string in a key has no end")?;
            *input = rest;
            if *byte == 0 {
                let (mark, rest) = input.split_first().ok_or("string in a key has no end")?;
                *input = rest;
                match *mark {
                    STRING_END => break,
                    ESCAPED_NUL => {}
                    other => return Err(format!("byte {other} after a NUL in a string of a key")),
                }
            }
            text.push(*byte);
        }
        String::from_utf8(text).map_err(|e| e.to_string())
    }
}

macro_rules! tuple_key {
    ($($name:ident),+) => {
        impl<$($name: KeyPart),+> KeyPart for ($($name,)+) {
            #[expect(non_snake_case, reason = "type parameters name the fields")]
            fn encode(&self, out: &mut Stamped) {
                let ($($name,)+) = self;
                $($name.encode(out);)+
            }

            fn decode(input: &mut &[u8]) -> DecodeResult<Self> {
                Ok(($($name::decode(input)?,)+))
            }
        }
    };
}
tuple_key!(A, B);
tuple_key!(A, B, C);
tuple_key!(A, B, C, D);
tuple_key!(A, B, C, D, E);

fn take_u64(input: &mut &[u8]) -> DecodeResult<u64> {
    <[u8; 8]>::decode(input).map(u64::from_be_bytes)
}

/// The smallest byte string greater than every string that starts with `prefix`; `None` if there is none.
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let keep = prefix.iter().rposition(|b| *b != 0xff)?;
    let mut end = prefix[..=keep].to_vec();
    end[keep] += 1;
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key<K: KeyPart>(k: K) -> Vec<u8> {
        k.to_key().bytes
    }

    #[test]
    fn keys_keep_the_order_of_what_they_encode() {
        assert!(key(TimelineOrder(-1)) < key(TimelineOrder(0)));
        assert!(key(TimelineOrder(0)) < key(TimelineOrder(1)));
        assert!(key(("a".to_owned(), 9_u64)) < key(("a\0".to_owned(), 0_u64)));
        assert!(key(("a".to_owned(), 9_u64)) < key(("ab".to_owned(), 0_u64)));
    }

    #[test]
    fn strings_with_nul_survive() {
        let original = ("a\0b".to_owned(), "\0".to_owned());
        let bytes = key(original.clone());
        assert_eq!(<(String, String)>::decode(&mut bytes.as_slice()), Ok(original));
    }

    #[test]
    fn strings_end_where_they_end_whatever_follows() {
        for first in 0..=u8::MAX {
            let original = (UserNid(1), "DEVICE".to_owned(), [first; 32]);
            let bytes = key(original.clone());
            let mut rest = bytes.as_slice();
            assert_eq!(<(UserNid, String, [u8; 32])>::decode(&mut rest), Ok(original));
            assert!(rest.is_empty());
        }
        assert!(String::decode(&mut [b'a', 0, 2].as_slice()).is_err());
        assert!(String::decode(&mut [b'a', 0].as_slice()).is_err());
    }

    #[test]
    fn placeholders_are_stamped_in_keys_and_values() {
        let stamped = (RoomNid(1), TimelineOrder::from(Position::of_entry(2))).to_key();
        let bytes = stamped.resolve(Position(10));
        let back = <(RoomNid, TimelineOrder)>::decode(&mut bytes.as_slice());
        assert_eq!(back, Ok((RoomNid(1), Position(12).into())));

        let bytes = (UserNid(1), Position::of_entry(0)).to_key().resolve(Position(7));
        assert_eq!(<(UserNid, Position)>::decode(&mut bytes.as_slice()), Ok((UserNid(1), Position(7))));
    }

    #[test]
    fn prefix_ends() {
        assert_eq!(prefix_end(&[1, 0xff]), Some(vec![2]));
        assert_eq!(prefix_end(&[0xff]), None);
    }
}
