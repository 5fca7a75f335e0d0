//! The user directory (`POST /user_directory/search`): local accounts by user id and display name.
//!
//! The index is in memory, loaded at the first search and kept up by the log. Matching is a scan over it; who of the
//! matches is visible to the searcher is looked up for the matches only. Remote users are not in it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use myelin_core::{RoomNid, UserNid};
use myelin_store::tables::{AccountKind, Membership, PROFILES, PUBLIC_ROOMS};
use parking_lot::Mutex;
use ruma::OwnedUserId;

use crate::{
    DirectoryVisibility, Error, Users,
    profile::{AVATAR_URL, DISPLAYNAME},
};

pub const RESULTS_MAX: usize = 50;
/// Matches whose visibility is looked at; beyond that the answer says that it is limited.
const CANDIDATES_MAX: usize = 2_000;
const LOAD_PAGE: usize = 1_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundUser {
    pub user_id: OwnedUserId,
    pub display_name: Option<String>,
    pub avatar_url: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SearchResults {
    pub users: Vec<FoundUser>,
    /// There are more.
    pub limited: bool,
}

#[derive(Default)]
pub(crate) struct LocalUsers {
    /// `None`: not loaded yet.
    index: futures::lock::Mutex<Option<HashMap<UserNid, Arc<Entry>>>>,
    changed: Mutex<HashSet<UserNid>>,
}

struct Entry {
    found: FoundUser,
    localpart: String,
    /// In small letters.
    display_name: String,
}

impl LocalUsers {
    /// The user is loaded again at the next search.
    pub fn mark(&self, user: UserNid) {
        self.changed.lock().insert(user);
    }
}

impl Users {
    pub async fn search_directory(
        &self,
        searcher: UserNid,
        term: &str,
        limit: usize,
    ) -> Result<SearchResults, Error> {
        let limit = limit.min(RESULTS_MAX);
        let mut matches = self.directory_matches(&term.trim().to_lowercase()).await?;
        let mut results = SearchResults { users: Vec::new(), limited: matches.len() > CANDIDATES_MAX };
        matches.truncate(CANDIDATES_MAX);
        let mut seen = Visible::new(self, searcher).await?;
        for (user, entry) in matches {
            if user == searcher || !seen.is_visible(user).await? {
                continue;
            }
            if results.users.len() == limit {
                results.limited = true;
                break;
            }
            results.users.push(entry.found.clone());
        }
        Ok(results)
    }

    /// Best first.
    async fn directory_matches(&self, term: &str) -> Result<Vec<(UserNid, Arc<Entry>)>, Error> {
        let mut index = self.directory.index.lock().await;
        let index = match &mut *index {
            Some(index) => index,
            None => index.insert(self.load_directory().await?),
        };
        self.update_directory(index).await?;
        let mut matches: Vec<_> = index
            .iter()
            .filter_map(|(user, entry)| Some((entry.rank(term)?, *user, entry.clone())))
            .collect();
        matches.sort_by(|(rank, user, _), (other_rank, other, _)| (rank, user).cmp(&(other_rank, other)));
        Ok(matches.into_iter().map(|(_, user, entry)| (user, entry)).collect())
    }

    async fn load_directory(&self) -> Result<HashMap<UserNid, Arc<Entry>>, Error> {
        let (mut index, mut after) = (HashMap::new(), None);
        loop {
            let page = self.accounts(after, LOAD_PAGE).await?;
            let Some(last) = page.last() else { return Ok(index) };
            after = Some(last.user);
            for account in &page {
                if let Some(entry) = self.load_directory_entry(account.user).await? {
                    index.insert(account.user, entry);
                }
            }
        }
    }

    async fn update_directory(&self, index: &mut HashMap<UserNid, Arc<Entry>>) -> Result<(), Error> {
        let changed: Vec<UserNid> = self.directory.changed.lock().drain().collect();
        for user in changed {
            match self.load_directory_entry(user).await? {
                Some(entry) => index.insert(user, entry),
                None => index.remove(&user),
            };
        }
        Ok(())
    }

    /// `None` for who is not to be found: guests, deactivated accounts.
    async fn load_directory_entry(&self, user: UserNid) -> Result<Option<Arc<Entry>>, Error> {
        let account = self.account_of(user).await?;
        if account.is_none_or(|a| a.deactivated || a.kind == AccountKind::Guest) {
            return Ok(None);
        }
        let keys = [DISPLAYNAME, AVATAR_URL].map(|field| (user, field.to_owned()));
        let fields = self.view.store.multi_get(&PROFILES, &keys).await?;
        let text = |at: usize| {
            let row = fields.get(at)?.as_ref()?;
            serde_json::from_str::<String>(&row.json).ok()
        };
        let user_id = self.view.interner.user_id(user).await?;
        Ok(Some(Arc::new(Entry::new(FoundUser { user_id, display_name: text(0), avatar_url: text(1) }))))
    }
}

impl Entry {
    fn new(found: FoundUser) -> Self {
        let display_name = found.display_name.as_deref().unwrap_or_default().to_lowercase();
        Self { localpart: found.user_id.localpart().to_lowercase(), display_name, found }
    }

    /// Lower is better; `None`: no match.
    fn rank(&self, term: &str) -> Option<u8> {
        let term = term.strip_prefix('@').unwrap_or(term);
        if term.is_empty() {
            return None;
        }
        let whole = || self.found.user_id.as_str()[1..].to_lowercase();
        if self.localpart == term || self.display_name == term || whole() == term {
            return Some(0);
        }
        if self.localpart.starts_with(term) || self.display_name.starts_with(term) {
            return Some(1);
        }
        if self.display_name.split_whitespace().any(|word| word.starts_with(term)) {
            return Some(2);
        }
        (self.localpart.contains(term) || self.display_name.contains(term) || whole().contains(term))
            .then_some(3)
    }
}

/// Decides for one search whom the searcher may see.
struct Visible<'a> {
    users: &'a Users,
    own_rooms: HashSet<RoomNid>,
    /// Whether anybody may join or the room is published, for the rooms looked at.
    public: HashMap<RoomNid, bool>,
}

impl<'a> Visible<'a> {
    async fn new(users: &'a Users, searcher: UserNid) -> Result<Self, Error> {
        let own_rooms = users.joined_rooms(searcher).await?.into_iter().collect();
        Ok(Self { users, own_rooms, public: HashMap::new() })
    }

    async fn is_visible(&mut self, user: UserNid) -> Result<bool, Error> {
        if self.users.config.directory == DirectoryVisibility::Everybody {
            return Ok(true);
        }
        let rooms = self.users.joined_rooms(user).await?;
        if rooms.iter().any(|room| self.own_rooms.contains(room)) {
            return Ok(true);
        }
        for room in rooms {
            if self.is_public(room).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn is_public(&mut self, room: RoomNid) -> Result<bool, Error> {
        if let Some(public) = self.public.get(&room) {
            return Ok(*public);
        }
        let public = self.users.is_public_room(room).await?;
        self.public.insert(room, public);
        Ok(public)
    }
}

impl Users {
    pub(crate) async fn joined_rooms(&self, user: UserNid) -> Result<Vec<RoomNid>, Error> {
        let rooms = self.view.user_rooms.load(user).await?;
        let joined = rooms.iter().filter(|(_, room)| room.membership == Membership::Join);
        Ok(joined.map(|(room, _)| *room).collect())
    }

    /// Published, publicly joinable or readable by the world: its members are no secret.
    async fn is_public_room(&self, room: RoomNid) -> Result<bool, Error> {
        if self.view.store.get(&PUBLIC_ROOMS, &room).await?.is_some() {
            return Ok(true);
        }
        let Some(snapshot) = self.view.rooms.load(room).await? else { return Ok(false) };
        for (event_type, member, open) in [
            ("m.room.join_rules", "join_rule", "public"),
            ("m.room.history_visibility", "history_visibility", "world_readable"),
        ] {
            let event = self.view.current_state_event(&snapshot, event_type, "").await?;
            if event.and_then(|e| e.pdu.content_field::<String>(member)).as_deref() == Some(open) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use myelin_core::EventNid;
    use myelin_store::{
        Batch,
        codec::AtPosition,
        log::LogEntry,
        tables::{USER_ROOMS, UserRoomRecord},
    };
    use ruma::{UserId, user_id};
    use serde_json::json;

    use super::*;
    use crate::testing::World;

    fn entry(user_id: &UserId, display_name: &str) -> Entry {
        let display_name = Some(display_name.to_owned());
        Entry::new(FoundUser { user_id: user_id.to_owned(), display_name, avatar_url: None })
    }

    #[test]
    fn ranks() {
        let alice = entry(user_id!("@alice:example.org"), "Alice Margatroid");
        for (term, rank) in [
            ("alice", Some(0)),
            ("@alice:example.org", Some(0)),
            ("@ali", Some(1)),
            ("alice m", Some(1)),
            ("marga", Some(2)),
            ("troid", Some(3)),
            ("example.org", Some(3)),
            ("bob", None),
            ("", None),
            ("@", None),
        ] {
            assert_eq!(alice.rank(term), rank, "{term}");
        }
    }

    #[test]
    fn strangers_without_a_common_or_public_room_are_not_found() {
        let world = World::new();
        world.run(async {
            let alice = world.register("alice").await;
            world.register("bob").await;
            let searcher = world.users.session(&alice.access_token).await.unwrap().user;
            let results = world.users.search_directory(searcher, "bob", 10).await.unwrap();
            assert_eq!(results, SearchResults::default());
        });
    }

    /// Writes what a join leaves behind, as far as the directory looks.
    async fn join(world: &World, user: UserNid, room: RoomNid) {
        let joined = UserRoomRecord {
            membership: Membership::Join,
            event: EventNid(1),
            forgotten: false,
            was_joined: true,
        };
        let mut batch = Batch::new();
        let member = Some(user);
        let entry = LogEntry::Event {
            room,
            event: EventNid(1),
            sender: user,
            state_key: None,
            member,
            head: 1,
            relay: true,
        };
        let position = batch.log(&entry);
        batch.put(&USER_ROOMS, &(user, room), &AtPosition { position, value: joined });
        world.view.store.commit(batch).await.unwrap();
        world.view.feed.caught_up().await;
    }

    #[test]
    fn who_shares_a_room_or_is_in_a_published_one_is_found() {
        let world = World::new();
        world.run(async {
            let mut users = Vec::new();
            for name in ["alice", "bob", "carol", "dave"] {
                let grant = world.register(name).await;
                users.push(world.users.session(&grant.access_token).await.unwrap().user);
            }
            let [alice, bob, carol, dave] = users[..] else { unreachable!() };
            let (shared, published, private) = (RoomNid(1), RoomNid(2), RoomNid(3));
            for (user, room) in [(alice, shared), (bob, shared), (carol, published), (dave, private)] {
                join(&world, user, room).await;
            }
            let mut batch = Batch::new();
            batch.put(&PUBLIC_ROOMS, &published, &());
            world.view.store.commit(batch).await.unwrap();
            let found = world.users.search_directory(alice, "example.org", 10).await.unwrap();
            let found: Vec<_> = found.users.iter().map(|user| user.user_id.localpart()).collect();
            assert_eq!(found, ["bob", "carol"]);
        });
    }

    #[test]
    fn the_index_follows_registrations_profiles_and_deactivations() {
        let world = World::with(|config| config.directory = DirectoryVisibility::Everybody);
        world.run(async {
            let alice = world.register("alice").await;
            let searcher = world.users.session(&alice.access_token).await.unwrap().user;
            let search = async |term: &str, limit: usize| {
                world.view.feed.caught_up().await;
                world.users.search_directory(searcher, term, limit).await.unwrap()
            };
            assert_eq!(search("bob", 10).await.users.len(), 0);
            let bob = world.register("bob").await;
            world.register("bobby").await;
            let found = search("BOB", 1).await;
            assert_eq!((found.users[0].user_id.as_str(), found.limited), ("@bob:example.org", true));
            assert_eq!(search("alice", 10).await.users.len(), 0, "not oneself");

            let user = world.users.session(&bob.access_token).await.unwrap().user;
            world.users.set_profile_field(user, "displayname", &json!("Robert")).await.unwrap();
            assert_eq!(search("robert", 10).await.users[0].display_name.as_deref(), Some("Robert"));
            world.users.deactivate(user, false).await.unwrap();
            assert_eq!(search("robert", 10).await.users.len(), 0);
        });
    }
}
