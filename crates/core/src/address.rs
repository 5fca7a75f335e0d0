//! IP addresses as limits see them.

use std::net::IpAddr;

/// What counts as one address: an IPv6 network of 64 bits belongs to one customer.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
        v4 => v4,
    }
}

/// Whether it is of the operator's own network: many may stand behind it, as behind a reverse proxy.
pub fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_network_is_one_address() {
        let network = |text: &str| network_of(text.parse().expect("an address"));
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:2"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
    }

    #[test]
    fn the_operators_own_networks_are_known() {
        for (address, own) in [
            ("127.0.0.1", true),
            ("10.1.2.3", true),
            ("172.17.0.1", true),
            ("::1", true),
            ("fd00::1", true),
            ("::ffff:192.168.0.1", true),
            ("172.32.0.1", false),
            ("1.1.1.1", false),
            ("2600::1", false),
        ] {
            assert_eq!(is_private(address.parse().expect("an address")), own, "{address}");
        }
    }
}
