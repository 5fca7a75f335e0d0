//! Passwords as Argon2id hashes in PHC form, computed on the bounded blocking pool.

use std::sync::OnceLock;

use argon2::{
    Algorithm, Argon2, Params, PasswordHash, PasswordVerifier, Version,
    password_hash::{PasswordHasher, SaltString},
};
use myelin_core::{Env, limits};

use crate::{Error, config::PasswordCost};

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    #[error("the password is too short: it needs at least {min} characters")]
    TooShort { min: usize },
    #[error("the password is too long: it can have at most {} bytes", limits::PASSWORD_SIZE_MAX)]
    TooLong,
}

/// Whether a new password may be set.
pub(crate) fn check_new(password: &str, size_min: usize) -> Result<(), PasswordError> {
    match password.len() {
        n if n < size_min => Err(PasswordError::TooShort { min: size_min }),
        n if n > limits::PASSWORD_SIZE_MAX => Err(PasswordError::TooLong),
        _ => Ok(()),
    }
}

pub(crate) struct Passwords {
    env: Env,
    cost: PasswordCost,
    /// Verified in place of the hash of a user who does not exist, so that both take as long.
    decoy: OnceLock<String>,
}

impl Passwords {
    pub fn new(env: Env, cost: PasswordCost) -> Self {
        Self { env, cost, decoy: OnceLock::new() }
    }

    pub async fn hash(&self, password: &str) -> Result<String, Error> {
        let mut salt = [0; 16];
        self.env.rng.fill(&mut salt);
        let (password, cost) = (password.to_owned(), self.cost);
        let hashed = self.env.blocking(move || hash(&password, &salt, cost)).await;
        hashed.ok_or_else(stopping)?
    }

    /// `None` (no such user, no password) takes as long as a real hash and is false.
    pub async fn verify(&self, hash: Option<String>, password: &str) -> Result<bool, Error> {
        if password.len() > limits::PASSWORD_SIZE_MAX {
            return Ok(false);
        }
        let known = hash.is_some();
        let hash = match hash {
            Some(hash) => hash,
            None => self.decoy().await?,
        };
        let password = password.to_owned();
        let verified = self.env.blocking(move || verify(&hash, &password)).await;
        Ok(verified.ok_or_else(stopping)?? && known)
    }

    async fn decoy(&self) -> Result<String, Error> {
        if let Some(decoy) = self.decoy.get() {
            return Ok(decoy.clone());
        }
        let decoy = self.hash(&self.env.random_string(16)).await?;
        Ok(self.decoy.get_or_init(|| decoy).clone())
    }
}

fn hash(password: &str, salt: &[u8], cost: PasswordCost) -> Result<String, Error> {
    let refused = |error: String| Error::Hashing(error);
    let params =
        Params::new(cost.memory_kib, cost.iterations, 1, None).map_err(|e| refused(e.to_string()))?;
    let salt = SaltString::encode_b64(salt).map_err(|e| refused(e.to_string()))?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hashed = argon2.hash_password(password.as_bytes(), &salt).map_err(|e| refused(e.to_string()))?;
    Ok(hashed.to_string())
}

fn verify(hash: &str, password: &str) -> Result<bool, Error> {
    let parsed = PasswordHash::new(hash).map_err(|e| Error::Damaged(format!("a password hash: {e}")))?;
    Ok(Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok())
}

fn stopping() -> Error {
    Error::Hashing("the server is stopping".to_owned())
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::*;
    use crate::testing::{CHEAP, env};

    #[test]
    fn a_password_verifies_against_its_own_hash_only() {
        let passwords = Passwords::new(env(), CHEAP);
        block_on(async {
            let hash = passwords.hash("correct horse").await.unwrap();
            assert!(hash.starts_with("$argon2id$v=19$m=8,t=1,p=1$"), "{hash}");
            assert!(passwords.verify(Some(hash.clone()), "correct horse").await.unwrap());
            assert!(!passwords.verify(Some(hash.clone()), "battery staple").await.unwrap());
            assert_ne!(hash, passwords.hash("correct horse").await.unwrap(), "salted");
        });
    }

    #[test]
    fn nobody_has_no_password() {
        let passwords = Passwords::new(env(), CHEAP);
        block_on(async {
            assert!(!passwords.verify(None, "").await.unwrap());
            let decoy = passwords.decoy.get().cloned();
            assert!(decoy.is_some(), "as much work as for a user who exists");
            assert!(!passwords.verify(None, "x").await.unwrap());
            assert_eq!(passwords.decoy.get().cloned(), decoy);
        });
    }

    #[test]
    fn sizes_of_new_passwords() {
        assert_eq!(check_new("", 1), Err(PasswordError::TooShort { min: 1 }));
        assert_eq!(check_new("x", 1), Ok(()));
        assert_eq!(check_new(&"x".repeat(512), 1), Ok(()));
        assert_eq!(check_new(&"x".repeat(513), 1), Err(PasswordError::TooLong));
    }
}
