//! `GET /_matrix/client/v3/sync` (Client-Server API, "Syncing").
//!
//! A sync is a reader of the commit log: the client's token is its cursor, "now" is the last position that this
//! process has taken in, and everything in `(since, now]` that the user may see appears exactly once and in order.
//! What did not change costs nothing: the changed rooms come from the log, not from a walk over the user's rooms.

mod account_data;
mod changes;
mod device_lists;
pub(crate) mod ephemeral;
mod joined;
pub mod lazy;
mod outside;
mod presence;
mod state;
mod summary;
mod to_device;

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, select_biased};
use myelin_core::{Position, SyncToken, limits};
use ruma::presence::PresenceState;

pub use self::presence::presence_content;
pub(crate) use self::{
    changes::Changes,
    joined::{Timeline, TimelineRequest},
    to_device::MESSAGES_MAX,
};
use crate::{Error, Requester, Sync, client_event::Writer, filter::Filter, json::Object};

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    pub requester: Requester,
    pub since: Option<SyncToken>,
    pub filter: Arc<Filter>,
    pub full_state: bool,
    pub state_form: StateForm,
    pub timeout_ms: u64,
    pub set_presence: PresenceState,
}

impl Request {
    /// A sync that nobody waits for.
    pub(crate) fn of(requester: Requester, since: Option<SyncToken>) -> Self {
        Self {
            requester,
            since,
            filter: Arc::default(),
            full_state: false,
            state_form: StateForm::default(),
            timeout_ms: 0,
            set_presence: PresenceState::Offline,
        }
    }
}

/// Which state of a room the client asks for, and under which key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StateForm {
    /// At the start of the timeline: `state`.
    #[default]
    Before,
    /// At its end: `state_after` (`use_state_after`, v1.16).
    After,
    /// The same for clients that know it by its earlier name only (MSC4222).
    AfterUnstable,
}

impl StateForm {
    pub fn is_after(self) -> bool {
        self != Self::Before
    }

    pub fn key(self) -> &'static str {
        match self {
            Self::Before => "state",
            Self::After => "state_after",
            Self::AfterUnstable => "org.matrix.msc4222.state_after",
        }
    }
}

/// What one attempt at an answer stands on.
pub(crate) struct Context<'a> {
    pub request: &'a Request,
    pub since: Option<Position>,
    pub since_ephemeral: u64,
    /// Up to where the device has its to-device messages.
    pub to_device_since: Position,
    pub now: Position,
    pub now_ephemeral: u64,
    pub now_ms: u64,
    pub writer: Writer<'a>,
}

impl Sync {
    /// The answer as JSON. Waits for news up to the request's timeout.
    pub async fn sync(&self, request: Request) -> Result<String, Error> {
        self.note_presence(&request).await?;
        let timeout_ms = request.timeout_ms.min(limits::SYNC_TIMEOUT_MS_MAX);
        if request.since.is_none() || request.full_state || timeout_ms == 0 {
            return Ok(self.answer(&request).await?.json);
        }
        // Registered before the first look: what is committed in between wakes it.
        let waiter = self.view.feed.register(request.requester.user);
        let first = self.answer(&request).await?;
        if first.has_news || self.is_draining() {
            return Ok(first.json);
        }
        let mut timeout = self.view.env.clock.sleep(Duration::from_millis(timeout_ms)).fuse();
        loop {
            select_biased! {
                () = waiter.wait().fuse() => {
                    let answer = self.answer(&request).await?;
                    if answer.has_news || self.is_draining() {
                        return Ok(answer.json);
                    }
                }
                () = timeout => return Ok(self.answer(&request).await?.json),
            }
        }
    }

    async fn answer(&self, request: &Request) -> Result<Answer, Error> {
        let now = self.view.feed.caught_up().await;
        let now_ephemeral = self.view.ephemeral.sequence();
        let since = request.since.filter(|token| token.position <= now);
        if request.since.is_some() && since.is_none() {
            // From a store that was set back to a backup: the client starts anew, and gets everything.
            tracing::warn!(user = %request.requester.user_id, "a sync token is ahead of the store");
        }
        let context = Context { now_ephemeral, ..self.standing_on(request, now, since) };
        let idle = since.is_some_and(|token| {
            token.position == now && token.ephemeral >= now_ephemeral && token.to_device.is_none()
        });
        let acknowledged = self.view.inboxes.is_empty(request.requester.user, &request.requester.device_id);
        if idle && acknowledged && !request.full_state {
            self.empty(&context).await
        } else {
            self.compose(context).await
        }
    }

    pub(crate) fn standing_on<'a>(
        &'a self,
        request: &'a Request,
        now: Position,
        since: Option<SyncToken>,
    ) -> Context<'a> {
        Context {
            request,
            since: since.map(|token| token.position),
            since_ephemeral: since.map_or(0, |token| token.ephemeral),
            to_device_since: since.map_or(Position::ZERO, |token| token.to_device_seen()),
            now,
            now_ephemeral: self.view.ephemeral.sequence(),
            now_ms: self.view.env.now_ms(),
            writer: self.writer(request),
        }
    }

    async fn compose(&self, mut context: Context<'_>) -> Result<Answer, Error> {
        let changes = Changes::find(self, &mut context).await?;
        let inbox = self.inbox(&context, MESSAGES_MAX).await?;
        let mut json = String::with_capacity(1024);
        let mut body = Object::open(&mut json);
        body.string("next_batch", &context.next_batch(inbox.delivered_until));
        let mut news = inbox.push(&mut body);
        news |= self.push_device_lists(&context, &changes, &mut body).await?;
        self.push_key_stock(&context, &mut body).await?;
        news |= self.push_account_data(&context, &changes, &mut body).await?;
        news |= self.push_presence(&context, &changes, &mut body).await?;
        news |= self.push_rooms(&context, &changes, &mut body).await?;
        body.close();
        Ok(Answer { json, has_news: news })
    }

    async fn empty(&self, context: &Context<'_>) -> Result<Answer, Error> {
        let mut json = String::with_capacity(128);
        let mut body = Object::open(&mut json);
        body.string("next_batch", &context.next_batch(None));
        self.push_key_stock(context, &mut body).await?;
        body.close();
        Ok(Answer { json, has_news: false })
    }

    async fn push_rooms(
        &self,
        context: &Context<'_>,
        changes: &Changes,
        body: &mut Object<'_>,
    ) -> Result<bool, Error> {
        let mut text = String::new();
        let mut rooms = Object::open(&mut text);
        self.push_joined(context, changes, &mut rooms).await?;
        self.push_invited_and_knocked(context, changes, &mut rooms).await?;
        self.push_left(context, changes, &mut rooms).await?;
        let news = !rooms.is_empty();
        rooms.close();
        if news {
            body.raw("rooms", &text);
        }
        Ok(news)
    }

    fn writer<'a>(&'a self, request: &'a Request) -> Writer<'a> {
        Writer {
            view: &self.view,
            requester: &request.requester,
            now_ms: self.view.env.now_ms(),
            format: request.filter.event_format,
            event_fields: request.filter.event_fields.as_deref(),
            with_room_id: false,
        }
    }
}

struct Answer {
    json: String,
    /// Worth waking the client for.
    has_news: bool,
}

impl Context<'_> {
    fn next_batch(&self, to_device: Option<Position>) -> String {
        SyncToken { position: self.now, ephemeral: self.now_ephemeral, to_device }.to_string()
    }
}
