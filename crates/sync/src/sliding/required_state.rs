//! Which state of a room a client asks for (MSC4186, "RequiredStateRequest"), as a pure rule. The earlier form of it, pairs
//! with `*`, `$ME` and `$LAZY`, is read into the same.

use std::collections::BTreeSet;

use myelin_store::tables::RequiredStateRecord;

const MEMBER: &str = "m.room.member";
const ANY: &str = "*";
const ME: &str = "$ME";
const LAZY: &str = "$LAZY";

/// A type and a state key; `None` stands for any.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern {
    pub event_type: Option<String>,
    pub state_key: Option<String>,
}

/// What is included and not excluded.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequiredState {
    pub include: BTreeSet<Pattern>,
    pub exclude: BTreeSet<Pattern>,
    /// Members only as far as they are needed, beside those that a pattern names.
    pub lazy_members: bool,
}

impl Pattern {
    pub fn new(event_type: Option<&str>, state_key: Option<&str>) -> Self {
        Self { event_type: event_type.map(str::to_owned), state_key: state_key.map(str::to_owned) }
    }

    fn matches(&self, event_type: &str, state_key: &str) -> bool {
        self.event_type.as_deref().is_none_or(|wanted| wanted == event_type)
            && self.state_key.as_deref().is_none_or(|wanted| wanted == state_key)
    }
}

impl RequiredState {
    /// The earlier form: `[["m.room.member", "$LAZY"], ["*", "*"]]`.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>, me: &str) -> Self {
        let mut required = Self::default();
        for (event_type, state_key) in pairs {
            if event_type == MEMBER && state_key == LAZY {
                required.lazy_members = true;
                continue;
            }
            let state_key = if state_key == ME { me } else { state_key };
            let named = |name| Some(name).filter(|name| *name != ANY);
            required.include.insert(Pattern::new(named(event_type), named(state_key)));
        }
        required
    }

    pub fn matches(&self, event_type: &str, state_key: &str) -> bool {
        let by = |patterns: &BTreeSet<Pattern>| patterns.iter().any(|p| p.matches(event_type, state_key));
        let included = if self.lazy_members && event_type == MEMBER {
            // A wildcard does not ask for all members where they are to be loaded lazily.
            self.include.iter().any(|p| p.state_key.is_some() && p.matches(event_type, state_key))
        } else {
            by(&self.include)
        };
        included && !by(&self.exclude)
    }

    /// Keys that can be looked up one by one; `None` if a wildcard is among the patterns.
    fn exact_keys(&self) -> Option<Vec<(&str, &str)>> {
        let exact = |p: &'_ Pattern| p.event_type.is_some() && p.state_key.is_some();
        if !self.include.iter().all(exact) {
            return None;
        }
        let keys =
            self.include.iter().filter_map(|p| Some((p.event_type.as_deref()?, p.state_key.as_deref()?)));
        Some(keys.collect())
    }

    fn has_all_members(&self) -> bool {
        !self.lazy_members
            && self.exclude.is_empty()
            && self.include.iter().any(|p| {
                p.state_key.is_none() && p.event_type.as_deref().is_none_or(|wanted| wanted == MEMBER)
            })
    }

    pub fn record(&self) -> RequiredStateRecord {
        let pairs = |patterns: &BTreeSet<Pattern>| {
            patterns.iter().map(|p| (p.event_type.clone(), p.state_key.clone())).collect()
        };
        RequiredStateRecord {
            include: pairs(&self.include),
            exclude: pairs(&self.exclude),
            lazy_members: self.lazy_members,
        }
    }

    pub fn from_record(record: RequiredStateRecord) -> Self {
        let patterns = |pairs: Vec<(Option<String>, Option<String>)>| {
            pairs.into_iter().map(|(event_type, state_key)| Pattern { event_type, state_key }).collect()
        };
        Self {
            include: patterns(record.include),
            exclude: patterns(record.exclude),
            lazy_members: record.lazy_members,
        }
    }
}

/// Several of them at once: whatever one of them asks for. What excludes nothing is merged into one.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequiredStates(BTreeSet<RequiredState>);

impl From<RequiredState> for RequiredStates {
    fn from(required: RequiredState) -> Self {
        Self([required].into())
    }
}

impl FromIterator<RequiredState> for RequiredStates {
    fn from_iter<I: IntoIterator<Item = RequiredState>>(all: I) -> Self {
        all.into_iter().map(Self::from).fold(Self::default(), |sum, one| sum.and(&one))
    }
}

impl RequiredStates {
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        if self == other {
            return self.clone();
        }
        let mut merged = BTreeSet::new();
        let mut open = RequiredState::default();
        for required in self.0.union(&other.0) {
            if required.exclude.is_empty() && !required.has_all_members() {
                open.lazy_members |= required.lazy_members;
                open.include.extend(required.include.iter().cloned());
            } else {
                merged.insert(required.clone());
            }
        }
        if open != RequiredState::default() || merged.is_empty() {
            merged.insert(open);
        }
        Self(merged)
    }

    pub fn iter(&self) -> impl Iterator<Item = &RequiredState> {
        self.0.iter()
    }

    pub fn matches(&self, event_type: &str, state_key: &str) -> bool {
        self.0.iter().any(|required| required.matches(event_type, state_key))
    }

    /// Whether members are sent as they are needed: somebody asks for it, and nobody gets all of them anyway.
    pub fn lazy_members(&self) -> bool {
        self.0.iter().any(|required| required.lazy_members)
            && !self.0.iter().any(RequiredState::has_all_members)
    }

    /// Everything that may match, if that can be looked up key by key.
    pub fn exact_keys(&self) -> Option<BTreeSet<(&str, &str)>> {
        let mut keys = BTreeSet::new();
        for required in &self.0 {
            keys.extend(required.exact_keys()?);
        }
        Some(keys)
    }

    /// Whether whatever the other asks for is asked for here, too. `false` if that cannot be told at a glance.
    pub fn covers(&self, other: &Self) -> bool {
        let covered = |wanted: &RequiredState| {
            self.0.iter().any(|held| {
                held.include.is_superset(&wanted.include)
                    && held.exclude.is_subset(&wanted.exclude)
                    && held.lazy_members == wanted.lazy_members
            })
        };
        other.0.iter().all(covered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&'static str, &'static str)]) -> RequiredState {
        RequiredState::from_pairs(pairs.iter().copied(), "@me:x")
    }

    #[test]
    fn pairs_match_as_the_proposal_says() {
        let table = [
            (of(&[("m.room.name", "")]), "m.room.name", "", true),
            (of(&[("m.room.name", "")]), "m.room.name", "x", false),
            (of(&[("m.space.child", "*")]), "m.space.child", "!a:b", true),
            (of(&[("*", "")]), "m.room.topic", "", true),
            (of(&[("*", "")]), "m.room.member", "@a:b", false),
            (of(&[("*", "*")]), "m.room.member", "@a:b", true),
            (of(&[("m.room.member", "$ME")]), "m.room.member", "@me:x", true),
            (of(&[("m.room.member", "$ME")]), "m.room.member", "@a:b", false),
            (of(&[("m.room.member", "$LAZY")]), "m.room.member", "@a:b", false),
            (of(&[("*", "*"), ("m.room.member", "$LAZY")]), "m.room.member", "@a:b", false),
            (of(&[("*", "*"), ("m.room.member", "$LAZY")]), "m.room.name", "", true),
            (
                of(&[("*", "*"), ("m.room.member", "$LAZY"), ("m.room.member", "$ME")]),
                "m.room.member",
                "@me:x",
                true,
            ),
            (of(&[]), "m.room.name", "", false),
        ];
        for (required, event_type, state_key, expected) in table {
            assert_eq!(
                required.matches(event_type, state_key),
                expected,
                "{required:?} {event_type} {state_key}"
            );
        }
    }

    #[test]
    fn what_is_excluded_does_not_match() {
        let mut required = of(&[("*", "*")]);
        required.exclude.insert(Pattern::new(Some("m.room.create"), None));
        assert!(required.matches("m.room.name", ""));
        assert!(!required.matches("m.room.create", ""));
    }

    #[test]
    fn the_union_matches_what_one_of_them_does() {
        let mut most = of(&[("*", "*")]);
        most.exclude.insert(Pattern::new(Some("m.room.member"), None));
        let all = [of(&[("m.room.name", "")]), of(&[("m.room.member", "@a:b")]), most.clone()];
        let union: RequiredStates = all.clone().into_iter().collect();
        for key in
            [("m.room.name", ""), ("m.room.topic", ""), ("m.room.member", "@a:b"), ("m.room.member", "@c:d")]
        {
            assert_eq!(
                union.matches(key.0, key.1),
                all.iter().any(|one| one.matches(key.0, key.1)),
                "{key:?}"
            );
        }
        assert_eq!(union.0.len(), 2, "those that exclude nothing are one");
        assert!(union.covers(&RequiredStates::from(most)));
        assert!(!RequiredStates::from(all[0].clone()).covers(&union));
    }

    #[test]
    fn members_are_lazy_unless_somebody_gets_all_of_them() {
        let lazy = of(&[("m.room.member", "$LAZY"), ("m.room.name", "")]);
        let union = |other: RequiredState| RequiredStates::from(lazy.clone()).and(&other.into());
        assert!(union(of(&[("m.room.topic", "")])).lazy_members());
        let all = union(of(&[("m.room.member", "*")]));
        assert!(!all.lazy_members());
        assert!(all.matches("m.room.member", "@a:b"), "the wildcard of the one is not weakened by the other");
        assert!(!RequiredStates::from(of(&[("*", "*")])).lazy_members());
    }

    #[test]
    fn exact_keys_are_known_if_there_is_no_wildcard() {
        let exact: RequiredStates = of(&[("m.room.name", ""), ("m.room.member", "$LAZY")]).into();
        assert_eq!(exact.exact_keys(), Some([("m.room.name", "")].into()));
        assert_eq!(RequiredStates::from(of(&[("m.room.name", "*")])).exact_keys(), None);
    }

    #[test]
    fn records_say_everything() {
        let mut required = of(&[("*", ""), ("m.room.member", "$LAZY"), ("m.x", "y")]);
        required.exclude.insert(Pattern::new(None, Some("z")));
        assert_eq!(RequiredState::from_record(required.record()), required);
    }
}
