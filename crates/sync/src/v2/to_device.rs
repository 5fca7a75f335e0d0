//! To-device messages in sync, and what the device has in stock of keys (Client-Server API, "Send-to-Device messaging",
//! "Extensions to /sync").
//!
//! A message is delivered until the device acknowledges it by syncing with a token that is past it; then it is deleted,
//! and never before.

use myelin_core::{Position, UserNid};
use myelin_store::{
    Batch, Direction,
    tables::{TO_DEVICE, ToDeviceRecord},
};

use super::Context;
use crate::{Error, Sync, json, json::Object};

/// Messages per answer, as the specification recommends.
pub(crate) const MESSAGES_MAX: usize = 100;
/// And their bytes, unless the first one alone is larger.
const BYTES_MAX: usize = 2 * 1024 * 1024;
/// Acknowledged messages deleted per answer; the next answer deletes more.
const DELETED_MAX: usize = 1_000;

/// What is delivered in one answer.
#[derive(Default)]
pub(crate) struct Inbox {
    pub messages: Vec<String>,
    /// Set if there are more.
    pub delivered_until: Option<Position>,
}

impl Sync {
    pub(crate) async fn inbox(&self, context: &Context<'_>, limit: usize) -> Result<Inbox, Error> {
        let requester = &context.request.requester;
        let (user, device_id) = (requester.user, requester.device_id.as_str());
        if self.view.inboxes.is_empty(user, device_id) {
            return Ok(Inbox::default());
        }
        let looked = self.view.inboxes.before_look();
        let acknowledged = self.delete_acknowledged(user, device_id, context.to_device_since).await?;
        let end = Position(u64::MAX);
        let pending = self.waiting_messages(user, device_id, context.to_device_since, end, limit + 1).await?;
        if acknowledged == 0 && pending.is_empty() {
            self.view.inboxes.found_empty(user, device_id, looked);
        }
        Ok(Inbox::of(pending, context.now, limit))
    }

    async fn delete_acknowledged(
        &self,
        user: UserNid,
        device_id: &str,
        until: Position,
    ) -> Result<usize, Error> {
        let rows = self.waiting_messages(user, device_id, Position::ZERO, until, DELETED_MAX).await?;
        let mut batch = Batch::new();
        for (position, _) in &rows {
            batch.delete(&TO_DEVICE, &(user, device_id.to_owned(), *position));
        }
        if !rows.is_empty() {
            // Nobody waits for it: what is not deleted now is passed over, and deleted with the next answer.
            drop(self.view.store.commit(batch));
        }
        Ok(rows.len())
    }

    /// Those in `(after, until]`.
    async fn waiting_messages(
        &self,
        user: UserNid,
        device_id: &str,
        after: Position,
        until: Position,
        limit: usize,
    ) -> Result<Vec<(Position, ToDeviceRecord)>, Error> {
        let device_id = device_id.to_owned();
        let from = (user, device_id.clone(), after.next());
        let to = (user, device_id, Position(until.0.saturating_add(1)));
        let rows = self.view.store.range(&TO_DEVICE, &from, &to, Direction::Forward, limit).await?;
        Ok(rows.into_iter().map(|((_, _, position), row)| (position, row)).collect())
    }

    pub(crate) async fn push_key_stock(
        &self,
        context: &Context<'_>,
        body: &mut Object<'_>,
    ) -> Result<(), Error> {
        let requester = &context.request.requester;
        let stocks = self.view.key_stocks.load(requester.user).await?;
        let stock = stocks.get(&requester.device_id);
        let (counts, unused) = stock.map_or(("{}", "[]"), |stock| {
            (stock.one_time_key_counts.as_str(), stock.unused_fallback_key_types.as_str())
        });
        body.raw("device_one_time_keys_count", counts);
        body.raw("device_unused_fallback_key_types", unused);
        Ok(())
    }
}

impl Inbox {
    fn of(pending: Vec<(Position, ToDeviceRecord)>, now: Position, limit: usize) -> Self {
        let mut inbox = Self::default();
        let (mut bytes, mut last) = (0, None);
        for (position, message) in pending.into_iter().take_while(|(position, _)| *position <= now) {
            bytes += message.content.len();
            if inbox.messages.len() == limit || (bytes > BYTES_MAX && last.is_some()) {
                inbox.delivered_until = last;
                break;
            }
            inbox.messages.push(message_json(&message));
            last = Some(position);
        }
        inbox
    }

    /// Whether there is anything.
    pub fn push(&self, body: &mut Object<'_>) -> bool {
        if !self.messages.is_empty() {
            body.events("to_device", &self.messages);
        }
        !self.messages.is_empty()
    }
}

fn message_json(message: &ToDeviceRecord) -> String {
    let mut text = String::with_capacity(message.content.len() + 128);
    let mut out = Object::open(&mut text);
    json::push_string(out.key("type"), &message.event_type);
    out.string("sender", &message.sender);
    out.raw("content", &message.content);
    out.close();
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(count: u64, size: usize) -> Vec<(Position, ToDeviceRecord)> {
        let message = ToDeviceRecord {
            sender: "@a:x".to_owned(),
            event_type: "m.x".to_owned(),
            content: format!("\"{}\"", "x".repeat(size)),
        };
        (1..=count).map(|n| (Position(n), message.clone())).collect()
    }

    #[test]
    fn answers_are_bounded_by_count_and_bytes() {
        let of = |count, size, now| {
            let inbox = Inbox::of(pending(count, size), Position(now), MESSAGES_MAX);
            (inbox.messages.len(), inbox.delivered_until)
        };
        assert_eq!(of(0, 1, 9), (0, None));
        assert_eq!(of(100, 1, 200), (100, None));
        assert_eq!(of(101, 1, 200), (100, Some(Position(100))));
        assert_eq!(of(101, 1, 50), (50, None), "what is not published yet waits");
        assert_eq!(of(3, BYTES_MAX / 2, 9), (1, Some(Position(1))));
        assert_eq!(of(2, BYTES_MAX + 1, 9), (1, Some(Position(1))), "a large one goes alone");
    }
}
