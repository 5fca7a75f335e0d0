//! Bundled aggregations: edits, references and threads (Client-Server API, "Aggregations of child events").

use std::collections::{HashMap, HashSet};

use myelin_core::EventNid;
use myelin_store::{
    Direction,
    tables::{RELATIONS, RelationRecord},
};
use myelin_view::Event;

use crate::{
    Error, Format, Requester, Sync, client_event::Writer, json, json::Object, timeline::Placed,
    visibility::Viewer,
};

/// Relations of one event looked at, newest first.
const RELATIONS_MAX: usize = 5_000;

impl Sync {
    /// The bundles of those events that have one, by event.
    ///
    /// `self_contained`: the events are all that happened up to now from some point on, so that whatever relates to
    /// one of them is among them; then events without such company need no look-up.
    pub async fn bundles(
        &self,
        requester: &Requester,
        events: &[Placed],
        self_contained: bool,
    ) -> Result<HashMap<EventNid, String>, Error> {
        let mut bundles = HashMap::new();
        let targets: HashSet<_> = if self_contained {
            let relations = events.iter().filter_map(|placed| placed.event.pdu.relates_to());
            relations.map(|relation| relation.event_id).collect()
        } else {
            HashSet::new()
        };
        for placed in events {
            if self_contained && !targets.contains(&placed.event.pdu.event_id) {
                continue;
            }
            if let Some(bundle) = self.bundle(requester, &placed.event).await? {
                bundles.insert(placed.event.nid, bundle);
            }
        }
        Ok(bundles)
    }

    /// `unsigned.m.relations` of one event.
    pub async fn bundle(&self, requester: &Requester, event: &Event) -> Result<Option<String>, Error> {
        // Neither a redacted event nor a state event is edited or threaded upon.
        if event.redacted_by.is_some() {
            return Ok(None);
        }
        let prefix = (event.room, event.pdu.event_id.to_string());
        let rows = self.view.store.scan(&RELATIONS, &prefix, Direction::Reverse, RELATIONS_MAX).await?;
        if rows.is_empty() {
            return Ok(None);
        }
        let newest_first: Vec<_> = rows.into_iter().map(|(_, relation)| relation).collect();
        let related = Related { sync: self, requester, event, newest_first };
        let mut text = String::new();
        let mut bundle = Object::open(&mut text);
        related.push_edit(&mut bundle).await?;
        related.push_references(&mut bundle).await?;
        related.push_thread(&mut bundle).await?;
        let found = !bundle.is_empty();
        bundle.close();
        Ok(found.then_some(text))
    }

    async fn visible(&self, requester: &Requester, nid: EventNid) -> Result<Option<Placed>, Error> {
        let Some(event) = self.view.events.load(nid).await? else { return Ok(None) };
        let Some(room) = self.view.rooms.load(event.room).await? else { return Ok(None) };
        let mut viewer = Viewer::new(&self.view, &room, requester.user, &requester.user_id).await?;
        let Some(seen) = viewer.see(&event).await? else { return Ok(None) };
        let ignored = self.view.ignored.load(requester.user).await?;
        if event.redacted_by.is_some() || ignored.contains(&event.pdu.sender) {
            return Ok(None);
        }
        let order = event.order.unwrap_or(myelin_core::TimelineOrder::MAX);
        Ok(Some(Placed { order, event, seen }))
    }
}

struct Related<'a> {
    sync: &'a Sync,
    requester: &'a Requester,
    event: &'a Event,
    newest_first: Vec<RelationRecord>,
}

impl Related<'_> {
    fn of_type(&self, rel_type: &str) -> impl Iterator<Item = &RelationRecord> {
        self.newest_first.iter().filter(move |relation| relation.rel_type == rel_type)
    }

    /// The newest valid edit, as a whole event ("Event replacements": same sender, same type, no state).
    async fn push_edit(&self, bundle: &mut Object<'_>) -> Result<(), Error> {
        if self.event.state_key.is_some() {
            return Ok(());
        }
        let own = |edit: &&RelationRecord| {
            edit.sender == self.event.sender && edit.event_type == self.event.pdu.event_type.to_string()
        };
        for edit in self.of_type("m.replace").filter(own) {
            let Some(edit) = self.sync.visible(self.requester, edit.event).await? else { continue };
            let encrypted = self.event.pdu.event_type.to_string() == "m.room.encrypted";
            let has_new_content =
                edit.event.pdu.content_field::<serde_json::Value>("m.new_content").is_some();
            if edit.event.state_key.is_none() && (has_new_content || encrypted) {
                bundle.raw("m.replace", &self.write(&edit, None).await?);
                return Ok(());
            }
        }
        Ok(())
    }

    async fn push_references(&self, bundle: &mut Object<'_>) -> Result<(), Error> {
        let mut chunk = Vec::new();
        for reference in self.of_type("m.reference") {
            if let Some(placed) = self.sync.visible(self.requester, reference.event).await? {
                chunk.push(format!("{{\"event_id\":{}}}", json::string(placed.event.pdu.event_id.as_str())));
            }
        }
        if !chunk.is_empty() {
            chunk.reverse();
            let mut references = bundle.object("m.reference");
            references.array("chunk", chunk);
            references.close();
        }
        Ok(())
    }

    async fn push_thread(&self, bundle: &mut Object<'_>) -> Result<(), Error> {
        let (mut latest, mut count) = (None, 0);
        for reply in self.of_type("m.thread") {
            if let Some(placed) = self.sync.visible(self.requester, reply.event).await? {
                count += 1;
                latest.get_or_insert(placed);
            }
        }
        let Some(latest) = latest else { return Ok(()) };
        let user = self.requester.user;
        let participated = self.event.sender == user || self.of_type("m.thread").any(|r| r.sender == user);
        // The newest event of the thread comes with its own edit.
        let edit = Box::pin(self.sync.bundle(self.requester, &latest.event)).await?;
        let latest = self.write(&latest, edit.as_deref()).await?;
        let mut thread = bundle.object("m.thread");
        thread.raw("latest_event", &latest);
        thread.number("count", count);
        thread.bool("current_user_participated", participated);
        thread.close();
        Ok(())
    }

    async fn write(&self, placed: &Placed, relations: Option<&str>) -> Result<String, Error> {
        let writer = Writer {
            view: &self.sync.view,
            requester: self.requester,
            now_ms: self.sync.view.env.now_ms(),
            format: Format::Client,
            event_fields: None,
            with_room_id: true,
        };
        writer.write(&placed.event, placed.seen, relations).await
    }
}
