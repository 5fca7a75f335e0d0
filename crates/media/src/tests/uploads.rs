//! Uploading, having it back, sharing bytes, limits.

use std::{io, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use myelin_store::tables::MEDIA_BLOBS;

use super::world::{ALICE, BOB, World, collected, sent, sent_as};
use crate::{BytesStream, Error, Upload};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[test]
fn what_is_uploaded_is_what_is_had() {
    let world = World::new();
    for size in [0, 1, 999, 256 * 1024, 256 * 1024 + 1, 1_500_000] {
        let content: Vec<u8> = (0..size).map(|n: usize| (n * 7 + n / 251) as u8).collect();
        let mxc = world.upload(ALICE, &content).unwrap();
        let found = world.open_media(&mxc).unwrap();
        assert_eq!((found.size, found.content_type.as_str()), (Some(size as u64), "text/plain"));
        assert_eq!(found.file_name.as_deref(), Some("a.txt"));
        assert!(world.sim.block_on(collected(found)) == content, "{size}");
        if size > 2 {
            let range = world.open_media(&mxc).unwrap().read(Some(1..size as u64 - 1));
            let read = world
                .sim
                .block_on(async { range.await.unwrap().map(Result::unwrap).collect::<Vec<_>>().await });
            assert!(read.concat() == content[1..size - 1], "{size}");
        }
    }
    assert_eq!(world.counts(), (6, 0, 6));
}

#[test]
fn equal_bytes_are_stored_once_and_as_long_as_somebody_has_them() {
    let world = World::new();
    let [one, two] = [ALICE, BOB].map(|user| world.upload(user, b"the same").unwrap());
    assert_ne!(one, two);
    assert_eq!(world.counts(), (1, 0, 1));
    assert!(world.sim.block_on(world.media.remove(&one)).unwrap());
    assert!(matches!(world.content(&one), Err(Error::NotFound)));
    assert_eq!(world.content(&two).unwrap(), b"the same");
    assert!(world.sim.block_on(world.media.remove(&two)).unwrap());
    assert!(!world.sim.block_on(world.media.remove(&two)).unwrap());
    assert_eq!(world.counts(), (0, 0, 0));
    assert_eq!(world.sim.block_on(world.media.usage_of(ALICE)).unwrap().bytes, 0);
}

#[test]
fn concurrent_uploads_count_every_reference() {
    let world = World::new();
    let uploads = (0..20).map(|n| world.media.upload(if n % 2 == 0 { ALICE } else { BOB }, sent(b"popular")));
    let all = world.sim.block_on(futures::future::join_all(uploads));
    let all: Vec<_> = all.into_iter().map(Result::unwrap).collect();
    let blobs = world.sim.block_on(world.media.view.store.read().all(&MEDIA_BLOBS, 9)).unwrap();
    assert_eq!(blobs[0].1.references, 20);
    assert_eq!(world.counts(), (1, 0, 1));
    assert_eq!(world.sim.block_on(world.media.usage_of(BOB)).unwrap().files, 10);
    for mxc in &all[1..] {
        assert!(world.sim.block_on(world.media.remove(mxc)).unwrap());
    }
    assert_eq!(world.content(&all[0]).unwrap(), b"popular");
}

#[test]
fn too_large_is_refused_when_announced_and_when_it_turns_out() {
    let world = World::with(|config| config.upload_size_max = 2000);
    let announced = Upload { size: Some(2001), ..sent(b"x") };
    let refused = world.sim.block_on(world.media.upload(ALICE, announced));
    assert!(matches!(refused, Err(Error::TooLarge { max: 2000 })));
    let lied = Upload { size: Some(10), ..sent(&[0; 2001]) };
    let refused = world.sim.block_on(world.media.upload(ALICE, lied));
    assert!(matches!(refused, Err(Error::TooLarge { max: 2000 })));
    world.upload(ALICE, &[0; 2000]).unwrap();
    assert_eq!(world.counts(), (1, 0, 1));
}

#[test]
fn users_have_quotas() {
    let world = World::with(|config| {
        config.user_bytes_max = Some(1000);
        config.user_bytes_per_day_max = Some(600);
    });
    let first = world.upload(ALICE, &[1; 600]).unwrap();
    assert!(matches!(world.upload(ALICE, &[2; 1]), Err(Error::QuotaExceeded)));
    world.upload(BOB, &[2; 1]).unwrap();
    world.pass(DAY);
    assert!(matches!(world.upload(ALICE, &[3; 401]), Err(Error::QuotaExceeded)));
    world.upload(ALICE, &[3; 400]).unwrap();
    assert!(world.sim.block_on(world.media.remove(&first)).unwrap());
    world.upload(ALICE, &[4; 200]).unwrap();
    assert!(matches!(world.upload(ALICE, &[5; 1]), Err(Error::QuotaExceeded)), "the day is used up");
    assert_eq!(world.sim.block_on(world.media.remove_of(ALICE)).unwrap().bytes, 600);
}

#[test]
fn a_quota_holds_against_uploads_at_the_same_time() {
    let world = World::with(|config| config.user_bytes_max = Some(1000));
    let contents: Vec<Vec<u8>> = (0..10).map(|n| vec![n; 300]).collect();
    let uploads = contents.iter().map(|content| world.media.upload(ALICE, sent(content)));
    let done = world.sim.block_on(futures::future::join_all(uploads));
    assert_eq!(done.iter().filter(|outcome| outcome.is_ok()).count(), 3);
    assert_eq!(world.counts(), (3, 0, 3), "nothing of the others is left");
}

#[test]
fn an_upload_that_breaks_off_leaves_nothing() {
    let world = World::new();
    let broken = || vec![Ok(Bytes::from(vec![0; 600_000])), Err(io::Error::other("gone"))];
    let outcome = world.sim.block_on(world.media.upload(ALICE, sent_as(broken())));
    assert!(matches!(outcome, Err(Error::BrokenOff(_))));
    let silent = futures::stream::iter([Ok(Bytes::from(vec![0; 600_000]))]).chain(futures::stream::pending());
    let body: BytesStream = Box::pin(silent);
    let started = world.sim.env().now_ms();
    let outcome = world.sim.block_on(world.media.upload(ALICE, Upload { body, ..sent(b"") }));
    assert!(matches!(outcome, Err(Error::BrokenOff(_))));
    assert!(world.sim.env().now_ms() > started, "it was waited for");
    // The request is dropped where it stands.
    let body: BytesStream = Box::pin(
        futures::stream::iter([Ok(Bytes::from(vec![0; 600_000]))]).chain(futures::stream::pending()),
    );
    let upload = world.media.upload(ALICE, Upload { body, ..sent(b"") });
    let env = world.sim.env();
    assert!(world.sim.block_on(env.timeout(Duration::from_secs(1), upload)).is_none());
    assert_eq!(world.counts(), (0, 0, 0));
}
