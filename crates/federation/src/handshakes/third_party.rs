//! Invites to e-mail addresses and phone numbers (Server-Server API, "Third-party invites").

use std::{collections::BTreeMap, sync::Arc};

use myelin_rooms::ThirdPartyInvite;
use myelin_store::tables::Membership;
use ruma::{OwnedRoomId, OwnedUserId, RoomId, ServerName};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::{Value, json};

use super::{HandshakeError, Handshakes, route::QUICK};
use crate::uri::segment;

/// Invites of one notification of an identity server.
const INVITES_MAX: usize = 100;

/// A member event as far as the invited user's server can make it.
#[derive(Debug, Deserialize, Serialize)]
pub struct PartialInvite {
    #[serde(rename = "type")]
    pub event_type: String,
    pub room_id: OwnedRoomId,
    pub sender: OwnedUserId,
    pub state_key: OwnedUserId,
    pub content: Value,
}

/// One invite that an identity server kept for an address.
#[derive(Debug, Deserialize)]
pub struct BoundInvite {
    pub mxid: OwnedUserId,
    pub room_id: OwnedRoomId,
    pub sender: OwnedUserId,
    #[serde(deserialize_with = "signed")]
    pub signed: Value,
}

/// What the identity server has signed; it travels as it is.
#[derive(Deserialize)]
struct Signed {
    #[serde(rename = "mxid")]
    _mxid: OwnedUserId,
    #[serde(rename = "token")]
    _token: String,
    #[serde(rename = "signatures")]
    _signatures: BTreeMap<String, BTreeMap<String, String>>,
}

fn signed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    let signed = Value::deserialize(deserializer)?;
    Signed::deserialize(&signed).map_err(D::Error::custom)?;
    Ok(signed)
}

impl Handshakes {
    /// `exchange_third_party_invite`: a user of `origin` turns out to be whom a local user invited.
    pub async fn exchange_third_party_invite(
        self: &Arc<Self>,
        origin: &ServerName,
        room_id: &RoomId,
        invite: PartialInvite,
    ) -> Result<(), HandshakeError> {
        self.check_acl(origin, room_id).await?;
        let field = |name: &str| invite.content.get(name).cloned().unwrap_or_default();
        let proof = field("third_party_invite");
        let signed = proof.get("signed").cloned().unwrap_or_default();
        let wrong = if invite.room_id != room_id {
            "The event belongs to another room."
        } else if invite.event_type != "m.room.member" || field("membership") != "invite" {
            "The event is not an invite."
        } else if !self.view.is_local(&invite.sender) {
            "The sender is not a user of this server."
        } else if invite.state_key.server_name() != origin {
            "The invited user is not one of your server."
        } else if proof.get("display_name").is_some_and(|name| !name.is_string()) {
            "The display name is not a string."
        } else if signed.get("mxid").and_then(Value::as_str) != Some(invite.state_key.as_str()) {
            "The identity was signed for another user."
        } else {
            let invite = ThirdPartyInvite { sender: invite.sender, target: invite.state_key, signed };
            return self.issue(room_id, &invite).await;
        };
        Err(HandshakeError::Invalid(wrong.to_owned()))
    }

    /// `3pid/onbind`: an address of a local user was invited somewhere. What cannot be delivered now is left.
    pub async fn bound(
        self: &Arc<Self>,
        mxid: &OwnedUserId,
        invites: Vec<BoundInvite>,
    ) -> Result<(), HandshakeError> {
        if !self.view.is_local(mxid) {
            return Err(HandshakeError::Invalid("The user is not one of this server.".to_owned()));
        }
        for invite in invites.into_iter().filter(|invite| invite.mxid == *mxid).take(INVITES_MAX) {
            let room_id = invite.room_id.clone();
            if let Err(error) = self.redeem(invite).await {
                tracing::info!(%room_id, %mxid, %error, "a third-party invite could not be redeemed");
            }
        }
        Ok(())
    }

    /// `third_party_signed` of a join: the user brings the proof that an invite to an address was meant for them. Who is
    /// invited or joined already needs none.
    pub async fn redeem_signed(
        self: &Arc<Self>,
        user_id: &OwnedUserId,
        room_id: &RoomId,
        signed: Value,
    ) -> Result<(), HandshakeError> {
        let text = |name: &str| signed.get(name).and_then(Value::as_str);
        if text("mxid") != Some(user_id.as_str()) {
            return Err(HandshakeError::Forbidden("The invite was signed for another user.".to_owned()));
        }
        let sender = text("sender").and_then(|sender| OwnedUserId::try_from(sender).ok());
        let sender = sender.ok_or_else(|| {
            HandshakeError::Invalid("'sender' of third_party_signed is not a user id.".to_owned())
        })?;
        if self.is_expected(user_id, room_id).await? {
            return Ok(());
        }
        // `sender` is not part of what identity servers sign.
        let mut signed = signed;
        if let Some(signed) = signed.as_object_mut() {
            signed.retain(|name, _| matches!(name.as_str(), "mxid" | "token" | "signatures"));
        }
        self.redeem(BoundInvite { mxid: user_id.clone(), room_id: room_id.to_owned(), sender, signed }).await
    }

    async fn is_expected(&self, user_id: &OwnedUserId, room_id: &RoomId) -> Result<bool, HandshakeError> {
        let failed = |error: myelin_view::Error| HandshakeError::Rooms(error.into());
        let Some(room) = self.view.interner.lookup_room(room_id).await.map_err(failed)? else {
            return Ok(false);
        };
        let Some(user) = self.view.interner.lookup_user(user_id).await.map_err(failed)? else {
            return Ok(false);
        };
        let rooms = self.view.user_rooms.load(user).await.map_err(failed)?;
        let membership = rooms.get(&room).map(|held| held.membership);
        Ok(matches!(membership, Some(Membership::Join | Membership::Invite)))
    }

    async fn redeem(self: &Arc<Self>, bound: BoundInvite) -> Result<(), HandshakeError> {
        let BoundInvite { mxid, room_id, sender, signed } = bound;
        if self.view.is_local(&sender) {
            return self.issue(&room_id, &ThirdPartyInvite { sender, target: mxid, signed }).await;
        }
        let server = sender.server_name().to_owned();
        let uri = format!("/_matrix/federation/v1/exchange_third_party_invite/{}", segment(room_id.as_str()));
        let content = json!({
            "membership": "invite",
            "third_party_invite": { "display_name": mxid.localpart(), "signed": signed },
        });
        let event_type = "m.room.member".to_owned();
        let event = PartialInvite { event_type, room_id, sender, state_key: mxid, content };
        let sent = self.client.put::<serde::de::IgnoredAny>(&server, &uri, &event, QUICK).await;
        sent.map(drop).map_err(|error| HandshakeError::of_request(&server, error))
    }

    async fn issue(
        self: &Arc<Self>,
        room_id: &RoomId,
        invite: &ThirdPartyInvite,
    ) -> Result<(), HandshakeError> {
        self.require_valid_key(room_id, &invite.signed).await?;
        let (info, event) = self.rooms.exchange_third_party_invite(room_id, invite).await?;
        if self.view.is_local(&invite.target) {
            return Ok(());
        }
        self.have_signed(invite.target.server_name(), info, event).await
    }
}
