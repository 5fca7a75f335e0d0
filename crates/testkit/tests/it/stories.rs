//! Stories of several servers, as people tell them.

use std::time::Duration;

use myelin_testkit::world::World;

#[test]
fn a_server_that_crashes_keeps_what_it_said_it_had() {
    let world = World::new(1).servers(["a.test"]);
    let (alice, bob) = (world.user("@alice:a.test"), world.user("@bob:a.test"));
    let room = alice.creates_public_room();
    bob.joins(&room);
    alice.sends(&room, "hello");
    bob.sees(&room, "hello");
    bob.types(&room);
    alice.sees_typing(&room, &bob);
    world.crash("a.test");
    world.pass(Duration::from_secs(60));
    world.start("a.test");
    let answer = bob.sends(&room, "are you still there?");
    alice.sees_event(&room, &answer);
    alice.sees_nobody_typing(&room);
    alice.reads(&room, &answer);
    bob.sees_read(&room, &alice, &answer);
}
