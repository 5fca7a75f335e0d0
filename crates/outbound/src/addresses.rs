//! Which IP addresses may be connected to.
//!
//! By default only those of the public Internet: a server name, a DNS record or a redirect from outside must not make
//! this server talk to machines that only it can reach (IANA special-purpose address registries, RFC 6890).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Ranges that are not of the public Internet.
const SPECIAL: &[&str] = &[
    "0.0.0.0/8",       // this network
    "10.0.0.0/8",      // private
    "100.64.0.0/10",   // carrier-grade NAT
    "127.0.0.0/8",     // loopback
    "169.254.0.0/16",  // link-local, metadata services of clouds
    "172.16.0.0/12",   // private
    "192.0.0.0/24",    // protocol assignments
    "192.0.2.0/24",    // documentation
    "192.88.99.0/24",  // 6to4 relays
    "192.168.0.0/16",  // private
    "198.18.0.0/15",   // benchmarks
    "198.51.100.0/24", // documentation
    "203.0.113.0/24",  // documentation
    "224.0.0.0/4",     // multicast
    "240.0.0.0/4",     // reserved, broadcast
    "::/96",           // unspecified, loopback, IPv4-compatible
    "64:ff9b:1::/48",  // local NAT64
    "100::/64",        // discard
    "2001::/23",       // protocol assignments, Teredo, ORCHID
    "2001:db8::/32",   // documentation
    "2002::/16",       // 6to4: carries any IPv4 address
    "3fff::/20",       // documentation
    "5f00::/16",       // segment routing
    "fc00::/7",        // unique local
    "fe80::/10",       // link-local
    "fec0::/10",       // site-local
    "ff00::/8",        // multicast
];

/// The well-known NAT64 prefix: the last 32 bits are an IPv4 address.
const NAT64: [u16; 6] = [0x64, 0xff9b, 0, 0, 0, 0];

/// Denied ranges win over allowed ones, which win over the special ranges.
#[derive(Clone, Debug)]
pub struct AddressPolicy {
    allow: Vec<IpNet>,
    deny: Vec<IpNet>,
    special: Vec<IpNet>,
}

impl AddressPolicy {
    /// The public Internet, and `allow`, without `deny`.
    pub fn new(allow: Vec<IpNet>, deny: Vec<IpNet>) -> Self {
        let special = SPECIAL.iter().filter_map(|range| range.parse().ok()).collect();
        Self { allow, deny, special }
    }

    /// For what the operator of this machine names: every address.
    pub fn everything() -> Self {
        Self { allow: Vec::new(), deny: Vec::new(), special: Vec::new() }
    }

    pub fn permits(&self, address: IpAddr) -> bool {
        let address = plain(address);
        let within = |ranges: &[IpNet]| ranges.iter().any(|range| range.contains(&address));
        !within(&self.deny) && (within(&self.allow) || !within(&self.special))
    }
}

/// IPv4 addresses that wear an IPv6 address are judged as what they are.
fn plain(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => embedded(address).map_or(address.into(), IpAddr::from),
        address => address,
    }
}

fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [prefix @ .., high, low] = address.segments();
    let [a, b] = high.to_be_bytes();
    let [c, d] = low.to_be_bytes();
    (prefix == NAT64).then(|| Ipv4Addr::new(a, b, c, d))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn ranges(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().expect("a range")).collect()
    }

    #[test]
    fn every_special_range_is_understood() {
        assert_eq!(AddressPolicy::new(vec![], vec![]).special.len(), SPECIAL.len());
    }

    #[test]
    fn only_the_public_internet_is_reached_by_default() {
        let policy = AddressPolicy::new(vec![], vec![]);
        for public in
            ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::1.1.1.1", "::ffff:1.1.1.1"]
        {
            assert!(policy.permits(address(public)), "{public}");
        }
        for special in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.31.255.255",
            "192.0.2.7",
            "192.168.1.1",
            "198.19.0.1",
            "203.0.113.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!policy.permits(address(special)), "{special}");
        }
    }

    #[test]
    fn allowed_ranges_open_and_denied_ranges_close() {
        let policy = AddressPolicy::new(
            ranges(&["127.0.0.0/8", "fd00::/8", "10.0.0.0/8"]),
            ranges(&["10.6.0.0/16", "1.1.1.1/32", "::1/128"]),
        );
        for (text, permitted) in [
            ("127.0.0.1", true),
            ("::ffff:127.0.0.1", true),
            ("fd00::1", true),
            ("10.5.0.1", true),
            ("10.6.0.1", false),
            ("1.1.1.1", false),
            ("::ffff:1.1.1.1", false),
            ("::1", false),
            ("192.168.0.1", false),
            ("8.8.8.8", true),
        ] {
            assert_eq!(policy.permits(address(text)), permitted, "{text}");
        }
    }
}
