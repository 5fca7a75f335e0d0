//! What users are told of their delayed events.

use myelin_core::UserNid;
use myelin_store::tables::{DELAYED_EVENTS, DelayedEventRecord};

use super::DelayError;
use crate::Rooms;

const PAGE_SIZE: usize = 50;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    #[default]
    SendTs,
    OriginServerTs,
    RunningSince,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Scheduled,
    Finalised,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Send,
    Cancel,
    Error,
}

/// `GET /delayed_events`.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    pub order: Order,
    pub backwards: bool,
    /// Begins here, in milliseconds.
    pub since_ts: Option<u64>,
    /// Begins after this one: a token of a page.
    pub from: Option<(u64, String)>,
    pub status: Option<Status>,
    pub room_id: Option<String>,
    pub event_type: Option<String>,
    pub outcome: Option<Outcome>,
    /// Decided by an action, not by the time.
    pub by_action: Option<bool>,
}

pub struct Page {
    pub events: Vec<(String, DelayedEventRecord)>,
    /// The token of the next one.
    pub next: Option<(u64, String)>,
}

impl Rooms {
    pub async fn delayed_event(
        &self,
        user: UserNid,
        delay_id: &str,
    ) -> Result<DelayedEventRecord, DelayError> {
        let record = self.view.store.get(&DELAYED_EVENTS, &delay_id.to_owned()).await?;
        record.filter(|record| record.user == user).ok_or(DelayError::NotFound)
    }

    pub async fn delayed_events(&self, user: UserNid, ask: &Ask) -> Result<Page, DelayError> {
        let ids: Vec<_> = self.delayed_of(user).await?.into_iter().map(|(id, _)| id).collect();
        let records = self.view.store.multi_get(&DELAYED_EVENTS, &ids).await?;
        let found = ids.into_iter().zip(records).filter_map(|(id, record)| Some((id, record?)));
        Ok(page(found.collect(), ask))
    }
}

fn page(records: Vec<(String, DelayedEventRecord)>, ask: &Ask) -> Page {
    let mut found: Vec<_> = records
        .into_iter()
        .filter(|(_, record)| ask.wants(record))
        .map(|(id, record)| ((ask.order.of(&record), id), record))
        .filter(|(place, _)| ask.begins_before(place))
        .collect();
    found.sort_unstable_by(|(a, _), (b, _)| if ask.backwards { b.cmp(a) } else { a.cmp(b) });
    let more = found.len() > PAGE_SIZE;
    found.truncate(PAGE_SIZE);
    let next = found.last().filter(|_| more).map(|(place, _)| place.clone());
    Page { events: found.into_iter().map(|((_, id), record)| (id, record)).collect(), next }
}

impl Order {
    fn of(self, record: &DelayedEventRecord) -> u64 {
        let send_ms = record.running_since_ms.saturating_add(record.delay_ms);
        match self {
            Self::SendTs => send_ms,
            Self::OriginServerTs => record.outcome.as_ref().map_or(send_ms, |outcome| outcome.at_ms),
            Self::RunningSince => record.running_since_ms,
        }
    }
}

impl Ask {
    fn begins_before(&self, place: &(u64, String)) -> bool {
        match (&self.from, self.since_ts, self.backwards) {
            (Some(from), _, false) => place > from,
            (Some(from), _, true) => place < from,
            (None, Some(since), false) => place.0 >= since,
            (None, Some(since), true) => place.0 <= since,
            (None, None, _) => true,
        }
    }

    fn wants(&self, record: &DelayedEventRecord) -> bool {
        let status = if record.outcome.is_some() { Status::Finalised } else { Status::Scheduled };
        let is = |wanted: &Option<String>, held: &str| wanted.as_ref().is_none_or(|wanted| wanted == held);
        let outcome = record.outcome.as_ref();
        self.status.is_none_or(|wanted| wanted == status)
            && is(&self.room_id, &record.room_id)
            && is(&self.event_type, &record.event_type)
            && self.outcome.is_none_or(|wanted| outcome.is_some_and(|outcome| wanted == Outcome::of(outcome)))
            && self.by_action.is_none_or(|wanted| outcome.is_some_and(|outcome| outcome.by_action == wanted))
    }
}

impl Outcome {
    fn of(record: &myelin_store::tables::DelayedOutcomeRecord) -> Self {
        match (&record.event_id, &record.error) {
            (Some(_), _) => Self::Send,
            (None, Some(_)) => Self::Error,
            (None, None) => Self::Cancel,
        }
    }
}

#[cfg(test)]
mod tests {
    use myelin_store::tables::DelayedOutcomeRecord;

    use super::*;

    fn record(n: u64, outcome: Option<DelayedOutcomeRecord>) -> (String, DelayedEventRecord) {
        let record = DelayedEventRecord {
            user: UserNid(1),
            guest: false,
            room_id: "!r:x".to_owned(),
            event_type: "m.x".to_owned(),
            state_key: None,
            content: "{}".to_owned(),
            sticky_duration_ms: None,
            delay_ms: 1000 - n,
            running_since_ms: n * 2,
            due_ms: 0,
            outcome,
        };
        (format!("{n:03}"), record)
    }

    fn ids(page: &Page) -> Vec<&str> {
        page.events.iter().map(|(id, _)| id.as_str()).collect()
    }

    #[test]
    fn pages_follow_each_other_in_both_directions() {
        let all: Vec<_> = (0..120).map(|n| record(n, None)).collect();
        for backwards in [false, true] {
            let (mut seen, mut from) = (Vec::new(), None);
            loop {
                let ask = Ask { backwards, from, ..Ask::default() };
                let found = page(all.clone(), &ask);
                assert!(found.events.len() <= PAGE_SIZE);
                seen.extend(ids(&found).into_iter().map(str::to_owned));
                from = found.next;
                if from.is_none() {
                    break;
                }
            }
            let mut expected: Vec<_> = all.iter().map(|(id, _)| id.clone()).collect();
            if backwards {
                expected.reverse();
            }
            assert_eq!(seen, expected);
        }
    }

    #[test]
    fn filters_and_starts() {
        let outcome = |event: bool, error: bool, by_action| DelayedOutcomeRecord {
            at_ms: 5,
            by_action,
            event_id: event.then(|| "$e".to_owned()),
            error: error.then(|| ("M_FORBIDDEN".to_owned(), "no".to_owned())),
        };
        let all = vec![
            record(1, None),
            record(2, Some(outcome(true, false, true))),
            record(3, Some(outcome(false, true, false))),
            record(4, Some(outcome(false, false, true))),
        ];
        let check =
            |ask: Ask, expected: &[&str]| assert_eq!(ids(&page(all.clone(), &ask)), expected, "{ask:?}");
        check(Ask { status: Some(Status::Scheduled), ..Ask::default() }, &["001"]);
        check(Ask { status: Some(Status::Finalised), ..Ask::default() }, &["002", "003", "004"]);
        check(Ask { outcome: Some(Outcome::Send), ..Ask::default() }, &["002"]);
        check(Ask { outcome: Some(Outcome::Error), ..Ask::default() }, &["003"]);
        check(Ask { outcome: Some(Outcome::Cancel), ..Ask::default() }, &["004"]);
        check(Ask { by_action: Some(false), ..Ask::default() }, &["003"]);
        check(Ask { room_id: Some("!other:x".to_owned()), ..Ask::default() }, &[]);
        check(
            Ask { event_type: Some("m.x".to_owned()), since_ts: Some(1003), ..Ask::default() },
            &["003", "004"],
        );
        let before = Ask { order: Order::RunningSince, since_ts: Some(4), backwards: true, ..Ask::default() };
        check(before, &["002", "001"]);
        check(Ask { order: Order::OriginServerTs, ..Ask::default() }, &["002", "003", "004", "001"]);
    }
}
