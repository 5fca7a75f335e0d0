//! How many connections may be open: altogether, and from one address.

use std::{net::IpAddr, sync::Arc};

use myelin_core::{
    Counted, Tally,
    address::{is_private, network_of},
};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

pub struct Connections {
    places: Arc<Semaphore>,
    by_address: Tally<IpAddr>,
    per_address_max: u64,
    /// Everybody comes from there.
    proxies: Vec<IpAddr>,
}

/// What an open connection holds.
pub struct Place {
    _place: OwnedSemaphorePermit,
    /// `None` where many stand behind one address.
    _of_address: Option<Counted<IpAddr>>,
}

impl Connections {
    pub fn new(max: usize, per_address_max: u32, proxies: Vec<IpAddr>) -> Self {
        let places = Arc::new(Semaphore::new(max));
        Self { places, by_address: Tally::default(), per_address_max: per_address_max.into(), proxies }
    }

    /// Waits until there may be one more connection.
    pub async fn vacancy(&self) -> Result<OwnedSemaphorePermit, AcquireError> {
        self.places.clone().acquire_owned().await
    }

    /// `None` if there are too many from that address already.
    pub fn admit(&self, peer: IpAddr, place: OwnedSemaphorePermit) -> Option<Place> {
        let peer = peer.to_canonical();
        let of_address = match is_private(peer) || self.proxies.contains(&peer) {
            true => None,
            false => Some(self.by_address.count(&network_of(peer), 1, self.per_address_max)?),
        };
        Some(Place { _place: place, _of_address: of_address })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn admitted(connections: &Connections, peer: &str) -> Option<Place> {
        let place = connections.vacancy().await.expect("a place");
        connections.admit(peer.parse().expect("an address"), place)
    }

    #[tokio::test]
    async fn one_address_gets_only_so_many_and_proxies_get_all() {
        let proxy = "203.0.113.1";
        let connections = Connections::new(100, 2, vec![proxy.parse().expect("an address")]);
        let first = admitted(&connections, "198.51.100.1").await;
        let second = admitted(&connections, "198.51.100.1").await;
        assert!(first.is_some() && second.is_some());
        assert!(admitted(&connections, "198.51.100.1").await.is_none());
        assert!(admitted(&connections, "198.51.100.2").await.is_some());
        let mut of_proxies = Vec::new();
        for peer in [proxy, proxy, proxy, "127.0.0.1", "127.0.0.1", "127.0.0.1"] {
            of_proxies.push(admitted(&connections, peer).await);
        }
        assert!(of_proxies.iter().all(Option::is_some));
        drop(first);
        assert!(admitted(&connections, "198.51.100.1").await.is_some());
    }
}
