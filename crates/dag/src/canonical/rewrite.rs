//! The machine: reads tokens, writes their canonical form, and puts the members of an object in order when it closes.

use std::cmp::Ordering;

use myelin_core::limits::JSON_DEPTH_MAX;

use super::{
    JsonError,
    number::Numbers,
    text::{compare_escaped, needs_escape, push_char, unescape},
};

#[derive(Clone, Copy)]
pub struct Policy {
    pub numbers: Numbers,
    pub nul_in_keys: bool,
    pub depth_max: usize,
}

pub struct Rewriter<'a> {
    input: &'a str,
    at: usize,
    policy: Policy,
    out: String,
    /// Open arrays and objects, innermost last.
    frames: Vec<Frame>,
    /// Members of all open objects; those of the innermost one are at the end.
    members: Vec<Member>,
    scratch: String,
    /// Bytes that were put in order so far.
    moved: usize,
}

enum Frame {
    Array,
    Object { out_start: usize, first_member: usize, sorted: bool },
}

/// Offsets into `out`. The key is without its quotes.
#[derive(Clone, Copy)]
struct Member {
    key_start: usize,
    key_end: usize,
    end: usize,
}

/// What follows once a value or an opening bracket is done.
enum Next {
    Value,
    AfterValue,
}

impl<'a> Rewriter<'a> {
    pub fn run(json: &'a [u8], policy: Policy) -> Result<String, JsonError> {
        let input = std::str::from_utf8(json).map_err(|e| JsonError::NotUtf8 { at: e.valid_up_to() })?;
        let out = String::with_capacity(input.len());
        let (frames, members, scratch) = (Vec::new(), Vec::new(), String::new());
        let mut this = Self { input, at: 0, policy, out, frames, members, scratch, moved: 0 };
        let mut next = Next::Value;
        loop {
            next = match next {
                Next::Value => this.value()?,
                Next::AfterValue if this.frames.is_empty() => break,
                Next::AfterValue => this.after_value()?,
            };
        }
        match this.peek() {
            None => Ok(this.out),
            Some(_) => Err(this.syntax("the end")),
        }
    }

    fn value(&mut self) -> Result<Next, JsonError> {
        match self.peek() {
            Some(b'{') => self.open_object(),
            Some(b'[') => self.open_array(),
            Some(b'"') => self.string().map(|_| Next::AfterValue),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null"),
            _ => Err(self.syntax("a value")),
        }
    }

    fn after_value(&mut self) -> Result<Next, JsonError> {
        let in_object = matches!(self.frames.last(), Some(Frame::Object { .. }));
        if in_object && let Some(member) = self.members.last_mut() {
            member.end = self.out.len();
        }
        match (self.peek(), in_object) {
            (Some(b','), _) => {
                self.take(",");
                if in_object {
                    self.key()?;
                }
                Ok(Next::Value)
            }
            (Some(b'}'), true) => self.close_object(),
            (Some(b']'), false) => self.close_array(),
            (_, true) => Err(self.syntax("',' or '}'")),
            (_, false) => Err(self.syntax("',' or ']'")),
        }
    }

    fn open_array(&mut self) -> Result<Next, JsonError> {
        self.open(Frame::Array)?;
        self.take("[");
        if self.peek() == Some(b']') { self.close_array() } else { Ok(Next::Value) }
    }

    fn close_array(&mut self) -> Result<Next, JsonError> {
        self.take("]");
        self.frames.pop();
        Ok(Next::AfterValue)
    }

    fn open_object(&mut self) -> Result<Next, JsonError> {
        let (out_start, first_member) = (self.out.len() + 1, self.members.len());
        self.open(Frame::Object { out_start, first_member, sorted: true })?;
        self.take("{");
        if self.peek() == Some(b'}') {
            return self.close_object();
        }
        self.key()?;
        Ok(Next::Value)
    }

    fn open(&mut self, frame: Frame) -> Result<(), JsonError> {
        if self.frames.len() == self.policy.depth_max {
            return Err(JsonError::TooDeep { limit: self.policy.depth_max });
        }
        self.frames.push(frame);
        Ok(())
    }

    fn key(&mut self) -> Result<(), JsonError> {
        if self.peek() != Some(b'"') {
            return Err(self.syntax("a key"));
        }
        let key_start = self.out.len() + 1;
        let has_nul = self.string()?;
        if has_nul && !self.policy.nul_in_keys {
            return Err(JsonError::NulInKey);
        }
        let member = Member { key_start, key_end: self.out.len() - 1, end: 0 };
        self.note_order(member)?;
        self.members.push(member);
        if self.peek() != Some(b':') {
            return Err(self.syntax("':'"));
        }
        self.take(":");
        Ok(())
    }

    /// Notes whether the key comes in order after the one before it.
    fn note_order(&mut self, member: Member) -> Result<(), JsonError> {
        let Some(Frame::Object { first_member, sorted, .. }) = self.frames.last_mut() else { return Ok(()) };
        let Some(before) = self.members[*first_member..].last() else { return Ok(()) };
        match compare_escaped(key_of(&self.out, before), key_of(&self.out, &member)) {
            Ordering::Less => Ok(()),
            Ordering::Equal => Err(duplicate(&self.out, &member)),
            Ordering::Greater => {
                *sorted = false;
                Ok(())
            }
        }
    }

    fn close_object(&mut self) -> Result<Next, JsonError> {
        if let Some(Frame::Object { out_start, first_member, sorted }) = self.frames.pop() {
            if !sorted {
                self.sort_members(out_start, first_member)?;
            }
            self.members.truncate(first_member);
        }
        self.take("}");
        Ok(Next::AfterValue)
    }

    fn sort_members(&mut self, out_start: usize, first_member: usize) -> Result<(), JsonError> {
        let (out, members) = (&mut self.out, &mut self.members[first_member..]);
        members.sort_unstable_by(|a, b| compare_escaped(key_of(out, a), key_of(out, b)));
        for pair in members.windows(2) {
            if key_of(out, &pair[0]) == key_of(out, &pair[1]) {
                return Err(duplicate(out, &pair[0]));
            }
        }
        self.scratch.clear();
        for (index, member) in members.iter().enumerate() {
            if index > 0 {
                self.scratch.push(',');
            }
            self.scratch.push_str(&out[member.key_start - 1..member.end]);
        }
        out.truncate(out_start);
        out.push_str(&self.scratch);
        // Each level may move everything below it once more, and levels may be many.
        self.moved += self.scratch.len();
        match self.moved > JSON_DEPTH_MAX * self.out.len() {
            true => Err(JsonError::TooDeep { limit: JSON_DEPTH_MAX }),
            false => Ok(()),
        }
    }

    /// Copies a string in canonical escaping; says whether it holds a NUL.
    fn string(&mut self) -> Result<bool, JsonError> {
        let mut has_nul = false;
        self.take("\"");
        loop {
            let rest = &self.input[self.at..];
            let run =
                rest.bytes().position(needs_escape).ok_or_else(|| self.syntax("the end of a string"))?;
            self.out.push_str(&rest[..run]);
            self.at += run;
            match rest.as_bytes()[run] {
                b'"' => break,
                b'\\' => has_nul |= self.escape()? == '\0',
                _ => return Err(self.syntax("no raw control character in a string")),
            }
        }
        self.take("\"");
        Ok(has_nul)
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let c = match self.input.as_bytes().get(self.at + 1) {
            Some(b'b') => '\u{8}',
            Some(b't') => '\t',
            Some(b'n') => '\n',
            Some(b'f') => '\u{c}',
            Some(b'r') => '\r',
            Some(&c @ (b'"' | b'\\' | b'/')) => char::from(c),
            Some(b'u') => return self.unicode_escape(),
            _ => return Err(self.syntax("an escape sequence")),
        };
        self.at += 2;
        push_char(&mut self.out, c);
        Ok(c)
    }

    fn unicode_escape(&mut self) -> Result<char, JsonError> {
        let first = self.hex_unit()?;
        let code = match first {
            0xd800..=0xdbff => {
                let second = self.hex_unit()?;
                if !(0xdc00..=0xdfff).contains(&second) {
                    return Err(self.syntax("the second half of a surrogate pair"));
                }
                0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)
            }
            _ => first,
        };
        let c = char::from_u32(code).ok_or_else(|| self.syntax("no lone surrogate"))?;
        push_char(&mut self.out, c);
        Ok(c)
    }

    /// Reads `\uXXXX`.
    fn hex_unit(&mut self) -> Result<u32, JsonError> {
        let unit = self.input.as_bytes().get(self.at..self.at + 6);
        let hex = unit
            .and_then(|unit| unit.strip_prefix(b"\\u"))
            .filter(|hex| hex.iter().all(u8::is_ascii_hexdigit));
        let hex = hex.ok_or_else(|| self.syntax("'\\u' and four hexadecimal digits"))?;
        let digit = |c: &u8| char::from(*c).to_digit(16).unwrap_or(0);
        let code = hex.iter().fold(0, |code, c| code * 16 + digit(c));
        self.at += 6;
        Ok(code)
    }

    fn number(&mut self) -> Result<Next, JsonError> {
        let start = self.at;
        self.skip_byte(b"-");
        let first_digit = self.at;
        self.digits()?;
        if self.at - first_digit > 1 && self.input.as_bytes()[first_digit] == b'0' {
            return Err(self.syntax("no leading zero"));
        }
        let int_end = self.at;
        if self.skip_byte(b".") {
            self.digits()?;
        }
        if self.skip_byte(b"eE") {
            self.skip_byte(b"+-");
            self.digits()?;
        }
        let text = &self.input[start..self.at];
        self.policy.numbers.push(&mut self.out, text, start, self.at == int_end)?;
        Ok(Next::AfterValue)
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let count = self.input.as_bytes()[self.at..].iter().take_while(|c| c.is_ascii_digit()).count();
        self.at += count;
        if count == 0 { Err(self.syntax("a digit")) } else { Ok(()) }
    }

    fn skip_byte(&mut self, any_of: &[u8]) -> bool {
        let found = self.input.as_bytes().get(self.at).is_some_and(|c| any_of.contains(c));
        self.at += usize::from(found);
        found
    }

    fn literal(&mut self, word: &'static str) -> Result<Next, JsonError> {
        if !self.input[self.at..].starts_with(word) {
            return Err(self.syntax("a value"));
        }
        self.take(word);
        Ok(Next::AfterValue)
    }

    /// Skips white space and shows the next byte.
    fn peek(&mut self) -> Option<u8> {
        let rest = &self.input.as_bytes()[self.at..];
        self.at += rest.iter().take_while(|c| matches!(c, b' ' | b'\t' | b'\n' | b'\r')).count();
        self.input.as_bytes().get(self.at).copied()
    }

    /// Copies a token that was seen.
    fn take(&mut self, token: &'static str) {
        self.at += token.len();
        self.out.push_str(token);
    }

    fn syntax(&self, expected: &'static str) -> JsonError {
        JsonError::Syntax { at: self.at, expected }
    }
}

fn key_of<'o>(out: &'o str, member: &Member) -> &'o str {
    &out[member.key_start..member.key_end]
}

fn duplicate(out: &str, member: &Member) -> JsonError {
    JsonError::DuplicateKey(unescape(key_of(out, member)).chars().take(64).collect())
}
