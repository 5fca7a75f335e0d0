//! Whether the key by which an identity server vouched for the owner of an address is still valid (Client-Server API,
//! "Third-party invites"): the server of the inviter asks before it makes the invite. Rules of rooms do not ask, so that
//! all servers come to the same verdict.

use std::{collections::BTreeMap, time::Duration};

use ruma::{RoomId, canonical_json::to_canonical_value, serde::Base64, signatures::PublicKeySet};
use serde::Deserialize;
use serde_json::Value;

use super::{HandshakeError, Handshakes};
use crate::{Budget, keys::answer::check_signed, uri::segment};

const BUDGET: Budget = Budget { timeout: Duration::from_secs(10), body_size_max: 16 * 1024 };
/// Keys of one invite that are looked at, and signatures of one proof.
const KEYS_MAX: usize = 16;
const SIGNATURES_MAX: usize = 16;

#[derive(Deserialize)]
struct InviteContent {
    #[serde(flatten)]
    first: Option<InviteKey>,
    #[serde(default)]
    public_keys: Vec<InviteKey>,
}

#[derive(Deserialize)]
struct InviteKey {
    public_key: String,
    /// Nothing to ask where there is none.
    key_validity_url: Option<String>,
}

#[derive(Deserialize)]
struct Validity {
    valid: bool,
}

impl Handshakes {
    /// Refused if all keys by which `signed` is signed have been withdrawn. Whether any has signed it is for the rules of
    /// the room.
    pub(super) async fn require_valid_key(
        &self,
        room_id: &RoomId,
        signed: &Value,
    ) -> Result<(), HandshakeError> {
        let mut refused = None;
        for key in self.keys_of_invite(room_id, signed).await? {
            if !has_signed(&key.public_key, signed) {
                continue;
            }
            let Some(url) = &key.key_validity_url else { return Ok(()) };
            match self.is_valid(url, &key.public_key).await {
                Ok(()) => return Ok(()),
                Err(reason) => refused = Some(reason),
            }
        }
        refused.map_or(Ok(()), |reason| Err(HandshakeError::Forbidden(reason)))
    }

    async fn keys_of_invite(
        &self,
        room_id: &RoomId,
        signed: &Value,
    ) -> Result<Vec<InviteKey>, HandshakeError> {
        let failed = |error: myelin_view::Error| HandshakeError::Rooms(error.into());
        let token = signed.get("token").and_then(Value::as_str).unwrap_or_default();
        let Some(room) = self.view.room_by_id(room_id).await.map_err(failed)? else { return Ok(Vec::new()) };
        let invite = self.view.current_state_event(&room, "m.room.third_party_invite", token);
        let invite = invite.await.map_err(failed)?;
        let content = invite.and_then(|event| serde_json::from_str(event.pdu.content.get()).ok());
        let keys = content.map(|content: InviteContent| content.first.into_iter().chain(content.public_keys));
        Ok(keys.into_iter().flatten().take(KEYS_MAX).collect())
    }

    async fn is_valid(&self, url: &str, public_key: &str) -> Result<(), String> {
        let separator = if url.contains('?') { '&' } else { '?' };
        let url = format!("{url}{separator}public_key={}", segment(public_key));
        match self.client.get_url::<Validity>(&url, BUDGET).await {
            Ok(Validity { valid: true }) => Ok(()),
            Ok(_) => Err("The identity server has withdrawn the key of this invite.".to_owned()),
            Err(error) => {
                Err(format!("Whether the key of this invite is still valid cannot be asked: {error}."))
            }
        }
    }
}

/// Whether any signature is by this key, whatever its name.
fn has_signed(public_key: &str, signed: &Value) -> bool {
    let Ok(key) = Base64::parse(public_key) else { return false };
    let Ok(json) = to_canonical_value(signed).map(|value| value.to_string()) else { return false };
    let signatures = signed.get("signatures").and_then(Value::as_object).into_iter().flatten();
    let named = signatures.flat_map(|(server, by_key)| {
        by_key.as_object().into_iter().flatten().map(move |(key_id, _)| (server, key_id))
    });
    named.take(SIGNATURES_MAX).any(|(server, key_id)| {
        let keys: PublicKeySet = BTreeMap::from([(key_id.clone(), key.clone())]).into_iter().collect();
        check_signed(&json, server, &keys).is_ok()
    })
}
