//! Which rooms an answer is about: the user's rooms by activity, filtered and cut to the ranges of each list, and the rooms
//! that are subscribed to (MSC4186, "Lists and subscriptions").

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use myelin_core::{Position, RoomNid, UserNid};
use myelin_store::tables::Membership;
use myelin_view::{RoomInfo, UserRoom};

use super::{
    connection::Held,
    facts::RoomFacts,
    request::{List, PerRoom, Request, RoomConfig, RoomFilter},
};
use crate::{Error, Requester, Sync};

/// The rooms of one answer.
#[derive(Default)]
pub(super) struct Window {
    /// Rooms per list, ranges apart.
    pub counts: Vec<usize>,
    pub rooms: BTreeMap<RoomNid, Interest>,
    /// Those with sticky events that a list or subscription stands for, in its ranges or not.
    pub sticky: BTreeSet<RoomNid>,
}

/// Why and as what a room is wanted.
#[derive(Clone)]
pub(super) struct Interest {
    pub held: UserRoom,
    pub config: Arc<RoomConfig>,
    /// Bits of the lists that it is in.
    pub lists: u128,
}

/// A room of the user's.
#[derive(Clone, Copy)]
struct Entry {
    room: RoomNid,
    held: UserRoom,
}

/// What the filters of a request ask of the account, read once.
#[derive(Default)]
struct Account {
    direct: HashSet<String>,
    tags: HashMap<RoomNid, HashSet<String>>,
    spaces: HashMap<String, HashSet<String>>,
}

/// A room as filters see it.
struct Candidate<'a> {
    held: &'a UserRoom,
    info: &'a RoomInfo,
    facts: &'a RoomFacts,
    tags: Option<&'a HashSet<String>>,
}

impl Sync {
    pub(super) async fn window(
        &self,
        request: &Request,
        rooms: &imbl::OrdMap<RoomNid, UserRoom>,
        connection: &Held,
    ) -> Result<Window, Error> {
        let mut window = Window::default();
        if !request.lists.is_empty() {
            let entries = self.entries(&request.requester, rooms, connection).await?;
            self.add_lists(request, &entries, &mut window).await?;
        }
        for (room_id, config) in &request.subscriptions {
            let Some(room) = self.view.interner.lookup_room(room_id).await? else { continue };
            let Some(held) = rooms.get(&room) else { continue };
            if self.may_subscribe(request.requester.user, held).await? {
                let interest =
                    window.rooms.entry(room).or_insert_with(|| Interest::new(*held, config.clone()));
                interest.config = merged(&interest.config, config);
            }
        }
        self.add_named(request, &mut window).await?;
        let subscribed: Vec<_> = window.rooms.keys().copied().collect();
        self.add_sticky(request, subscribed, &mut window).await?;
        Ok(window)
    }

    async fn add_sticky(
        &self,
        request: &Request,
        matched: Vec<RoomNid>,
        window: &mut Window,
    ) -> Result<(), Error> {
        if request.extensions.sticky_events.is_some() {
            let having: HashSet<_> = self.view.sticky.rooms().await?.into_iter().collect();
            window.sticky.extend(matched.into_iter().filter(|room| having.contains(room)));
        }
        Ok(())
    }

    /// Extensions that name rooms, however these came into the answer.
    async fn add_named(&self, request: &Request, window: &mut Window) -> Result<(), Error> {
        let extensions = &request.extensions;
        let selections = [&extensions.account_data, &extensions.receipts, &extensions.typing];
        let named: HashSet<&str> = selections
            .into_iter()
            .flatten()
            .flat_map(|selection| selection.rooms.iter().flatten())
            .map(String::as_str)
            .filter(|room| *room != "*")
            .collect();
        for name in named {
            let Ok(room_id) = <&ruma::RoomId>::try_from(name) else { continue };
            let Some(room) = self.view.interner.lookup_room(room_id).await? else { continue };
            if let Some(interest) = window.rooms.get_mut(&room) {
                let extensions = interest.config.extensions.and(extensions.of_named(name));
                if extensions != interest.config.extensions {
                    interest.config = Arc::new(RoomConfig { extensions, ..(*interest.config).clone() });
                }
            }
        }
        Ok(())
    }

    /// The rooms that lists choose from, the most active first.
    async fn entries(
        &self,
        requester: &Requester,
        rooms: &imbl::OrdMap<RoomNid, UserRoom>,
        connection: &Held,
    ) -> Result<Vec<Entry>, Error> {
        let mut joined = Vec::with_capacity(rooms.len());
        let mut ranked: Vec<(Position, Entry)> = Vec::with_capacity(rooms.len());
        for (room, held) in rooms {
            let entry = Entry { room: *room, held: *held };
            match held.membership {
                Membership::Join => joined.push(entry),
                _ if self.is_listed_outside(requester.user, &entry, connection).await? => {
                    ranked.push((held.position, entry));
                }
                _ => {}
            }
        }
        let nids: Vec<_> = joined.iter().map(|entry| entry.room).collect();
        let last_events = self.last_events(&nids).await?;
        ranked.extend(
            joined.into_iter().zip(last_events).map(|(entry, last)| (last.max(entry.held.position), entry)),
        );
        ranked.sort_unstable_by_key(|(last, entry)| Reverse((*last, entry.room)));
        Ok(ranked.into_iter().map(|(_, entry)| entry).collect())
    }

    /// Rooms that the user is not in: invites and knocks, rooms they were thrown out of, and what they left since the
    /// connection was told of it.
    async fn is_listed_outside(
        &self,
        user: UserNid,
        entry: &Entry,
        connection: &Held,
    ) -> Result<bool, Error> {
        match entry.held.membership {
            Membership::Join | Membership::Knock => Ok(true),
            Membership::Invite => self.is_wanted_invite(user, &entry.held).await,
            Membership::Leave | Membership::Ban => {
                let newly =
                    connection.told_until(entry.room).is_some_and(|until| until < entry.held.position);
                Ok(newly || (!entry.held.forgotten && self.was_removed(&entry.held).await?))
            }
        }
    }

    async fn is_wanted_invite(&self, user: UserNid, held: &UserRoom) -> Result<bool, Error> {
        let ignored = self.view.ignored.load(user).await?;
        let Some(event) = self.view.events.load(held.event).await? else { return Ok(false) };
        Ok(!ignored.contains(&event.pdu.sender) && !self.suppresses_invite(user, &event).await?)
    }

    async fn may_subscribe(&self, user: UserNid, held: &UserRoom) -> Result<bool, Error> {
        match held.membership {
            Membership::Join | Membership::Knock => Ok(true),
            Membership::Invite => self.is_wanted_invite(user, held).await,
            Membership::Leave | Membership::Ban => Ok(held.was_joined && !held.forgotten),
        }
    }

    async fn add_lists(
        &self,
        request: &Request,
        entries: &[Entry],
        window: &mut Window,
    ) -> Result<(), Error> {
        let user = request.requester.user;
        let lists: Vec<&List> = request.lists.values().collect();
        let account = self.account(user, &lists).await?;
        let mut found: HashMap<RoomNid, (UserRoom, u128)> = HashMap::new();
        for (index, list) in lists.iter().enumerate() {
            let filtered;
            let of_list = if list.filter == RoomFilter::default() {
                entries
            } else {
                filtered = self.filtered(user, &list.filter, entries, &account).await?;
                &filtered
            };
            window.counts.push(of_list.len());
            let matched = of_list.iter().map(|entry| entry.room).collect();
            self.add_sticky(request, matched, window).await?;
            for entry in in_ranges(of_list, list.ranges.as_deref()) {
                found.entry(entry.room).or_insert((entry.held, 0)).1 |= 1 << index;
            }
        }
        let mut configs: HashMap<u128, Arc<RoomConfig>> = HashMap::new();
        for (room, (held, bits)) in found {
            let config = configs.entry(bits).or_insert_with(|| combined(&lists, bits)).clone();
            window.rooms.insert(room, Interest { held, config, lists: bits });
        }
        Ok(())
    }

    async fn account(&self, user: UserNid, lists: &[&List]) -> Result<Account, Error> {
        let mut account = Account::default();
        let any = |asks: fn(&RoomFilter) -> bool| lists.iter().any(|list| asks(&list.filter));
        if any(|filter| filter.is_dm.is_some()) {
            account.direct = self.direct_rooms(user).await?;
        }
        if any(|filter| filter.tags.is_some() || filter.not_tags.is_some()) {
            account.tags = self.tags_by_room(user).await?;
        }
        let mut spaces = HashSet::new();
        lists.iter().for_each(|list| spaces.extend(list.filter.spaces.iter().flatten()));
        for space in spaces {
            let rooms = self.rooms_of_space(user, space).await?.into_iter().collect();
            account.spaces.insert(space.clone(), rooms);
        }
        Ok(account)
    }

    async fn filtered(
        &self,
        user: UserNid,
        filter: &RoomFilter,
        entries: &[Entry],
        account: &Account,
    ) -> Result<Vec<Entry>, Error> {
        let unknown = Arc::<RoomFacts>::default();
        let mut wanted = Vec::new();
        for entry in entries {
            // Cheap to ask, and mostly decisive.
            if filter.is_invite.is_some_and(|invite| invite != (entry.held.membership == Membership::Invite))
            {
                continue;
            }
            let Some(info) = self.view.interner.room_info(entry.room).await? else { continue };
            let facts = if filter.asks_for_facts() {
                self.room_facts(user, entry.room).await?
            } else {
                unknown.clone()
            };
            let tags = account.tags.get(&entry.room);
            let candidate = Candidate { held: &entry.held, info: &info, facts: &facts, tags };
            if filter.allows(&candidate, account) {
                wanted.push(*entry);
            }
        }
        Ok(wanted)
    }
}

impl RoomFilter {
    fn asks_for_facts(&self) -> bool {
        self.is_encrypted.is_some()
            || self.room_types.is_some()
            || self.not_room_types.is_some()
            || self.room_name_like.is_some()
    }

    fn allows(&self, room: &Candidate<'_>, account: &Account) -> bool {
        let (id, facts) = (room.info.room_id.as_str(), room.facts);
        let tagged =
            |tags: &Vec<String>| room.tags.is_some_and(|held| tags.iter().any(|tag| held.contains(tag)));
        let in_space = |space: &String| account.spaces.get(space).is_some_and(|rooms| rooms.contains(id));
        let is_dm = || account.direct.contains(id);
        let is_invite = room.held.membership == Membership::Invite;
        let named_like = |like: &String| {
            facts.name.as_ref().is_some_and(|name| name.to_lowercase().contains(&like.to_lowercase()))
        };
        self.is_dm.is_none_or(|wanted| wanted == is_dm())
            && self.is_invite.is_none_or(|wanted| wanted == is_invite)
            && self.is_encrypted.is_none_or(|wanted| wanted == facts.encrypted)
            && self.room_types.as_ref().is_none_or(|types| types.contains(&facts.room_type))
            && !self.not_room_types.as_ref().is_some_and(|types| types.contains(&facts.room_type))
            && self.spaces.as_ref().is_none_or(|spaces| spaces.iter().any(in_space))
            && self.room_name_like.as_ref().is_none_or(named_like)
            && self.tags.as_ref().is_none_or(tagged)
            && !self.not_tags.as_ref().is_some_and(tagged)
    }
}

impl Interest {
    fn new(held: UserRoom, config: Arc<RoomConfig>) -> Self {
        Self { held, config, lists: 0 }
    }

    pub fn wants(&self, extension: PerRoom) -> bool {
        self.config.extensions.has(extension)
    }
}

impl Held {
    /// Up to where the client was told of the room; `None`: nothing yet.
    pub fn told_until(&self, room: RoomNid) -> Option<Position> {
        let position = self.token?.position;
        self.connection.rooms.get(&room).map(|sent| sent.until.unwrap_or(position))
    }
}

fn merged(one: &Arc<RoomConfig>, other: &Arc<RoomConfig>) -> Arc<RoomConfig> {
    if Arc::ptr_eq(one, other) || one == other { one.clone() } else { Arc::new(one.and(other)) }
}

fn combined(lists: &[&List], bits: u128) -> Arc<RoomConfig> {
    let mut of_room =
        lists.iter().enumerate().filter(|(n, _)| bits & (1 << n) != 0).map(|(_, list)| &list.config);
    let Some(first) = of_room.next() else { return Arc::default() };
    of_room.fold(first.clone(), |sum, config| merged(&sum, config))
}

/// Ranges are inclusive and may overlap.
fn in_ranges<'a, T>(all: &'a [T], ranges: Option<&[(u64, u64)]>) -> Box<dyn Iterator<Item = &'a T> + 'a> {
    let Some(ranges) = ranges else { return Box::new(all.iter()) };
    let index = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(all.len());
    let mut ranges: Vec<_> =
        ranges.iter().map(|(from, to)| (index(*from), index(to.saturating_add(1)))).collect();
    ranges.sort_unstable();
    let mut done = 0;
    let cut = ranges.into_iter().flat_map(move |(from, to)| {
        let from = from.max(done);
        done = done.max(to);
        if from < to { &all[from..to] } else { &[] }
    });
    Box::new(cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_inclusive_overlap_and_end_where_the_list_does() {
        let all: Vec<u32> = (0..10).collect();
        let cut = |ranges: Option<&[(u64, u64)]>| in_ranges(&all, ranges).copied().collect::<Vec<_>>();
        assert_eq!(cut(None), all);
        assert_eq!(cut(Some(&[(0, 2)])), [0, 1, 2]);
        assert_eq!(cut(Some(&[(1, 3), (2, 4)])), [1, 2, 3, 4]);
        assert_eq!(cut(Some(&[(8, u64::MAX)])), [8, 9]);
        assert_eq!(cut(Some(&[(20, 30)])), [0_u32; 0]);
        assert_eq!(cut(Some(&[(5, 2)])), [0_u32; 0], "the wrong way round is nothing");
        assert_eq!(cut(Some(&[(0, 9), (3, 4)])), all);
        assert_eq!(cut(Some(&[])), [0_u32; 0]);
    }
}
