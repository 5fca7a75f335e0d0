//! How it stands with other servers, for `myelin federation`. The same task is done in the running server, asked through
//! the control socket, or on the store of a server that does not run, which knows only who is behind.

use std::{fmt::Write, sync::Arc};

use anyhow::ensure;
use myelin_federation::{
    Sender,
    sender::report::{self, Report, Standing},
};
use myelin_store::{Batch, Store, tables::DESTINATIONS};
use ruma::{OwnedServerName, ServerName};
use serde::{Deserialize, Serialize};

use crate::maintenance::Outcome;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    List,
    Show(OwnedServerName),
    /// Asks one server, or every one that failed, again now.
    Retry(Option<OwnedServerName>),
    /// The same, as if nothing had failed before.
    Reset(Option<OwnedServerName>),
}

pub async fn in_server(task: &Task, sender: &Arc<Sender>, now_ms: u64) -> anyhow::Result<Outcome> {
    Ok(match task {
        Task::List => good(list(&sender.destinations(), now_ms)),
        Task::Show(server) => match sender.destination(server).await? {
            Some(report) => good(show(&report, now_ms)),
            None => good(nothing(server)),
        },
        Task::Retry(server) => asked(sender.retry(server.as_deref())),
        Task::Reset(server) => asked(sender.reset(server.as_deref())),
    })
}

pub async fn in_store(task: &Task, store: &Store, now_ms: u64) -> anyhow::Result<Outcome> {
    let reports = report::stored(store).await?;
    let of = |server: &ServerName| reports.iter().find(|report| *report.server == *server);
    Ok(match task {
        Task::List => good(list(&reports, now_ms)),
        Task::Show(server) => good(of(server).map_or_else(|| nothing(server), |report| show(report, now_ms))),
        Task::Retry(server) => mark(store, server.as_deref(), false).await?,
        Task::Reset(server) => mark(store, server.as_deref(), true).await?,
    })
}

/// They are asked as soon as the server runs.
async fn mark(store: &Store, server: Option<&ServerName>, forget: bool) -> anyhow::Result<Outcome> {
    let mut batch = Batch::new();
    let mut marked = 0;
    for report in report::stored(store).await? {
        if server.is_some_and(|server| *report.server != *server) {
            continue;
        }
        let key = report.server.to_string();
        let Some(held) = store.get(&DESTINATIONS, &key).await? else { continue };
        let mut record = held.clone();
        record.retry_at_ms = 0;
        if forget {
            record.failures = record.failures.min(1);
            record.last_error = None;
        }
        batch.require_unchanged(&DESTINATIONS, &key, Some(&held));
        batch.put(&DESTINATIONS, &key, &record);
        marked += 1;
    }
    if marked > 0 {
        let committed = store.commit(batch).await;
        ensure!(committed.is_ok(), "somebody else is writing this store: is a server running?");
    }
    Ok(good(format!("{marked} servers will be asked as soon as the server runs")))
}

fn asked(count: usize) -> Outcome {
    good(match count {
        0 => "nothing waits because of an earlier failure".to_owned(),
        1 => "1 server is asked again now".to_owned(),
        count => format!("{count} servers are asked again now"),
    })
}

fn good(text: String) -> Outcome {
    Outcome { good: true, text }
}

fn nothing(server: &ServerName) -> String {
    format!("{server}: nothing waits for it, and nothing was sent to it since the start")
}

/// One line per server, those with problems first.
fn list(reports: &[Report], now_ms: u64) -> String {
    let mut sorted: Vec<_> = reports.iter().collect();
    sorted.sort_by_key(|report| (report.standing == Standing::UpToDate, report.server.clone()));
    let mut lines = Vec::new();
    for report in sorted {
        let mut line = format!("{}  {}", report.server, report.standing.name());
        if let Some(since) = report.failing_since_ms {
            let since = span(now_ms.saturating_sub(since));
            // Writing to a string cannot fail.
            let _ = write!(line, " for {since}, {} failures, {}", report.failures, next(report, now_ms));
        }
        let waiting = waiting(report);
        if !waiting.is_empty() {
            let _ = write!(line, "; waiting: {waiting}");
        }
        if let Some(error) = &report.last_error {
            let _ = write!(line, "; {error}");
        }
        lines.push(line);
    }
    let behind = reports.iter().filter(|report| report.standing == Standing::BackingOff).count();
    lines.push(format!("{} servers, {behind} of them do not take transactions", reports.len()));
    lines.join("\n")
}

fn show(report: &Report, now_ms: u64) -> String {
    let ago = |at_ms: u64| format!("{} ago", span(now_ms.saturating_sub(at_ms)));
    let mut lines = vec![format!("{}: {}", report.server, report.standing.name())];
    let mut line = |name: &str, value: Option<String>| {
        lines.extend(value.map(|value| format!("  {name}: {value}")));
    };
    line("last success", report.last_success_ms.map(ago));
    line("failing since", report.failing_since_ms.map(ago));
    line("failures", (report.failures > 0).then(|| report.failures.to_string()));
    line("next attempt", report.next_attempt_ms.map(|_| next(report, now_ms)));
    line("last error", report.last_error.clone());
    line("waiting", Some(waiting(report)).filter(|text| !text.is_empty()).or(Some("nothing".to_owned())));
    let waits = &report.waiting;
    line(
        "unanswered transaction",
        waits.unanswered.as_ref().map(|(id, pdus, edus)| format!("{id} with {pdus} events and {edus} EDUs")),
    );
    line("may lack what the log has from position", waits.behind_from.map(|position| position.to_string()));
    line("not in memory from position", waits.in_log_from.map(|position| position.to_string()));
    lines.join("\n")
}

fn next(report: &Report, now_ms: u64) -> String {
    match report.next_attempt_ms {
        _ if report.attempting => "being asked".to_owned(),
        Some(at) if at > now_ms => format!("asked again in {}", span(at - now_ms)),
        Some(_) => "asked again now".to_owned(),
        None => "asked again when something waits".to_owned(),
    }
}

fn waiting(report: &Report) -> String {
    let waits = &report.waiting;
    let mut parts = Vec::new();
    let mut part = |count: usize, what: &str| {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    };
    part(waits.events, if waits.in_log_from.is_some() { "events and more in the log" } else { "events" });
    part(waits.edus.unwrap_or(0), "to-device messages and device lists");
    part(waits.receipts, "receipts");
    part(waits.typing_rooms, "rooms with typing");
    part(waits.presence, "presences");
    if parts.is_empty() && waits.in_log_from.is_some() {
        parts.push("what the log has".to_owned());
    }
    parts.join(", ")
}

/// Two units at most.
fn span(ms: u64) -> String {
    let seconds = ms / 1000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use myelin_core::Position;
    use myelin_store::{memory::Memory, tables::DestinationRecord};

    use super::*;

    async fn store() -> Store {
        let store = Store::new(Arc::new(Memory::open(Default::default())));
        let mut batch = Batch::new();
        let record = DestinationRecord {
            behind_from: Position(7),
            behind_since_ms: 1_000,
            failures: 4,
            retry_at_ms: 100_000_000,
            last_error: Some("the server cannot be reached: no route".to_owned()),
            ..DestinationRecord::default()
        };
        batch.put(&DESTINATIONS, &"away.test".to_owned(), &record);
        myelin_store::outbox::put(&mut batch, "away.test", "m.direct_to_device", "{}".to_owned());
        store.commit(batch).await.expect("committed");
        store
    }

    #[tokio::test]
    async fn a_store_tells_who_is_behind_and_why() {
        let store = store().await;
        let list = in_store(&Task::List, &store, 93_601_000).await.expect("listed").text;
        assert_eq!(
            list,
            "away.test  backing_off for 1 d 2 h, 4 failures, asked again in 1 h 46 min; \
             waiting: 1 to-device messages and device lists; the server cannot be reached: no route\n\
             1 servers, 1 of them do not take transactions"
        );
        let away: OwnedServerName = "away.test".try_into().expect("a name");
        let shown = in_store(&Task::Show(away), &store, 93_601_000).await.expect("shown").text;
        assert!(shown.contains("may lack what the log has from position: 7"), "{shown}");
        let other: OwnedServerName = "other.test".try_into().expect("a name");
        let shown = in_store(&Task::Show(other), &store, 0).await.expect("shown").text;
        assert!(shown.contains("nothing waits for it"), "{shown}");
    }

    #[tokio::test]
    async fn a_reset_is_kept_for_the_next_start() {
        let store = store().await;
        let other: OwnedServerName = "other.test".try_into().expect("a name");
        in_store(&Task::Reset(Some(other)), &store, 5).await.expect("nothing to do");
        let row = async || {
            store.get(&DESTINATIONS, &"away.test".to_owned()).await.expect("readable").expect("a row")
        };
        assert_eq!(row().await.failures, 4);
        in_store(&Task::Retry(None), &store, 5).await.expect("marked");
        assert_eq!((row().await.failures, row().await.retry_at_ms), (4, 0));
        in_store(&Task::Reset(None), &store, 5).await.expect("marked");
        assert_eq!((row().await.failures, row().await.last_error), (1, None));
    }

    #[test]
    fn spans_are_readable() {
        let spans = [(500, "0 s"), (61_000, "1 min 1 s"), (7_260_000, "2 h 1 min"), (180_000_000, "2 d 2 h")];
        spans.into_iter().for_each(|(ms, text)| assert_eq!(span(ms), text));
    }
}
