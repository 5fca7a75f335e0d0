//! The tree below a room, as far as one user may know it. Rooms that are not held here are asked for elsewhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use myelin_core::{Env, UserNid};
use myelin_view::RoomSnapshot;
use ruma::{OwnedRoomId, OwnedServerName};

use super::{
    Elsewhere, ForeignRoom, ROOMS_MAX,
    access::Outsider,
    child::{Child, in_order},
};
use crate::{Error, Sync};

/// Questions to other servers for one answer.
const QUESTIONS_MAX: usize = 30;
/// And how long they may take together; what is not known by then is left out.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Wanted {
    pub user: UserNid,
    pub suggested_only: bool,
    pub depth_max: u64,
    /// Rooms, at most.
    pub count: usize,
}

pub struct Node {
    pub room: Room,
    pub children: Vec<Child>,
}

pub enum Room {
    Here(Arc<RoomSnapshot>),
    Elsewhere(Arc<ForeignRoom>),
}

/// A room on the way.
struct Visit {
    room_id: OwnedRoomId,
    via: Vec<OwnedServerName>,
    depth: u64,
}

/// What other servers said in the course of a walk.
struct Told<'a> {
    elsewhere: &'a dyn Elsewhere,
    questions: usize,
    env: &'a Env,
    until_ms: u64,
    /// Rooms described as children of another.
    children: BTreeMap<OwnedRoomId, ForeignRoom>,
    /// Rooms that are not open to this server.
    closed: BTreeSet<OwnedRoomId>,
}

impl Sync {
    /// Depth first.
    pub(super) async fn walk_tree(
        &self,
        root: Arc<RoomSnapshot>,
        wanted: &Wanted,
        elsewhere: &dyn Elsewhere,
    ) -> Result<Vec<Node>, Error> {
        let mut stack = vec![Visit { room_id: root.info.room_id.clone(), via: Vec::new(), depth: 0 }];
        let env = &self.view.env;
        let until_ms = env.now_ms() + PATIENCE.as_millis() as u64;
        let (children, closed) = (BTreeMap::new(), BTreeSet::new());
        let mut told = Told { elsewhere, questions: 0, env, until_ms, children, closed };
        let mut visited: BTreeSet<OwnedRoomId> = BTreeSet::new();
        let mut tree = Vec::new();
        let mut walked = 0;
        while let Some(visit) = stack.pop() {
            walked += 1;
            if tree.len() >= wanted.count || walked > ROOMS_MAX {
                break;
            }
            if !visited.insert(visit.room_id.clone()) {
                continue;
            }
            let Some(node) = self.visit(&visit, wanted, &mut told).await? else { continue };
            if visit.depth < wanted.depth_max {
                let below = node.children.iter().rev().map(|child| Visit {
                    room_id: child.room_id.clone(),
                    via: child.via.clone(),
                    depth: visit.depth + 1,
                });
                stack.extend(below);
            }
            tree.push(node);
        }
        Ok(tree)
    }

    /// `None` if the user may not know of the room, or nobody knows it.
    async fn visit(
        &self,
        visit: &Visit,
        wanted: &Wanted,
        told: &mut Told<'_>,
    ) -> Result<Option<Node>, Error> {
        let held = self.view.room_by_id(&visit.room_id).await?;
        // A room that everybody here has left is not kept up to date.
        let current = held.as_ref().is_some_and(|room| !room.local_joined.is_empty());
        if !current && let Some(node) = self.visit_elsewhere(visit, wanted, told).await? {
            return Ok(Some(node));
        }
        let Some(room) = held else { return Ok(None) };
        if !self.is_open_to(&room, Outsider::User(Some(wanted.user))).await? {
            return Ok(None);
        }
        let children = self.children_of(&room, wanted.suggested_only).await?;
        Ok(Some(Node { room: Room::Here(room), children }))
    }

    async fn visit_elsewhere(
        &self,
        visit: &Visit,
        wanted: &Wanted,
        told: &mut Told<'_>,
    ) -> Result<Option<Node>, Error> {
        let Some(room) = told.room(visit, wanted).await else { return Ok(None) };
        if !self.is_foreign_open_to(&room, wanted.user).await? {
            return Ok(None);
        }
        let children = in_order(room.children_state.iter().cloned(), wanted.suggested_only);
        Ok(Some(Node { room: Room::Elsewhere(Arc::new(room)), children }))
    }
}

impl Told<'_> {
    async fn room(&mut self, visit: &Visit, wanted: &Wanted) -> Option<ForeignRoom> {
        if self.closed.contains(&visit.room_id) || visit.via.is_empty() {
            return None;
        }
        let described = self.children.remove(&visit.room_id);
        if described.as_ref().is_some_and(|room| !room.is_space() || visit.depth >= wanted.depth_max) {
            return described;
        }
        self.questions += 1;
        let left = Duration::from_millis(self.until_ms.saturating_sub(self.env.now_ms()));
        if self.questions > QUESTIONS_MAX || left.is_zero() {
            return described;
        }
        let question = self.elsewhere.space(&visit.room_id, &visit.via, wanted.suggested_only);
        let Some(space) = self.env.timeout(left, question).await.flatten() else { return described };
        self.children.extend(space.children.iter().map(|room| (room.room_id.clone(), room.clone())));
        self.closed.extend(space.inaccessible_children.iter().cloned());
        Some(space.room.clone())
    }
}
