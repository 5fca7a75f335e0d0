//! What is wrong with a configuration, where it was written, and what was probably meant.

use std::{fmt, sync::Arc};

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Default,
    File {
        path: Arc<str>,
        /// From 1; 0 is the file as a whole.
        line: usize,
    },
    /// The name of an environment variable.
    Env(String),
    /// The key of a `--set`.
    Set(String),
    /// `serve --dev`.
    Dev,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line: 0 } => f.write_str(path),
            Self::File { path, line } => write!(f, "{path}:{line}"),
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::Set(key) => write!(f, "--set {key}"),
            Self::Dev => f.write_str("--dev"),
        }
    }
}

/// One thing to put right. Its text names the place, the fault and, where there is one, the likely remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub origin: Origin,
    pub message: String,
    pub suggestion: Option<String>,
}

impl Problem {
    pub fn new(origin: &Origin, message: impl Into<String>) -> Self {
        Self { origin: origin.clone(), message: message.into(), suggestion: None }
    }

    pub fn suggest(mut self, suggestion: Option<impl Into<String>>) -> Self {
        self.suggestion = suggestion.map(Into::into);
        self
    }

    /// The same problem, said of `key`.
    pub fn within(mut self, key: &str) -> Self {
        self.message = format!("{key}: {}", self.message);
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.message)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, "; did you mean '{suggestion}'?"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong, not just the first thing.
#[derive(Debug, thiserror::Error)]
#[error("the configuration cannot be used:{}", self.lines())]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    fn lines(&self) -> String {
        self.0.iter().map(|problem| format!("\n  {problem}")).collect()
    }
}

/// The candidate that resembles `word` most, if any does. A dotted candidate also matches by its last part, so that
/// a key written outside its section finds its way home.
pub fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const ALIKE: f64 = 0.7;
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let score = |candidate: &str| {
        let whole = strsim::normalized_damerau_levenshtein(word, candidate);
        let leaf = strsim::normalized_damerau_levenshtein(&last(word), &last(candidate));
        if leaf > 0.8 { whole.max(ALIKE + 0.2 * whole) } else { whole }
    };
    let scored = candidates.into_iter().map(|candidate| (score(candidate), candidate));
    scored.filter(|(score, _)| *score >= ALIKE).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, best)| best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_key_is_found_by_spelling_or_by_its_last_part() {
        let keys = ["server.name", "server.listen", "store.uri", "registration.mode", "log.json"];
        for (word, expected) in [
            ("server.nam", Some("server.name")),
            ("sever.name", Some("server.name")),
            ("name", Some("server.name")),
            ("registraton.mode", Some("registration.mode")),
            ("database.uri", Some("store.uri")),
            ("frobnicate", None),
        ] {
            assert_eq!(closest(word, keys), expected, "{word}");
        }
    }
}
