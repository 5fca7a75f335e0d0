//! The process stops somewhere: what was acknowledged is there, what was not is gone in the end.

use std::time::Duration;

use bytes::Bytes;
use myelin_store::memory::Fault;

use super::world::{ALICE, World};
use crate::Error;

const SOME_HOURS: Duration = Duration::from_secs(13 * 60 * 60);

#[test]
fn an_object_that_was_written_and_never_claimed_goes_with_a_sweep() {
    let world = World::new();
    let kept = world.upload(ALICE, b"kept").unwrap();
    let written = world.sim.block_on(world.media.objects().write_bytes(Bytes::from_static(b"lost"))).unwrap();
    std::mem::forget(written);
    let world = world.restarted();
    world.sim.block_on(world.media.sweep()).unwrap();
    assert_eq!(world.counts(), (1, 1, 2), "it may be an upload of another process");
    world.pass(SOME_HOURS);
    world.sim.block_on(world.media.sweep()).unwrap();
    assert_eq!(world.counts(), (1, 0, 1));
    assert_eq!(world.content(&kept).unwrap(), b"kept");
}

#[test]
fn an_upload_that_outlives_the_sweep_fails_and_loses_nothing_of_others() {
    let world = World::new();
    let written = world.sim.block_on(world.media.objects().write_bytes(Bytes::from_static(b"slow"))).unwrap();
    world.pass(SOME_HOURS);
    world.sim.block_on(world.media.sweep()).unwrap();
    let kept = world.upload(ALICE, b"slow").unwrap();
    let mxc = world.media.new_mxc();
    let outcome = world.sim.block_on(world.media.keep(&mxc, written, &crate::Description::default()));
    assert!(matches!(outcome, Err(Error::Contended)), "{outcome:?}");
    assert_eq!(world.content(&kept).unwrap(), b"slow");
    assert_eq!(world.counts(), (1, 0, 1));
}

#[test]
fn a_deletion_that_was_cut_short_goes_on() {
    let world = World::new();
    let mxc = world.upload(ALICE, b"going").unwrap();
    assert!(world.sim.block_on(world.media.remove(&mxc)).unwrap());
    // The task that deletes the bytes did not run: the machine is another one now.
    let world = world.restarted();
    assert_eq!(world.counts(), (0, 1, 1));
    world.sim.block_on(world.media.sweep()).unwrap();
    assert_eq!(world.counts(), (0, 0, 0));
}

#[test]
fn a_lost_commit_leaves_nothing_and_a_lost_answer_keeps_the_bytes() {
    for (fault, left) in [(Fault::LoseCommits, 0), (Fault::LoseAnswers, 1)] {
        let world = World::new();
        let written =
            world.sim.block_on(world.media.objects().write_bytes(Bytes::from_static(b"x"))).unwrap();
        let mxc = world.media.new_mxc();
        world.disk.inject(Some(fault));
        let outcome = world.sim.block_on(world.media.keep(&mxc, written, &crate::Description::default()));
        world.disk.inject(None);
        assert!(outcome.is_err());
        world.sim.settle();
        world.pass(SOME_HOURS);
        world.sim.block_on(world.media.sweep()).unwrap();
        assert_eq!(world.counts(), (left, 0, left), "{fault:?}");
        assert_eq!(world.content(&mxc).is_ok(), left == 1);
    }
}
