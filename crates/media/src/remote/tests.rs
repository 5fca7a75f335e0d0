//! Against another server that does what the test says.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use myelin_store::{
    Store,
    memory::{Memory, MemoryDisk},
};
use myelin_testenv::Sim;
use myelin_view::View;
use parking_lot::Mutex;
use ruma::{ServerName, server_name};

use super::Config;
use crate::{
    Backend, BytesStream, Error, FetchError, FetchLimits, Fetched, Media, Mxc, NoPages, Origin, Setup, Wants,
};

/// What the other server gives, by media id.
#[derive(Default)]
struct Other {
    files: Mutex<HashMap<String, Answer>>,
    asked: AtomicUsize,
    /// Each piece takes a second.
    clock: Option<Arc<dyn myelin_core::Clock>>,
}

#[derive(Clone)]
enum Answer {
    File { pieces: Vec<Bytes>, said: Option<u64>, breaks: bool },
    Error(FetchError),
}

fn file(size: usize) -> Answer {
    let bytes: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
    let pieces = bytes.chunks(100_000).map(Bytes::copy_from_slice).collect();
    Answer::File { pieces, said: None, breaks: false }
}

impl Origin for Other {
    fn fetch<'a>(
        &'a self,
        _: &'a ServerName,
        media_id: &'a str,
        _: Duration,
        _: FetchLimits,
    ) -> BoxFuture<'a, Result<Fetched, FetchError>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let answer = self.files.lock().get(media_id).cloned();
        let clock = self.clock.clone();
        async move {
            let (pieces, size, breaks) = match answer.unwrap_or(Answer::Error(FetchError::NotFound)) {
                Answer::File { pieces, said, breaks } => (pieces, said, breaks),
                Answer::Error(error) => return Err(error),
            };
            let end = breaks.then(|| Err(io::Error::other("broken")));
            let body = stream::iter(pieces.into_iter().map(Ok).chain(end)).then(move |piece| {
                let pause = clock.as_ref().map(|clock| clock.sleep(Duration::from_secs(1)));
                async move {
                    if let Some(pause) = pause {
                        pause.await;
                    }
                    piece
                }
            });
            let content_type = Some("image/png".to_owned());
            Ok(Fetched { content_type, file_name: Some("a/b.png".to_owned()), size, body: body.boxed() })
        }
        .boxed()
    }
}

struct World {
    sim: Sim,
    media: Arc<Media>,
    other: Arc<Other>,
}

impl World {
    fn new(config: Config) -> Self {
        let sim = Sim::new(5);
        let store = Store::new(Arc::new(Memory::open(MemoryDisk::default())));
        let view = View::new(store, sim.env(), server_name!("here.test").to_owned());
        let other = Arc::new(Other { clock: Some(sim.env().clock), ..Other::default() });
        let config = crate::Config { remote: config, ..crate::Config::default() };
        let (origin, pages) = (other.clone(), Arc::new(NoPages));
        let media = Media::new(Setup { view, config, objects: Backend::memory(), origin, pages });
        Self { sim, media, other }
    }

    fn has(&self, id: &str, answer: Answer) -> Mxc {
        self.other.files.lock().insert(id.to_owned(), answer);
        Mxc::new(server_name!("other.test"), id).unwrap()
    }

    fn asked(&self) -> usize {
        self.other.asked.load(Ordering::Relaxed)
    }

    fn get(&self, mxc: &Mxc) -> Result<Vec<u8>, Error> {
        self.sim.block_on(get(&self.media, mxc))
    }
}

async fn read(stream: BytesStream) -> Result<Vec<u8>, Error> {
    let pieces: Vec<Bytes> =
        stream.try_collect().await.map_err(|error| Error::BrokenOff(error.to_string()))?;
    Ok(pieces.concat())
}

async fn get(media: &Media, mxc: &Mxc) -> Result<Vec<u8>, Error> {
    let download = media.open(mxc, &Wants::default()).await?;
    read(download.read(None).await?).await
}

#[test]
fn what_was_fetched_is_kept() {
    let world = World::new(Config::default());
    let mxc = world.has("a", file(250_000));
    let fetched = world.get(&mxc).unwrap();
    assert_eq!(fetched.len(), 250_000);
    world.sim.settle();
    let kept = world.sim.block_on(world.media.open(&mxc, &Wants::default())).unwrap();
    assert_eq!(
        (&*kept.content_type, kept.file_name.as_deref(), kept.size),
        ("image/png", Some("b.png"), Some(250_000))
    );
    assert_eq!(world.get(&mxc).unwrap(), fetched);
    assert_eq!(world.asked(), 1);
}

#[test]
fn many_who_want_the_same_read_from_one_fetch() {
    for size in [0, 1, 250_000, 5_000_000] {
        let world = World::new(Config::default());
        let mxc = world.has("a", file(size));
        let early = world.sim.block_on(world.media.open(&mxc, &Wants::default())).unwrap();
        let late = async {
            world.sim.env().clock.sleep(Duration::from_millis(1_500)).await;
            get(&world.media, &mxc).await
        };
        let early = async { read(early.read(None).await?).await };
        let gets = futures::future::join_all((0..5).map(|_| get(&world.media, &mxc)));
        let (early, late, all) = world.sim.block_on(async { futures::join!(early, late, gets) });
        let expected: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        for got in all.into_iter().chain([early, late]) {
            assert!(got.unwrap() == expected, "{size}");
        }
        assert_eq!(world.asked(), 1);
    }
}

#[test]
fn the_first_bytes_do_not_wait_for_the_last() {
    let world = World::new(Config::default());
    let mxc = world.has("a", file(1_000_000));
    let started_ms = world.sim.env().now_ms();
    let first = async {
        let download = world.media.open(&mxc, &Wants::default()).await.unwrap();
        assert!(!download.has_ranges());
        download.read(None).await.unwrap().next().await.unwrap().unwrap()
    };
    assert_eq!(world.sim.block_on(first).len(), 100_000);
    assert_eq!(world.sim.env().now_ms() - started_ms, 1_000);
}

#[test]
fn a_fetch_goes_on_when_nobody_waits() {
    let world = World::new(Config::default());
    let mxc = world.has("a", file(300_000));
    drop(world.sim.block_on(world.media.open(&mxc, &Wants::default())).unwrap());
    world.sim.block_on(world.sim.env().clock.sleep(Duration::from_secs(10)));
    let wants = Wants { allow_remote: false, ..Wants::default() };
    assert!(world.sim.block_on(world.media.open(&mxc, &wants)).is_ok());
}

#[test]
fn what_cannot_be_had_is_not_asked_for_again_at_once() {
    for (error, expected, wait_s) in [
        (FetchError::NotFound, "there is no such media", 120),
        (FetchError::TooLarge, "the media of the other server is larger than this server takes", 3_600),
        (FetchError::Failed("x".to_owned()), "the media could not be fetched: x", 60),
    ] {
        let world = World::new(Config::default());
        let mxc = world.has("a", Answer::Error(error));
        for _ in 0..2 {
            assert_eq!(world.get(&mxc).unwrap_err().to_string(), expected);
        }
        assert_eq!(world.asked(), 1);
        world.has("a", file(5));
        world.sim.block_on(world.sim.env().clock.sleep(Duration::from_secs(wait_s)));
        assert_eq!(world.get(&mxc).unwrap().len(), 5);
    }
    let world = World::new(Config::default());
    let mxc = world.has("a", Answer::Error(FetchError::NotYetUploaded));
    assert!(matches!(world.get(&mxc), Err(Error::NotYetUploaded)));
    world.has("a", file(5));
    assert!(world.get(&mxc).is_ok());
}

#[test]
fn what_breaks_off_is_not_kept() {
    let world = World::new(Config::default());
    let Answer::File { pieces, .. } = file(300_000) else { unreachable!() };
    for answer in [
        Answer::File { pieces: pieces.clone(), said: None, breaks: true },
        Answer::File { pieces: pieces.clone(), said: Some(300_001), breaks: false },
    ] {
        let mxc = world.has("broken", answer);
        assert!(matches!(world.get(&mxc), Err(Error::BrokenOff(_))));
        world.sim.settle();
        let wants = Wants { allow_remote: false, ..Wants::default() };
        assert!(matches!(world.sim.block_on(world.media.open(&mxc, &wants)), Err(Error::NotFound)));
        world.sim.block_on(world.sim.env().clock.sleep(Duration::from_secs(60)));
    }
    let mxc = world.has("broken", Answer::File { pieces, said: Some(300_000), breaks: false });
    assert_eq!(world.get(&mxc).unwrap().len(), 300_000);
}

#[test]
fn sizes_are_bounded_whether_announced_or_not() {
    let config = Config { size_max: 150_000, ..Config::default() };
    for said in [None, Some(300_000)] {
        let world = World::new(config.clone());
        let Answer::File { pieces, .. } = file(300_000) else { unreachable!() };
        let mxc = world.has("a", Answer::File { pieces, said, breaks: false });
        let error = world.get(&mxc).unwrap_err();
        assert!(error.to_string().contains("larger than this server takes"), "{error}");
        assert!(matches!(world.get(&mxc), Err(Error::RemoteTooLarge)));
    }
}

#[test]
fn servers_are_asked_only_if_they_may_be() {
    let lists = |allow: &[&str], deny: &[&str]| Config {
        allow: allow.iter().map(|&name| name.to_owned()).collect(),
        deny: deny.iter().map(|&name| name.to_owned()).collect(),
        ..Config::default()
    };
    for (config, expected) in [
        (lists(&[], &["other.test"]), false),
        (lists(&["*"], &["*.TEST"]), false),
        (lists(&["friend.test"], &[]), false),
        (lists(&["other.*"], &[]), true),
    ] {
        let world = World::new(config);
        let mxc = world.has("a", file(1));
        assert_eq!(world.get(&mxc).is_ok(), expected);
        assert_eq!(world.asked(), usize::from(expected));
    }
    let world = World::new(Config::default());
    let mxc = world.has("a", file(1));
    let wants = Wants { allow_remote: false, ..Wants::default() };
    assert!(matches!(world.sim.block_on(world.media.open(&mxc, &wants)), Err(Error::NotFound)));
    assert_eq!(world.asked(), 0);
}

#[test]
fn what_nobody_asked_for_the_longest_makes_room() {
    let world = World::new(Config { kept_size_max: Some(500_000), ..Config::default() });
    let ids = ["a", "b", "c", "d", "e", "f"];
    let files = ids.map(|id| world.has(id, file(100_000)));
    for mxc in &files[..5] {
        world.get(mxc).unwrap();
        world.sim.block_on(world.sim.env().clock.sleep(Duration::from_secs(24 * 60 * 60)));
    }
    assert_eq!(world.sim.block_on(world.media.evict()).unwrap(), 0, "it fits");
    world.get(&files[5]).unwrap();
    world.sim.settle();
    assert_eq!(world.sim.block_on(world.media.evict()).unwrap(), 2);
    let wants = Wants { allow_remote: false, ..Wants::default() };
    let kept = files.iter().filter(|mxc| world.sim.block_on(world.media.open(mxc, &wants)).is_ok());
    assert_eq!(kept.map(Mxc::id).collect::<Vec<_>>(), ["c", "d", "e", "f"]);
    assert!(world.get(&files[0]).is_ok(), "and can be fetched again");
}

#[test]
fn fetches_from_one_server_wait_for_their_turn() {
    let world = World::new(Config::default());
    let files: Vec<_> = (0..20).map(|n| world.has(&format!("f{n}"), file(1))).collect();
    let started_ms = world.sim.env().now_ms();
    let all = futures::future::join_all(files.iter().map(|mxc| get(&world.media, mxc)));
    assert!(world.sim.block_on(all).iter().all(Result::is_ok));
    assert_eq!(world.sim.env().now_ms() - started_ms, 4_000, "six at a time, a second each");
}
