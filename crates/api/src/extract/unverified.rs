//! Memory for bodies of requests of which nothing is proven until they have been read: bounded altogether and by address.

use std::net::IpAddr;

use http::{HeaderMap, header};
use myelin_core::{
    Counted, Tally,
    address::{is_private, network_of},
};

use super::ClientAddress;
use crate::ApiError;

/// Of all of them together.
const TOTAL_MAX: u64 = 512 * 1024 * 1024;
/// Of those from one address.
const PER_ADDRESS_MAX: u64 = 64 * 1024 * 1024;
/// What somebody is told to wait whose body there is no room for.
const PAUSE_MS: u64 = 2_000;

#[derive(Clone, Default)]
pub struct Unverified {
    total: Tally<()>,
    by_address: Tally<IpAddr>,
}

/// Room for one body, until it is dropped.
pub struct Room {
    _of_total: Counted<()>,
    /// `None` where many may stand behind one address.
    _of_address: Option<Counted<IpAddr>>,
}

impl Unverified {
    /// Room for a body of the size that it announces, else of `max`.
    pub fn admit(&self, address: ClientAddress, headers: &HeaderMap, max: usize) -> Result<Room, ApiError> {
        let refused = || ApiError::limit_exceeded(PAUSE_MS);
        let announced =
            headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let size = announced.unwrap_or(max as u64).min(max as u64);
        let of_address = match is_private(address.0) {
            true => None,
            false => {
                let network = network_of(address.0);
                Some(self.by_address.count(&network, size, PER_ADDRESS_MAX).ok_or_else(refused)?)
            }
        };
        let of_total = self.total.count(&(), size, TOTAL_MAX).ok_or_else(refused)?;
        Ok(Room { _of_total: of_total, _of_address: of_address })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 10 * 1024 * 1024;

    fn rooms(unverified: &Unverified, address: [u8; 4], headers: &HeaderMap) -> Vec<Room> {
        let address = ClientAddress(address.into());
        std::iter::from_fn(|| unverified.admit(address, headers, MAX).ok()).take(1_000).collect()
    }

    #[test]
    fn one_address_gets_only_so_much_and_others_get_theirs() {
        let unverified = Unverified::default();
        let unknown = HeaderMap::new();
        let of_one = rooms(&unverified, [1, 2, 3, 4], &unknown);
        assert_eq!(of_one.len(), 6);
        assert_eq!(rooms(&unverified, [1, 2, 3, 5], &unknown).len(), 6);
        drop(of_one);
        let announced = HeaderMap::from_iter([(header::CONTENT_LENGTH, (1024 * 1024).into())]);
        assert_eq!(rooms(&unverified, [1, 2, 3, 4], &announced).len(), 64);
        assert_eq!(rooms(&unverified, [127, 0, 0, 1], &unknown).len(), 51, "a proxy: only the total counts");
    }

    #[test]
    fn there_is_an_end_to_what_all_get_together() {
        let unverified = Unverified::default();
        let rooms = (0..20).flat_map(|n| rooms(&unverified, [1, 2, 3, n], &HeaderMap::new()));
        assert_eq!(rooms.collect::<Vec<_>>().len(), 51);
    }
}
