//! What the others in a room say while somebody is joining it may come before the answer to the join does.

use http::Method;
use myelin_testkit::{
    client::percent,
    user::{Room, User},
    world::World,
};
use serde_json::json;

/// Bob's server joins over a wire on which a long answer is overtaken by a short message. What `says` is, is said by
/// Alice as soon as her server has let Bob in.
fn joins_over_a_thin_wire(world: &World, (alice, bob): (&User, &User), room: &Room, says: Option<&str>) {
    world.change_faults(|faults| faults.bytes_per_second = Some(2_000));
    let path = format!("join/{}?server_name={}", percent(&room.id), room.via);
    let joining = bob.request(Method::POST, &path, Some(json!({})));
    let speaking = async {
        let Some(body) = says else { return };
        let members = format!("rooms/{}/joined_members", percent(&room.id));
        loop {
            let answer = alice.request(Method::GET, &members, None).await.expect("the server is on").ok();
            if answer["joined"].get(&bob.id).is_some() {
                break;
            }
            world.env().clock.sleep(std::time::Duration::from_millis(50)).await;
        }
        let path = format!("rooms/{}/send/m.room.message/1", percent(&room.id));
        let message = json!({ "msgtype": "m.text", "body": body });
        alice.request(Method::PUT, &path, Some(message)).await.expect("the server is on").ok();
    };
    let (joined, ()) = world.run(futures::future::join(joining, speaking));
    joined.expect("the server is on").ok();
    world.heal();
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
