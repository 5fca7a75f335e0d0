//! What somebody typed, as a query: every word has to be there; `"words in quotes"` one after the other; what follows a
//! minus must not be there.

use tantivy::{
    Term,
    query::{BooleanQuery, ConstScoreQuery, Occur, PhraseQuery, Query, TermQuery, TermSetQuery},
    schema::{Field, IndexRecordOption},
};

use crate::{
    schema::{Fields, Searched},
    text::{Placed, Run, looked_up, runs},
};

/// Clauses of one search that count.
const CLAUSES_MAX: usize = 32;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Clause {
    excluded: bool,
    terms: Vec<Placed>,
}

/// A search term, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clauses {
    clauses: Vec<Clause>,
    /// The words that are looked for, folded.
    pub words: Vec<String>,
}

impl Clauses {
    pub fn parse(term: &str) -> Self {
        let mut parsed = Self::default();
        // Odd pieces are between quotes; a quote that is not closed quotes nothing.
        let pieces: Vec<&str> = term.split('"').collect();
        let closed = pieces.len() - (pieces.len() + 1) % 2;
        let mut excluded = false;
        for (index, piece) in pieces.iter().enumerate() {
            if index % 2 == 1 && index < closed {
                parsed.push(excluded, runs(piece));
                excluded = false;
                continue;
            }
            for word in piece.split_whitespace() {
                let (minus, word) = word.strip_prefix('-').map_or((false, word), |rest| (true, rest));
                runs(word).into_iter().for_each(|run| parsed.push(minus, vec![run]));
            }
            excluded = piece.ends_with('-') && piece.split_whitespace().next_back() == Some("-");
        }
        parsed
    }

    fn push(&mut self, excluded: bool, runs: Vec<Run>) {
        if runs.is_empty() || self.clauses.len() == CLAUSES_MAX {
            return;
        }
        self.clauses.push(Clause { excluded, terms: looked_up(&runs) });
        if !excluded {
            self.words.extend(runs.into_iter().map(|run| match run {
                Run::Word(word) => word,
                Run::Unspaced(run) => run.into_iter().collect(),
            }));
        }
    }

    /// `None`: nothing is looked for, so nothing is found.
    pub fn query(&self, fields: &Fields, searched: &[Searched]) -> Option<Box<dyn Query>> {
        if self.words.is_empty() || searched.is_empty() {
            return None;
        }
        let clauses = self.clauses.iter().map(|clause| {
            let anywhere = searched.iter().map(|key| clause.within(fields.text_of(*key))).collect();
            let query: Box<dyn Query> = Box::new(BooleanQuery::union(anywhere));
            (if clause.excluded { Occur::MustNot } else { Occur::Must }, query)
        });
        Some(Box::new(BooleanQuery::new(clauses.collect())))
    }
}

impl Clause {
    fn within(&self, field: Field) -> Box<dyn Query> {
        let term = |text: &str| Term::from_field_text(field, text);
        match &self.terms[..] {
            [(_, alone)] => Box::new(TermQuery::new(term(alone), IndexRecordOption::WithFreqs)),
            terms => {
                let terms = terms.iter().map(|(position, text)| (*position, term(text)));
                Box::new(PhraseQuery::new_with_offset(terms.collect()))
            }
        }
    }
}

/// The hits of a query that have one of these numbers; the score is not touched.
pub fn among(query: Box<dyn Query>, field: Field, nids: impl Iterator<Item = u64>) -> Box<dyn Query> {
    let terms = TermSetQuery::new(nids.map(|nid| Term::from_field_u64(field, nid)));
    let filter = ConstScoreQuery::new(Box::new(terms), 0.0);
    Box::new(BooleanQuery::new(vec![(Occur::Must, query), (Occur::Must, Box::new(filter))]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(term: &str) -> Vec<String> {
        let clauses = Clauses::parse(term).clauses.into_iter();
        let written = clauses.map(|clause| {
            let terms: Vec<_> = clause.terms.into_iter().map(|(_, text)| text).collect();
            format!("{}{}", if clause.excluded { "-" } else { "" }, terms.join("+"))
        });
        written.collect()
    }

    #[test]
    fn terms_are_taken_apart() {
        for (term, expected) in [
            ("Martians and  men", vec!["martians", "and", "men"]),
            ("\"to be\" or -not", vec!["to+be", "or", "-not"]),
            ("-\"to be\" x", vec!["-to+be", "x"]),
            ("well-known", vec!["well", "known"]),
            ("-well-known", vec!["-well", "-known"]),
            ("an \"open quote", vec!["an", "open", "quote"]),
            ("東京都 x", vec!["東京+京都", "x"]),
            ("\"\" - -", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(parsed(term), expected, "{term}");
        }
        assert_eq!(parsed(&"a ".repeat(1000)).len(), CLAUSES_MAX);
    }

    #[test]
    fn nothing_but_exclusions_finds_nothing() {
        let fields = Fields::default();
        assert!(Clauses::parse("-x").query(&fields, &Searched::ALL).is_none());
        assert!(Clauses::parse("x").query(&fields, &[]).is_none());
        assert!(Clauses::parse("x -y").query(&fields, &Searched::ALL).is_some());
        assert_eq!(Clauses::parse("Über -y 東京").words, ["uber", "東京"]);
    }
}
