//! State trees: nodes are what their keys say and lead to nodes; every root that something names is there.

use myelin_core::RoomNid;

use super::Verifier;
use crate::{
    Error,
    codec::KeyPart,
    maintenance::pages::TypedPages,
    tables::{AUTH_CHAINS, CURRENT_STATES, EVENTS, ROOM_HEADS, STATE_NODES, Table},
};

type NodeKey = [u8; 16];

impl Verifier<'_> {
    pub(super) async fn check_states(&mut self) -> Result<(), Error> {
        self.begin("states");
        self.check_nodes().await?;
        self.check_roots_of_events().await?;
        self.check_roots_of_heads().await?;
        self.check_roots_of_current_states().await?;
        self.check_auth_chains().await
    }

    async fn check_nodes(&mut self) -> Result<(), Error> {
        let mut pages = TypedPages::of(&STATE_NODES);
        while let Some(rows) = pages.next(self.read()).await? {
            let mut children = Vec::new();
            for (key, bytes) in &rows {
                match self.knowledge.read_node(key, bytes) {
                    Ok(node) => children.extend(node.children.into_iter().map(|child| (*key, child))),
                    Err(problem) => self.found(&STATE_NODES, key, problem),
                }
            }
            self.check_nodes_there(&STATE_NODES, "child", &children).await?;
            self.advance(rows.len());
        }
        Ok(())
    }

    async fn check_roots_of_events(&mut self) -> Result<(), Error> {
        let mut pages = TypedPages::of(&EVENTS);
        while let Some(rows) = pages.next(self.read()).await? {
            let roots: Vec<_> =
                rows.iter().filter_map(|(nid, event)| Some((*nid, event.value.state_before?))).collect();
            self.check_nodes_there(&EVENTS, "state before it", &roots).await?;
            self.advance(rows.len());
        }
        Ok(())
    }

    async fn check_roots_of_heads(&mut self) -> Result<(), Error> {
        let mut pages = TypedPages::of(&ROOM_HEADS);
        while let Some(rows) = pages.next(self.read()).await? {
            let roots: Vec<_> = rows.iter().map(|(room, head)| (*room, head.current_state)).collect();
            self.check_nodes_there(&ROOM_HEADS, "current state", &roots).await?;
        }
        Ok(())
    }

    /// The last row of a room is the state in its head.
    async fn check_roots_of_current_states(&mut self) -> Result<(), Error> {
        let mut pages = TypedPages::of(&CURRENT_STATES);
        let mut last = None;
        while let Some(rows) = pages.next(self.read()).await? {
            let roots: Vec<_> = rows.iter().map(|(key, state)| (*key, state.root)).collect();
            self.check_nodes_there(&CURRENT_STATES, "state", &roots).await?;
            for ((room, _), root) in roots {
                if let Some((ended, root)) = last.replace((room, root)).filter(|(ended, _)| *ended != room) {
                    self.check_is_current(ended, root).await?;
                }
            }
            self.advance(rows.len());
        }
        match last {
            Some((room, root)) => self.check_is_current(room, root).await,
            None => Ok(()),
        }
    }

    async fn check_is_current(&mut self, room: RoomNid, root: NodeKey) -> Result<(), Error> {
        let head = self.load_all(&ROOM_HEADS, [room]).await?;
        if head.iter().any(|head| head.row().is_some_and(|head| head.current_state != root)) {
            let problem = "its current state is not the last that table 'current_states' has".to_owned();
            self.found(&ROOM_HEADS, &room, problem);
        }
        Ok(())
    }

    async fn check_auth_chains(&mut self) -> Result<(), Error> {
        let mut pages = TypedPages::of(&AUTH_CHAINS);
        while let Some(rows) = pages.next(self.read()).await? {
            let there = self.are_there(&EVENTS, rows.iter().map(|(nid, _)| *nid)).await?;
            for ((nid, _), there) in rows.iter().zip(there) {
                if !there {
                    self.found(&AUTH_CHAINS, nid, "belongs to an event that is not there".to_owned());
                }
            }
            self.advance(rows.len());
        }
        Ok(())
    }

    async fn check_nodes_there<K: KeyPart, V>(
        &mut self,
        table: &Table<K, V>,
        what: &str,
        nodes: &[(K, NodeKey)],
    ) -> Result<(), Error> {
        let there = self.are_there(&STATE_NODES, nodes.iter().map(|(_, node)| *node)).await?;
        for ((key, node), there) in nodes.iter().zip(there) {
            if !there && *node != self.knowledge.empty_state() {
                let node = u128::from_be_bytes(*node);
                self.found(table, key, format!("its {what} {node:032x} is not in table 'state_nodes'"));
            }
        }
        Ok(())
    }
}
