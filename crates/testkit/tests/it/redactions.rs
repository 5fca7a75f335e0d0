//! Redactions from other servers that come before what they redact, or long after: whoever may redact is not outdone.

use std::time::Duration;

use http::StatusCode;
use myelin_dag::Pdu;
use myelin_testkit::puppet::{Place, Puppet};
use serde_json::{Value, json};

use super::inbound::{Stage, accepted, after, event};

/// Bob may redact what others say; Dave says something; Eve may not redact it. Each is of another server.
struct Scene {
    stage: Stage,
    place: Place,
    dave: Puppet,
    eve: Puppet,
    target: Pdu,
}

impl Scene {
    fn new() -> Self {
        let stage = Stage::new();
        let [dave, eve] =
            ["dave.test", "evil.test"].map(|name| Puppet::connect(stage.puppet.network(), name));
        stage.joins_from(&dave, "dave");
        stage.joins_from(&eve, "eve");
        let users = json!({ stage.alice.user_id.as_str(): 100, "@bob:remote.test": 50 });
        stage.sets("m.room.power_levels", "", &json!({ "users": users }));
        let place = stage.end();
        let target = event("@dave:dave.test", "m.room.message", None, &json!({ "body": "a secret" }));
        let target = stage.run(dave.makes_in(&stage.home.view, &stage.room, target, place.clone()));
        Self { stage, place, dave, eve, target }
    }

    /// From another branch than the target, and after the last one.
    fn redacts(&mut self, puppet: &Puppet, user: &str) -> Pdu {
        let mut redaction = event(user, "m.room.redaction", None, &json!({}));
        redaction.redacts = Some(self.target.event_id.clone());
        let view = &self.stage.home.view;
        let redaction =
            self.stage.run(puppet.makes_in(view, &self.stage.room, redaction, self.place.clone()));
        self.place = after(&redaction);
        self.stage.run(puppet.sends(&self.stage.name, &[&redaction]));
        assert!(self.stage.shows(&redaction));
        redaction
    }

    fn bob_redacts(&mut self) -> Pdu {
        self.redacts(&self.stage.puppet.clone(), "@bob:remote.test")
    }

    fn eve_redacts(&mut self) -> Pdu {
        self.redacts(&self.eve.clone(), "@eve:evil.test")
    }

    #[track_caller]
    fn is_redacted_by(&self, redaction: Option<&Pdu>) {
        self.stage.run(self.dave.sends(&self.stage.name, &[&self.target]));
        let shown = shown(&self.stage, &self.target);
        let because = shown["unsigned"]["redacted_because"]["event_id"].as_str();
        assert_eq!(because, redaction.map(|redaction| redaction.event_id.as_str()), "{shown}");
        let content = if redaction.is_some() { json!({}) } else { json!({ "body": "a secret" }) };
        assert_eq!(shown["content"], content);
    }
}

fn shown(stage: &Stage, pdu: &Pdu) -> Value {
    let path = format!("/_matrix/client/v3/rooms/{}/event/{}", stage.room, pdu.event_id);
    stage.run(stage.alice.get(&stage.home, &path)).ok()
}

#[test]
fn a_later_redaction_that_is_not_allowed_undoes_none_that_is() {
    let mut scene = Scene::new();
    let by_bob = scene.bob_redacts();
    scene.eve_redacts();
    scene.is_redacted_by(Some(&by_bob));
}

#[test]
fn redactions_that_are_not_allowed_keep_none_out_that_is() {
    let mut scene = Scene::new();
    (0..30).for_each(|_| drop(scene.eve_redacts()));
    let by_bob = scene.bob_redacts();
    scene.is_redacted_by(Some(&by_bob));
}

#[test]
fn everybody_may_redact_their_own() {
    let mut scene = Scene::new();
    (0..30).for_each(|_| drop(scene.eve_redacts()));
    let own = scene.redacts(&scene.dave.clone(), "@dave:dave.test");
    scene.eve_redacts();
    scene.is_redacted_by(Some(&own));
}

#[test]
fn what_nobody_was_allowed_to_redact_is_shown() {
    let mut scene = Scene::new();
    scene.eve_redacts();
    scene.is_redacted_by(None);
}

#[test]
fn a_redaction_comes_with_its_target_in_one_transaction() {
    for target_first in [true, false] {
        let stage = Stage::new();
        let place = stage.end();
        let target = stage.message_at("a secret", place.clone());
        let mut redaction = event("@bob:remote.test", "m.room.redaction", None, &json!({}));
        redaction.redacts = Some(target.event_id.clone());
        let place = if target_first { after(&target) } else { place };
        let redaction = stage.run(stage.puppet.makes_in(&stage.home.view, &stage.room, redaction, place));
        let pdus = if target_first { [&target, &redaction] } else { [&redaction, &target] };
        assert_eq!(stage.sends(&pdus), accepted(&pdus));
        let shown = shown(&stage, &target);
        assert_eq!(shown["content"], json!({}));
        assert_eq!(shown["unsigned"]["redacted_because"]["event_id"], redaction.event_id.as_str());
    }
}

#[test]
fn a_redaction_that_was_missed_is_made_up_for() {
    let stage = Stage::new();
    let target = stage.message_at("a secret", stage.end());
    stage.sends(&[&target]);
    let mut redaction = event("@bob:remote.test", "m.room.redaction", None, &json!({}));
    redaction.redacts = Some(target.event_id.clone());
    let place = after(&target);
    let redaction = stage.run(stage.puppet.makes_in(&stage.home.view, &stage.room, redaction, place));
    let far_end = stage.message_at("far end", after(&redaction));
    let last = stage.message_at("last", after(&far_end));
    let missing = "/_matrix/federation/v1/get_missing_events";
    stage.puppet.says(missing, StatusCode::NOT_FOUND, json!({}));
    stage.tells_puppet(&far_end);
    stage.sends(&[&last]);
    stage.passes(Duration::from_secs(1));
    assert!(stage.shows(&last) && !stage.shows(&redaction));
    assert_eq!(shown(&stage, &target)["content"]["body"], "a secret");
    stage.puppet.says_no_more(missing);
    let path = format!("/_matrix/client/v3/rooms/{}/messages?dir=b&limit=50", stage.room);
    stage.run(stage.alice.get(&stage.home, &path)).ok();
    assert!(stage.shows(&redaction), "filled in: {:?}", stage.puppet.asked());
    assert_eq!(shown(&stage, &target)["content"], json!({}));
    let page = stage.run(stage.alice.get(&stage.home, &path)).ok();
    assert!(!page.to_string().contains("a secret"));
}
