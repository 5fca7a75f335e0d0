//! Who may see an event (Client-Server API, "Room history visibility"), over the pure rule of `myelin-dag`.
//!
//! Invariant: no event leaves the server but through [`Viewer::see`].

use std::collections::HashMap;

use myelin_core::{RoomNid, StateKeyNid, TimelineOrder, UserNid};
use myelin_dag::{
    state_tree::NodeHash,
    visibility::{may_see, may_see_visibility_change},
};
use myelin_store::{
    Direction,
    tables::{Membership, USER_STREAM, UserChange},
};
use myelin_view::{Event, RoomSnapshot, View};
use ruma::{
    UserId,
    events::room::{history_visibility::HistoryVisibility, member::MembershipState},
};

use crate::Error;

/// One user looking at one room. Remembers what it worked out: events in a row mostly share their state.
pub struct Viewer<'v> {
    view: &'v View,
    room: RoomNid,
    user: UserNid,
    member_key: Option<StateKeyNid>,
    visibility_key: Option<StateKeyNid>,
    joined_now: bool,
    /// Messages from before this time are gone (MSC1763).
    expired_before_ms: u64,
    joined_until: Option<Option<TimelineOrder>>,
    moments: HashMap<NodeHash, Moment>,
}

/// What the state at a root says about the viewer.
#[derive(Clone, Debug)]
struct Moment {
    visibility: HistoryVisibility,
    membership: Option<Membership>,
}

/// An event that the viewer may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The viewer's membership at the event (`unsigned.membership`).
    pub membership: Membership,
}

impl<'v> Viewer<'v> {
    pub async fn new(
        view: &'v View,
        room: &RoomSnapshot,
        user: UserNid,
        user_id: &UserId,
    ) -> Result<Self, Error> {
        Ok(Self {
            view,
            room: room.nid(),
            user,
            member_key: view.interner.lookup_state_key("m.room.member", user_id.as_str()).await?,
            visibility_key: view.interner.lookup_state_key("m.room.history_visibility", "").await?,
            joined_now: room.is_joined(user),
            expired_before_ms: view.expired_before_ms(room).await?.unwrap_or(0),
            joined_until: None,
            moments: HashMap::new(),
        })
    }

    /// `None` if the viewer may not see the event; then nothing about it may be said.
    pub async fn see(&mut self, event: &Event) -> Result<Option<Seen>, Error> {
        if event.room != self.room || !event.accepted() || is_dummy(event) {
            return Ok(None);
        }
        let Some(root) = event.state_before else { return Ok(None) };
        let sent_ms = u64::from(event.pdu.origin_server_ts.get());
        if event.state_key.is_none() && sent_ms < self.expired_before_ms {
            return Ok(None);
        }
        let moment = self.moment(root).await?;
        let own_membership = event.state_key.is_some() && event.state_key == self.member_key;
        if own_membership {
            // Everybody may see what became of them, whatever the history visibility.
            let membership = event.pdu.membership();
            let membership = membership.as_ref().map_or(Membership::Leave, Membership::from);
            return Ok(Some(Seen { membership }));
        }
        let before: Option<MembershipState> = moment.membership.map(Into::into);
        let later = self.joined_after(event.order.unwrap_or(TimelineOrder::MAX)).await?;
        let visible = if event.state_key.is_some() && event.state_key == self.visibility_key {
            may_see_visibility_change(moment.visibility, visibility_of(event), before, later)
        } else {
            may_see(moment.visibility, before, None, later)
        };
        Ok(visible.then_some(Seen { membership: moment.membership.unwrap_or(Membership::Leave) }))
    }

    /// For state events that come as part of a state which the viewer has a right to, whatever the history visibility.
    pub async fn see_as_state(&mut self, event: &Event) -> Result<Seen, Error> {
        let membership = match (event.state_key == self.member_key, event.state_before) {
            (true, _) => event.pdu.membership().as_ref().map(Membership::from),
            (false, Some(root)) => self.moment(root).await?.membership,
            (false, None) => None,
        };
        Ok(Seen { membership: membership.unwrap_or(Membership::Leave) })
    }

    /// Whether the viewer may see the state that the room had right after `order`: as an event that was sent then.
    pub async fn sees_state(&mut self, root: NodeHash, order: TimelineOrder) -> Result<bool, Error> {
        let moment = self.moment(root).await?;
        let later = self.joined_after(order).await?;
        Ok(may_see(moment.visibility, moment.membership.map(Into::into), None, later))
    }

    async fn moment(&mut self, root: NodeHash) -> Result<Moment, Error> {
        if let Some(moment) = self.moments.get(&root) {
            return Ok(moment.clone());
        }
        let state = self.view.states.load(root).await?;
        let visibility = match self.visibility_key.and_then(|key| state.get(key)) {
            Some(nid) => self.view.events.load(nid).await?.map(|event| visibility_of(&event)),
            None => None,
        };
        let membership = match self.member_key.and_then(|key| state.get(key)) {
            Some(nid) => self.view.events.load(nid).await?.and_then(|event| event.pdu.membership()),
            None => None,
        };
        let moment = Moment {
            visibility: visibility.unwrap_or(HistoryVisibility::Shared),
            membership: membership.as_ref().map(Membership::from),
        };
        self.moments.insert(root, moment.clone());
        Ok(moment)
    }

    /// Whether the viewer joined at any point after that.
    async fn joined_after(&mut self, order: TimelineOrder) -> Result<bool, Error> {
        // Joined now: was joined then (and then this does not matter), or has joined since.
        if self.joined_now {
            return Ok(true);
        }
        let joined_until = match self.joined_until {
            Some(known) => known,
            None => self.find_joined_until().await?,
        };
        self.joined_until = Some(joined_until);
        Ok(joined_until.is_some_and(|until| until > order))
    }

    /// Where the user was in the room for the last time: an event may have come by then on a branch that knows nothing of
    /// that. Only asked for users who have left: walks their own changes backwards.
    async fn find_joined_until(&self) -> Result<Option<TimelineOrder>, Error> {
        const CHANGES_MAX: usize = 100_000;
        let rows = self.view.store.scan(&USER_STREAM, &self.user, Direction::Reverse, CHANGES_MAX).await?;
        let mut later = None;
        for ((_, position), change) in rows {
            match change {
                UserChange::Membership { room, membership, .. } if room == self.room => {
                    if membership == Membership::Join {
                        return Ok(Some(later.unwrap_or(position).into()));
                    }
                    later = Some(position);
                }
                _ => {}
            }
        }
        Ok(None)
    }
}

fn visibility_of(event: &Event) -> HistoryVisibility {
    event.pdu.content_field("history_visibility").unwrap_or(HistoryVisibility::Shared)
}

/// The content is looked at first, as that costs nothing.
fn is_dummy(event: &Event) -> bool {
    event.state_key.is_none()
        && event.pdu.content.get() == "{}"
        && event.pdu.event_type.to_string() == myelin_view::DUMMY_EVENT
}
