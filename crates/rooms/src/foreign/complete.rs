//! Completing a template that a resident server gave (`make_join` and relatives).

use std::collections::BTreeMap;

use myelin_core::limits::{AUTH_EVENTS_MAX, JSON_INTEGER_MAX, PREV_EVENTS_MAX};
use myelin_dag::{Names, NewEvent, Parents, Pdu, build, checks::FormedPdu, needs_names};
use myelin_view::RoomInfo;
use ruma::{
    OwnedEventId, OwnedRoomId, OwnedUserId, events::room::member::MembershipState,
    room_version_rules::RoomVersionRules,
};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{Error, MembershipChange, Rooms, Sender, commands::join::AUTHORISED_VIA};

/// What is used of a template. The rest of it is ignored: nobody vouches for it.
#[derive(Debug, Clone, Deserialize)]
pub struct ProtoEvent {
    #[serde(rename = "type")]
    pub event_type: String,
    pub room_id: OwnedRoomId,
    pub sender: OwnedUserId,
    pub state_key: String,
    pub content: Map<String, Value>,
    pub depth: u64,
    pub prev_events: Vec<Reference>,
    pub auth_events: Vec<Reference>,
}

/// In versions 1 and 2 an event is named together with its hash.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Reference {
    Id(OwnedEventId),
    Hashed(OwnedEventId, Hashes),
    /// Some servers leave the hashes out altogether.
    Bare((OwnedEventId,)),
}

/// Synapse leaves out the hashes of what it does not hold.
#[derive(Debug, Clone, Deserialize)]
pub struct Hashes {
    #[serde(default)]
    sha256: String,
}

impl Rooms {
    /// The user's own member event after a template, signed.
    pub async fn complete_template(
        &self,
        sender: &Sender,
        info: &RoomInfo,
        template: ProtoEvent,
        membership: &MembershipState,
        change: &MembershipChange,
    ) -> Result<Pdu, Error> {
        check(&template, sender, info, membership)?;
        let leaving = *membership == MembershipState::Leave;
        let profile = if leaving { Map::new() } else { self.profile(sender.user).await? };
        let mut content = change.content(membership, &profile);
        if *membership == MembershipState::Join
            && let Some(user) = template.content.get(AUTHORISED_VIA)
        {
            content.insert(AUTHORISED_VIA.to_owned(), user.clone());
        }
        let user_id = &sender.user_id;
        let event = NewEvent::state(user_id.clone(), "m.room.member", user_id.as_str(), &content)?;
        let parents = self.parents_of(template, &info.rules)?;
        Ok(build(&info.rules, event, parents, self.view.env.now_ms(), &self.key)?)
    }

    fn parents_of(&self, template: ProtoEvent, rules: &RoomVersionRules) -> Result<Parents, Error> {
        let names = match needs_names(rules) {
            true => Some(Names {
                event_id: self.random_event_id(&self.view.server_name)?,
                reference_hashes: hashes(template.prev_events.iter().chain(&template.auth_events)),
            }),
            false => None,
        };
        Ok(Parents {
            room_id: Some(template.room_id),
            prev_events: template.prev_events.into_iter().map(Reference::id).collect(),
            auth_events: template.auth_events.into_iter().map(Reference::id).collect(),
            depth: template.depth.min(JSON_INTEGER_MAX.unsigned_abs()),
            names,
        })
    }

    /// An event of another server with this server's signature.
    pub fn countersign(&self, event: FormedPdu, rules: &RoomVersionRules) -> Result<FormedPdu, Error> {
        let signed = event.countersigned(rules, &self.view.server_name, &self.key);
        signed.map_err(|error| Error::InvalidParam(format!("The event cannot be signed: {error}.")))
    }
}

/// A server must not make this one sign anything but what was asked for.
fn check(
    template: &ProtoEvent,
    sender: &Sender,
    info: &RoomInfo,
    membership: &MembershipState,
) -> Result<(), Error> {
    let own = template.sender == sender.user_id && template.state_key == sender.user_id.as_str();
    let asked = template.content.get("membership").and_then(Value::as_str) == Some(membership.as_str());
    let placed = template.room_id == info.room_id && template.event_type == "m.room.member";
    let counts = !template.prev_events.is_empty()
        && template.prev_events.len() <= PREV_EVENTS_MAX
        && template.auth_events.len() <= AUTH_EVENTS_MAX;
    if own && asked && placed && counts {
        return Ok(());
    }
    Err(Error::BadState("The template is not for what was asked.".to_owned()))
}

impl Reference {
    fn id(self) -> OwnedEventId {
        match self {
            Self::Id(id) | Self::Hashed(id, _) | Self::Bare((id,)) => id,
        }
    }
}

fn hashes<'a>(references: impl Iterator<Item = &'a Reference>) -> BTreeMap<OwnedEventId, String> {
    let hashed = references.map(|reference| match reference {
        Reference::Hashed(id, hashes) => (id.clone(), hashes.sha256.clone()),
        Reference::Id(id) | Reference::Bare((id,)) => (id.clone(), String::new()),
    });
    hashed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_with_hashes_and_without() {
        for (written, hash) in [
            (r#""$1:a.org""#, ""),
            (r#"["$1:a.org", {"sha256": "abc"}]"#, "abc"),
            (r#"["$1:a.org", {}]"#, ""),
            (r#"["$1:a.org"]"#, ""),
        ] {
            let reference: Reference = serde_json::from_str(written).expect(written);
            let expected = ("$1:a.org".try_into().expect("an event id"), hash.to_owned());
            assert_eq!(hashes([&reference].into_iter()).into_iter().next(), Some(expected), "{written}");
        }
        for bad in ["5", "[]", r#"[{}, "$1:a.org"]"#] {
            assert!(serde_json::from_str::<Reference>(bad).is_err(), "{bad}");
        }
    }
}
