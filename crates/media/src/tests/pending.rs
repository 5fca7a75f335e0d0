//! URIs that are created before their content.

use std::{sync::Arc, time::Duration};

use super::world::{ALICE, BOB, World, collected, sent};
use crate::{Error, Mxc, Wants};

#[test]
fn a_created_uri_takes_content_once_and_from_its_creator() {
    let world = World::new();
    let created = world.sim.block_on(world.media.create(ALICE)).unwrap();
    let put = |user, mxc: &Mxc| world.sim.block_on(world.media.upload_to(user, mxc, sent(b"late")));
    assert!(matches!(world.open_media(&created.mxc), Err(Error::NotYetUploaded)));
    assert!(matches!(put(BOB, &created.mxc), Err(Error::Forbidden(_))));
    let unknown = Mxc::parse("mxc://here.test/unknown").unwrap();
    assert!(matches!(put(ALICE, &unknown), Err(Error::NotFound)));
    let elsewhere = Mxc::parse(&format!("mxc://elsewhere.test/{}", created.mxc.id())).unwrap();
    assert!(matches!(put(ALICE, &elsewhere), Err(Error::NotFound)));
    put(ALICE, &created.mxc).unwrap();
    assert!(matches!(put(ALICE, &created.mxc), Err(Error::CannotOverwrite)));
    assert_eq!(world.content(&created.mxc).unwrap(), b"late");
    let uploaded = world.upload(ALICE, b"at once").unwrap();
    assert!(matches!(put(ALICE, &uploaded), Err(Error::CannotOverwrite)));
    assert_eq!(world.counts(), (2, 0, 2));
}

#[test]
fn two_who_upload_to_one_uri_do_not_both_succeed() {
    let world = World::new();
    let mxc = world.sim.block_on(world.media.create(ALICE)).unwrap().mxc;
    let puts = [b"one", b"two"].map(|content| world.media.upload_to(ALICE, &mxc, sent(content)));
    let done = world.sim.block_on(futures::future::join_all(puts));
    assert!(done[0].is_ok() && matches!(done[1], Err(Error::CannotOverwrite)), "{done:?}");
    assert_eq!(world.content(&mxc).unwrap(), b"one");
    assert_eq!(world.counts(), (1, 0, 1));
}

#[test]
fn who_waits_gets_the_content_when_it_comes() {
    let world = World::new();
    let mxc = world.sim.block_on(world.media.create(ALICE)).unwrap().mxc;
    let wants = Wants { timeout: Duration::from_secs(10), ..Wants::default() };
    let outcome = world.sim.block_on(world.media.open(&mxc, &wants));
    assert!(matches!(outcome, Err(Error::NotYetUploaded)));
    let (media, env) = (Arc::clone(&world.media), world.sim.env());
    let (later, clock) = (mxc.clone(), env.clock.clone());
    let upload = async move {
        clock.sleep(Duration::from_secs(5)).await;
        media.upload_to(ALICE, &later, sent(b"late")).await.unwrap();
    };
    env.spawner.spawn("upload", Box::pin(upload));
    let found = world.sim.block_on(world.media.open(&mxc, &wants)).unwrap();
    assert_eq!(world.sim.block_on(collected(found)), b"late");
}

#[test]
fn pending_uris_are_few_and_expire() {
    let world = World::with(|config| {
        config.pending_per_user_max = 2;
        config.unused_expires_after = Duration::from_secs(3600);
    });
    let create = |user| world.sim.block_on(world.media.create(user));
    let first = create(ALICE).unwrap();
    assert_eq!(first.expires_ms, world.sim.env().now_ms() + 3_600_000);
    world.pass(Duration::from_secs(600));
    create(ALICE).unwrap();
    assert!(matches!(create(ALICE), Err(Error::TooManyPending { retry_after_ms: 3_000_000 })));
    create(BOB).unwrap();
    world.pass(Duration::from_secs(3000));
    assert!(matches!(world.open_media(&first.mxc), Err(Error::NotFound)));
    let put = world.sim.block_on(world.media.upload_to(ALICE, &first.mxc, sent(b"too late")));
    assert!(matches!(put, Err(Error::NotFound)));
    create(ALICE).unwrap();
    world.sim.block_on(world.media.sweep()).unwrap();
    assert_eq!(world.sim.block_on(world.media.info(&first.mxc)).unwrap(), None);
}
