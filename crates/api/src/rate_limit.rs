//! Rate limits (Client-Server API, "Rate limiting"): the generic cell rate algorithm, one cell per class and user or
//! address.
//!
//! A cell is one number, the *theoretical arrival time*: when the requests so far would have come at the sustained
//! rate. Cells of the past say nothing and are dropped, so memory is bounded by who is active; when even that is too
//! much, the cells closest to idle go first.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::Arc,
};

use axum::extract::FromRequestParts;
use http::request::Parts;
use myelin_core::{Clock, UserNid, address::network_of};
use parking_lot::Mutex;

use crate::{ApiError, AppState, Session, extract::ClientAddress};

/// What a request counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Log-ins and refreshes, by address and by account.
    Login,
    /// Wrong passwords, by account: guessing is slower than signing in.
    FailedLogin,
    /// New accounts, by address.
    Registration,
    /// Checks of user names and registration tokens, by address.
    RegistrationCheck,
    /// Messages, state events, redactions.
    Message,
    /// Joins and knocks.
    Join,
    /// Invites.
    Invite,
    /// New rooms and upgrades.
    RoomCreation,
    /// Display name, avatar and profile fields: each change goes to every room of the user.
    Profile,
    /// Reports of events, rooms and users.
    Report,
    /// Receipts, typing, presence, account data, devices and other small changes.
    Write,
    /// Every authenticated `GET`; counted by [`crate::extract::Auth`].
    Read,
    /// Searches of the user directory and the room directory.
    Search,
    /// Previews of URLs: each may fetch a page and its image.
    UrlPreview,
    /// Looking for the keys of servers that somebody claims to be, or asks this notary about; by address.
    KeyFetch,
    /// What other servers ask for, by server. Not transactions.
    ServerRequest,
    /// Joins, knocks and leaves by way of this server, by server.
    ServerJoin,
    /// Invites from other servers, by server.
    ServerInvite,
    /// The same, by server and invited user.
    InviteReceived,
    /// The same, by invited user.
    UserInvited,
}

/// `burst` requests at once, `per_second` sustained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    pub per_second: f64,
    pub burst: u32,
}

/// One limit per class; see [`Class`].
#[derive(Clone, Debug, PartialEq)]
pub struct RateLimits {
    pub enabled: bool,
    pub login: Limit,
    pub failed_login: Limit,
    pub registration: Limit,
    pub registration_check: Limit,
    pub message: Limit,
    pub join: Limit,
    pub invite: Limit,
    pub room_creation: Limit,
    pub profile: Limit,
    pub report: Limit,
    pub write: Limit,
    pub read: Limit,
    pub search: Limit,
    pub url_preview: Limit,
    pub key_fetch: Limit,
    pub server_request: Limit,
    pub server_join: Limit,
    pub server_invite: Limit,
    pub invite_received: Limit,
    pub user_invited: Limit,
}

impl Default for RateLimits {
    fn default() -> Self {
        let limit = |per_second, burst| Limit { per_second, burst };
        Self {
            enabled: true,
            login: limit(0.2, 10),
            failed_login: limit(0.17, 5),
            registration: limit(0.2, 10),
            registration_check: limit(0.5, 20),
            message: limit(10.0, 100),
            join: limit(0.5, 30),
            invite: limit(0.5, 30),
            room_creation: limit(0.1, 20),
            profile: limit(0.2, 20),
            report: limit(1.0, 5),
            write: limit(20.0, 200),
            read: limit(50.0, 500),
            search: limit(1.0, 100),
            url_preview: limit(1.0, 50),
            key_fetch: limit(10.0, 500),
            server_request: limit(100.0, 3000),
            server_join: limit(5.0, 300),
            server_invite: limit(2.0, 300),
            invite_received: limit(0.05, 30),
            user_invited: limit(0.1, 100),
        }
    }
}

impl RateLimits {
    pub fn off() -> Self {
        Self { enabled: false, ..Self::default() }
    }

    fn of(&self, class: Class) -> Limit {
        match class {
            Class::Login => self.login,
            Class::FailedLogin => self.failed_login,
            Class::Registration => self.registration,
            Class::RegistrationCheck => self.registration_check,
            Class::Message => self.message,
            Class::Join => self.join,
            Class::Invite => self.invite,
            Class::RoomCreation => self.room_creation,
            Class::Profile => self.profile,
            Class::Report => self.report,
            Class::Write => self.write,
            Class::Read => self.read,
            Class::Search => self.search,
            Class::UrlPreview => self.url_preview,
            Class::KeyFetch => self.key_fetch,
            Class::ServerRequest => self.server_request,
            Class::ServerJoin => self.server_join,
            Class::ServerInvite => self.server_invite,
            Class::InviteReceived => self.invite_received,
            Class::UserInvited => self.user_invited,
        }
    }
}

/// Whom a request is counted against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    User(UserNid),
    Address(IpAddr),
    /// A server, or what else has a name, hashed as the process does it.
    Name(u64),
}

impl Subject {
    pub fn address(address: IpAddr) -> Self {
        Self::Address(network_of(address))
    }
}

/// Counts requests and refuses those over the limit. In memory only: a restart forgives.
pub struct RateLimiter {
    clock: Arc<dyn Clock>,
    limits: RateLimits,
    shards: [Mutex<Shard>; SHARDS],
    /// Of the process: nobody can choose a name that counts as another's.
    names: RandomState,
}

/// Theoretical arrival times in microseconds.
type Shard = HashMap<(Class, Subject), u64>;

const SHARDS: usize = 16;
/// About 64 bytes each: at most some 8 MiB in all.
const CELLS_PER_SHARD_MAX: usize = 8192;

impl RateLimiter {
    pub fn new(clock: Arc<dyn Clock>, limits: RateLimits) -> Self {
        let shards = std::array::from_fn(|_| Mutex::default());
        Self { clock, limits, shards, names: RandomState::new() }
    }

    /// Counts a request of a signed-in user. Administrators are not limited.
    pub fn check(&self, class: Class, session: &Session) -> Result<(), ApiError> {
        if session.admin { Ok(()) } else { self.check_subject(class, Subject::User(session.user)) }
    }

    /// Counts a request by where it comes from.
    pub fn check_address(&self, class: Class, address: ClientAddress) -> Result<(), ApiError> {
        self.check_subject(class, Subject::address(address.0))
    }

    /// Counts a request by who is named.
    pub fn check_name(&self, class: Class, name: &str) -> Result<(), ApiError> {
        self.check_subject(class, Subject::Name(self.names.hash_one(name)))
    }

    pub fn check_subject(&self, class: Class, subject: Subject) -> Result<(), ApiError> {
        self.visit(class, subject, true)
    }

    /// Whether there is room for one more, without counting: asked before an attempt whose failure will count.
    pub fn peek(&self, class: Class, subject: Subject) -> Result<(), ApiError> {
        self.visit(class, subject, false)
    }

    fn visit(&self, class: Class, subject: Subject, count: bool) -> Result<(), ApiError> {
        if !self.limits.enabled {
            return Ok(());
        }
        let limit = self.limits.of(class);
        let now_us = self.clock.now_ms() * 1000;
        let mut shard = self.shards[shard_of(subject)].lock();
        let arrival = shard.get(&(class, subject)).copied().unwrap_or(0);
        let next = limit.admit(arrival, now_us).map_err(ApiError::limit_exceeded)?;
        if count {
            make_room(&mut shard, now_us);
            shard.insert((class, subject), next);
        }
        Ok(())
    }

    #[cfg(test)]
    fn cells(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

impl Limit {
    /// The next theoretical arrival time in microseconds, or how many milliseconds to wait.
    fn admit(self, arrival_us: u64, now_us: u64) -> Result<u64, u64> {
        let interval_us = (1_000_000.0 / self.per_second.max(1e-6)) as u64;
        let tolerance_us = interval_us.saturating_mul(u64::from(self.burst.saturating_sub(1)));
        let arrival_us = arrival_us.max(now_us);
        let ahead_us = arrival_us - now_us;
        if ahead_us > tolerance_us {
            return Err((ahead_us - tolerance_us).div_ceil(1000));
        }
        Ok(arrival_us.saturating_add(interval_us))
    }
}

fn shard_of(subject: Subject) -> usize {
    let number = match subject {
        Subject::User(user) => user.0,
        Subject::Name(hash) => hash,
        Subject::Address(IpAddr::V4(v4)) => u64::from(v4.to_bits()),
        Subject::Address(IpAddr::V6(v6)) => (v6.to_bits() >> 64) as u64,
    };
    (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60) as usize
}

/// Drops idle cells when a shard is full; if all are busy, the half that is closest to idle.
fn make_room(shard: &mut Shard, now_us: u64) {
    if shard.len() < CELLS_PER_SHARD_MAX {
        return;
    }
    shard.retain(|_, arrival| *arrival > now_us);
    if shard.len() > CELLS_PER_SHARD_MAX / 2 {
        let mut arrivals: Vec<u64> = shard.values().copied().collect();
        let middle = arrivals.len() / 2;
        let median = *arrivals.select_nth_unstable(middle).1;
        shard.retain(|_, arrival| *arrival > median);
    }
}

/// The limiter as a handler takes it, knowing where the request comes from.
pub struct Limits {
    limiter: Arc<RateLimiter>,
    address: ClientAddress,
}

impl Limits {
    pub fn check(&self, class: Class, session: &Session) -> Result<(), ApiError> {
        self.limiter.check(class, session)
    }

    pub fn check_address(&self, class: Class) -> Result<(), ApiError> {
        self.limiter.check_address(class, self.address)
    }

    pub fn address(&self) -> IpAddr {
        self.address.0
    }
}

impl FromRequestParts<AppState> for Limits {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Self::Rejection> {
        let address = ClientAddress::of(parts, &state.config().trusted_proxies);
        Ok(Self { limiter: axum::extract::FromRef::from_ref(state), address })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use myelin_testenv::Sim;

    use super::*;

    fn limiter(sim: &Sim, per_second: f64, burst: u32) -> RateLimiter {
        let limits = RateLimits { message: Limit { per_second, burst }, ..RateLimits::default() };
        RateLimiter::new(sim.env().clock, limits)
    }

    const USER: Subject = Subject::User(UserNid(1));

    #[test]
    fn a_burst_then_the_sustained_rate() {
        let sim = Sim::new(1);
        let limiter = limiter(&sim, 2.0, 3);
        let allowed = || limiter.check_subject(Class::Message, USER).is_ok();
        assert_eq!([allowed(), allowed(), allowed(), allowed()], [true, true, true, false]);
        sim.clock().advance(Duration::from_millis(499));
        assert!(!allowed());
        sim.clock().advance(Duration::from_millis(1));
        assert_eq!([allowed(), allowed()], [true, false]);
        sim.clock().advance(Duration::from_secs(3600));
        assert_eq!([allowed(), allowed(), allowed(), allowed()], [true, true, true, false]);
    }

    #[test]
    fn the_refusal_says_when_to_come_back() {
        let sim = Sim::new(1);
        let limiter = limiter(&sim, 0.5, 1);
        limiter.check_subject(Class::Message, USER).unwrap();
        let error = limiter.check_subject(Class::Message, USER).unwrap_err();
        assert_eq!((error.status().as_u16(), error.errcode()), (429, "M_LIMIT_EXCEEDED"));
        sim.clock().advance(Duration::from_secs(2));
        limiter.check_subject(Class::Message, USER).unwrap();
    }

    #[test]
    fn classes_and_subjects_do_not_share() {
        let sim = Sim::new(1);
        let limiter = limiter(&sim, 0.1, 1);
        limiter.check_subject(Class::Message, USER).unwrap();
        limiter.check_subject(Class::Read, USER).unwrap();
        limiter.check_subject(Class::Message, Subject::User(UserNid(2))).unwrap();
        limiter.check_subject(Class::Message, Subject::address([127, 0, 0, 1].into())).unwrap();
        limiter.check_subject(Class::Message, USER).unwrap_err();
    }

    #[test]
    fn peeking_does_not_count() {
        let sim = Sim::new(1);
        let limiter = limiter(&sim, 0.1, 1);
        limiter.peek(Class::Message, USER).unwrap();
        limiter.peek(Class::Message, USER).unwrap();
        limiter.check_subject(Class::Message, USER).unwrap();
        limiter.peek(Class::Message, USER).unwrap_err();
    }

    #[test]
    fn memory_is_bounded() {
        let sim = Sim::new(1);
        let limiter = limiter(&sim, 0.001, 5);
        for user in 0..(2 * SHARDS * CELLS_PER_SHARD_MAX) as u64 {
            limiter.check_subject(Class::Message, Subject::User(UserNid(user))).unwrap();
        }
        assert!(limiter.cells() <= SHARDS * CELLS_PER_SHARD_MAX, "{}", limiter.cells());
    }
}
