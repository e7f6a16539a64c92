//! Which addresses the server may connect to for others: public ones, and private ones that the operator lists. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A range of addresses, such as `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    /// Leading bits that must be equal.
    bits: u32,
}

impl Network {
    /// True if `address` lies in it.
    fn holds(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => (own.to_bits() ^ other.to_bits()).leading_zeros() >= self.bits,
            (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits() ^ other.to_bits()).leading_zeros() >= self.bits,
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || format!("{text:?} must be an address or a range of addresses, such as 10.0.0.0/8");
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| fault())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), |bits| bits.parse().ok().filter(|bits| *bits <= most).ok_or_else(fault))?;
        Ok(Self { address, bits })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// True if the server may connect to `address`.
pub(super) fn may_connect(address: IpAddr, listed: &[Network]) -> bool {
    let address = address.to_canonical();
    is_public(address) || listed.iter().any(|network| network.holds(address))
}

/// True for addresses of the open internet: none of this machine, of its site, of a provider's inside, or without a meaning of its own (the
/// special-purpose registries of RFC 6890).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = matches!(
        (a, b, c),
        (0 | 10 | 127 | 224.., ..)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (192, 168, _)
            | (198, 18..=19, _)
            | (198, 51, 100)
            | (203, 0, 113)
    );
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    // Global unicast, without what leads to an IPv4 address (6to4, Teredo) and what stands for nothing.
    (0x2000..=0x3fff).contains(&a) && a != 0x2002 && !(a == 0x2001 && (b < 0x200 || b == 0xdb8)) && !(a == 0x3fff && b < 0x1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(address: &str, listed: &[&str]) -> bool {
        let listed: Vec<Network> = listed.iter().map(|network| network.parse().unwrap()).collect();
        may_connect(address.parse().unwrap(), &listed)
    }

    #[test]
    fn only_public_addresses_are_connected_to() {
        for public in ["8.8.8.8", "100.63.0.1", "172.32.0.1", "192.169.0.1", "223.255.255.255", "2606:4700::1111", "::ffff:8.8.8.8"] {
            assert!(ok(public, &[]), "{public}");
        }
        let private = [
            "0.0.0.0",
            "127.0.0.1",
            "127.9.9.9",
            "10.1.2.3",
            "100.64.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "::127.0.0.1",
            "fec0::1",
        ];
        for private in private {
            assert!(!ok(private, &[]), "{private}");
        }
    }

    #[test]
    fn listed_networks_are_open_and_no_others() {
        assert!(ok("10.1.2.3", &["10.1.0.0/16"]) && !ok("10.2.2.3", &["10.1.0.0/16"]));
        assert!(ok("127.0.0.1", &["127.0.0.1"]) && !ok("127.0.0.2", &["127.0.0.1"]) && ok("::ffff:127.0.0.1", &["127.0.0.1"]));
        assert!(ok("fd00::5", &["fd00::/8"]) && !ok("fe80::1", &["fd00::/8", "0.0.0.0/0"]) && ok("::1", &["::/0"]));
        for bad in ["", "10", "10.0.0.0/33", "fd00::/129", "10.0.0.0/", "10.0.0.0/x", "example.com"] {
            assert!(bad.parse::<Network>().unwrap_err().contains("10.0.0.0/8"), "{bad}");
        }
    }
}
