//! `docs/coverage.md`: what became of every operation. Written by `cargo xtask coverage`, compared by everybody.

use std::{collections::BTreeMap, fmt::Write, path::PathBuf};

const HEAD: &str = "# Coverage of the specification

Written by `cargo xtask coverage`; the test `coverage` of `myelin-testkit` fails where an operation got worse. Each operation gets
a valid request, whose answer is held against the schemas of the specification (`crates/testkit/spec/digest.json`), with the
events that are in it; and requests that it must refuse, made from the valid one: without and with wrong authentication, with a wrong
method, malformed and over-long identifiers, rooms and users that are not the caller's, bodies that are not JSON, fields of the wrong
type, without what is required.

- **works**: all of that is as specified.
- **partly**: the valid request is answered, but not all is as it should be; the note says what.
- **not**: the valid request is not answered as specified.
";

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum State {
    Not,
    Partly,
    Works,
}

pub struct Line {
    pub operation: String,
    pub id: String,
    pub state: State,
    pub note: String,
}

impl State {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Works, "works"), (Self::Partly, "partly"), (Self::Not, "not")];

    fn word(self) -> &'static str {
        Self::ALL.iter().find(|(state, _)| *state == self).map_or("", |(_, word)| word)
    }

    fn read(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == word).map(|(state, _)| *state)
    }
}

pub fn path() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "..", "docs", "coverage.md"].iter().collect()
}

pub fn render(apis: &[(&str, Vec<Line>)]) -> String {
    let mut page = HEAD.to_owned();
    for (name, lines) in apis {
        let works = lines.iter().filter(|line| line.state == State::Works).count();
        let _ = write!(page, "\n## {name}: {works} of {} work\n\n", lines.len());
        page += "| operation | id | state | note |\n|---|---|---|---|\n";
        for Line { operation, id, state, note } in lines {
            let note = note.replace('|', "\\|").replace('\n', " ");
            let _ = writeln!(page, "| `{operation}` | `{id}` | {} | {note} |", state.word());
        }
    }
    page
}

/// States by API and id, as a page has them.
pub fn read(page: &str) -> BTreeMap<(String, String), State> {
    let (mut states, mut api) = (BTreeMap::new(), String::new());
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            api = heading.split(':').next().unwrap_or_default().to_owned();
        }
        let cells: Vec<&str> = line.split(" | ").map(|cell| cell.trim_matches(['|', ' ', '`'])).collect();
        if let [_, id, state, ..] = cells[..]
            && let Some(state) = State::read(state)
        {
            states.insert((api.clone(), id.to_owned()), state);
        }
    }
    states
}

#[test]
fn a_page_says_what_was_written() {
    let line = |id: &str, state, note: &str| Line {
        operation: "GET /x".into(),
        id: id.into(),
        state,
        note: note.into(),
    };
    let lines = vec![line("a", State::Works, ""), line("b", State::Not, "a | b")];
    let states = read(&render(&[("One API", lines)]));
    let state = |id: &str| states.get(&("One API".to_owned(), id.to_owned())).copied();
    assert_eq!((states.len(), state("a"), state("b")), (2, Some(State::Works), Some(State::Not)));
}
