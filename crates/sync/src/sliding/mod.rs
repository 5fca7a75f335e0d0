//! Sliding sync (MSC4186): a window on the user's rooms that the client moves, over the same interval of the log as
//! [`crate::v2`].
//!
//! A position names a place in the log and a state of the connection ([`connection`]): per room, up to where the client was
//! told and as what. Rooms in sight are told up to the position and need no note; only what leaves or enters the sight does.
//! So a connection in its daily round writes nothing, and one that comes back after a restart goes on where it was.
//!
//! 1. [`window`]: the rooms that the lists and subscriptions stand for.
//! 2. [`told`]: those among them where something may be new.
//! 3. [`room`], [`state`]: what is new in one of them.
//! 4. [`extensions`]: everything that is not about rooms' events.

mod connection;
mod extensions;
mod facts;
mod recency;
pub mod request;
pub mod required_state;
mod room;
mod state;
mod sticky;
mod told;
mod window;

use std::{collections::HashSet, time::Duration};

use futures::{FutureExt, select_biased};
use myelin_core::{Position, RoomNid, SlidingToken, SyncToken, TimelineOrder, limits};

pub use self::{
    connection::Connections,
    facts::Facts,
    recency::Recency,
    request::{Dialect, Extensions, List, PerRoom, Request, RoomConfig, RoomFilter, Selection, Stream},
    required_state::{Pattern, RequiredState, RequiredStates},
};
use self::{
    connection::Held,
    extensions::ToldRoom,
    told::{Next, Task},
    window::Window,
};
use crate::{
    Error, Sync, json,
    json::Object,
    v2,
    v2::{Changes, StateForm},
};

/// What one attempt at an answer stands on.
pub(crate) struct Answering<'a> {
    pub request: &'a Request,
    pub context: v2::Context<'a>,
    pub changes: Changes,
    /// The position that the client came with.
    pub position: Option<Position>,
    /// Ids of the user's direct rooms.
    pub direct: HashSet<String>,
    /// Under which the members that were sent are remembered.
    pub lazy_owner: String,
}

/// An answer but for its position.
struct Attempt {
    body: String,
    news: bool,
    next: Next,
    now: Position,
    ephemeral: u64,
}

impl Answering<'_> {
    /// Whether something just happened, as far as the client is concerned.
    fn is_live(&self, order: TimelineOrder) -> bool {
        self.position.is_some_and(|position| TimelineOrder::from(position) < order)
    }

    fn direct_rooms_changed(&self) -> bool {
        self.changes.account_data.get(&RoomNid::GLOBAL).is_some_and(|types| types.contains("m.direct"))
    }
}

impl Sync {
    /// The answer as JSON. Waits for news up to the request's timeout.
    pub async fn sliding_sync(&self, request: Request) -> Result<String, Error> {
        let base = v2::Request {
            set_presence: request.set_presence.clone(),
            state_form: StateForm::After,
            ..v2::Request::of(request.requester.clone(), None)
        };
        self.note_presence(&base).await?;
        let now = self.view.feed.caught_up().await;
        let held = self.held_connection(&request, now).await?;
        let since = held.token.map(|token| SyncToken {
            position: token.position,
            ephemeral: token.ephemeral,
            to_device: None,
        });
        let base = v2::Request { since, ..base };
        let timeout_ms = request.timeout_ms.min(limits::SYNC_TIMEOUT_MS_MAX);
        if held.token.is_none() || timeout_ms == 0 {
            let attempt = self.attempt(&request, &base, &held).await?;
            return self.finish(&request, &held, attempt).await;
        }
        // Registered before the first look: what is committed in between wakes it.
        let waiter = self.view.feed.register(request.requester.user);
        let mut attempt = self.attempt(&request, &base, &held).await?;
        let mut timeout = self.view.env.clock.sleep(Duration::from_millis(timeout_ms)).fuse();
        while !attempt.news && !self.is_draining() {
            select_biased! {
                () = waiter.wait().fuse() => attempt = self.attempt(&request, &base, &held).await?,
                () = timeout => break,
            }
        }
        self.finish(&request, &held, attempt).await
    }

    async fn attempt(&self, request: &Request, base: &v2::Request, held: &Held) -> Result<Attempt, Error> {
        let now = self.view.feed.caught_up().await;
        let mut context = self.standing_on(base, now, base.since);
        let changes = Changes::later(self, &mut context).await?;
        let window = self.window(request, &changes.rooms, held).await?;
        let tasks = self.tasks(&window, held, &changes).await?;
        let user = request.requester.user;
        let direct = if tasks.is_empty() { HashSet::new() } else { self.direct_rooms(user).await? };
        let position = held.token.map(|token| token.position);
        let lazy_owner = format!("{}\u{0}{}", request.requester.device_id, request.conn_id);
        let answering = Answering { request, context, changes, position, direct, lazy_owner };
        self.compose_sliding(answering, held, &window, tasks).await
    }

    async fn compose_sliding(
        &self,
        mut answering: Answering<'_>,
        held: &Held,
        window: &Window,
        tasks: Vec<Task>,
    ) -> Result<Attempt, Error> {
        let mut next = Next::after(held);
        let mut body = String::with_capacity(1024);
        push_lists(answering.request, window, &mut body);
        let mut rooms = String::new();
        let mut out = Object::open(&mut rooms);
        let mut told_rooms = Vec::with_capacity(tasks.len());
        for task in tasks {
            let told = self.tell_of(&answering, &task).await?;
            next.told(&task, told.as_ref().is_some_and(|told| told.limited));
            if let Some(told) = told.as_ref().filter(|told| told.news) {
                out.raw(task.info.room_id.as_str(), &told.json);
            }
            told_rooms.push(ToldRoom::new(task, told));
        }
        let mut news = !out.is_empty();
        out.close();
        if let Some(position) = answering.position {
            next.missed(window, &answering.changes, position);
        }
        let all = &answering.changes.rooms;
        next.forget(|room| all.get(room).is_some_and(|held| !held.forgotten));
        body.push_str(",\"rooms\":");
        body.push_str(&rooms);
        body.push_str(",\"extensions\":");
        news |= self.push_extensions(&mut answering, window, &told_rooms, &mut body).await?;
        let (now, ephemeral) = (answering.context.now, answering.context.now_ephemeral);
        Ok(Attempt { body, news, next, now, ephemeral })
    }

    /// Keeps what the client will have been told, and gives the answer its position.
    async fn finish(&self, request: &Request, held: &Held, attempt: Attempt) -> Result<String, Error> {
        let Attempt { body, next, now, ephemeral, .. } = attempt;
        let state = if next.differs {
            self.keep_connection(request, held, next.connection).await?
        } else {
            held.token.map_or(0, |token| token.state)
        };
        let token = SlidingToken { state, owner: connection::owner_of(request), position: now, ephemeral };
        let mut answer = String::with_capacity(body.len() + 96);
        let mut out = Object::open(&mut answer);
        out.string("pos", &token.to_string());
        if let Some(txn_id) = &request.txn_id {
            out.string("txn_id", txn_id);
        }
        out.key("lists").push_str(&body);
        out.close();
        Ok(answer)
    }
}

/// `{"<list>": {"count": n}}`
fn push_lists(request: &Request, window: &Window, out: &mut String) {
    let mut lists = Object::open(out);
    for (name, count) in request.lists.keys().zip(&window.counts) {
        let mut list = lists.object(name);
        list.number("count", *count as u64);
        list.close();
    }
    lists.close();
}

/// `{"<room>": <JSON>}`; nothing if there is none.
fn push_by_room(out: &mut Object<'_>, by_room: &[(&str, String)]) {
    let mut rooms = out.object("rooms");
    for (room, json) in by_room {
        rooms.raw(room, json);
    }
    rooms.close();
}

fn array_of(events: &[String]) -> String {
    let mut text = String::new();
    json::push_array(&mut text, events);
    text
}
