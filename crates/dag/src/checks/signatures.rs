//! Checks 2 and 3: the signatures of all servers that must have signed, and the content hash. An event whose content
//! does not match its hash is taken in its redacted form, which is what the signatures are over. A server ACL is not taken
//! then: whoever relays one could shut everybody out by spoiling it.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use ed25519_dalek::{Signature, SignatureError as NotVerified, Verifier, VerifyingKey};
use ruma::{
    OwnedServerName, OwnedUserId, ServerName,
    events::room::member::MembershipState,
    room_version_rules::RoomVersionRules,
    serde::Base64,
    signatures::{PublicKeyMap, PublicKeySet},
};

use super::{Dropped, FormedPdu};
use crate::{
    Pdu, ReceiveError,
    canonical::{Members, Outline, string_value},
    hashes::content_matches,
    redaction::redact,
    signing::BASE64,
};

/// The only algorithm that is understood.
const ED25519: &str = "ed25519:";

/// An event that the server of its sender stands for.
#[derive(Debug, Clone)]
pub struct VerifiedPdu {
    pub(super) pdu: Pdu,
    pub(super) redacted: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    #[error("{0} did not sign")]
    Missing(OwnedServerName),
    #[error("none of the keys by which {0} signed is known")]
    NoKnownKey(OwnedServerName),
    #[error("the signature of {server} by the key '{key_id}' is not base64")]
    NotBase64 { server: OwnedServerName, key_id: String },
    #[error("the signature of {server} by the key '{key_id}' is wrong: {source}")]
    Wrong { server: OwnedServerName, key_id: String, source: NotVerified },
    #[error("'join_authorised_via_users_server' is not a user id")]
    AuthorisingUser,
}

/// The servers that must have signed (Server-Server API, "Validating hashes and signatures on received events").
pub fn servers_to_sign(
    pdu: &Pdu,
    rules: &RoomVersionRules,
) -> Result<BTreeSet<OwnedServerName>, SignatureError> {
    let mut servers = BTreeSet::new();
    // Such an invite may be made by the invited user's server in the name of the inviter.
    if !is_third_party_invite(pdu) {
        servers.insert(pdu.sender.server_name().to_owned());
    }
    if rules.signatures.check_event_id_server {
        servers.extend(pdu.event_id.server_name().map(ToOwned::to_owned));
    }
    if rules.signatures.check_join_authorised_via_users_server
        && let Some(user) = authorising_user(pdu)?
    {
        servers.insert(user.server_name().to_owned());
    }
    Ok(servers)
}

/// The ids of the ed25519 keys by which a server claims to have signed an event, which is canonical JSON.
pub(super) fn key_ids_of(json: &str, server: &ServerName) -> Vec<String> {
    let ids = Members::of(signatures_of(json, server).unwrap_or_default()).map(|(id, _)| id);
    ids.filter(|id| id.starts_with(ED25519)).map(ToOwned::to_owned).collect()
}

/// `json`: canonical.
fn signatures_of<'a>(json: &'a str, server: &ServerName) -> Option<&'a str> {
    let signatures = Members::of(json).find(|(field, _)| *field == "signatures")?.1;
    Some(Members::of(signatures).find(|(by, _)| *by == server.as_str())?.1)
}

/// Public keys by server and key id, as points of the curve: to find the point takes a tenth of the time of a verification.
/// `None`: a key that is none.
pub struct VerifyingKeys(BTreeMap<String, BTreeMap<String, Option<VerifyingKey>>>);

impl VerifyingKeys {
    pub fn of(keys: &PublicKeyMap) -> Self {
        let decoded =
            |(id, key): (&String, &Base64)| (id.clone(), VerifyingKey::try_from(key.as_bytes()).ok());
        let of_server =
            |(server, keys): (&String, &PublicKeySet)| (server.clone(), keys.iter().map(decoded).collect());
        Self(keys.iter().map(of_server).collect())
    }
}

impl FormedPdu {
    /// `keys` are those of the servers that must have signed; keys of other servers are not looked at. Where the room
    /// version enforces key validity, only keys that were valid at `origin_server_ts` may be among them.
    pub fn verify(self, keys: &PublicKeyMap, rules: &RoomVersionRules) -> Result<VerifiedPdu, Dropped> {
        self.verify_with(&VerifyingKeys::of(keys), rules)
    }

    /// The same, of many events by the same keys.
    pub fn verify_with(self, keys: &VerifyingKeys, rules: &RoomVersionRules) -> Result<VerifiedPdu, Dropped> {
        for server in servers_to_sign(&self.pdu, rules)? {
            verify_one(&self.pdu.json, &self.signed, &server, keys)?;
        }
        Ok(self.check_hash(rules)?)
    }

    fn check_hash(self, rules: &RoomVersionRules) -> Result<VerifiedPdu, ReceiveError> {
        if content_matches(&self.pdu.json) {
            return Ok(VerifiedPdu { pdu: self.pdu, redacted: false });
        }
        // In its redacted form it shuts every server out of the room, the one that could bring the whole first of all.
        if self.pdu.is_state_of("m.room.server_acl", "") {
            return Err(ReceiveError::Spoilt);
        }
        let json = redact(&self.pdu, rules);
        Ok(VerifiedPdu { pdu: Pdu::parse(json, self.pdu.event_id, rules)?, redacted: true })
    }
}

impl VerifiedPdu {
    /// An event that was made and signed here.
    pub fn made_here(pdu: Pdu) -> Self {
        Self { pdu, redacted: false }
    }

    pub fn into_pdu(self) -> Pdu {
        self.pdu
    }

    pub fn pdu(&self) -> &Pdu {
        &self.pdu
    }

    /// Whether the content did not match the hash and was removed.
    pub fn is_redacted(&self) -> bool {
        self.redacted
    }
}

fn is_third_party_invite(pdu: &Pdu) -> bool {
    let third_party_invite = || Outline::of(pdu.content.get()).get("third_party_invite");
    pdu.membership() == Some(MembershipState::Invite)
        && third_party_invite().is_some_and(|invite| invite.starts_with('{'))
}

/// Who vouches for a join under a restricted join rule (room version 8, "Authorization rules").
fn authorising_user(pdu: &Pdu) -> Result<Option<OwnedUserId>, SignatureError> {
    if pdu.membership() != Some(MembershipState::Join) {
        return Ok(None);
    }
    let content = Outline::of(pdu.content.get());
    let Some(user) = content.get("join_authorised_via_users_server") else { return Ok(None) };
    let user = string_value(user).and_then(|user| OwnedUserId::try_from(&*user).ok());
    user.map(Some).ok_or(SignatureError::AuthorisingUser)
}

/// At least one signature by a known key, and no wrong one.
pub(super) fn verify_one(
    json: &str,
    signed: &str,
    server: &ServerName,
    keys: &VerifyingKeys,
) -> Result<(), SignatureError> {
    let by_server = signatures_of(json, server).ok_or_else(|| SignatureError::Missing(server.to_owned()))?;
    let known = keys.0.get(server.as_str());
    let mut verified = false;
    for (key_id, signature) in Members::of(by_server).filter(|(key_id, _)| key_id.starts_with(ED25519)) {
        let Some(key) = known.and_then(|keys| keys.get(key_id)) else { continue };
        let not_base64 =
            || SignatureError::NotBase64 { server: server.to_owned(), key_id: key_id.to_owned() };
        let signature = string_value(signature).ok_or_else(not_base64)?;
        let signature = BASE64.decode(&*signature).map_err(|_| not_base64())?;
        let verify = |key: &VerifyingKey| key.verify(signed.as_bytes(), &Signature::from_slice(&signature)?);
        key.as_ref().ok_or_else(NotVerified::new).and_then(verify).map_err(|source| {
            SignatureError::Wrong { server: server.to_owned(), key_id: key_id.to_owned(), source }
        })?;
        verified = true;
    }
    if verified { Ok(()) } else { Err(SignatureError::NoKnownKey(server.to_owned())) }
}
