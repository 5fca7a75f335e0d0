//! The specification as a test: every operation of both APIs, asked as it should be and as it should not.

mod call;
mod client;
mod digest;
mod federation;
mod place;
mod shapes;
mod surroundings;
mod table;
mod trials;

use std::{
    collections::BTreeMap,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
};

use http::Method;

use self::{
    call::{Call, Content, Reply, Who},
    digest::Operation,
    place::Place,
    shapes::Shapes,
    table::{Line, State},
};

const CLIENT_SERVER: &str = "Client-Server API";
const SERVER_SERVER: &str = "Server-Server API";
/// Of one operation, in the table.
const PROBLEMS_MAX: usize = 5;

type Rows = BTreeMap<&'static str, fn(&Place) -> Call>;

/// With `MYELIN_COVERAGE=write` the table is written, otherwise compared. `MYELIN_COVERAGE_OF` names the operations to
/// be looked at, with everything that was asked.
#[test]
fn the_table_is_that_of_the_server() {
    let shapes = Shapes::new();
    let apis = [
        (CLIENT_SERVER, &shapes.digest.client_server, rows(client::rows())),
        (SERVER_SERVER, &shapes.digest.server_server, rows(federation::ROWS.iter().copied())),
    ];
    let only = std::env::var("MYELIN_COVERAGE_OF").ok();
    let named = |id: &str| only.as_ref().is_none_or(|only| only.split(',').any(|named| named == id));
    let found = apis.map(|(name, operations, rows)| {
        let asked = operations.iter().filter(|operation| named(&operation.id));
        let rows: Vec<_> = asked.map(|operation| (operation, rows[operation.id.as_str()])).collect();
        (name, look_at_all(&rows, if only.is_some() { usize::MAX } else { PROBLEMS_MAX }))
    });
    let page = table::render(&found);
    if only.is_some() {
        return println!("{page}");
    }
    let committed = fs::read_to_string(table::path()).unwrap_or_default();
    let worse = worse(&table::read(&committed), &found);
    assert!(worse.is_empty(), "got worse:\n{}", worse.join("\n"));
    if std::env::var("MYELIN_COVERAGE").is_ok_and(|what| what == "write") {
        fs::write(table::path(), page).expect("writable");
    } else if table::read(&committed) != table::read(&page) {
        println!("the server got better than docs/coverage.md says: run `cargo xtask coverage`");
    }
}

/// No operation has two rows, and each row is of an operation.
#[test]
fn every_operation_has_one_row() {
    let shapes = Shapes::new();
    for (operations, rows, count) in [
        (&shapes.digest.client_server, client::rows().collect::<Vec<_>>(), 166),
        (&shapes.digest.server_server, federation::ROWS.to_vec(), 36),
    ] {
        let mut rows: Vec<_> = rows.iter().map(|(id, _)| *id).collect();
        let mut ids: Vec<_> = operations.iter().map(|operation| operation.id.as_str()).collect();
        rows.sort_unstable();
        ids.sort_unstable();
        assert_eq!(rows, ids);
        assert_eq!(ids.len(), count);
    }
}

#[test]
fn unknown_paths_say_so() {
    let place = Place::new();
    let token = Who::Token(place.alice.token.clone());
    for path in [
        "/",
        "/nonsense",
        "/_matrix",
        "/_matrix/nonsense",
        "/_matrix/client/nonsense",
        "/_matrix/client/v3/nonsense",
        "/_matrix/client/v9/sync",
        "/_matrix/media/v3/nonsense",
        "/_matrix/federation/v1/nonsense",
        "/_matrix/key/v9/server",
        "/_matrix/client/unstable/nonsense",
        "/.well-known/matrix/nonsense",
    ] {
        for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE] {
            let reply = place.asks(token.clone(), method, path, &Content::None);
            assert_eq!((reply.status.as_u16(), reply.errcode()), (404, "M_UNRECOGNIZED"), "{path}");
            assert_eq!(shapes::of_frame(&reply), Vec::<String>::new(), "{path}");
        }
    }
}

fn rows(rows: impl Iterator<Item = client::Row>) -> Rows {
    rows.collect()
}

/// Everything that was better in the table.
fn worse(committed: &BTreeMap<(String, String), State>, found: &[(&str, Vec<Line>)]) -> Vec<String> {
    let lines = found.iter().flat_map(|(api, lines)| lines.iter().map(move |line| (*api, line)));
    let worse = lines.filter(|(api, line)| {
        committed.get(&((*api).to_owned(), line.id.clone())).is_some_and(|before| line.state < *before)
    });
    worse
        .map(|(_, line)| format!("{} ({}): {:?}: {}", line.operation, line.id, line.state, line.note))
        .collect()
}

/// How the valid request of an operation is made.
type Asks = fn(&Place) -> Call;

/// Operations have nothing to do with each other: two halves at once.
fn look_at_all(rows: &[(&Operation, Asks)], problems_max: usize) -> Vec<Line> {
    let look_at = |rows: &[(&Operation, Asks)]| -> Vec<Line> {
        let shapes = Shapes::new();
        rows.iter().map(|(operation, row)| look(&shapes, operation, *row, problems_max)).collect()
    };
    let (first, second) = rows.split_at(rows.len() / 2);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| look_at(first));
        let second = look_at(second);
        let mut lines = first.join().expect("a look at an operation does not panic");
        lines.extend(second);
        lines
    })
}

/// Tries one operation, each time in a place of its own: a valid call may take away what the trials need.
fn look(shapes: &Shapes, operation: &Operation, row: fn(&Place) -> Call, problems_max: usize) -> Line {
    let looked = catch_unwind(AssertUnwindSafe(|| {
        let (state, note) = look_at_valid(shapes, operation, row);
        let problems = if state == State::Not { Vec::new() } else { look_at_trials(shapes, operation, row) };
        (state, note, problems)
    }));
    let (mut state, note, mut problems) =
        looked.unwrap_or_else(|_| (State::Not, "what it needs cannot be prepared".to_owned(), Vec::new()));
    let mut notes: Vec<String> = (!note.is_empty()).then_some(note).into_iter().collect();
    if !problems.is_empty() {
        state = State::Partly;
        let more = problems.len().saturating_sub(problems_max);
        problems.truncate(problems_max);
        problems.extend((more > 0).then(|| format!("and {more} more")));
        notes.extend(problems);
    }
    Line { operation: operation.name(), id: operation.id.clone(), state, note: notes.join("; ") }
}

fn look_at_valid(shapes: &Shapes, operation: &Operation, row: fn(&Place) -> Call) -> (State, String) {
    let place = Place::new();
    let call = row(&place);
    let reply = place.send(operation, &call);
    if reply.status.as_u16() != call.status {
        return (State::Not, format!("{}: {}", reply.status.as_u16(), said(&reply)));
    }
    let problems = shapes.of_answer(operation, &call, &reply);
    match problems.is_empty() {
        true => (State::Works, call.note.to_owned()),
        false => (State::Partly, problems.join("; ")),
    }
}

fn look_at_trials(shapes: &Shapes, operation: &Operation, row: fn(&Place) -> Call) -> Vec<String> {
    let place = Place::new();
    let call = row(&place);
    let trials = trials::of(operation, &call, &shapes.digest, &place);
    trials.iter().filter_map(|trial| trial.judge(&place.send(operation, &trial.call))).collect()
}

fn said(reply: &Reply) -> String {
    let text = if reply.json.is_null() {
        String::from_utf8_lossy(&reply.body).into_owned()
    } else {
        reply.json.to_string()
    };
    text.chars().take(160).collect()
}
