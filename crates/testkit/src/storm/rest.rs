//! After the storm: the network heals, everybody gets their say once more, and then everything has to fit together.

use std::{collections::BTreeMap, time::Duration};

use myelin_store::{
    maintenance::{NoKnowledge, verify},
    tables::{DESTINATIONS, INBOUND_PDUS, OUTBOX},
};

use super::{
    Spoken, Storm,
    clients::{may_see, sync_until_quiet},
};
use crate::{
    agreement::{self, State},
    client::percent,
    lawful::{self, Holding},
    server::Server,
    user::{Room, User},
};

/// How long the servers get to come to rest after each round of words; the last is longer than any back-off.
const ROUNDS: [Duration; 4] = [
    Duration::from_secs(120),
    Duration::from_secs(900),
    Duration::from_secs(2 * 3_600),
    Duration::from_secs(24 * 3_600),
];
/// Time goes on in steps of this between two looks.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// Joins go on when whoever asked for them hangs up, as long as an answer with a whole state may take; and who comes in
/// last is not shown what others had read before.
const JOINS_END: Duration = Duration::from_secs(200);
/// Whoever typed when the weather cleared no longer does.
const TYPING_ENDS: Duration = Duration::from_secs(120);
/// What a sender waits for at most between two attempts, and a little more.
const PAUSE_HOURS_MAX: usize = 6;
/// A day, and what the last pause between two tries may be.
const QUEUED_HOURS_MAX: usize = 26;
const ROWS_MAX: usize = 10_000;

impl Storm {
    pub(super) fn rest(&mut self) {
        self.world.heal();
        self.switch_on_all();
        self.ask_again();
        self.world.pass(JOINS_END);
        self.agree();
        self.check_always();
        self.check_spoken();
        let read = self.everybody_reads();
        self.world.pass(TYPING_ENDS);
        self.check_clients();
        self.check_arrivals(&read);
        self.check_queues();
        self.check_heard();
        self.check_always();
        self.check_newcomers();
        self.check_stores();
    }

    /// Messages without an answer, under the same transaction id.
    fn ask_again(&mut self) {
        for action in std::mem::take(&mut self.unanswered) {
            let answer = self.world.run(self.perform(&action));
            assert!(answer.is_some(), "seed {}: no answer in clear weather", self.world.seed());
            self.note(action, answer);
        }
    }

    /// A word of a member of each server in each room, until all agree; of another one in each round, as what the one says
    /// may be soft-failed elsewhere.
    fn agree(&mut self) {
        let started_ms = self.world.env().now_ms();
        for (round, length) in ROUNDS.iter().enumerate() {
            self.everybody_speaks(round);
            let until_ms = self.world.env().now_ms() + u64::try_from(length.as_millis()).unwrap_or(0);
            while self.world.env().now_ms() < until_ms {
                self.world.pass(LOOK_AGAIN);
                if self.differences().is_empty() {
                    self.outcome.agreed_after_ms = self.world.env().now_ms() - started_ms;
                    return;
                }
            }
        }
        let lasting = self.lasting_differences();
        if !lasting.is_empty() {
            self.compare();
            panic!("seed {}: no agreement:\n{}", self.world.seed(), lasting.join("\n"));
        }
        self.outcome.agreed_after_ms = self.world.env().now_ms() - started_ms;
    }

    /// Prints what the servers hold of the rooms on which they do not agree.
    fn compare(&self) {
        let servers = self.world.running();
        for room in &self.rooms {
            if self.world.run(agreement::differences(&servers, &room.id)).is_empty() {
                continue;
            }
            let mut holdings = Vec::new();
            for (name, server) in &servers {
                let holding = self.world.run(Holding::of(server, &room.id));
                holdings.extend(holding.map(|holding| (name.to_string(), holding)));
            }
            eprintln!("--- {}:\n{}", room.id, lawful::comparison(&holdings).join("\n"));
        }
    }

    fn differences(&self) -> Vec<String> {
        let servers = self.world.running();
        let mut differences = Vec::new();
        for room in &self.rooms {
            let found = self.world.run(agreement::differences(&servers, &room.id));
            differences.extend(found.into_iter().map(|difference| format!("{}: {difference}", room.id)));
        }
        differences
    }

    fn lasting_differences(&self) -> Vec<String> {
        let servers = self.world.running();
        let of_room = |room: &Room| self.world.run(agreement::lasting_differences(&servers, &room.id));
        self.rooms.iter().flat_map(of_room).collect()
    }

    fn everybody_speaks(&mut self, round: usize) {
        for room in 0..self.rooms.len() {
            for name in self.world.names() {
                let members = self.world.run(self.members_at(name.as_str(), &self.rooms[room]));
                let Some(user) = members.get(round % members.len().max(1)) else { continue };
                self.done += 1;
                let mut action = self.message(*user, room);
                action.path = format!("{}-{round}", action.path);
                let answer = self.world.run(self.perform(&action));
                self.note(action, answer);
            }
        }
    }

    /// A member of each server reads the last that was said in each room. Answers room, reader and event.
    fn everybody_reads(&mut self) -> Vec<(usize, String, String)> {
        let mut read = Vec::new();
        for room in 0..self.rooms.len() {
            for name in self.world.names() {
                let members = self.world.run(self.members_at(name.as_str(), &self.rooms[room]));
                let Some(reader) = members.first().map(|user| &self.users[*user]) else { continue };
                let server = self.world.server(name.as_str()).expect("all servers are on");
                let truth = self.world.run(server.truth(&self.rooms[room].id));
                for event in truth.iter().rev() {
                    if self.world.run(may_see(reader, &self.rooms[room], event)) {
                        let path = format!("receipt/m.read/{}", percent(event));
                        reader.acts(&self.rooms[room], &path, serde_json::json!({}));
                        read.push((room, reader.id.clone(), event.clone()));
                        break;
                    }
                }
            }
        }
        read
    }

    /// What was taken arrives, once the longest pause of a sender is over.
    fn check_arrivals(&self, read: &[(usize, String, String)]) {
        for hour in 0..=PAUSE_HOURS_MAX {
            for user in &self.users {
                self.world.run(sync_until_quiet(user));
            }
            let mut lacking = self.missing_letters();
            lacking.extend(self.unseen_receipts(read));
            lacking.extend(self.unknown_keys());
            if lacking.is_empty() {
                return;
            }
            assert!(hour < PAUSE_HOURS_MAX, "seed {}: {}", self.world.seed(), lacking.join("\n"));
            self.world.pass(Duration::from_secs(3_600));
        }
    }

    /// Who is joined, and whose server holds the event, is to be shown who read it.
    fn unseen_receipts(&self, read: &[(usize, String, String)]) -> Vec<String> {
        let mut unseen = Vec::new();
        for (room, reader, event) in read {
            for user in &self.users {
                if !self.is_told_by(user, reader, &self.rooms[*room]) {
                    continue;
                }
                let view = user.shows(|client| client.rooms.get(&self.rooms[*room].id).cloned());
                let Some(view) = view.filter(|view| view.joined && view.timeline.contains(event)) else {
                    continue;
                };
                let of_reader = view.state_event("m.room.member", reader);
                if of_reader.is_none_or(|member| member["content"]["membership"] != "join") {
                    continue;
                }
                if view.read.get(reader) != Some(event) {
                    unseen.push(format!("{} is not shown that {reader} read {event}", user.id));
                }
            }
        }
        unseen
    }

    /// Whether the reader's server has the user's in the room.
    fn is_told_by(&self, user: &User, reader: &str, room: &Room) -> bool {
        let name = reader.split_once(':').map_or("", |(_, name)| name);
        let server = self.world.server(name).expect("all servers are on");
        self.world.run(agreement::has_server(&server, &room.id, &user.server))
    }

    /// Nothing that was acknowledged waits for longer than what cannot be had is waited for, and nothing for others.
    fn check_queues(&self) {
        for hour in 0..=QUEUED_HOURS_MAX {
            let servers = self.world.running();
            let waiting: Vec<String> = servers
                .iter()
                .flat_map(|(name, server)| self.world.run(waiting_at(name.as_str(), server)))
                .collect();
            if waiting.is_empty() {
                return;
            }
            assert!(hour < QUEUED_HOURS_MAX, "seed {}: {}", self.world.seed(), waiting.join("\n"));
            self.world.pass(Duration::from_secs(3_600));
        }
    }

    /// What was acknowledged is there, once.
    fn check_spoken(&self) {
        let seed = self.world.seed();
        let mut holdings = BTreeMap::new();
        for spoken in &self.spoken {
            let holding = holdings.entry((spoken.room, spoken.server.clone())).or_insert_with(|| {
                let server = self.world.server(&spoken.server).expect("all servers are on");
                self.world.run(Holding::of(&server, &self.rooms[spoken.room].id))
            });
            let held = holding.as_ref().is_some_and(|holding| holding.accepted(&spoken.event_id));
            assert!(held, "seed {seed}: '{}' was acknowledged by {} and is lost", spoken.body, spoken.server);
        }
        let mut bodies: Vec<_> = self.spoken.iter().map(|spoken| &spoken.body).collect();
        bodies.sort();
        let count = bodies.len();
        bodies.dedup();
        assert_eq!(bodies.len(), count, "seed {seed}: a message was acknowledged twice");
    }

    /// What was acknowledged comes to every server with a user who was in the room then and has been since, also if its
    /// own server is out of the room by now. That what it makes of it is lawful is checked besides, as of every verdict.
    fn check_heard(&self) {
        for hour in 0..=PAUSE_HOURS_MAX {
            let Some(unheard) = self.unheard() else { return };
            assert!(hour < PAUSE_HOURS_MAX, "seed {}: {unheard}", self.world.seed());
            self.world.pass(Duration::from_secs(3_600));
        }
    }

    fn unheard(&self) -> Option<String> {
        let servers = self.world.running();
        for (number, room) in self.rooms.iter().enumerate() {
            let (mut holdings, mut states) = (Vec::new(), Vec::new());
            for (name, server) in &servers {
                let Some(holding) = self.world.run(Holding::of(server, &room.id)) else { continue };
                holdings.push((name.to_string(), holding));
                states.push(self.world.run(agreement::current_state(server, &room.id)));
            }
            for spoken in self.spoken.iter().filter(|spoken| spoken.room == number) {
                let own = holdings.iter().find(|(name, _)| *name == spoken.server);
                let there =
                    own.map(|(_, holding)| holding.joined_before(&spoken.event_id)).unwrap_or_default();
                // A join that its server knows only by hearsay was a handshake that it did not bring to its end: it has
                // nothing to follow.
                let stayed = |name: &str, holding: &Holding, state: &State| {
                    let mut own = there.iter().filter(|(user, _)| user.ends_with(&format!(":{name}")));
                    own.any(|(user, join)| {
                        let now = state.get(&("m.room.member".to_owned(), user.clone()));
                        now.is_some_and(|now| now == join) && holding.judged(join.as_str())
                    })
                };
                let deaf = holdings.iter().zip(&states).find(|((name, holding), state)| {
                    stayed(name, holding, state) && !holding.judged(&spoken.event_id)
                });
                if let Some(((name, _), _)) = deaf {
                    let (Spoken { body, server, .. }, held) = (spoken, lawful::comparison(&holdings));
                    return Some(format!(
                        "'{body}' of {server} has not come to {name}:\n{}",
                        held.join("\n")
                    ));
                }
            }
        }
        None
    }

    fn check_stores(&self) {
        for (name, server) in self.world.running() {
            let report = self.world.run(verify(&server.view.store, &NoKnowledge, &mut |_| {}));
            let report = report.expect("readable");
            let findings: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
            assert!(findings.is_empty(), "seed {}: {name}:\n{}", self.world.seed(), findings.join("\n"));
        }
    }
}

/// What a server still has to do for others or because of them.
async fn waiting_at(name: &str, server: &Server) -> Vec<String> {
    let read = server.view.store.read();
    let rows = [
        ("PDUs that lack something", read.all(&INBOUND_PDUS, ROWS_MAX).await.expect("readable").len()),
        ("EDUs for others", read.all(&OUTBOX, ROWS_MAX).await.expect("readable").len()),
        ("servers that are behind", read.all(&DESTINATIONS, ROWS_MAX).await.expect("readable").len()),
        ("PDUs in memory", server.federation.inbound.waiting()),
    ];
    let rows = rows.into_iter().filter(|(_, count)| *count > 0);
    let mut found: Vec<_> = rows.map(|(what, count)| format!("{name} has {count} {what}")).collect();
    let behind = server.federation.sender.destinations().into_iter();
    let behind = behind.filter(|report| report.attempting || report.waiting.behind_from.is_some());
    found.extend(behind.map(|report| format!("{name} has something for {report:?}")));
    found
}
