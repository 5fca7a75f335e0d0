//! What of an event another server gets to see: history visibility for a server is that of its users together
//! (Client-Server API, "Room history visibility"). What none of them may see goes out redacted, so that the DAG has no
//! holes (as Synapse does).

use std::{collections::HashMap, sync::Arc};

use myelin_core::{StateKeyNid, TimelineOrder};
use myelin_dag::{
    Pdu,
    redaction::redact,
    state_tree::NodeHash,
    visibility::{may_see, may_see_visibility_change},
};
use myelin_store::tables::SERVER_ROOMS;
use myelin_view::{Error, Event, RoomSnapshot, View};
use ruma::{
    ServerName, UserId,
    events::{
        TimelineEventType,
        room::{history_visibility::HistoryVisibility, member::MembershipState},
    },
};

const MEMBER: &str = "m.room.member";

/// One server, which takes part in the room now or did once, looking at it. Remembers what it worked out.
pub struct Sight<'v> {
    view: &'v View,
    room: &'v RoomSnapshot,
    server: &'v ServerName,
    /// Where the server's part in the room ended: what came later is nothing to it.
    until: Option<TimelineOrder>,
    visibility_key: Option<StateKeyNid>,
    /// Messages from before this time are gone (MSC1763).
    expired_before_ms: u64,
    /// The member keys of all users of that server whom the room has heard of; found when they are first needed.
    member_keys: Option<Arc<[StateKeyNid]>>,
    visibilities: HashMap<NodeHash, HistoryVisibility>,
    memberships: HashMap<NodeHash, Option<MembershipState>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Seen,
    Hidden,
    /// Members of the room are still to come, and those of that server may be among them.
    Unclear,
}

impl<'v> Sight<'v> {
    pub async fn new(view: &'v View, room: &'v RoomSnapshot, server: &'v ServerName) -> Result<Self, Error> {
        let visibility_key = view.interner.lookup_state_key("m.room.history_visibility", "").await?;
        let expired_before_ms = view.expired_before_ms(room).await?.unwrap_or(0);
        let until = match room.has_server(server) {
            true => None,
            false => Some(end_of_part(view, room, server).await?),
        };
        let (visibilities, memberships) = (HashMap::new(), HashMap::new());
        let member_keys = None;
        Ok(Self {
            view,
            room,
            server,
            until,
            visibility_key,
            expired_before_ms,
            member_keys,
            visibilities,
            memberships,
        })
    }

    /// Whether the event came after the server's part in the room had ended, and did not end it.
    pub fn is_beyond(&self, event: &Event) -> bool {
        let later = |until| event.order.is_some_and(|order| order >= until);
        self.until.is_some_and(later) && !self.is_own_membership(event)
    }

    /// The PDU as that server gets it: whole, or redacted; `None` as long as that cannot be told.
    pub async fn pdu(&mut self, event: &Event) -> Result<Option<Arc<str>>, Error> {
        Ok(match self.look(event).await? {
            Look::Seen => Some(event.pdu.json.clone()),
            Look::Hidden => Some(redact(&event.pdu, &self.room.info.rules)),
            Look::Unclear => None,
        })
    }

    /// Whether any of its users may see the event.
    pub async fn sees(&mut self, event: &Event) -> Result<bool, Error> {
        Ok(self.look(event).await? == Look::Seen)
    }

    async fn look(&mut self, event: &Event) -> Result<Look, Error> {
        let seen = |seen: bool| if seen { Look::Seen } else { Look::Hidden };
        // Outliers are known as parts of a state.
        let Some(root) = event.state_before else { return Ok(seen(event.pdu.is_state())) };
        if self.is_own_membership(event) {
            return Ok(Look::Seen);
        }
        if is_hidden_from_nobody(&event.pdu) {
            return Ok(Look::Seen);
        }
        let sent_ms = u64::from(event.pdu.origin_server_ts.get());
        if !event.pdu.is_state() && sent_ms < self.expired_before_ms {
            return Ok(Look::Hidden);
        }
        if !event.pdu.is_state() && self.view.erased.contains(event.sender).await? {
            let joined = self.membership(root).await? == Some(MembershipState::Join);
            return self.unless_members_lack(joined).await;
        }
        let visibility = self.visibility(root).await?;
        let after = (event.state_key.is_some() && event.state_key == self.visibility_key)
            .then(|| visibility_of(event));
        let later = self.until.is_none_or(|until| event.order.is_some_and(|order| order < until));
        let may = |membership: Option<MembershipState>| match &after {
            Some(after) => may_see_visibility_change(visibility.clone(), after.clone(), membership, later),
            None => may_see(visibility.clone(), membership, None, later),
        };
        if may(None) {
            return Ok(Look::Seen);
        }
        let may = may(self.membership(root).await?);
        self.unless_members_lack(may).await
    }

    /// What is redacted for want of knowing the members would stay so with whoever gets it.
    async fn unless_members_lack(&mut self, seen: bool) -> Result<Look, Error> {
        let lack = self.room.members_omitted || (self.room.partial && self.member_keys().await?.is_empty());
        Ok(match seen {
            true => Look::Seen,
            false if lack => Look::Unclear,
            false => Look::Hidden,
        })
    }

    fn is_own_membership(&self, event: &Event) -> bool {
        let user = event.pdu.state_key.as_deref().filter(|_| event.pdu.membership().is_some());
        let user = user.and_then(|user| <&UserId>::try_from(user).ok());
        user.is_some_and(|user| user.server_name() == self.server)
    }

    async fn visibility(&mut self, root: NodeHash) -> Result<HistoryVisibility, Error> {
        if let Some(visibility) = self.visibilities.get(&root) {
            return Ok(visibility.clone());
        }
        let state = self.view.states.load(root).await?;
        let event = match self.visibility_key.and_then(|key| state.get(key)) {
            Some(nid) => self.view.events.load(nid).await?,
            None => None,
        };
        let visibility = event.map_or(HistoryVisibility::Shared, |event| visibility_of(&event));
        self.visibilities.insert(root, visibility.clone());
        Ok(visibility)
    }

    /// The best membership that a user of the server has in a state: join, else invite.
    async fn membership(&mut self, root: NodeHash) -> Result<Option<MembershipState>, Error> {
        if let Some(best) = self.memberships.get(&root) {
            return Ok(best.clone());
        }
        let state = self.view.states.load(root).await?;
        let mut best = None;
        for nid in self.member_keys().await?.iter().filter_map(|key| state.get(*key)) {
            match self.view.events.load(nid).await?.and_then(|event| event.pdu.membership()) {
                Some(MembershipState::Join) => {
                    best = Some(MembershipState::Join);
                    break;
                }
                Some(MembershipState::Invite) => best = Some(MembershipState::Invite),
                _ => {}
            }
        }
        self.memberships.insert(root, best.clone());
        Ok(best)
    }

    async fn member_keys(&mut self) -> Result<Arc<[StateKeyNid]>, Error> {
        if let Some(keys) = &self.member_keys {
            return Ok(keys.clone());
        }
        let mut keys = Vec::new();
        for user in self.view.server_members.of(self.room, self.server).await? {
            let user_id = self.view.interner.user_id(user).await?;
            keys.extend(self.view.interner.lookup_state_key(MEMBER, user_id.as_str()).await?);
        }
        Ok(self.member_keys.insert(keys.into()).clone())
    }
}

async fn end_of_part(view: &View, room: &RoomSnapshot, server: &ServerName) -> Result<TimelineOrder, Error> {
    let row = view.store.get(&SERVER_ROOMS, &(server.to_string(), room.nid())).await?;
    Ok(row.map_or(TimelineOrder::MIN, |row| row.position.into()))
}

/// Who holds a server ACL redacted lets nobody take part in the room, itself included; and who holds a redaction so knows not
/// what it redacts, and in room versions 1 and 2 rejects it.
pub fn is_hidden_from_nobody(pdu: &Pdu) -> bool {
    pdu.event_type == TimelineEventType::RoomRedaction || pdu.is_state_of("m.room.server_acl", "")
}

fn visibility_of(event: &Event) -> HistoryVisibility {
    event.pdu.content_field("history_visibility").unwrap_or(HistoryVisibility::Shared)
}
