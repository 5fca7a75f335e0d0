//! Device lists: who follows `device_lists` of their syncs has the keys of those who share a room with them, and of nobody
//! else.

use std::collections::{BTreeMap, BTreeSet};

use myelin_testkit::{below, client::percent, env::Sim, server::Server};
use serde_json::json;

use super::phone::{Phone, users};

/// A client that queries keys when it is told to, and only then.
struct Watcher {
    phone: Phone,
    since: Option<String>,
    /// Whose keys it has, and of which version.
    known: BTreeMap<String, Option<u64>>,
}

impl Watcher {
    async fn sync(&mut self, server: &Server) {
        let answer = self.phone.sync(server, self.since.as_deref()).await;
        let next = answer["next_batch"].as_str().unwrap().to_owned();
        match &self.since {
            // A new client asks for everybody whom it meets.
            None => {
                assert!(answer["device_lists"].is_null());
                for user in self.room_mates(server).await {
                    let version = self.phone.version_of(server, &user).await;
                    self.known.insert(user, version);
                }
            }
            Some(since) => {
                let lists = &answer["device_lists"];
                let path = format!("/_matrix/client/v3/keys/changes?from={since}&to={next}");
                let changes = self.phone.client.get(server, &path).await.ok();
                let set = |value| users(value).into_iter().collect::<BTreeSet<_>>();
                assert_eq!(set(&changes["changed"]), set(&lists["changed"]));
                assert_eq!(set(&changes["left"]), set(&lists["left"]));
                for user in users(&lists["changed"]) {
                    let version = self.phone.version_of(server, &user).await;
                    self.known.insert(user, version);
                }
                for user in users(&lists["left"]) {
                    assert!(user != self.phone.user_id());
                    self.known.remove(&user);
                }
            }
        }
        self.since = Some(next);
    }

    async fn room_mates(&self, server: &Server) -> BTreeSet<String> {
        let joined = self.phone.client.get(server, "/_matrix/client/v3/joined_rooms").await.ok();
        let mut mates = BTreeSet::new();
        for room in users(&joined["joined_rooms"]) {
            let path = format!("/_matrix/client/v3/rooms/{}/joined_members", percent(&room));
            let members = self.phone.client.get(server, &path).await.ok();
            mates.extend(members["joined"].as_object().unwrap().keys().cloned());
        }
        mates.remove(self.phone.user_id());
        mates
    }

    async fn check(&self, server: &Server, versions: &BTreeMap<String, Option<u64>>, seed: u64) {
        let mates = self.room_mates(server).await;
        let known: BTreeSet<_> =
            self.known.keys().filter(|user| *user != self.phone.user_id()).cloned().collect();
        assert_eq!(known, mates, "seed {seed}: {}", self.phone.user_id());
        for user in &mates {
            assert_eq!(self.known[user], versions[user], "seed {seed}: {user} for {}", self.phone.user_id());
        }
    }
}

fn history(seed: u64) {
    let sim = Sim::new(seed);
    let env = sim.env();
    let mut server = Server::start(&sim, Default::default());
    let mut watchers = Vec::new();
    let mut rooms = Vec::new();
    let mut versions = BTreeMap::new();
    server.sim.clone().block_on(async {
        for n in 0..4 {
            let phone = Phone::new(&server, &format!("user{n}")).await;
            versions.insert(phone.user_id().to_owned(), None);
            watchers.push(Watcher { phone, since: None, known: BTreeMap::new() });
        }
        let host = Phone::new(&server, "host").await;
        versions.insert(host.user_id().to_owned(), None);
        for _ in 0..3 {
            rooms.push(host.public_room(&server).await);
        }
    });
    for step in 1..=50_u64 {
        if below(&env, 12) == 0 {
            server = Server::start(&sim, server.crash());
        }
        let which = below(&env, watchers.len());
        let room = &rooms[below(&env, rooms.len())];
        server.sim.clone().block_on(async {
            let watcher = &mut watchers[which];
            match below(&env, 8) {
                0 | 1 => drop(watcher.phone.join(&server, room).await.ok()),
                2 => drop(watcher.phone.leave(&server, room).await),
                3 | 4 => {
                    watcher.phone.upload_device_keys(&server, step).await;
                    versions.insert(watcher.phone.user_id().to_owned(), Some(step));
                }
                _ => {
                    watcher.sync(&server).await;
                    watcher.check(&server, &versions, seed).await;
                }
            }
        });
    }
    server.sim.clone().block_on(async {
        for watcher in &mut watchers {
            watcher.sync(&server).await;
            watcher.check(&server, &versions, seed).await;
        }
    });
}

#[test]
fn who_follows_device_lists_has_the_keys_of_room_mates_and_of_nobody_else() {
    for seed in 0..12 {
        history(seed);
    }
}

#[test]
fn a_change_wakes_room_mates_and_nobody_else() {
    let sim = Sim::new(1);
    let server = Server::start(&sim, Default::default());
    server.sim.clone().block_on(async {
        let (ann, bob, eve) = (
            Phone::new(&server, "ann").await,
            Phone::new(&server, "bob").await,
            Phone::new(&server, "eve").await,
        );
        let room = ann.public_room(&server).await;
        bob.join(&server, &room).await.ok();
        eve.public_room(&server).await;
        let wait = async |phone: &Phone| {
            let since = phone.sync(&server, None).await["next_batch"].as_str().unwrap().to_owned();
            let path = format!("/_matrix/client/v3/sync?set_presence=offline&timeout=5000&since={since}");
            let started = server.view.env.now_ms();
            let answer = phone.client.get(&server, &path).await.ok();
            (users(&answer["device_lists"]["changed"]), server.view.env.now_ms() - started)
        };
        let upload = async {
            server.view.env.clock.sleep(std::time::Duration::from_secs(1)).await;
            ann.upload_device_keys(&server, 1).await;
        };
        let ((bobs, waited), (eves, longer), (own, _), ()) =
            futures::join!(wait(&bob), wait(&eve), wait(&ann), upload);
        assert_eq!(bobs, [ann.user_id()]);
        assert_eq!(own, [ann.user_id()], "her other devices want to know");
        assert!(waited < 2_000, "{waited}");
        assert_eq!(eves, [""; 0]);
        assert!(longer >= 5_000, "{longer}");
    });
}

#[test]
fn logging_out_is_a_change_if_the_device_had_keys() {
    let sim = Sim::new(1);
    let server = Server::start(&sim, Default::default());
    server.sim.clone().block_on(async {
        let (ann, bob) = (Phone::new(&server, "ann").await, Phone::new(&server, "bob").await);
        let room = ann.public_room(&server).await;
        bob.join(&server, &room).await.ok();
        ann.upload_device_keys(&server, 7).await;
        assert_eq!(bob.version_of(&server, ann.user_id()).await, Some(7));
        let since = bob.sync(&server, None).await["next_batch"].as_str().unwrap().to_owned();
        ann.client.post(&server, "/_matrix/client/v3/logout", &json!({})).await.ok();
        let answer = bob.sync(&server, Some(&since)).await;
        assert_eq!(users(&answer["device_lists"]["changed"]), [ann.user_id()]);
        assert_eq!(bob.version_of(&server, ann.user_id()).await, None);
    });
}
