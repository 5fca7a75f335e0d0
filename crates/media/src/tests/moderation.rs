//! Quarantine, retention, deletion.

use std::time::Duration;

use bytes::Bytes;

use super::world::{ALICE, BOB, World};
use crate::{Description, Error, Kind, Mxc};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn remote(world: &World, uri: &str, content: &'static [u8]) -> Mxc {
    let mxc = Mxc::parse(uri).unwrap();
    let kept = async {
        let written = world.media.objects().write_bytes(Bytes::from_static(content)).await.unwrap();
        let description = Description { content_type: "image/png".to_owned(), file_name: None };
        world.media.keep(&mxc, written, &description).await.unwrap();
    };
    world.sim.block_on(kept);
    mxc
}

#[test]
fn quarantine_follows_the_bytes_and_can_be_taken_back() {
    let world = World::new();
    let [bad, copy, good] =
        [&b"bad"[..], b"bad", b"good"].map(|content| world.upload(ALICE, content).unwrap());
    assert!(world.sim.block_on(world.media.quarantine(&bad, "@admin:here.test")).unwrap());
    let again = world.upload(BOB, b"bad").unwrap();
    for mxc in [&bad, &copy, &again] {
        assert!(matches!(world.content(mxc), Err(Error::NotFound)), "{mxc}");
    }
    assert_eq!(world.content(&good).unwrap(), b"good");
    let listed = world.sim.block_on(world.media.quarantined(9)).unwrap();
    assert_eq!(
        listed.iter().map(|(mxc, row)| (mxc, row.by.as_str())).collect::<Vec<_>>(),
        [(&bad, "@admin:here.test")]
    );
    assert!(world.sim.block_on(world.media.unquarantine(&bad)).unwrap());
    for mxc in [&bad, &copy, &again] {
        assert_eq!(world.content(mxc).unwrap(), b"bad");
    }
    let unknown = Mxc::parse("mxc://here.test/unknown").unwrap();
    assert!(!world.sim.block_on(world.media.quarantine(&unknown, "x")).unwrap());
}

#[test]
fn media_of_other_servers_can_be_quarantined_before_it_comes() {
    let world = World::new();
    let mxc = Mxc::parse("mxc://elsewhere.test/bad").unwrap();
    assert!(world.sim.block_on(world.media.quarantine(&mxc, "x")).unwrap());
    remote(&world, "mxc://elsewhere.test/bad", b"bad");
    assert!(matches!(world.content(&mxc), Err(Error::NotFound)));
    assert!(world.sim.block_on(world.media.unquarantine(&mxc)).unwrap());
    assert_eq!(world.content(&mxc).unwrap(), b"bad");
}

#[test]
fn all_of_a_user_goes_at_once() {
    let world = World::new();
    let all: Vec<Mxc> = (0..5_u8).map(|n| world.upload(ALICE, &[n]).unwrap()).collect();
    let other = world.upload(BOB, b"other").unwrap();
    assert_eq!(world.sim.block_on(world.media.quarantine_of(ALICE, "x")).unwrap(), 5);
    assert!(all.iter().all(|mxc| matches!(world.content(mxc), Err(Error::NotFound))));
    let (page, next) = world.sim.block_on(world.media.media_of(ALICE, None, 3)).unwrap();
    assert_eq!(page.len(), 3);
    let (rest, end) = world.sim.block_on(world.media.media_of(ALICE, next.as_ref(), 3)).unwrap();
    assert_eq!((rest.len(), end), (2, None));
    assert_eq!(world.sim.block_on(world.media.remove_of(ALICE)).unwrap().media, 5);
    assert_eq!(world.content(&other).unwrap(), b"other");
    assert_eq!(world.counts(), (1, 0, 1));
    assert_eq!(world.sim.block_on(world.media.quarantined(9)).unwrap(), []);
}

#[test]
fn the_same_media_may_come_again_and_is_not_counted_twice() {
    let world = World::new();
    for content in [&b"one"[..], b"one", b"two"] {
        let mxc = remote(&world, "mxc://elsewhere.test/a", content);
        assert_eq!(world.content(&mxc).unwrap(), content);
        assert_eq!(world.counts(), (1, 0, 1));
    }
    let mxc = Mxc::parse("mxc://elsewhere.test/a").unwrap();
    assert!(world.sim.block_on(world.media.remove(&mxc)).unwrap());
    assert_eq!(world.counts(), (0, 0, 0));
}

#[test]
fn what_nobody_asks_for_goes_after_its_time() {
    let world = World::with(|config| config.retention.remote = Some(3 * DAY));
    let local = world.upload(ALICE, b"local").unwrap();
    let wanted = remote(&world, "mxc://elsewhere.test/wanted", b"wanted");
    let forgotten = remote(&world, "mxc://elsewhere.test/forgotten", b"forgotten");
    for _ in 0..5 {
        world.pass(DAY);
        world.content(&wanted).unwrap();
        world.sim.block_on(world.media.write_accesses()).unwrap();
        world.sim.block_on(world.media.sweep()).unwrap();
    }
    assert!(matches!(world.content(&forgotten), Err(Error::NotFound)));
    assert_eq!(world.content(&wanted).unwrap(), b"wanted");
    assert_eq!(world.content(&local).unwrap(), b"local");
    world.pass(10 * DAY);
    world.content(&local).unwrap();
    let deleted = world.sim.block_on(world.media.delete_unused(5 * DAY, Kind::Local)).unwrap();
    assert_eq!(deleted.media, 0, "it was asked for a moment ago");
    world.pass(10 * DAY);
    let deleted = world.sim.block_on(world.media.delete_unused(5 * DAY, Kind::Local)).unwrap();
    assert_eq!((deleted.media, deleted.bytes), (1, 5));
}
