//! Registration by a shared secret: the nonce protocol of `/_synapse/admin/v1/register`, which provisioning tools speak.
//!
//! `mac = HMAC-SHA1(secret, nonce \0 user \0 password \0 ("admin" | "notadmin") [\0 user_type])`. Nonces are kept in
//! this process only: the tool must reach the node that gave out its nonce.

use std::collections::VecDeque;

use hmac::{Hmac, Mac};
use parking_lot::Mutex;
use sha1::Sha1;

use crate::{
    DeviceRequest, Users,
    registration::{RegisterError, Registered, Registration},
};

const NONCE_LIFETIME_MS: u64 = 60_000;
/// Oldest first out.
const NONCES_MAX: usize = 1000;

/// Nonces given out and not used, oldest first, with the time at which they expire.
#[derive(Default)]
pub(crate) struct Nonces(Mutex<VecDeque<(String, u64)>>);

/// The body of `POST /_synapse/admin/v1/register`.
#[derive(Clone, Debug, Default)]
pub struct SharedSecretRegistration {
    pub nonce: String,
    pub username: String,
    pub display_name: Option<String>,
    pub password: String,
    pub admin: bool,
    pub user_type: Option<String>,
    /// Hexadecimal.
    pub mac: String,
    pub login: Option<DeviceRequest>,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum SharedSecretError {
    #[error("registration by shared secret is not enabled")]
    Disabled,
    #[error("the nonce is not known: it was used, has expired, or is from elsewhere")]
    Nonce,
    #[error("the MAC does not match")]
    Mac,
    #[error(transparent)]
    Register(#[from] RegisterError),
}

impl Users {
    pub fn new_nonce(&self) -> Result<String, SharedSecretError> {
        self.config.shared_secret.as_ref().ok_or(SharedSecretError::Disabled)?;
        let nonce = self.view.env.random_string(32);
        let mut nonces = self.nonces.0.lock();
        if nonces.len() == NONCES_MAX {
            nonces.pop_front();
        }
        nonces.push_back((nonce.clone(), self.now_ms() + NONCE_LIFETIME_MS));
        Ok(nonce)
    }

    pub async fn register_with_secret(
        &self,
        request: SharedSecretRegistration,
    ) -> Result<Registered, SharedSecretError> {
        let secret = self.config.shared_secret.as_ref().ok_or(SharedSecretError::Disabled)?;
        if !self.take_nonce(&request.nonce) {
            return Err(SharedSecretError::Nonce);
        }
        let mac = from_hex(&request.mac).ok_or(SharedSecretError::Mac)?;
        expected_mac(secret, &request).verify_slice(&mac).map_err(|_| SharedSecretError::Mac)?;
        let registration = Registration {
            username: Some(request.username),
            password: Some(request.password),
            display_name: request.display_name,
            admin: request.admin,
            login: request.login,
            ..Registration::default()
        };
        Ok(self.register(&registration).await?)
    }

    /// Whether the nonce was good; it is not any more.
    fn take_nonce(&self, nonce: &str) -> bool {
        let now_ms = self.now_ms();
        let mut nonces = self.nonces.0.lock();
        nonces.retain(|(_, expires_ms)| *expires_ms > now_ms);
        let found = nonces.iter().position(|(known, _)| known == nonce);
        found.and_then(|at| nonces.remove(at)).is_some()
    }
}

fn expected_mac(secret: &str, request: &SharedSecretRegistration) -> Hmac<Sha1> {
    let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any size");
    let admin = if request.admin { "admin" } else { "notadmin" };
    mac.update([&request.nonce, &request.username, &request.password, admin].join("\0").as_bytes());
    if let Some(user_type) = &request.user_type {
        mac.update(b"\0");
        mac.update(user_type.as_bytes());
    }
    mac
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|d| d as u8);
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;

    fn world() -> World {
        World::with(|config| config.shared_secret = Some("s3cret".to_owned()))
    }

    fn signed(world: &World, username: &str, admin: bool) -> SharedSecretRegistration {
        let nonce = world.users.new_nonce().unwrap();
        let mut request = SharedSecretRegistration {
            nonce,
            username: username.to_owned(),
            password: "pass".to_owned(),
            admin,
            login: Some(DeviceRequest::default()),
            ..SharedSecretRegistration::default()
        };
        let mac = expected_mac("s3cret", &request).finalize().into_bytes();
        request.mac = mac.iter().map(|b| format!("{b:02x}")).collect();
        request
    }

    #[test]
    fn the_mac_is_that_of_the_tools() {
        let request = SharedSecretRegistration {
            nonce: "thisisanonce".to_owned(),
            username: "pepper_roni".to_owned(),
            password: "pizza".to_owned(),
            admin: true,
            ..SharedSecretRegistration::default()
        };
        let mac = expected_mac("shared_secret", &request);
        // printf 'thisisanonce\0pepper_roni\0pizza\0admin' | openssl sha1 -hmac shared_secret
        let expected = from_hex(OPENSSL).unwrap();
        assert!(mac.verify_slice(&expected).is_ok());
    }
    const OPENSSL: &str = "48715842ad67d5dc9a9ee938a3bda4fcfae8d7c7";

    #[test]
    fn a_signed_request_registers_once() {
        let world = world();
        world.run(async {
            let request = signed(&world, "root", true);
            let registered = world.users.register_with_secret(request.clone()).await.unwrap();
            let token = registered.grant.unwrap().access_token;
            assert!(world.users.session(&token).await.unwrap().admin);
            let again = world.users.register_with_secret(request).await;
            assert!(matches!(again, Err(SharedSecretError::Nonce)));
        });
    }

    #[test]
    fn refused_requests() {
        let world = world();
        world.run(async {
            let mut forged = signed(&world, "a", false);
            forged.admin = true;
            let refused = world.users.register_with_secret(forged).await;
            assert!(matches!(refused, Err(SharedSecretError::Mac)));
            for mac in ["", "0", "zz"] {
                let mut broken = signed(&world, "a", false);
                broken.mac = mac.to_owned();
                let refused = world.users.register_with_secret(broken).await;
                assert!(matches!(refused, Err(SharedSecretError::Mac)));
            }
            let late = signed(&world, "a", false);
            world.advance_ms(NONCE_LIFETIME_MS);
            let refused = world.users.register_with_secret(late).await;
            assert!(matches!(refused, Err(SharedSecretError::Nonce)));
        });
    }

    #[test]
    fn without_a_secret_there_is_no_way_in() {
        let world = World::new();
        assert!(matches!(world.users.new_nonce(), Err(SharedSecretError::Disabled)));
        let refused = world.run(world.users.register_with_secret(SharedSecretRegistration::default()));
        assert!(matches!(refused, Err(SharedSecretError::Disabled)));
    }
}
