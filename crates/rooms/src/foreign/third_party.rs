//! Invites that were sent to an e-mail address or phone number, once it is known whose that is (Server-Server API,
//! "Third-party invites").

use std::sync::Arc;

use myelin_dag::{NewEvent, Pdu};
use ruma::{OwnedUserId, RoomId};
use serde_json::{Value, json};

use crate::{
    Error, Rooms,
    writer::{Command, Draft},
};

/// What an identity server signed.
#[derive(Debug, Clone)]
pub struct ThirdPartyInvite {
    /// Who sent it; of this server.
    pub sender: OwnedUserId,
    pub target: OwnedUserId,
    /// `signed` of the member event's `third_party_invite`: `mxid`, `token`, `signatures`.
    pub signed: Value,
}

struct Exchange<'a> {
    invite: &'a ThirdPartyInvite,
    /// The target is of this server: nobody else has to sign.
    append: bool,
}

impl Rooms {
    /// The invite of the room for the user, if the room allows it; appended if the user is of this server, else to be
    /// signed by the user's server first.
    pub async fn exchange_third_party_invite(
        &self,
        room_id: &RoomId,
        invite: &ThirdPartyInvite,
    ) -> Result<(Arc<myelin_view::RoomInfo>, Pdu), Error> {
        let room = self.resident_room(room_id).await?;
        self.target(&invite.target).await?;
        self.view.interner.user(&invite.sender).await?;
        let append = self.view.is_local(&invite.target);
        let event = self.run(room.nid(), &Exchange { invite, append }).await?;
        Ok((room.info.clone(), event))
    }
}

impl Command for Exchange<'_> {
    type Output = Pdu;

    async fn act(&self, draft: &mut Draft<'_>) -> Result<Pdu, Error> {
        let ThirdPartyInvite { sender, target, signed } = self.invite;
        let token = signed.get("token").and_then(Value::as_str).unwrap_or_default();
        let stored = draft.state_event("m.room.third_party_invite", token).await?;
        let stored = stored.ok_or_else(|| Error::Forbidden("The room has no such invite.".to_owned()))?;
        let name: String = stored.pdu.content_field("display_name").unwrap_or_default();
        let content = json!({
            "membership": "invite",
            "third_party_invite": { "display_name": name, "signed": signed },
        });
        let event = NewEvent::state(sender.clone(), "m.room.member", target.as_str(), &content)?;
        if self.append {
            let sender = draft.rooms().view().interner.user(sender).await?;
            return Ok((*draft.append_by(sender, event, None).await?.pdu).clone());
        }
        Ok(draft.make(event).await?.0)
    }
}
