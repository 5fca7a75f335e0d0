//! Text into words that can be looked up: case, width and accents do not matter, and scripts that write without spaces are
//! cut into single characters and pairs.

use std::ops::RangeInclusive;

use tantivy::tokenizer::{PreTokenizedString, Token};
use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

/// Characters of a word that count.
const WORD_LENGTH_MAX: usize = 64;

/// Accents and points: marks without which a reader still knows the word. Not the vowel signs of Indic scripts, nor the
/// voiced marks of kana.
const ACCENTS: &[RangeInclusive<char>] = &[
    '\u{300}'..='\u{36f}',
    // Not the marks that join and separate Hebrew words.
    '\u{591}'..='\u{5bd}',
    '\u{5bf}'..='\u{5bf}',
    '\u{5c1}'..='\u{5c2}',
    '\u{5c4}'..='\u{5c5}',
    '\u{5c7}'..='\u{5c7}',
    '\u{610}'..='\u{61a}',
    '\u{64b}'..='\u{65f}',
    '\u{1ab0}'..='\u{1aff}',
    '\u{1dc0}'..='\u{1dff}',
    '\u{20d0}'..='\u{20ff}',
];

/// Scripts written without spaces, and Hangul, whose words come with endings.
const UNSPACED: &[RangeInclusive<char>] = &[
    '\u{e00}'..='\u{eff}',
    '\u{1000}'..='\u{109f}',
    '\u{1780}'..='\u{17ff}',
    '\u{3005}'..='\u{3007}',
    '\u{3040}'..='\u{30ff}',
    '\u{31f0}'..='\u{31ff}',
    '\u{3400}'..='\u{9fff}',
    '\u{ac00}'..='\u{d7a3}',
    '\u{f900}'..='\u{faff}',
    '\u{20000}'..='\u{3ffff}',
];

/// A piece of folded text between what separates words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Run {
    Word(String),
    /// At least one character.
    Unspaced(Vec<char>),
}

/// What is looked up: the place counts from the beginning of the text.
pub type Placed = (usize, String);

/// Small letters without accents, in one width.
pub fn fold(text: &str) -> String {
    // Most texts: nothing in them has another form than its small letter.
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let plain = text.nfkd().filter(|c| !within(ACCENTS, *c)).flat_map(char::to_lowercase);
    // Some small letters come with a mark of their own.
    plain.filter(|c| !within(ACCENTS, *c)).nfc().collect()
}

pub fn runs(text: &str) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    // Nothing joins on to a separator.
    let mut separated = true;
    for character in fold(text).chars() {
        if !is_part_of_word(character) {
            separated = true;
            continue;
        }
        match (runs.last_mut(), within(UNSPACED, character)) {
            (Some(Run::Unspaced(run)), true) if !separated => run.push(character),
            (Some(Run::Word(word)), false) if !separated => {
                if word.chars().count() < WORD_LENGTH_MAX {
                    word.push(character);
                }
            }
            (_, true) => runs.push(Run::Unspaced(vec![character])),
            (_, false) => runs.push(Run::Word(character.to_string())),
        }
        separated = false;
    }
    runs
}

/// Everything by which the text can be found.
pub fn indexed(text: &str) -> PreTokenizedString {
    let (mut tokens, mut position) = (Vec::new(), 0);
    let mut push = |position, text| {
        tokens.push(Token { offset_from: 0, offset_to: 0, position, text, position_length: 1 });
    };
    for run in runs(text) {
        match run {
            Run::Word(word) => {
                push(position, word);
                position += 1;
            }
            Run::Unspaced(run) => {
                for (index, character) in run.iter().enumerate() {
                    push(position, character.to_string());
                    if let Some(next) = run.get(index + 1) {
                        push(position, format!("{character}{next}"));
                    }
                    position += 1;
                }
            }
        }
    }
    PreTokenizedString { text: String::new(), tokens }
}

/// What a text that has these runs one after the other must have where.
pub fn looked_up(runs: &[Run]) -> Vec<Placed> {
    let (mut terms, mut position) = (Vec::new(), 0);
    for run in runs {
        match run {
            Run::Word(word) => {
                terms.push((position, word.clone()));
                position += 1;
            }
            Run::Unspaced(run) => {
                let pairs = run.windows(2).enumerate();
                terms.extend(pairs.map(|(at, pair)| (position + at, pair.iter().collect())));
                if let [alone] = run[..] {
                    terms.push((position, alone.to_string()));
                }
                position += run.len();
            }
        }
    }
    terms
}

/// The words of a text as it is written.
pub fn surfaces(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !is_part_of_word(c) && !is_combining_mark(c)).filter(|word| !word.is_empty())
}

fn is_part_of_word(character: char) -> bool {
    character.is_alphanumeric() || is_combining_mark(character)
}

fn within(ranges: &[RangeInclusive<char>], character: char) -> bool {
    ranges.iter().any(|range| range.contains(&character))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        indexed(text).tokens.into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn case_width_and_accents_do_not_matter() {
        for (text, expected) in [
            ("Größe", "große"),
            ("ÉCLAIR", "eclair"),
            ("İstanbul", "istanbul"),
            ("ＦＵＬＬ", "full"),
            ("ﬁn", "fin"),
            ("Ёлка", "елка"),
            ("Ἀθῆναι", "αθηναι"),
            ("שָׁלוֹם", "שלום"),
            ("が", "が"),
            ("ｶﾞ", "ガ"),
            ("हिन्दी", "हिन्दी"),
            ("한국어", "한국어"),
        ] {
            assert_eq!(fold(text), expected, "{text}");
        }
    }

    #[test]
    fn plain_text_is_folded_as_any_other() {
        let ascii: String = (0..128_u8).map(char::from).collect();
        let others = "\u{3b1}";
        assert_eq!(format!("{}{others}", fold(&ascii)), fold(&format!("{ascii}{others}")));
    }

    #[test]
    fn texts_are_cut_into_words_and_pairs() {
        assert_eq!(words("Hello, wide-open WORLD_42!"), ["hello", "wide", "open", "world", "42"]);
        assert_eq!(words("東京都"), ["東", "東京", "京", "京都", "都"]);
        assert_eq!(words("v2東 x"), ["v2", "東", "x"]);
        assert_eq!(words("ก๊า"), ["ก", "ก๊", "๊", "๊า", "า"]);
        assert_eq!(words("!?… \u{0}"), Vec::<String>::new());
        assert_eq!(words(&"a".repeat(1000))[0].len(), WORD_LENGTH_MAX);
    }

    #[test]
    fn what_is_looked_up_is_where_it_was_indexed() {
        for text in ["see 東京都 at night", "東", "東京", "one", "日本語 と English"] {
            let tokens = indexed(text).tokens;
            for (position, term) in looked_up(&runs(text)) {
                assert!(tokens.iter().any(|t| t.position == position && t.text == term), "{text}: {term}");
            }
        }
        assert_eq!(looked_up(&runs("東京都")), [(0, "東京".to_owned()), (1, "京都".to_owned())]);
    }

    #[test]
    fn surfaces_are_words_as_written() {
        assert_eq!(surfaces("Über-größe, 東京!").collect::<Vec<_>>(), ["Über", "größe", "東京"]);
    }
}
