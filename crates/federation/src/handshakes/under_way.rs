//! Handshakes that go on when whoever asked for them hangs up: once another server has taken or signed an event, what
//! comes of it must be written down here.

use std::{collections::HashMap, sync::Arc};

use futures::{
    FutureExt,
    channel::oneshot::{self, Receiver},
    future::Shared,
};
use myelin_rooms::{Error, Sender};
use parking_lot::Mutex;
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId};

use super::{HandshakeError, Handshakes, JoinRequest};

type Outcome = Result<(), HandshakeError>;
/// Who joins what through whom.
type Wish = (OwnedUserId, OwnedRoomId, Vec<OwnedServerName>);

/// Joins through other servers. Whoever wishes the same again waits for the same outcome.
#[derive(Default)]
pub(super) struct Joins(Mutex<HashMap<Wish, Shared<Receiver<Outcome>>>>);

impl Handshakes {
    pub(super) async fn join_once(self: &Arc<Self>, sender: &Sender, request: &JoinRequest) -> Outcome {
        let wish = (sender.user_id.clone(), request.room_id.clone(), request.via.clone());
        self.joining(wish, sender, request).await.unwrap_or(Err(INTERRUPTED))
    }

    fn joining(
        self: &Arc<Self>,
        wish: Wish,
        sender: &Sender,
        request: &JoinRequest,
    ) -> Shared<Receiver<Outcome>> {
        let mut joins = self.joins.0.lock();
        // What broke off is not under way.
        joins.retain(|_, joining| joining.clone().now_or_never().is_none());
        if let Some(joining) = joins.get(&wish) {
            return joining.clone();
        }
        let (done, outcome) = oneshot::channel();
        let joining = outcome.shared();
        joins.insert(wish.clone(), joining.clone());
        drop(joins);
        let (this, sender, request) = (self.clone(), sender.clone(), request.clone());
        let task = async move {
            let outcome = this.join_elsewhere(&sender, &request).await;
            this.joins.0.lock().remove(&wish);
            drop(done.send(outcome));
        };
        self.view.env.spawner.spawn("join", task.boxed());
        joining
    }

    /// As a task of its own.
    pub(super) async fn to_the_end<T: Send + 'static>(
        &self,
        handshake: impl Future<Output = Result<T, HandshakeError>> + Send + 'static,
    ) -> Result<T, HandshakeError> {
        let (done, outcome) = oneshot::channel();
        let task = async move { drop(done.send(handshake.await)) };
        self.view.env.spawner.spawn("handshake", task.boxed());
        outcome.await.unwrap_or(Err(INTERRUPTED))
    }
}

/// The process ends.
const INTERRUPTED: HandshakeError = HandshakeError::Rooms(Error::Busy);
