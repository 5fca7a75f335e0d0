//! The rules of one user, in the order in which they are asked.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, LazyLock},
};

use ruma::{
    OwnedRoomId, OwnedUserId, RoomId, UserId,
    push::{Action, ConditionalPushRule, PushCondition, Ruleset as Rules},
    user_id,
};

use crate::{
    condition::{Circumstances, Condition},
    glob::Glob,
    path::Path,
    subject::Subject,
    trigger::{Trigger, trigger_of},
};

/// Whose default rules these are does not matter: where they name their owner, they are compiled to conditions that
/// ask for the owner.
const ANYBODY: &str = "@anybody:example.org";

/// What becomes of an event for one user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Outcome {
    pub notify: bool,
    /// Only with `notify`.
    pub highlight: bool,
}

impl Outcome {
    pub const NOTHING: Self = Self { notify: false, highlight: false };

    pub fn of(actions: &[Action]) -> Self {
        let notify = actions.iter().any(Action::should_notify);
        Self { notify, highlight: notify && actions.iter().any(Action::is_highlight) }
    }
}

/// An enabled rule.
#[derive(Debug)]
pub struct Rule {
    pub rule_id: String,
    pub actions: Vec<Action>,
    pub outcome: Outcome,
    conditions: Vec<Condition>,
}

/// The enabled rules of one user, most important first.
#[derive(Debug, Default)]
pub struct Ruleset {
    rules: Vec<Arc<Rule>>,
    ignored: HashSet<OwnedUserId>,
    /// Where the user hears nothing of ordinary messages.
    quiet_rooms: HashMap<OwnedRoomId, bool>,
    quiet_elsewhere: bool,
    /// What must be true of an event for these rules to see it otherwise than [`shared`] does: one of these.
    pub triggers: Vec<Trigger>,
}

/// The rules of everybody who has not changed any.
pub fn shared() -> &'static Ruleset {
    static SHARED: LazyLock<Ruleset> =
        LazyLock::new(|| Ruleset::compile(&Rules::server_default(anybody()), HashSet::new()));
    &SHARED
}

fn anybody() -> &'static UserId {
    user_id!("@anybody:example.org")
}

impl Ruleset {
    /// `rules` as [`crate::edit::load`] gives them; senders among `ignored` never notify.
    pub fn compile(rules: &Rules, ignored: HashSet<OwnedUserId>) -> Self {
        let defaults = Rules::server_default(anybody());
        let mut ruleset = Self { ignored, ..Self::default() };
        ruleset.triggers.extend(ruleset.ignored.iter().map(|user| Trigger::sender(user)));
        for rule in &rules.override_ {
            ruleset.add_conditional(rule, defaults.override_.get(rule.rule_id.as_str()));
        }
        for rule in &rules.content {
            let condition = Condition::Body(Glob::words(&rule.pattern));
            ruleset.add(&rule.rule_id, rule.enabled, &rule.actions, vec![condition]);
        }
        for rule in &rules.room {
            let condition = Condition::Is(Path::RoomId, rule.rule_id.as_str().into());
            ruleset.add(rule.rule_id.as_str(), rule.enabled, &rule.actions, vec![condition]);
        }
        for rule in &rules.sender {
            let condition = Condition::Is(Path::Sender, rule.rule_id.as_str().into());
            ruleset.add(rule.rule_id.as_str(), rule.enabled, &rule.actions, vec![condition]);
        }
        for rule in &rules.underride {
            ruleset.add_conditional(rule, defaults.underride.get(rule.rule_id.as_str()));
        }
        ruleset.note_quiet(rules);
        ruleset
    }

    /// The rule that decides about an event; `None` if none does. Nobody is notified of their own events.
    pub fn decide(&self, subject: &Subject<'_>, around: &Circumstances<'_>) -> Option<&Rule> {
        if around.owner == Some(subject.sender) || self.ignored.contains(subject.sender) {
            return None;
        }
        let rules = self.rules.iter().map(|rule| &**rule);
        rules
            .into_iter()
            .find(|rule| rule.conditions.iter().all(|condition| condition.holds(subject, around)))
    }

    pub fn outcome(&self, subject: &Subject<'_>, around: &Circumstances<'_>) -> Outcome {
        self.decide(subject, around).map_or(Outcome::NOTHING, |rule| rule.outcome)
    }

    /// Whether ordinary messages in this room notify nobody with these rules, as far as can be told at a glance. Whatever
    /// this says, evaluation decides; it only chooses what is written down: the exceptions, or the rule.
    pub fn is_quiet_in(&self, room: &RoomId) -> bool {
        self.quiet_rooms.get(room).copied().unwrap_or(self.quiet_elsewhere)
    }

    pub fn asks_display_name(&self) -> bool {
        self.asks(|condition| matches!(condition, Condition::DisplayName))
    }

    pub fn asks_permissions(&self) -> bool {
        self.asks(|condition| matches!(condition, Condition::Permission(_)))
    }

    fn asks(&self, is: impl Fn(&Condition) -> bool) -> bool {
        self.rules.iter().flat_map(|rule| &rule.conditions).any(is)
    }

    fn add_conditional(&mut self, rule: &ConditionalPushRule, default: Option<&ConditionalPushRule>) {
        let Some(default) = default.filter(|_| rule.default) else {
            let conditions = rule.conditions.iter().map(Condition::compile).collect();
            return self.add(&rule.rule_id, rule.enabled, &rule.actions, conditions);
        };
        let conditions = default_conditions(default);
        let (now, before) = (Outcome::of(&rule.actions), Outcome::of(&default.actions));
        if rule.enabled != default.enabled || (rule.enabled && now != before) {
            self.triggers.extend(trigger_of(&conditions));
        }
        self.push(&rule.rule_id, rule.enabled, &rule.actions, conditions);
    }

    /// A rule of the user's own.
    fn add(&mut self, rule_id: &str, enabled: bool, actions: &[Action], conditions: Vec<Condition>) {
        if enabled {
            self.triggers.extend(trigger_of(&conditions));
        }
        self.push(rule_id, enabled, actions, conditions);
    }

    fn push(&mut self, rule_id: &str, enabled: bool, actions: &[Action], conditions: Vec<Condition>) {
        if enabled {
            let (rule_id, actions) = (rule_id.to_owned(), actions.to_vec());
            let outcome = Outcome::of(&actions);
            self.rules.push(Arc::new(Rule { rule_id, actions, outcome, conditions }));
        }
    }

    fn note_quiet(&mut self, rules: &Rules) {
        let silent = |id: &str| {
            let rule = rules.underride.get(id);
            rule.is_none_or(|rule| !rule.enabled || !Outcome::of(&rule.actions).notify)
        };
        let master = rules.override_.get(".m.rule.master").is_some_and(|rule| rule.enabled);
        self.quiet_elsewhere = master || (silent(".m.rule.message") && silent(".m.rule.encrypted"));
        for rule in rules.room.iter().filter(|rule| rule.enabled) {
            self.quiet_rooms.insert(rule.rule_id.clone(), master || !Outcome::of(&rule.actions).notify);
        }
        for rule in rules.override_.iter().filter(|rule| rule.enabled && !rule.default) {
            if let Some(room) = only_room(&rule.conditions) {
                self.quiet_rooms.insert(room, master || !Outcome::of(&rule.actions).notify);
            }
        }
    }
}

/// The room that a rule without any other condition is about (so clients mute rooms).
fn only_room(conditions: &[PushCondition]) -> Option<OwnedRoomId> {
    match conditions {
        [PushCondition::EventMatch(data)] if data.key == "room_id" => data.pattern.as_str().try_into().ok(),
        _ => None,
    }
}

/// Default rules that name their owner are the same for everybody.
fn default_conditions(rule: &ConditionalPushRule) -> Vec<Condition> {
    let of_owner = |condition: &PushCondition| match condition {
        PushCondition::EventMatch(data) if data.key == "state_key" && data.pattern == ANYBODY => {
            Condition::AboutOwner
        }
        PushCondition::EventPropertyContains(data) if data.value.as_str() == Some(ANYBODY) => {
            Condition::MentionsOwner
        }
        other => Condition::compile(other),
    };
    rule.conditions.iter().map(of_owner).collect()
}
