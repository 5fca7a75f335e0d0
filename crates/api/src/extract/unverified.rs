//! Memory for bodies of requests of which nothing is proven until they have been read: bounded altogether and by address.
//!
//! What has arrived counts, not what is announced. An address may hold a part of what the others leave free: the more are
//! at it, the less each gets, and there is always something left for one that holds little.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use myelin_core::address::{is_private, network_of};
use parking_lot::Mutex;

use super::ClientAddress;
use crate::ApiError;

/// Of all of them together.
const TOTAL_MAX: u64 = 512 * 1024 * 1024;
/// What is free, divided by this, is what one address may hold.
const SHARE: u64 = 8;
/// The same of one that many may stand behind.
const SHARE_OF_MANY: u64 = 1;
/// What somebody is told to wait whose body there is no room for.
const PAUSE_MS: u64 = 2_000;

#[derive(Clone, Default)]
pub struct Unverified(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    total: u64,
    /// Whoever holds nothing takes no memory.
    by_address: HashMap<IpAddr, u64>,
}

/// What one body takes, until it is dropped.
pub struct Room {
    unverified: Unverified,
    network: IpAddr,
    share: u64,
    size: u64,
}

impl Unverified {
    /// For a body from this address, nothing of which has arrived.
    pub fn room(&self, address: ClientAddress) -> Room {
        let share = if is_private(address.0) { SHARE_OF_MANY } else { SHARE };
        Room { unverified: self.clone(), network: network_of(address.0), share, size: 0 }
    }
}

impl Room {
    /// So much more of the body has arrived.
    pub fn grow(&mut self, size: u64) -> Result<(), ApiError> {
        let held = &mut *self.unverified.0.lock();
        let of_address = held.by_address.get(&self.network).copied().unwrap_or(0).saturating_add(size);
        if of_address > TOTAL_MAX.saturating_sub(held.total) / self.share {
            return Err(ApiError::limit_exceeded(PAUSE_MS));
        }
        if size > 0 {
            held.by_address.insert(self.network, of_address);
            held.total = held.total.saturating_add(size);
            self.size = self.size.saturating_add(size);
        }
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let held = &mut *self.unverified.0.lock();
        held.total = held.total.saturating_sub(self.size);
        if let Some(of_address) = held.by_address.get_mut(&self.network) {
            *of_address = of_address.saturating_sub(self.size);
            if *of_address == 0 {
                held.by_address.remove(&self.network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    /// Rooms of a MiB each, as many as there are.
    fn filled(unverified: &Unverified, address: [u8; 4]) -> Vec<Room> {
        let one = || {
            let mut room = unverified.room(ClientAddress(address.into()));
            room.grow(MIB).is_ok().then_some(room)
        };
        std::iter::from_fn(one).take(1_000).collect()
    }

    #[test]
    fn who_only_announces_holds_nothing() {
        let unverified = Unverified::default();
        let _idle: Vec<_> =
            (0..10_000).map(|_| unverified.room(ClientAddress([1, 2, 3, 4].into()))).collect();
        assert_eq!(filled(&unverified, [1, 2, 3, 4]).len(), 57);
    }

    #[test]
    fn however_many_are_at_it_there_is_something_left() {
        let unverified = Unverified::default();
        let mut held: Vec<_> = (0..200).map(|n| filled(&unverified, [1, 2, 3, n])).collect();
        let counts: Vec<_> = held.iter().map(Vec::len).collect();
        assert_eq!(counts[..4], [57, 50, 45, 40]);
        assert!(counts.iter().sum::<usize>() < 512 && counts[199] == 0, "{counts:?}");
        let mut small = unverified.room(ClientAddress([9, 9, 9, 9].into()));
        assert!(small.grow(64 * 1024).is_ok() && small.grow(MIB).is_err());
        drop(held.drain(..50));
        assert!(small.grow(MIB).is_ok(), "what has ended does not count");
        drop((small, held));
        let held = unverified.0.lock();
        assert!(held.total == 0 && held.by_address.is_empty());
    }

    #[test]
    fn behind_a_proxy_half_of_it_is_for_all() {
        let unverified = Unverified::default();
        let held = filled(&unverified, [127, 0, 0, 1]);
        assert_eq!(held.len(), 256);
        assert_eq!(filled(&unverified, [1, 2, 3, 4]).len(), 28);
    }
}
