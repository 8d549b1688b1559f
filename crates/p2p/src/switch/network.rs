//! Networks: addresses that are likely in one hand.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

/// Bits of an IPv6 address that name a site; the rest it hands out as it likes.
const SITE: u32 = 64;
/// Bits of an IPv4 address that name what is usually rented together.
const BLOCK: u32 = 24;
/// New peers of one network at most within [`PERIOD`]. Fewer would keep a provider's nodes out after
/// an outage; more, and silent ids that come and go would cost as much as they like.
const MAX_ARRIVALS: usize = 30;
const PERIOD: Duration = Duration::from_secs(60);
/// Networks whose arrivals are remembered; beyond it the one that was quiet for the longest goes.
const MAX_NETWORKS: usize = 4096;

/// A /24 or a /64 of public addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Network(IpAddr);

impl Network {
    /// The network of an address; none for loopback and private ones, which nobody comes from whom
    /// the operator does not know.
    pub(super) fn of(ip: IpAddr) -> Option<Self> {
        let is_own = match ip {
            IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
            IpAddr::V6(ip) => {
                ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()
            }
        };
        (!is_own).then(|| match ip {
            IpAddr::V4(ip) => Self(masked_v4(ip).into()),
            IpAddr::V6(ip) => Self(masked_v6(ip).into()),
        })
    }
}

/// What a ban of an address covers: of IPv6 the whole site.
pub(super) fn site(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(ip) if !ip.is_loopback() => masked_v6(ip).into(),
        _ => ip,
    }
}

fn masked_v4(ip: Ipv4Addr) -> Ipv4Addr {
    Ipv4Addr::from_bits(ip.to_bits() & (u32::MAX << (u32::BITS - BLOCK)))
}

fn masked_v6(ip: Ipv6Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << (u128::BITS - SITE)))
}

/// When inbound peers of each network came, of late.
#[derive(Debug, Default)]
pub(super) struct Arrivals(HashMap<Network, VecDeque<Instant>>);

impl Arrivals {
    /// Whether no more may come from a network for now.
    pub(super) fn are_too_many(&self, now: Instant, network: Network) -> bool {
        let times = self.0.get(&network);
        times.is_some_and(|times| {
            let recent = times.iter().filter(|&&at| at + PERIOD > now);
            recent.count() >= MAX_ARRIVALS
        })
    }

    pub(super) fn note(&mut self, now: Instant, network: Network) {
        if self.0.len() >= MAX_NETWORKS && !self.0.contains_key(&network) {
            let latest = |times: &VecDeque<Instant>| times.back().copied();
            let quiet = self.0.iter().min_by_key(|(_, times)| latest(times));
            if let Some(quiet) = quiet.map(|(&network, _)| network) {
                self.0.remove(&quiet);
            }
        }
        let times = self.0.entry(network).or_default();
        times.push_back(now);
        if times.len() > MAX_ARRIVALS {
            times.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn neighbours_are_one_network_and_own_addresses_none() {
        for (one, other) in [
            ("203.0.113.7", "203.0.113.200"),
            ("2001:db8:1:2::3", "2001:db8:1:2:ffff::9"),
        ] {
            assert_eq!(Network::of(ip(one)), Network::of(ip(other)));
            assert!(Network::of(ip(one)).is_some());
        }
        for (one, other) in [
            ("203.0.113.7", "203.0.114.7"),
            ("2001:db8:1:2::3", "2001:db8:1:3::3"),
        ] {
            assert_ne!(Network::of(ip(one)), Network::of(ip(other)));
        }
        for own in [
            "127.0.3.4",
            "10.1.2.3",
            "192.168.0.1",
            "::1",
            "fd00::1",
            "fe80::1",
        ] {
            assert_eq!(Network::of(ip(own)), None, "{own}");
        }
    }

    #[test]
    fn a_ban_covers_a_site() {
        assert_eq!(site(ip("2001:db8::7")), site(ip("2001:db8::8:1")));
        assert_eq!(site(ip("203.0.113.7")), ip("203.0.113.7"));
        assert_eq!(site(ip("::1")), ip("::1"));
    }

    #[test]
    fn arrivals_are_bounded() {
        let now = Instant::now();
        let mut arrivals = Arrivals::default();
        for number in 0..=u32::try_from(MAX_NETWORKS).unwrap() {
            let network = Network::of(Ipv4Addr::from_bits(0x5000_0000 + (number << 8)).into());
            arrivals.note(now + Duration::from_millis(number.into()), network.unwrap());
        }
        assert_eq!(arrivals.0.len(), MAX_NETWORKS);
        let one = Network::of(ip("203.0.113.7")).unwrap();
        for _ in 0..2 * MAX_ARRIVALS {
            arrivals.note(now, one);
        }
        assert_eq!(arrivals.0[&one].len(), MAX_ARRIVALS);
        assert!(arrivals.are_too_many(now, one));
        assert!(!arrivals.are_too_many(now + PERIOD, one));
    }
}
