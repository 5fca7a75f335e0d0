//! What the others in a room say while somebody is joining it may come before the answer to the join does.

use std::time::Duration;

use futures::future::{Either, join, pending, select};
use http::{Method, StatusCode};
use myelin_dag::Pdu;
use myelin_store::tables::ARRIVING_PDUS;
use myelin_testkit::{
    client::percent,
    puppet::{Puppet, end_of},
    user::{Room, User},
    world::World,
};
use serde_json::json;

use super::{Net, gate::Deed};
use crate::inbound::{accepted, after, event};

/// Bob's server joins over a wire on which a long answer is overtaken by a short message. What `says` is, is said by
/// Alice as soon as her server has let Bob in.
fn joins_over_a_thin_wire(world: &World, (alice, bob): (&User, &User), room: &Room, says: Option<&str>) {
    world.change_faults(|faults| faults.bytes_per_second = Some(2_000));
    let speaking = async {
        if let Some(body) = says {
            speaks_when_joined(world, (alice, bob), room, body).await;
        }
    };
    let (joined, ()) = world.run(join(bob.request(Method::POST, &joins(room), Some(json!({}))), speaking));
    joined.expect("the server is on").ok();
    world.heal();
}

fn joins(room: &Room) -> String {
    format!("join/{}?server_name={}", percent(&room.id), room.via)
}

async fn speaks_when_joined(world: &World, (alice, bob): (&User, &User), room: &Room, body: &str) {
    let members = format!("rooms/{}/joined_members", percent(&room.id));
    loop {
        let answer = alice.request(Method::GET, &members, None).await.expect("the server is on").ok();
        if answer["joined"].get(&bob.id).is_some() {
            break;
        }
        world.env().clock.sleep(Duration::from_millis(50)).await;
    }
    let path = format!("rooms/{}/send/m.room.message/1", percent(&room.id));
    let message = json!({ "msgtype": "m.text", "body": body });
    alice.request(Method::PUT, &path, Some(message)).await.expect("the server is on").ok();
}

#[test]
fn a_message_that_overtakes_the_answer_to_a_join_is_seen() {
    let world = World::new(1).servers(["a.test", "b.test"]);
    let (alice, bob) = (world.user("@alice:a.test"), world.user("@bob:b.test"));
    let room = alice.creates_room(json!({ "preset": "trusted_private_chat", "is_direct": true }));
    alice.invites(&room, &bob);
    bob.sees_invite(&room);
    joins_over_a_thin_wire(&world, (&alice, &bob), &room, Some("hi"));
    bob.sees(&room, "hi");
}

/// It is acknowledged, so it does not come again.
#[test]
fn a_message_that_overtakes_the_answer_to_a_join_survives_a_crash() {
    let world = World::new(1).servers(["a.test", "b.test"]);
    let (alice, bob) = (world.user("@alice:a.test"), world.user("@bob:b.test"));
    let room = alice.creates_public_room();
    world.change_faults(|faults| faults.bytes_per_second = Some(2_000));
    let server = world.server("b.test").expect("it is on");
    let store = &server.view.store;
    let held = async || store.read().all(&ARRIVING_PDUS, 10).await.expect("readable").len();
    let joined_with_something_held = async {
        speaks_when_joined(&world, (&alice, &bob), &room, "hi").await;
        let id = room.id.as_str().try_into().expect("a room id");
        loop {
            let here = server.view.room_by_id(id).await.expect("readable");
            if here.is_some_and(|here| !here.local_joined.is_empty()) {
                return held().await;
            }
            world.env().clock.sleep(Duration::from_millis(1)).await;
        }
    };
    let path = joins(&room);
    let joining = join(bob.request(Method::POST, &path, Some(json!({}))), pending::<()>());
    let caught = world.run(select(Box::pin(joining), Box::pin(joined_with_something_held)));
    let Either::Right((held, _)) = caught else { unreachable!("the other one is pending") };
    assert_eq!(held, 1, "it was written when it was acknowledged");
    world.restart("b.test");
    world.heal();
    bob.sees(&room, "hi");
    let store = &world.server("b.test").expect("it is on").view.store;
    assert!(world.run(store.read().all(&ARRIVING_PDUS, 10)).expect("readable").is_empty());
}

/// They are sent at once to a server that comes in.
#[test]
fn what_is_sticky_reaches_who_joins() {
    let world = World::new(2).servers(["a.test", "b.test"]);
    let (alice, bob) = (world.user("@alice:a.test"), world.user("@bob:b.test"));
    let room = alice.creates_public_room();
    let path = format!(
        "rooms/{}/send/m.rtc.member/1?org.matrix.msc4354.sticky_duration_ms=3600000",
        percent(&room.id)
    );
    alice.tries(Method::PUT, &path, json!({ "body": "calling" })).ok();
    alice.sends(&room, "after");
    joins_over_a_thin_wire(&world, (&alice, &bob), &room, None);
    world.wait_until("the sticky event is there", async || {
        let answer = bob.request(Method::GET, "sync?set_presence=offline", None).await;
        let answer = answer.expect("the server is on").ok();
        let room = &answer["rooms"]["join"][&room.id];
        let sections = [&room["msc4354_sticky"]["events"], &room["timeline"]["events"]];
        sections.iter().any(|section| section.to_string().contains("calling"))
    });
}

/// Five servers say more than is held for one that is joining: for each of them, and for the room.
#[test]
fn what_does_not_fit_while_a_room_is_joined_comes_with_the_next_event() {
    let net = Net::in_time(2);
    let (ann, bob) = (net.user(0, "ann"), net.user(1, "bob"));
    let room = net.public_room(0, &ann, "11");
    let (view, id) = (&net.servers[0].view, room.as_str().try_into().unwrap());
    let [a, b] = ["a.test", "b.test"].map(|name| name.try_into().unwrap());
    let speakers: Vec<_> = (0..5)
        .map(|number| {
            let puppet = Puppet::connect(&net.network, &format!("other{number}.test"));
            let user = puppet.user("eve");
            let content = json!({ "membership": "join" });
            let member = event(user.as_str(), "m.room.member", Some(user.as_str()), &content);
            let member = net.run(puppet.makes_next(view, id, member));
            assert_eq!(net.run(puppet.sends(a, &[&member])).json, accepted(&[&member]));
            puppet
        })
        .collect();
    net.gate(0, |path| match path.contains("send_join") {
        true => Deed::Answer(Duration::from_secs(20)),
        false => Deed::Pass,
    });
    let speaking = async {
        while !is_in(&net, &room, &bob.user_id).await {
            net.sim.env().clock.sleep(Duration::from_millis(50)).await;
        }
        let end = end_of(view, id).await;
        let mut lines = Vec::new();
        for (puppet, count) in speakers.iter().zip([60, 45, 45, 45, 45]) {
            let (mut line, mut place): (Vec<Pdu>, _) = (Vec::new(), end.clone());
            while line.len() < count {
                let message = event(puppet.user("eve").as_str(), "m.room.message", None, &json!({}));
                line.push(puppet.makes_in(view, id, message, place).await);
                place = after(&line[line.len() - 1]);
            }
            for pdus in line.chunks(50) {
                let pdus: Vec<_> = pdus.iter().collect();
                assert_eq!(puppet.sends(a, &pdus).await.json, accepted(&pdus));
                assert_eq!(puppet.sends(b, &pdus).await.status, StatusCode::OK);
            }
            lines.push(line);
        }
        lines
    };
    let path = format!("/_matrix/client/v3/join/{}?via=a.test", percent(&room));
    let body = json!({});
    let (joined, lines) = net.run(join(bob.post(&net.servers[1], &path, &body), speaking));
    joined.ok();
    net.pass(1);
    let shown = || {
        let truth = net.run(net.servers[1].truth(&room));
        let shown =
            |line: &Vec<Pdu>| line.iter().filter(|pdu| truth.iter().any(|id| *id == pdu.event_id)).count();
        lines.iter().map(shown).collect::<Vec<_>>()
    };
    assert_eq!(shown(), [50, 45, 45, 45, 15]);
    net.set(0, &ann, &room, "m.room.topic", json!({ "topic": "next" })).ok();
    net.pass(10);
    assert_eq!(shown(), [60, 45, 45, 45, 45]);
}

async fn is_in(net: &Net, room: &str, user: &str) -> bool {
    let view = &net.servers[0].view;
    let room = view.room_by_id(room.try_into().unwrap()).await.unwrap().unwrap();
    let member = view.current_state_event(&room, "m.room.member", user).await.unwrap();
    member.is_some()
}
