//! Which usernames may become localparts (Appendices, "User Identifiers"). Pure.

use ruma::{OwnedUserId, ServerName, UserId};

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UsernameError {
    #[error("a username cannot be empty")]
    Empty,
    #[error("a username can only have the characters a-z, 0-9 and ._=-/+")]
    Characters,
    #[error("a username cannot begin with '_'")]
    LeadingUnderscore,
    #[error("usernames of digits only are kept for guests")]
    DigitsOnly,
    #[error("the username is too long: a user id has at most 255 characters")]
    TooLong,
}

/// Capitals become small, anything else outside the grammar is refused.
pub fn parse_username(username: &str, server: &ServerName) -> Result<OwnedUserId, UsernameError> {
    let localpart = username.to_ascii_lowercase();
    check(&localpart)?;
    user_id(&localpart, server)
}

/// The user id of a localpart that was already checked or generated.
pub(crate) fn user_id(localpart: &str, server: &ServerName) -> Result<OwnedUserId, UsernameError> {
    UserId::parse(format!("@{localpart}:{server}")).map_err(|_| UsernameError::TooLong)
}

fn check(localpart: &str) -> Result<(), UsernameError> {
    if localpart.is_empty() {
        return Err(UsernameError::Empty);
    }
    if !localpart.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._=-/+".contains(&b)) {
        return Err(UsernameError::Characters);
    }
    if localpart.starts_with('_') {
        return Err(UsernameError::LeadingUnderscore);
    }
    if localpart.bytes().all(|b| b.is_ascii_digit()) {
        return Err(UsernameError::DigitsOnly);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::*;

    #[test]
    fn usernames() {
        let long = "a".repeat(255);
        let fits = "a".repeat(255 - "@:example.org".len());
        let table: &[(&str, Result<&str, UsernameError>)] = &[
            ("alice", Ok("@alice:example.org")),
            ("Alice", Ok("@alice:example.org")),
            ("a.b_c=d-e/f+1", Ok("@a.b_c=d-e/f+1:example.org")),
            ("1st", Ok("@1st:example.org")),
            (&fits, Ok("")),
            ("", Err(UsernameError::Empty)),
            ("_bridge", Err(UsernameError::LeadingUnderscore)),
            ("123", Err(UsernameError::DigitsOnly)),
            ("al ice", Err(UsernameError::Characters)),
            ("älice", Err(UsernameError::Characters)),
            ("@alice:example.org", Err(UsernameError::Characters)),
            ("a\0b", Err(UsernameError::Characters)),
            (&long, Err(UsernameError::TooLong)),
        ];
        for (username, expected) in table {
            let parsed = parse_username(username, server_name!("example.org"));
            match expected {
                Ok("") => assert!(parsed.is_ok(), "{username}"),
                Ok(user_id) => assert_eq!(parsed.as_ref().map(|u| u.as_str()), Ok(*user_id)),
                Err(error) => assert_eq!(parsed.as_ref().err(), Some(error), "{username}"),
            }
        }
    }
}
