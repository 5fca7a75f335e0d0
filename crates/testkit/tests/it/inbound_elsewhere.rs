//! What lacks, and the server that brought an event does not give, is asked of another one in the room.

use std::time::Duration;

use http::StatusCode;
use myelin_store::tables::VerdictRecord;
use myelin_testkit::puppet::Puppet;
use serde_json::json;

use crate::inbound::{Stage, claims_authority};

/// A stage on which Olga's server is in the room, too.
fn stage() -> (Stage, Puppet) {
    let stage = Stage::new();
    let other = Puppet::connect(stage.puppet.network(), "other.test");
    stage.joins_from(&other, "olga");
    (stage, other)
}

#[test]
fn events_in_between() {
    let (stage, other) = stage();
    let line = stage.line(3);
    line.iter().for_each(|pdu| other.knows(pdu));
    let path = "/_matrix/federation/v1/get_missing_events";
    stage.puppet.says(path, StatusCode::NOT_FOUND, json!({}));
    stage.sends(&[&line[2]]);
    stage.passes(Duration::from_secs(1));
    assert!(line.iter().all(|pdu| stage.shows(pdu)), "{:?}", other.asked());
    assert!(stage.puppet.asked().iter().any(|asked| asked.contains(path)), "who brought it was asked first");
}

#[test]
fn an_auth_chain() {
    let (stage, other) = stage();
    let (join, message) = claims_authority(&stage, &[&stage.puppet, &other]);
    let path = "/_matrix/federation/v1/event_auth";
    stage.puppet.says(path, StatusCode::NOT_FOUND, json!({}));
    stage.puppet.says("/_matrix/federation/v1/event/", StatusCode::NOT_FOUND, json!({}));
    stage.sends(&[&message]);
    stage.passes(Duration::from_secs(1));
    assert_eq!(stage.verdict(&join.event_id), Some(VerdictRecord::Accepted), "held as an outlier");
    assert!(stage.puppet.asked().iter().any(|asked| asked.contains(path)), "who brought it was asked first");
    assert!(other.asked().iter().any(|asked| asked.contains(path)));
}
