//! Invites to users of other servers.

use std::collections::BTreeSet;

use http::StatusCode;
use myelin_api::rate_limit::{Limit, RateLimits};
use myelin_core::RoomNid;
use myelin_store::{
    Batch, Direction,
    codec::AtPosition,
    memory::MemoryDisk,
    tables::{Membership, USER_ROOMS, UserRoomRecord},
};
use myelin_testkit::{server::Server, settings::Settings};
use ruma::server_name;
use serde_json::{Value, json};

use super::{Net, VERSIONS, gate::Deed, refused};

#[test]
fn an_invite_is_shown_with_what_helps_to_recognise_the_room_and_accepted() {
    let net = Net::new(2);
    let ann = net.user(0, "ann");
    let mut bob = net.user(1, "bob");
    for version in VERSIONS {
        let room =
            net.create(0, &ann, json!({ "preset": "private_chat", "room_version": version, "name": "Den" }));
        net.act(0, &ann, &room, "invite", json!({ "user_id": bob.user_id, "reason": "come" })).ok();
        net.sync(1, &mut bob);
        let events = bob.invites[&room]["events"].as_array().unwrap().clone();
        let of = |kind: &str| events.iter().filter(|event| event["type"] == kind).collect::<Vec<_>>();
        assert_eq!(of("m.room.name")[0]["content"]["name"], "Den", "version {version}");
        let own =
            of("m.room.member").into_iter().find(|event| event["state_key"] == bob.user_id.as_str()).unwrap();
        assert_eq!(own["content"]["membership"], "invite");
        assert!(events.iter().all(|event| event.get("signatures").is_none()), "clients get stripped state");
        net.act(1, &bob, &room, "join", json!({})).ok();
        assert_eq!(net.state(0, &room), net.state(1, &room));
        net.sync(1, &mut bob);
        assert!(bob.rooms[&room].joined && !bob.invites.contains_key(&room));
    }
}

#[test]
fn an_invite_is_rejected_and_its_room_hears_of_it() {
    let net = Net::new(2);
    let ann = net.user(0, "ann");
    let mut bob = net.user(1, "bob");
    let room = net.create(0, &ann, json!({ "invite": [bob.user_id], "is_direct": true }));
    net.sync(1, &mut bob);
    assert!(bob.invites.contains_key(&room));
    net.act(1, &bob, &room, "leave", json!({ "reason": "no" })).ok();
    let answer = net.sync(1, &mut bob);
    assert!(
        answer["rooms"]["leave"][&room]["timeline"]["events"][0]["content"]["membership"] == "leave",
        "{answer}"
    );
    let path = format!(
        "/_matrix/client/v3/rooms/{}/state/m.room.member/{}",
        myelin_testkit::client::percent(&room),
        myelin_testkit::client::percent(&bob.user_id)
    );
    let member = net.run(ann.get(&net.servers[0], &path)).ok();
    assert_eq!(member["membership"], "leave");
    // Nothing is left to see, and it can be forgotten.
    net.act(1, &bob, &room, "forget", json!({})).ok();
    let again = net.run(bob.get(&net.servers[1], "/_matrix/client/v3/sync")).ok();
    assert!(again["rooms"].get("invite").is_none());
}

#[test]
fn nobody_gets_more_invites_from_one_server_than_they_can_read() {
    let mut net = Net::new(2);
    let mut settings = Settings::new(server_name!("b.test"));
    let limits = RateLimits { invite_received: Limit { per_second: 0.01, burst: 2 }, ..Default::default() };
    settings.edge.rate_limits = limits;
    net.servers[1] = Server::start_with(&net.network, settings, &net.sim, MemoryDisk::default());
    let ann = net.user(0, "ann");
    let (mut bob, carol) = (net.user(1, "bob"), net.user(1, "carol"));
    let invite = |user: &str| {
        let room = net.create(0, &ann, json!({}));
        net.act(0, &ann, &room, "invite", json!({ "user_id": user })).is_ok()
    };
    assert_eq!([(); 3].map(|()| invite(&bob.user_id)), [true, true, false]);
    assert!(invite(&carol.user_id), "others get theirs");
    net.sync(1, &mut bob);
    assert_eq!(bob.invites.len(), 2);
}

#[test]
fn nobody_gets_more_invites_from_all_servers_together_than_they_can_read() {
    let mut net = Net::new(3);
    let mut settings = Settings::new(server_name!("b.test"));
    let limits = RateLimits { user_invited: Limit { per_second: 0.01, burst: 3 }, ..Default::default() };
    settings.edge.rate_limits = limits;
    net.servers[1] = Server::start_with(&net.network, settings, &net.sim, MemoryDisk::default());
    let inviters = [(0, net.user(0, "ann")), (2, net.user(2, "eve"))];
    let (bob, carol) = (net.user(1, "bob"), net.user(1, "carol"));
    let invite = |from: usize, user: &str| {
        let (at, who) = &inviters[from];
        let room = net.create(*at, who, json!({}));
        net.act(*at, who, &room, "invite", json!({ "user_id": user })).is_ok()
    };
    assert_eq!([0, 1, 0, 1].map(|from| invite(from, &bob.user_id)), [true, true, true, false]);
    assert!(invite(1, &carol.user_id), "others get theirs");
}

#[test]
fn who_has_many_invites_to_answer_gets_no_more_from_other_servers() {
    let net = Net::new(2);
    let (ann, mut bob) = (net.user(0, "ann"), net.user(1, "bob"));
    let first = net.create(0, &ann, json!({ "invite": [bob.user_id] }));
    let view = &net.servers[1].view;
    let user_id = bob.user_id.as_str().try_into().unwrap();
    let user = net.run(view.interner.user(user_id)).unwrap();
    let rows = net.run(view.store.scan(&USER_ROOMS, &user, Direction::Forward, 10)).unwrap();
    let (_, held) = rows.into_iter().next().unwrap();
    let pending = |from: u64, to: u64, membership: Membership| {
        let mut batch = Batch::new();
        for room in from..to {
            let value = UserRoomRecord { membership, ..held.value.clone() };
            batch.put(&USER_ROOMS, &(user, RoomNid(1_000 + room)), &AtPosition { value, ..held.clone() });
        }
        net.run(view.store.commit(batch)).unwrap();
        view.user_rooms.forget(user);
    };
    let invite = |room: &str| net.act(0, &ann, room, "invite", json!({ "user_id": bob.user_id }));
    pending(0, 198, Membership::Invite);
    pending(198, 300, Membership::Leave);
    let second = net.create(0, &ann, json!({}));
    invite(&second).ok();
    let third = net.create(0, &ann, json!({}));
    refused(&invite(&third), StatusCode::FORBIDDEN, "M_FORBIDDEN");
    pending(0, 198, Membership::Leave);
    invite(&third).ok();
    net.sync(1, &mut bob);
    assert_eq!(bob.invites.keys().collect::<BTreeSet<_>>(), BTreeSet::from([&first, &second, &third]));
}

#[test]
fn an_invite_of_a_dead_server_is_rejected_all_the_same() {
    let net = Net::new(2);
    let ann = net.user(0, "ann");
    let mut bob = net.user(1, "bob");
    for version in ["1", "11", "12"] {
        let room = net.create(0, &ann, json!({ "invite": [bob.user_id], "room_version": version }));
        net.sync(1, &mut bob);
        net.network.disconnect("a.test".try_into().unwrap());
        net.act(1, &bob, &room, "leave", json!({})).ok();
        let answer = net.sync(1, &mut bob);
        assert!(answer["rooms"]["leave"].get(&room).is_some(), "{answer}");
        assert!(net.sync(1, &mut bob)["rooms"].get("invite").is_none());
        net.network.connect("a.test".try_into().unwrap(), net.servers[0].router());
    }
}

#[test]
fn who_is_in_no_room_of_the_other_server_may_still_be_refused() {
    let net = Net::new(2);
    let (ann, bob) = (net.user(0, "ann"), net.user(1, "bob"));
    let room = net.create(0, &ann, json!({}));
    let nobody = net.act(0, &ann, &room, "invite", json!({ "user_id": "@nobody:b.test" }));
    refused(&nobody, StatusCode::NOT_FOUND, "M_NOT_FOUND");
    let path = format!(
        "/_matrix/client/v3/user/{}/account_data/m.invite_permission_config",
        myelin_testkit::client::percent(&bob.user_id)
    );
    net.run(bob.put(&net.servers[1], &path, &json!({ "default_action": "block" }))).ok();
    let blocked = net.act(0, &ann, &room, "invite", json!({ "user_id": bob.user_id }));
    refused(&blocked, StatusCode::FORBIDDEN, "M_INVITE_BLOCKED");
    net.network.disconnect("b.test".try_into().unwrap());
    let dead = net.act(0, &ann, &room, "invite", json!({ "user_id": "@x:b.test" }));
    refused(&dead, StatusCode::BAD_GATEWAY, "M_UNKNOWN");
    assert_eq!(net.members(0, &room).len(), 1);
}

#[test]
fn an_invite_outlives_a_restart() {
    let mut net = Net::new(2);
    let ann = net.user(0, "ann");
    let mut bob = net.user(1, "bob");
    let room = net.create(0, &ann, json!({ "invite": [bob.user_id], "name": "Den" }));
    let disk = net.servers.pop().unwrap().crash();
    let name = "b.test".try_into().unwrap();
    net.servers.push(myelin_testkit::server::Server::start_in(&net.network, name, &net.sim, disk));
    net.sync(1, &mut bob);
    assert!(bob.invites.contains_key(&room));
    net.act(1, &bob, &room, "join", json!({})).ok();
}

/// Bob's server is not in the room.
#[test]
fn an_invite_that_is_taken_back_is_shown_no_more() {
    let net = Net::new(2);
    let (ann, mut bob) = (net.user(0, "ann"), net.user(1, "bob"));
    for version in ["1", "11", "12"] {
        let room = net.create(0, &ann, json!({ "invite": [bob.user_id], "room_version": version }));
        net.sync(1, &mut bob);
        assert!(bob.invites.contains_key(&room));
        net.act(0, &ann, &room, "kick", json!({ "user_id": bob.user_id, "reason": "a mistake" })).ok();
        net.pass(5);
        let answer = net.sync(1, &mut bob);
        let leave = &answer["rooms"]["leave"][&room]["timeline"]["events"][0]["content"];
        assert_eq!(
            (&leave["membership"], &leave["reason"]),
            (&json!("leave"), &json!("a mistake")),
            "{answer}"
        );
        (bob.since, bob.rooms, bob.invites) = Default::default();
        net.sync(1, &mut bob);
        assert!(!bob.invites.contains_key(&room));
        refused(&net.join(1, &bob, &room, "a.test"), StatusCode::FORBIDDEN, "M_FORBIDDEN");
        net.act(0, &ann, &room, "invite", json!({ "user_id": bob.user_id })).ok();
        net.act(1, &bob, &room, "join", json!({})).ok();
    }
}

/// Otherwise somebody talks to nobody.
#[test]
fn a_direct_chat_with_somebody_who_cannot_be_invited_is_an_error() {
    let net = Net::new(2);
    let ann = net.user(0, "ann");
    let create = |body: Value| net.run(ann.post(&net.servers[0], "/_matrix/client/v3/createRoom", &body));
    let nobody = "@nobody:b.test";
    let direct = create(json!({ "is_direct": true, "invite": [nobody] }));
    refused(&direct, StatusCode::NOT_FOUND, "M_NOT_FOUND");
    // Who is still missing from others can be invited again.
    create(json!({ "invite": [nobody] })).ok();
    create(json!({ "is_direct": true, "invite": [nobody, "@x:b.test"] })).ok();
    net.network.disconnect("b.test".try_into().unwrap());
    let dead = create(json!({ "is_direct": true, "invite": ["@x:b.test"] }));
    refused(&dead, StatusCode::BAD_GATEWAY, "M_UNKNOWN");
}

#[test]
fn the_users_of_a_new_room_are_invited_side_by_side() {
    let net = Net::new(4);
    let ann = net.user(0, "ann");
    let users: Vec<_> = (1..4).map(|at| net.user(at, "user")).collect();
    for at in 1..4 {
        net.gate(at, |path| match path.contains("/invite/") {
            true => Deed::Wait(std::time::Duration::from_secs(15)),
            false => Deed::Pass,
        });
    }
    let invited: Vec<_> = users.iter().map(|user| &user.user_id).collect();
    let mut room = String::new();
    let took_ms = net.takes_ms(|| room = net.create(0, &ann, json!({ "invite": invited })));
    assert!(took_ms < 20_000, "{took_ms}");
    for user in &users {
        assert_eq!(net.membership(0, &ann, &room, user), "invite");
    }
}
