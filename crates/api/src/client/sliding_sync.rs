//! `POST /_matrix/client/unstable/org.matrix.simplified_msc3575/sync` and `POST /_matrix/client/v4/sync` (MSC4186). The two
//! differ in how they write the same: where parameters stand, `ranges`, `required_state`, and some names in the answer.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Router, extract::State, routing::post};
use myelin_sync::{
    Sync,
    sliding::{
        Dialect, Extensions, List, Pattern, Request, RequiredState, RoomConfig, RoomFilter, Selection,
        Stream, request,
    },
};
use ruma::OwnedRoomId;
use serde::Deserialize;

use super::sync::presence_of;
use crate::{
    ApiError, AppState,
    extract::{Auth, JsonBody, Query, WithGuests},
    rate_limit::{Class, Limits},
    respond::RawJson,
};

/// To-device messages of an answer if the client names no number, and the most it may name.
const TO_DEVICE_LIMIT: usize = 100;
/// The same for changes of thread subscriptions.
const THREAD_SUBSCRIPTIONS_LIMIT: usize = 100;
/// The same for sticky events.
const STICKY_EVENTS_LIMIT: usize = 100;
const TXN_ID_SIZE_MAX: usize = 255;

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/client/unstable/org.matrix.simplified_msc3575/sync", post(unstable))
        .route("/_matrix/client/v4/sync", post(v4))
}

#[derive(Default, Deserialize)]
struct Params {
    pos: Option<String>,
    timeout: Option<u64>,
    set_presence: Option<String>,
}

/// `R` is the form of `required_state`.
#[derive(Deserialize)]
#[serde(bound(deserialize = "R: Deserialize<'de> + Default"))]
struct Body<R> {
    #[serde(flatten)]
    params: Params,
    conn_id: Option<String>,
    txn_id: Option<String>,
    lists: Option<BTreeMap<String, ListBody<R>>>,
    room_subscriptions: Option<BTreeMap<OwnedRoomId, RoomBody<R>>>,
    extensions: Option<ExtensionsBody>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "R: Deserialize<'de> + Default"))]
struct RoomBody<R> {
    timeline_limit: u64,
    #[serde(default)]
    required_state: R,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "R: Deserialize<'de> + Default"))]
struct ListBody<R> {
    timeline_limit: u64,
    #[serde(default)]
    required_state: R,
    ranges: Option<Vec<(u64, u64)>>,
    range: Option<(u64, u64)>,
    slow_get_all_rooms: Option<bool>,
    filters: Option<RoomFilter>,
}

/// `[["m.room.name", ""], ["m.room.member", "$LAZY"]]`
type Pairs = Vec<(String, String)>;

/// `{"include": [{"type": "m.room.name"}], "lazy_members": true}`
#[derive(Default, Deserialize)]
#[serde(default)]
struct Elements {
    include: Vec<Element>,
    exclude: Vec<Element>,
    lazy_members: bool,
}

#[derive(Deserialize)]
struct Element {
    #[serde(rename = "type")]
    event_type: Option<String>,
    state_key: Option<String>,
}

trait Required {
    fn len(&self) -> usize;
    fn read(&self, me: &str) -> RequiredState;
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ExtensionsBody {
    to_device: Option<StreamBody>,
    e2ee: Option<Switch>,
    account_data: Option<SelectionBody>,
    receipts: Option<SelectionBody>,
    typing: Option<SelectionBody>,
    #[serde(rename = "io.element.msc4308.thread_subscriptions")]
    thread_subscriptions: Option<LimitBody>,
    #[serde(rename = "org.matrix.msc4354.sticky_events")]
    sticky_events: Option<StreamBody>,
}

#[derive(Deserialize)]
struct Switch {
    enabled: Option<bool>,
}

#[derive(Deserialize)]
struct StreamBody {
    enabled: Option<bool>,
    limit: Option<u64>,
    since: Option<String>,
}

#[derive(Deserialize)]
struct LimitBody {
    enabled: Option<bool>,
    limit: Option<u64>,
}

#[derive(Deserialize)]
struct SelectionBody {
    enabled: Option<bool>,
    lists: Option<Vec<String>>,
    rooms: Option<Vec<String>>,
}

async fn unstable(
    auth: Auth<WithGuests>,
    limits: Limits,
    State(sync): State<Arc<Sync>>,
    Query(params): Query<Params>,
    JsonBody(body): JsonBody<Body<Pairs>>,
) -> Result<RawJson, ApiError> {
    limits.check(Class::Read, &auth)?;
    let request = body.read(Dialect::Unstable, &auth, params)?;
    Ok(RawJson(sync.sliding_sync(request).await?.into()))
}

async fn v4(
    auth: Auth<WithGuests>,
    limits: Limits,
    State(sync): State<Arc<Sync>>,
    JsonBody(body): JsonBody<Body<Elements>>,
) -> Result<RawJson, ApiError> {
    limits.check(Class::Read, &auth)?;
    let request = body.read(Dialect::V4, &auth, Params::default())?;
    Ok(RawJson(sync.sliding_sync(request).await?.into()))
}

impl Required for Pairs {
    fn len(&self) -> usize {
        self.len()
    }

    fn read(&self, me: &str) -> RequiredState {
        let pairs = self.iter().map(|(event_type, state_key)| (event_type.as_str(), state_key.as_str()));
        RequiredState::from_pairs(pairs, me)
    }
}

impl Required for Elements {
    fn len(&self) -> usize {
        self.include.len() + self.exclude.len()
    }

    fn read(&self, _: &str) -> RequiredState {
        let patterns = |elements: &[Element]| {
            let pattern = |e: &Element| Pattern::new(e.event_type.as_deref(), e.state_key.as_deref());
            elements.iter().map(pattern).collect()
        };
        RequiredState {
            include: patterns(&self.include),
            exclude: patterns(&self.exclude),
            lazy_members: self.lazy_members,
        }
    }
}

impl<R: Required> Body<R> {
    fn read(self, dialect: Dialect, session: &Auth<WithGuests>, query: Params) -> Result<Request, ApiError> {
        let (lists, subscriptions) =
            (self.lists.unwrap_or_default(), self.room_subscriptions.unwrap_or_default());
        at_most(lists.len(), request::LISTS_MAX, "lists")?;
        at_most(subscriptions.len(), request::SUBSCRIPTIONS_MAX, "room_subscriptions")?;
        let conn_id = self.conn_id.unwrap_or_default();
        at_most(conn_id.len(), request::CONN_ID_SIZE_MAX, "bytes in conn_id")?;
        at_most(self.txn_id.as_ref().map_or(0, String::len), TXN_ID_SIZE_MAX, "bytes in txn_id")?;
        let extensions = self.extensions.unwrap_or_default().read()?;
        let me = session.user_id.as_str();
        let lists = lists.into_iter().map(|(name, list)| {
            let list = list.read(&name, me, &extensions)?;
            Ok((name, list))
        });
        let lists = lists.collect::<Result<_, ApiError>>()?;
        let subscriptions = subscriptions.into_iter().map(|(room_id, room)| {
            let mut config = config(room.timeline_limit, &room.required_state, me)?;
            config.extensions = extensions.of_subscription(room_id.as_str());
            Ok((room_id, Arc::new(config)))
        });
        let set_presence = query.set_presence.or(self.params.set_presence);
        Ok(Request {
            requester: session.requester(),
            dialect,
            conn_id,
            pos: query.pos.or(self.params.pos),
            txn_id: self.txn_id,
            timeout_ms: query.timeout.or(self.params.timeout).unwrap_or(0),
            set_presence: presence_of(set_presence.as_deref())?,
            lists,
            subscriptions: subscriptions.collect::<Result<_, ApiError>>()?,
            extensions,
        })
    }
}

impl<R: Required> ListBody<R> {
    fn read(self, name: &str, me: &str, extensions: &Extensions) -> Result<List, ApiError> {
        at_most(name.len(), request::LIST_NAME_SIZE_MAX, "bytes in the name of a list")?;
        let ranges = match (self.slow_get_all_rooms, self.range) {
            (Some(true), _) => None,
            (_, Some(range)) => Some(vec![range]),
            (_, None) => self.ranges,
        };
        at_most(ranges.as_ref().map_or(0, Vec::len), request::RANGES_PER_LIST_MAX, "ranges")?;
        let filter = self.filters.unwrap_or_default();
        check_filter(&filter)?;
        let mut config = config(self.timeline_limit, &self.required_state, me)?;
        config.extensions = extensions.of_list(name);
        Ok(List { ranges, filter, config: Arc::new(config) })
    }
}

fn config(timeline_limit: u64, required: &impl Required, me: &str) -> Result<RoomConfig, ApiError> {
    at_most(required.len(), request::REQUIRED_STATE_MAX, "entries in required_state")?;
    let timeline_limit = usize::try_from(timeline_limit).unwrap_or(usize::MAX);
    Ok(RoomConfig {
        timeline_limit: timeline_limit.min(request::TIMELINE_LIMIT_MAX),
        required_state: required.read(me).into(),
        ..RoomConfig::default()
    })
}

fn check_filter(filter: &RoomFilter) -> Result<(), ApiError> {
    let texts = [&filter.spaces, &filter.tags, &filter.not_tags];
    let types = [&filter.room_types, &filter.not_room_types];
    let texts = texts.into_iter().flatten().map(Vec::len).sum::<usize>();
    let types = types.into_iter().flatten().map(Vec::len).sum::<usize>();
    at_most(texts + types, request::FILTER_VALUES_MAX, "values in a filter")
}

impl ExtensionsBody {
    fn read(self) -> Result<Extensions, ApiError> {
        let stream = |body: Option<StreamBody>, default| {
            let body = body.filter(|body| body.enabled == Some(true));
            body.map(|body| Stream { limit: limit(body.limit, default), since: body.since })
        };
        let threads = self.thread_subscriptions.filter(|body| body.enabled == Some(true));
        Ok(Extensions {
            to_device: stream(self.to_device, TO_DEVICE_LIMIT),
            e2ee: self.e2ee.is_some_and(|switch| switch.enabled == Some(true)),
            account_data: selection(self.account_data)?,
            receipts: selection(self.receipts)?,
            typing: selection(self.typing)?,
            thread_subscriptions: threads.map(|body| limit(body.limit, THREAD_SUBSCRIPTIONS_LIMIT)),
            sticky_events: stream(self.sticky_events, STICKY_EVENTS_LIMIT),
        })
    }
}

fn limit(wanted: Option<u64>, default: usize) -> usize {
    wanted.map_or(default, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

fn selection(body: Option<SelectionBody>) -> Result<Option<Selection>, ApiError> {
    let Some(body) = body.filter(|body| body.enabled == Some(true)) else { return Ok(None) };
    let named = |names: &Option<Vec<String>>| names.as_ref().map_or(0, Vec::len);
    let selected = named(&body.lists) + named(&body.rooms);
    at_most(selected, request::SELECTED_MAX, "lists and rooms of an extension")?;
    Ok(Some(Selection { lists: body.lists, rooms: body.rooms }))
}

fn at_most(found: usize, max: usize, what: &str) -> Result<(), ApiError> {
    if found <= max {
        return Ok(());
    }
    Err(ApiError::invalid_param(format!("There may be at most {max} {what}, and these are {found}.")))
}
