//! Auth chains as bitmaps of event nids: the auth events of an event, theirs, and so on (Server-Server API,
//! "Definitions"). An event is not part of its own chain.

use myelin_core::EventNid;
use roaring::RoaringTreemap;

/// Invariant: closed. With an event, all of that event's auth chain is in it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AuthChain(RoaringTreemap);

#[derive(Debug, thiserror::Error)]
#[error("these bytes are no auth chain: {0}")]
pub struct CorruptChain(#[from] std::io::Error);

impl AuthChain {
    /// The chain of an event, from its auth events and their chains.
    pub fn of<'a>(auth_events: impl IntoIterator<Item = (EventNid, &'a Self)>) -> Self {
        let mut chain = RoaringTreemap::new();
        for (event, its_chain) in auth_events {
            chain |= &its_chain.0;
            chain.insert(event.0);
        }
        Self(chain)
    }

    /// What is in any of these chains.
    pub fn union<'a>(chains: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut union = RoaringTreemap::new();
        chains.into_iter().for_each(|chain| union |= &chain.0);
        Self(union)
    }

    pub fn contains(&self, event: EventNid) -> bool {
        self.0.contains(event.0)
    }

    pub fn iter(&self) -> impl Iterator<Item = EventNid> + '_ {
        self.0.iter().map(EventNid)
    }

    pub fn len(&self) -> u64 {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn bitmap(&self) -> &RoaringTreemap {
        &self.0
    }

    /// The portable roaring format, 64-bit extension.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.serialized_size());
        // Writing to memory does not fail.
        let written = self.0.serialize_into(&mut bytes);
        debug_assert!(written.is_ok());
        bytes
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CorruptChain> {
        Ok(Self(RoaringTreemap::deserialize_from(bytes)?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nids(chain: &AuthChain) -> Vec<u64> {
        chain.iter().map(|nid| nid.0).collect()
    }

    #[test]
    fn a_chain_is_the_auth_events_and_their_chains() {
        let create = AuthChain::default();
        let member = AuthChain::of([(EventNid(1), &create)]);
        let power_levels = AuthChain::of([(EventNid(1), &create), (EventNid(2), &member)]);
        let message = AuthChain::of([(EventNid(3), &power_levels), (EventNid(2), &member)]);
        assert!(create.is_empty());
        assert_eq!(nids(&message), [1, 2, 3]);
        assert_eq!(message.len(), 3);
        assert!(message.contains(EventNid(2)) && !message.contains(EventNid(4)));
    }

    proptest! {
        #[test]
        fn bytes_survive_the_round_trip(nids in prop::collection::btree_set(any::<u64>(), 0..50)) {
            let empty = AuthChain::default();
            let chain = AuthChain::of(nids.iter().map(|nid| (EventNid(*nid), &empty)));
            prop_assert_eq!(AuthChain::from_bytes(&chain.to_bytes()).unwrap(), chain);
        }

        #[test]
        fn bytes_from_anywhere_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            drop(AuthChain::from_bytes(&bytes));
        }
    }

    #[test]
    fn truncated_bytes_are_refused() {
        let chain = AuthChain::of([(EventNid(1), &AuthChain::default())]);
        let bytes = chain.to_bytes();
        assert!(AuthChain::from_bytes(&bytes[..bytes.len() - 1]).is_err());
    }
}
