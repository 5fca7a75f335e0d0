//! Against a web that says what the test wants.

use std::{collections::HashMap, io, io::Cursor, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use image::{ImageFormat, RgbImage};
use myelin_store::{
    Store,
    memory::{Memory, MemoryDisk},
    tables::{MEDIA, PREVIEW_IMAGES, URL_PREVIEWS},
};
use myelin_testenv::Sim;
use myelin_view::View;
use parking_lot::Mutex;
use ruma::server_name;
use serde_json::{Value, json};
use url::Url;

use super::{Config, Patterns, PreviewError, Previews};
use crate::{Backend, FetchLimits, Media, Mxc, NoOrigin, Page, PageError, Pages, Setup, Wants};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Default)]
struct Web {
    pages: Mutex<HashMap<String, Reply>>,
    asked: Mutex<Vec<String>>,
    clock: Mutex<Option<Arc<dyn myelin_core::Clock>>>,
}

#[derive(Clone)]
struct Reply {
    status: u16,
    content_type: &'static str,
    body: Bytes,
    /// After a redirect.
    landed: Option<&'static str>,
    /// The body goes on for ever.
    endless: bool,
    /// `X-Robots-Tag`.
    robots: Option<&'static str>,
}

fn reply(content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    Reply { status: 200, content_type, body: body.into(), landed: None, endless: false, robots: None }
}

fn html(body: impl Into<Bytes>) -> Reply {
    reply("text/html; charset=utf-8", body)
}

fn png(width: u32, height: u32) -> Reply {
    let mut bytes = Cursor::new(Vec::new());
    RgbImage::new(width, height).write_to(&mut bytes, ImageFormat::Png).unwrap();
    reply("image/png", bytes.into_inner())
}

impl Pages for Web {
    fn fetch<'a>(&'a self, url: &'a Url, _: FetchLimits) -> BoxFuture<'a, Result<Page, PageError>> {
        self.asked.lock().push(url.to_string());
        let found = self.pages.lock().get(url.as_str()).cloned();
        let pause = self.clock.lock().as_ref().map(|clock| clock.sleep(Duration::from_secs(1)));
        async move {
            if let Some(pause) = pause {
                pause.await;
            }
            let Reply { status, content_type, body, landed, endless, robots } =
                found.ok_or_else(|| PageError::Failed("nobody is there".to_owned()))?;
            let url = landed.map_or_else(|| url.clone(), |landed| Url::parse(landed).unwrap());
            let first = stream::iter([Ok::<_, io::Error>(body.clone())]);
            let body = match endless {
                true => first.chain(stream::repeat_with(move || Ok(body.clone()))).boxed(),
                false => first.boxed(),
            };
            let content_type = Some(content_type.to_owned());
            Ok(Page {
                status,
                url,
                content_type,
                robots: robots.map(str::to_owned).into_iter().collect(),
                size: None,
                body,
            })
        }
        .boxed()
    }
}

struct World {
    sim: Sim,
    web: Arc<Web>,
    media: Arc<Media>,
    previews: Arc<Previews>,
}

impl World {
    fn new() -> Self {
        Self::with(Config::default())
    }

    fn with(config: Config) -> Self {
        let sim = Sim::new(9);
        let store = Store::new(Arc::new(Memory::open(MemoryDisk::default())));
        let view = View::new(store, sim.env(), server_name!("here.test").to_owned());
        let web = Arc::new(Web::default());
        let (origin, pages) = (Arc::new(NoOrigin), web.clone());
        let config = Config { enabled: true, ..config };
        let media = Media::new(Setup {
            view,
            config: crate::Config::default(),
            objects: Backend::memory(),
            origin,
            pages,
        });
        let previews = Previews::new(media.clone(), config);
        Self { sim, web, media, previews }
    }

    fn page(self, url: &str, reply: Reply) -> Self {
        self.web.pages.lock().insert(url.to_owned(), reply);
        self
    }

    fn preview(&self, url: &str) -> Result<Value, PreviewError> {
        self.preview_at(url, None)
    }

    fn preview_at(&self, url: &str, ts_ms: Option<u64>) -> Result<Value, PreviewError> {
        let json = self.sim.block_on(self.previews.preview(url, ts_ms))?;
        Ok(serde_json::from_str(&json).unwrap())
    }

    fn pass(&self, time: Duration) {
        self.sim.block_on(self.sim.env().clock.sleep(time));
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.web.asked.lock())
    }

    fn bytes_of(&self, mxc: &str) -> Option<Vec<u8>> {
        let mxc = Mxc::parse(mxc).unwrap();
        self.sim.block_on(async {
            let download = self.media.open(&mxc, &Wants::default()).await.ok()?;
            let pieces: Vec<Bytes> = download.read(None).await.ok()?.try_collect().await.ok()?;
            Some(pieces.concat())
        })
    }
}

#[test]
fn a_page_with_its_image() {
    let page = "<title>T</title><meta property=og:description content=D><meta property=og:image content=/i>";
    let world = World::new().page("https://a.test/p", html(page)).page("https://a.test/i", png(30, 20));
    let mut preview = world.preview("https://a.test/p#part").unwrap();
    let mxc = preview["og:image"].take();
    let picture = world.bytes_of(mxc.as_str().unwrap()).unwrap();
    assert_eq!(
        preview,
        json!({
            "og:title": "T", "og:description": "D", "og:image": null, "og:image:type": "image/png",
            "og:image:width": 30, "og:image:height": 20, "matrix:image:size": picture.len(),
        })
    );
    assert_eq!(picture, png(30, 20).body);
    world.asked();
    assert_eq!(world.preview("https://a.test/p").unwrap()["og:image"], mxc, "it is kept");
    assert!(world.asked().is_empty());
}

#[test]
fn images_and_other_things_by_themselves() {
    let world = World::new()
        .page("https://a.test/i", png(3, 4))
        .page("https://a.test/fake", reply("image/png", "<html>"))
        .page("https://a.test/pdf", reply("application/pdf", "%PDF"))
        .page("https://a.test/none", reply("", "<title>x</title>"))
        .page("https://a.test/empty", html(""));
    assert_eq!(world.preview("https://a.test/i").unwrap()["og:image:height"], 4);
    for url in ["https://a.test/fake", "https://a.test/pdf", "https://a.test/none", "https://a.test/empty"] {
        assert_eq!(world.preview(url).unwrap(), json!({}), "{url}");
    }
}

#[test]
fn what_a_page_shows_is_found_behind_redirects_and_after_failures() {
    let landed = Reply {
        landed: Some("https://b.test/dir/page"),
        ..html("<title>T</title><meta property=og:image content=missing><link rel=image_src href=there>")
    };
    let world = World::new().page("https://a.test/p", landed).page("https://b.test/dir/there", png(1, 1));
    let preview = world.preview("https://a.test/p").unwrap();
    assert_eq!(preview["og:image:type"], "image/png");
    assert_eq!(world.asked(), ["https://a.test/p", "https://b.test/dir/missing", "https://b.test/dir/there"]);
}

#[test]
fn what_a_page_does_not_want_to_be_shown_is_not() {
    let said = "<title>T</title><meta property=og:description content=D><meta property=og:image content=/i>";
    let page = |meta: &str| html(format!("{said}{meta}<body>Text"));
    let world = World::new()
        .page("https://a.test/i", png(30, 20))
        .page("https://a.test/whole", page("<meta name=robots content=noindex>"))
        .page("https://a.test/meta", page("<meta name=robots content='nosnippet, noimageindex'>"))
        .page("https://a.test/header", Reply { robots: Some("max-snippet:0"), ..page("") })
        .page("https://b.test/i", Reply { robots: Some("noimageindex"), ..png(30, 20) });
    let shown = |url: &str| {
        let preview = world.preview(url).unwrap();
        ["og:title", "og:description", "og:image"].map(|name| preview.get(name).is_some())
    };
    assert_eq!(shown("https://a.test/whole"), [true, true, true]);
    assert_eq!(shown("https://a.test/meta"), [true, false, false]);
    assert_eq!(shown("https://a.test/header"), [true, false, true]);
    assert_eq!(shown("https://b.test/i"), [false, false, false]);
}

#[test]
fn oembed_of_known_sites_and_of_pages_that_say_little() {
    let document = r#"{"type": "video", "title": "V", "thumbnail_url": "https://i.test/t"}"#;
    let endpoint = "https://www.youtube.com/oembed?format=json&url=https%3A%2F%2Fyoutu.be%2Fx";
    let world = World::new()
        .page(endpoint, reply("application/json", document))
        .page("https://i.test/t", png(5, 5))
        .page("https://a.test/p", html("<link rel=alternate type=application/json+oembed href=/o><body>Text"))
        .page("https://a.test/o", reply("application/json", document))
        .page("https://youtu.be/y", html("<title>Page</title>"));
    assert_eq!(world.preview("https://youtu.be/x").unwrap()["og:image:width"], 5);
    let preview = world.preview("https://a.test/p").unwrap();
    assert_eq!((&preview["og:title"], &preview["og:description"]), (&json!("V"), &json!("Text")));
    assert_eq!(world.preview("https://youtu.be/y").unwrap()["og:title"], "Page", "the page is there still");
}

#[test]
fn character_sets_are_heeded() {
    let world = World::new()
        .page(
            "https://a.test/h",
            reply("text/html; charset=windows-1251", &b"<title>\xcf\xf0\xe8</title>"[..]),
        )
        .page("https://a.test/m", reply("text/html", &b"<meta charset=koi8-r><title>\xf0</title>"[..]));
    assert_eq!(world.preview("https://a.test/h").unwrap()["og:title"], "При");
    assert_eq!(world.preview("https://a.test/m").unwrap()["og:title"], "П");
}

#[test]
fn only_urls_of_the_web_have_previews() {
    let world = World::new();
    let long = format!("https://a.test/{}", "x".repeat(3_000));
    for url in ["", "a.test", "ftp://a.test/", "file:///etc/passwd", "https://", "https://u:p@a.test/", &long]
    {
        assert!(matches!(world.preview(url), Err(PreviewError::InvalidUrl(_))), "{url}");
    }
    assert!(world.asked().is_empty());
    let off = Config { enabled: false, ..Config::default() };
    let previews = Previews::new(world.media.clone(), off);
    let outcome = world.sim.block_on(previews.preview("https://a.test/", None));
    assert!(matches!(outcome, Err(PreviewError::Off)));
}

#[test]
fn lists_hold_for_pages_redirects_and_images() {
    let deny = ["*.secret.test".to_owned(), "https://a.test/no*".to_owned()];
    let world = World::with(Config { patterns: Patterns::new(&[], &deny), ..Config::default() })
        .page("https://x.secret.test/", html("<title>T</title>"))
        .page(
            "https://a.test/away",
            Reply { landed: Some("https://x.secret.test/"), ..html("<title>T</title>") },
        )
        .page(
            "https://a.test/p",
            html("<title>T</title><meta property=og:image content=https://x.secret.test/i>"),
        )
        .page("https://x.secret.test/i", png(1, 1));
    for url in ["https://x.secret.test/", "https://a.test/now", "https://a.test/away"] {
        assert!(matches!(world.preview(url), Err(PreviewError::Refused(_))), "{url}");
    }
    assert_eq!(world.preview("https://a.test/p").unwrap(), json!({"og:title": "T"}));
    assert_eq!(world.asked(), ["https://a.test/away", "https://a.test/p"]);
}

#[test]
fn hostile_answers_are_bounded() {
    let config = Config { image_size_max: 10_000, page_size_max: 50_000, ..Config::default() };
    let endless =
        Reply { endless: true, ..html("<title>T</title><meta property=og:image content=/i><p>more ") };
    let world = World::with(config)
        .page("https://a.test/p", endless)
        .page("https://a.test/i", Reply { endless: true, ..png(100, 100) })
        .page("https://a.test/deep", html("<div>".repeat(5_000) + "<title>T</title>"))
        .page("https://a.test/lie", html(Bytes::from_static(&[0xff; 9_000])))
        .page("https://a.test/error", Reply { status: 500, ..html("<title>T</title>") });
    let preview = world.preview("https://a.test/p").unwrap();
    assert_eq!((&preview["og:title"], preview.get("og:image")), (&json!("T"), None));
    world.preview("https://a.test/deep").unwrap();
    world.preview("https://a.test/lie").unwrap();
    assert!(matches!(world.preview("https://a.test/error"), Err(PreviewError::Failed(_))));
    world.pass(Duration::from_secs(1));
    assert!(
        world.sim.block_on(world.media.view.store.read().all(&MEDIA, 10)).unwrap().is_empty(),
        "no image is kept"
    );
}

#[test]
fn a_web_that_does_not_answer_is_given_up() {
    let world = World::new();
    let page = "<title>T</title><meta property=og:image content=/i>";
    let world = world.page("https://a.test/p", html(page));
    *world.web.clock.lock() = Some(Arc::new(Slow(world.sim.env().clock)));
    assert!(matches!(world.preview("https://a.test/p"), Err(PreviewError::Failed(_))));
}

/// A second takes a minute and more.
struct Slow(Arc<dyn myelin_core::Clock>);

impl myelin_core::Clock for Slow {
    fn now_ms(&self) -> u64 {
        self.0.now_ms()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.0.sleep(duration * 100)
    }
}

#[test]
fn many_who_want_the_same_ask_once_and_so_do_failures() {
    let world = World::new().page("https://a.test/p", html("<title>T</title>"));
    *world.web.clock.lock() = Some(world.sim.env().clock);
    let all = futures::future::join_all((0..10).map(|_| world.previews.preview("https://a.test/p", None)));
    assert!(world.sim.block_on(all).iter().all(Result::is_ok));
    assert_eq!(world.asked().len(), 1);
    for _ in 0..3 {
        assert!(world.preview("https://a.test/missing").is_err());
    }
    assert_eq!(world.asked().len(), 1);
    world.pass(Duration::from_secs(60));
    assert!(world.preview("https://a.test/missing").is_err());
    assert_eq!(world.asked().len(), 1);
}

#[test]
fn only_so_many_are_made_at_once() {
    let world = World::new();
    *world.web.clock.lock() = Some(world.sim.env().clock);
    let urls: Vec<_> = (0..40).map(|n| format!("https://a.test/{n}")).collect();
    let all = futures::future::join_all(urls.iter().map(|url| world.previews.preview(url, None)));
    let outcomes = world.sim.block_on(all);
    let busy = outcomes.iter().filter(|outcome| matches!(outcome, Err(PreviewError::Busy))).count();
    assert_eq!(busy, 40 - super::MAKING_MAX);
}

#[test]
fn versions_are_found_by_time_and_deleted_in_the_end() {
    let url = "https://a.test/p";
    let page = |title: &str| html(format!("<title>{title}</title><meta property=og:image content=/i>"));
    let world = World::new().page(url, page("one")).page("https://a.test/i", png(1, 1));
    let first_ms = world.sim.env().now_ms();
    let title = |ts_ms| world.preview_at(url, ts_ms).unwrap()["og:title"].as_str().unwrap().to_owned();
    assert_eq!(title(None), "one");
    world.web.pages.lock().insert(url.to_owned(), page("two"));
    assert_eq!(title(None), "one");
    world.pass(2 * DAY);
    assert_eq!(title(Some(first_ms + 1_000)), "one", "as it was");
    assert_eq!(title(Some(first_ms - 1_000)), "two", "there is no older one");
    assert_eq!(title(Some(world.sim.env().now_ms())), "two");
    let rows = || {
        let store = &world.media.view.store;
        let previews = world.sim.block_on(store.read().all(&URL_PREVIEWS, 10)).unwrap().len();
        let images = world.sim.block_on(store.read().all(&PREVIEW_IMAGES, 10)).unwrap().len();
        (previews, images, world.sim.block_on(store.read().all(&MEDIA, 10)).unwrap().len())
    };
    assert_eq!(rows(), (2, 2, 2));
    world.pass(5 * DAY + Duration::from_secs(60));
    world.sim.block_on(world.previews.sweep()).unwrap();
    assert_eq!(rows(), (1, 2, 2), "images outlive previews");
    world.pass(DAY);
    world.sim.block_on(world.previews.sweep()).unwrap();
    assert_eq!(rows(), (1, 1, 1));
    world.sim.block_on(world.previews.sweep_versions(0)).unwrap();
    assert_eq!(rows(), (0, 1, 1));
}

#[test]
fn the_oldest_images_make_room() {
    let size = png(1, 1).body.len() as u64;
    let mut world = World::with(Config { images_size_max: 2 * size, ..Config::default() });
    for n in 0..4 {
        world = world.page(&format!("https://a.test/{n}"), png(1, 1));
    }
    let shown: Vec<String> = (0..4)
        .map(|n| {
            world.pass(Duration::from_secs(1));
            world.preview(&format!("https://a.test/{n}")).unwrap()["og:image"].as_str().unwrap().to_owned()
        })
        .collect();
    world.sim.block_on(world.previews.sweep()).unwrap();
    let kept: Vec<_> = shown.iter().map(|mxc| world.bytes_of(mxc).is_some()).collect();
    assert_eq!(kept, [false, false, true, true]);
}
