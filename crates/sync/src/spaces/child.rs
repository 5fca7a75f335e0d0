//! The children of a space: its valid `m.space.child` events in the order of the specification ("Ordering of children
//! within a space").

use myelin_dag::client_form::stripped_state;
use myelin_view::{Event, RoomSnapshot};
use ruma::{OwnedRoomId, OwnedServerName};
use serde::Deserialize;
use serde_json::Value;

use crate::{Error, Sync, room_state::load_events};

const SPACE: &str = "m.space";
const CHILD: &str = "m.space.child";
/// `order` of a space child: printable ASCII, at most so long.
const ORDER_SIZE_MAX: usize = 50;

#[derive(Clone, Debug)]
pub struct Child {
    pub room_id: OwnedRoomId,
    pub via: Vec<OwnedServerName>,
    /// The event in stripped form, with its `origin_server_ts`.
    pub state: Value,
    suggested: bool,
    /// Those with a valid `order` first, then by timestamp, then by room id.
    order: (bool, String, u64),
}

#[derive(Deserialize)]
struct StrippedChild {
    #[serde(rename = "type")]
    kind: String,
    state_key: OwnedRoomId,
    origin_server_ts: u64,
    content: Content,
}

#[derive(Deserialize)]
struct Content {
    via: Vec<String>,
    #[serde(default)]
    suggested: Value,
    #[serde(default)]
    order: Value,
}

impl Child {
    /// `None` if it is no child of a space, or no longer one.
    pub fn of(state: Value) -> Option<Self> {
        let child = StrippedChild::deserialize(&state).ok()?;
        if child.kind != CHILD || child.content.via.is_empty() {
            return None;
        }
        let printable = |text: &&str| text.bytes().all(|b| (0x20..=0x7e).contains(&b));
        let order = child.content.order.as_str().filter(|text| text.len() <= ORDER_SIZE_MAX);
        let order = order.filter(printable);
        Some(Self {
            room_id: child.state_key,
            via: child.content.via.into_iter().filter_map(|server| server.try_into().ok()).collect(),
            suggested: child.content.suggested == Value::Bool(true),
            order: (order.is_none(), order.unwrap_or_default().to_owned(), child.origin_server_ts),
            state,
        })
    }
}

/// Valid ones, in order.
pub fn in_order(children: impl Iterator<Item = Value>, suggested_only: bool) -> Vec<Child> {
    let children = children.filter_map(Child::of);
    let mut children: Vec<_> = children.filter(|child| child.suggested || !suggested_only).collect();
    children.sort_by(|a, b| (&a.order, &a.room_id).cmp(&(&b.order, &b.room_id)));
    children
}

impl Sync {
    pub(crate) async fn children_of(
        &self,
        room: &RoomSnapshot,
        suggested_only: bool,
    ) -> Result<Vec<Child>, Error> {
        if room.info.room_type.as_deref() != Some(SPACE) {
            return Ok(Vec::new());
        }
        let (keys, nids): (Vec<_>, Vec<_>) = room.current_state.iter().unzip();
        let names = self.view.interner.state_key_names(&keys).await?;
        let is_child = names.iter().map(|name| name.event_type == CHILD);
        let nids: Vec<_> = nids.into_iter().zip(is_child).filter_map(|(n, is)| is.then_some(n)).collect();
        let events = load_events(&self.view, &nids).await?;
        Ok(in_order(events.iter().map(|event| child_state(event)), suggested_only))
    }
}

fn child_state(child: &Event) -> Value {
    let mut state: Value = serde_json::from_str(stripped_state(&child.pdu).get()).unwrap_or_default();
    state["origin_server_ts"] = u64::from(child.pdu.origin_server_ts.get()).into();
    state
}
