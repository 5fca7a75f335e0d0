//! What one server sends to a room takes the room from nobody else who is in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::future::join;
use http::StatusCode;
use myelin_dag::Pdu;
use myelin_store::tables::INBOUND_PDUS;
use myelin_testkit::{
    env::Sim,
    faults::Faults,
    network::Network,
    puppet::{Puppet, json_of},
};
use ruma::OwnedServerName;
use serde_json::{Value, json};

use crate::inbound::{Stage, accepted, event};

/// A stage on which time passes, and the server of Eve, who is in the room and means no good.
fn stage() -> (Stage, Puppet) {
    let sim = Sim::new(1);
    let stage = Stage::in_network(&sim, &Network::new(&sim));
    let evil = Puppet::connect(stage.puppet.network(), "evil.test");
    stage.joins_from(&evil, "eve");
    (stage, evil)
}

fn queued(stage: &Stage) -> usize {
    stage.run(stage.home.view.store.read().all(&INBOUND_PDUS, 2_000)).unwrap().len()
}

/// Joins of users of servers that never answer who asks for their keys.
fn tarpits(stage: &Stage, count: usize) -> Vec<Pdu> {
    let network = stage.puppet.network();
    let mut keyless: BTreeSet<OwnedServerName> = BTreeSet::new();
    let mut joins = Vec::new();
    for number in 0..count {
        let tarpit = Puppet::connect(network, &format!("tar{number}.test"));
        keyless.insert(tarpit.name().to_owned());
        let user = tarpit.user("slow");
        let join =
            event(user.as_str(), "m.room.member", Some(user.as_str()), &json!({ "membership": "join" }));
        joins.push(stage.run(tarpit.makes_next(&stage.home.view, &stage.room, join)));
    }
    network.set_faults(Faults { keyless, ..Faults::default() });
    joins
}

#[test]
fn keys_that_are_looked_for_hold_up_nobody_else() {
    let (stage, evil) = stage();
    let line = stage.line(4);
    let joins = tarpits(&stage, 200);
    for joins in joins.chunks(50) {
        let joins: Vec<_> = joins.iter().collect();
        assert_eq!(stage.run(evil.sends(&stage.name, &joins)).json, accepted(&joins));
    }
    assert_eq!(stage.sends(&[&line[0]]), accepted(&[&line[0]]));
    assert!(stage.shows(&line[0]), "it lacks nothing");
    assert_eq!(stage.sends(&[&line[3]]), accepted(&[&line[3]]));
    stage.passes(Duration::from_secs(15));
    assert!(line.iter().all(|pdu| stage.shows(pdu)), "what lacks is brought: {:?}", stage.puppet.asked());
    assert_eq!(queued(&stage), 200, "the keys may still come");
}

/// Everything that Eve's server sends lacks something, and whoever asks it for that waits long.
#[test]
fn a_server_that_lets_others_wait_takes_its_turns_only() {
    let (stage, evil) = stage();
    let mut place = stage.end();
    let mut gaps = Vec::new();
    for number in 0..60 {
        let said = event("@eve:evil.test", "m.room.message", None, &json!({ "n": number }));
        let said = stage.run(evil.makes_in(&stage.home.view, &stage.room, said, place.clone()));
        place = crate::inbound::after(&said);
        evil.forgets(&said.event_id);
        gaps.extend((number % 2 == 1).then_some(said));
    }
    let line = stage.line(40);
    let slow = BTreeMap::from([("evil.test".try_into().unwrap(), Duration::from_secs(9))]);
    stage.puppet.network().set_faults(Faults { slow, ..Faults::default() });
    let gaps: Vec<_> = gaps.iter().collect();
    assert_eq!(stage.run(evil.sends(&stage.name, &gaps)).json, accepted(&gaps));
    // Each of them lacks the one before, which is on its way, too.
    for pdu in line.iter().skip(1).step_by(2) {
        assert_eq!(stage.sends(&[pdu]), accepted(&[pdu]));
    }
    stage.passes(Duration::from_secs(150));
    assert!(line.iter().all(|pdu| stage.shows(pdu)));
}

/// A copy of an event whose signatures were spoilt is thrown away while the event itself is being taken in.
#[test]
fn what_is_acknowledged_is_not_thrown_away_with_a_spoilt_copy() {
    let (stage, evil) = stage();
    let clock = stage.home.sim.env().clock.clone();
    let [first, said] = stage.line(2).try_into().unwrap();
    // A disk that takes long makes the room slow: what comes is queued unseen.
    let stalls = |seconds| {
        let clock = clock.clone();
        let home = &stage.home;
        async move {
            home.stalls_disk(true);
            clock.sleep(Duration::from_secs(seconds)).await;
            home.stalls_disk(false);
        }
    };
    stage.run(join(stage.puppet.sends(&stage.name, &[&first]), stalls(3)));
    let slow = BTreeMap::from([("evil.test".try_into().unwrap(), Duration::from_secs(2))]);
    stage.puppet.network().set_faults(Faults { slow, ..Faults::default() });
    // It lacks what nobody has, and that takes a while to find out.
    let mut place = stage.end();
    place.prev_events = vec!["$lacking".try_into().unwrap()];
    let lacking = event("@eve:evil.test", "m.room.message", None, &json!({ "body": "lacking" }));
    let lacking = stage.run(evil.makes_in(&stage.home.view, &stage.room, lacking, place));
    assert_eq!(stage.run(evil.sends(&stage.name, &[&lacking])).json, accepted(&[&lacking]));
    let mut spoilt: Value = json_of(&said);
    let signature = &mut spoilt["signatures"]["remote.test"]["ed25519:puppet"];
    *signature = json!(signature.as_str().unwrap().chars().rev().collect::<String>());
    let reply = stage.run(evil.sends_transaction(&stage.name, json!([spoilt]), json!([])));
    assert_eq!((reply.status, queued(&stage)), (StatusCode::OK, 2));
    let (reply, ()) = stage.run(join(stage.puppet.sends(&stage.name, &[&said]), stalls(60)));
    assert_eq!(reply.json, accepted(&[&said]));
    stage.passes(Duration::from_secs(60));
    assert!(stage.shows(&said));
    stage.passes(Duration::from_secs(30 * 60 * 60));
    assert_eq!(queued(&stage), 0);
}
