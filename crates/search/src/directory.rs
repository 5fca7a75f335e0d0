//! The user directory (`POST /user_directory/search`): local accounts and users of other servers, by user id and display
//! name, as far as the searcher may know of them.
//!
//! The index has a document for every membership, so that whoever shares a room is found by looking at the rooms of the
//! searcher; who of the others is in a public room is looked up for the matches only.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use myelin_core::{RoomNid, UserNid};
use myelin_store::tables::{MEMBERS, Membership, PUBLIC_ROOMS};
use myelin_view::Event;
use ruma::OwnedUserId;
use tantivy::{
    Term,
    query::{BooleanQuery, FuzzyTermQuery, Occur, Query, TermQuery},
    schema::IndexRecordOption,
};

use crate::{
    Error, Search,
    clauses::among,
    collector::Best,
    text::{Run, fold, looked_up, runs},
};

pub const RESULTS_MAX: usize = 50;
/// Matches that are looked at in each of the places where a user can be found.
const CANDIDATES_MAX: usize = 500;
const WORDS_MAX: usize = 8;
const SEARCH_TERM_SIZE_MAX: usize = 512;

/// Whom a search of the user directory finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DirectoryVisibility {
    /// Those who share a room with the searcher or are in a published or publicly joinable room.
    #[default]
    SharedAndPublicRooms,
    /// Every local account too.
    Everybody,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundUser {
    pub user_id: OwnedUserId,
    pub display_name: Option<String>,
    pub avatar_url: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirectoryResults {
    /// Best first.
    pub users: Vec<FoundUser>,
    /// There are more.
    pub limited: bool,
}

impl Search {
    pub async fn directory(
        &self,
        searcher: UserNid,
        term: &str,
        limit: usize,
    ) -> Result<DirectoryResults, Error> {
        let limit = limit.min(RESULTS_MAX);
        let term = term.trim();
        let Some(query) = self.names_query(term) else { return Ok(DirectoryResults::default()) };
        self.catch_up().await?;
        let mut looking = Looking::new(self, searcher).await?;
        looking.look(&query, Among::Shared).await?;
        if self.visibility == DirectoryVisibility::Everybody {
            looking.look(&query, Among::Accounts).await?;
        }
        if looking.found.len() <= limit {
            looking.look(&query, Among::Public).await?;
        }
        let term = fold(term.strip_prefix('@').unwrap_or(term));
        let mut ranked: Vec<_> =
            looking.found.into_iter().map(|(nid, user)| (rank(&user, &term), nid, user)).collect();
        ranked.sort_by_key(|(rank, nid, _)| (*rank, *nid));
        let limited = looking.limited || ranked.len() > limit;
        Ok(DirectoryResults {
            users: ranked.into_iter().take(limit).map(|(_, _, user)| user).collect(),
            limited,
        })
    }

    /// Every word of the term has to begin a word of the user's names.
    fn names_query(&self, term: &str) -> Option<Box<dyn Query>> {
        if term.len() > SEARCH_TERM_SIZE_MAX {
            return None;
        }
        let field = self.index.fields.names;
        let mut words: Vec<(Occur, Box<dyn Query>)> = Vec::new();
        for run in runs(term).into_iter().take(WORDS_MAX) {
            match run {
                Run::Word(word) => {
                    let term = Term::from_field_text(field, &word);
                    words.push((Occur::Must, Box::new(FuzzyTermQuery::new_prefix(term, 0, true))));
                }
                run @ Run::Unspaced(_) => words.extend(looked_up(&[run]).into_iter().map(|(_, text)| {
                    let term = Term::from_field_text(field, &text);
                    let query: Box<dyn Query> = Box::new(TermQuery::new(term, IndexRecordOption::Basic));
                    (Occur::Must, query)
                })),
            }
        }
        (!words.is_empty()).then(|| Box::new(BooleanQuery::new(words)) as Box<dyn Query>)
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

/// Where a user is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Among {
    /// In the rooms of the searcher.
    Shared,
    /// All local accounts.
    Accounts,
    Public,
}

struct Looking<'a> {
    search: &'a Search,
    searcher: UserNid,
    own_rooms: HashSet<RoomNid>,
    public: HashMap<RoomNid, bool>,
    found: BTreeMap<UserNid, FoundUser>,
    limited: bool,
}

impl<'a> Looking<'a> {
    async fn new(search: &'a Search, searcher: UserNid) -> Result<Self, Error> {
        let rooms = search.view.user_rooms.load(searcher).await?;
        let joined = rooms.iter().filter(|(_, room)| room.membership == Membership::Join);
        let own_rooms = joined.map(|(room, _)| *room).collect();
        let (public, found) = (HashMap::new(), BTreeMap::new());
        Ok(Self { search, searcher, own_rooms, public, found, limited: false })
    }

    async fn look(&mut self, query: &dyn Query, place: Among) -> Result<(), Error> {
        let room = self.search.index.fields.room;
        let query = match place {
            Among::Shared if self.own_rooms.is_empty() => return Ok(()),
            Among::Shared => among(query.box_clone(), room, self.own_rooms.iter().map(|room| room.0)),
            Among::Accounts => among(query.box_clone(), room, [RoomNid::GLOBAL.0].into_iter()),
            Among::Public => query.box_clone(),
        };
        let best = Best { by_score: false, below: None, keep: CANDIDATES_MAX };
        let matches = self.search.index.look_up(query, best).await?;
        self.limited |= matches.more;
        for hit in matches.hits {
            let (room, user) = (RoomNid(hit.room), UserNid(hit.user));
            let known = user == self.searcher || self.found.contains_key(&user);
            if known || (place == Among::Public && !self.is_public(room).await?) {
                continue;
            }
            if let Some(found) = self.describe(room, user).await? {
                self.found.insert(user, found);
            }
        }
        Ok(())
    }

    async fn is_public(&mut self, room: RoomNid) -> Result<bool, Error> {
        if room == RoomNid::GLOBAL {
            return Ok(false);
        }
        if let Some(public) = self.public.get(&room) {
            return Ok(*public);
        }
        let public = self.search.is_public_room(room).await?;
        self.public.insert(room, public);
        Ok(public)
    }

    /// `None` if the user is not there any more, or is not to be found.
    async fn describe(&self, room: RoomNid, user: UserNid) -> Result<Option<FoundUser>, Error> {
        let member = match room {
            RoomNid::GLOBAL => None,
            room => match self.member(room, user).await? {
                Some(member) => Some(member),
                None => return Ok(None),
            },
        };
        let user_id = self.search.view.interner.user_id(user).await?;
        if self.search.view.is_local(&user_id) {
            if !self.search.is_findable(user).await? {
                return Ok(None);
            }
            let display_name = self.search.profile_field(user, "displayname").await?;
            let avatar_url = self.search.profile_field(user, "avatar_url").await?;
            return Ok(Some(FoundUser { user_id, display_name, avatar_url }));
        }
        let field = |name| member.as_ref().and_then(|member| member.pdu.content_field::<String>(name));
        let (display_name, avatar_url) = (field("displayname"), field("avatar_url"));
        Ok(Some(FoundUser { user_id, display_name, avatar_url }))
    }

    async fn member(&self, room: RoomNid, user: UserNid) -> Result<Option<Arc<Event>>, Error> {
        let row = self.search.view.store.get(&MEMBERS, &(room, user)).await?;
        match row.filter(|row| row.value.membership == Membership::Join) {
            Some(row) => Ok(self.search.view.events.load(row.value.event).await?),
            None => Ok(None),
        }
    }
}

/// Lower is better.
fn rank(user: &FoundUser, term: &str) -> u8 {
    let localpart = fold(user.user_id.localpart());
    let display_name = fold(user.display_name.as_deref().unwrap_or_default());
    let whole = fold(&user.user_id.as_str()[1..]);
    if [&localpart, &display_name, &whole].into_iter().any(|name| name == term) {
        return 0;
    }
    if localpart.starts_with(term) || display_name.starts_with(term) {
        return 1;
    }
    if display_name.split_whitespace().any(|word| word.starts_with(term)) {
        return 2;
    }
    3
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;

    #[test]
    fn ranks() {
        let alice = FoundUser {
            user_id: user_id!("@alice:example.org").to_owned(),
            display_name: Some("Alice Margatroïd".to_owned()),
            avatar_url: None,
        };
        for (term, expected) in [
            ("alice", 0),
            ("alice margatroid", 0),
            ("alice:example.org", 0),
            ("ali", 1),
            ("alice m", 1),
            ("marga", 2),
            ("example", 3),
        ] {
            assert_eq!(rank(&alice, term), expected, "{term}");
        }
    }
}
