//! Who was let go of as slow.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use perihelion_p2p::PeerHandle;
use perihelion_types::PeerId;
use tokio::time::Instant;

/// For how long a peer that was let go of as slow comes behind others. Shorter, and of honest peers that
/// are all slow none gets a large block through before another one holds it up again: at 175 kB/s one of
/// 100 MB takes this long. Longer, and a link that was slow for a while is passed over for longer.
const BEHIND: Duration = Duration::from_secs(600);

/// Ids and sites that are remembered each at most. Fewer would let liars push one another out by coming
/// under new ids; a site or an id is some 50 bytes.
const REMEMBERED: usize = 1024;

/// Peers that were let go of as slow of late. They may come again: where nobody else is there the node
/// needs them.
#[derive(Debug, Default)]
pub(crate) struct Slow {
    ids: HashMap<PeerId, Instant>,
    /// Ids cost nothing.
    sites: HashMap<IpAddr, Instant>,
}

impl Slow {
    /// A peer is let go of.
    pub(crate) fn note(&mut self, now: Instant, peer: &PeerHandle) {
        self.insert(now, peer.id(), peer.site());
    }

    /// Until when a peer comes behind others, if it does.
    pub(crate) fn until(&self, now: Instant, peer: &PeerHandle) -> Option<Instant> {
        self.latest(now, peer.id(), peer.site())
    }

    fn insert(&mut self, now: Instant, id: PeerId, site: Option<IpAddr>) {
        remember(&mut self.ids, now, id);
        if let Some(site) = site {
            remember(&mut self.sites, now, site);
        }
    }

    fn latest(&self, now: Instant, id: PeerId, site: Option<IpAddr>) -> Option<Instant> {
        let by_id = self.ids.get(&id);
        let by_site = site.and_then(|site| self.sites.get(&site));
        let latest = by_id.max(by_site).copied()?;
        (now < latest).then_some(latest)
    }
}

/// Remembers a key, for the one whose time ends first where there are too many.
fn remember<K: Copy + Eq + std::hash::Hash>(known: &mut HashMap<K, Instant>, now: Instant, key: K) {
    known.retain(|_, until| now < *until);
    if known.len() >= REMEMBERED
        && !known.contains_key(&key)
        && let Some((&first, _)) = known.iter().min_by_key(|(_, until)| **until)
    {
        known.remove(&first);
    }
    known.insert(key, now + BEHIND);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> PeerId {
        let mut bytes = [0; 20];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        PeerId::new(bytes)
    }

    const SITE: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 7)));

    #[test]
    fn a_slow_peer_and_its_site_are_behind_for_a_while_and_nobody_else() {
        let now = Instant::now();
        let mut slow = Slow::default();
        slow.insert(now, id(1), SITE);
        slow.insert(now, id(2), None);
        let until = Some(now + BEHIND);
        let soon = now + BEHIND - Duration::from_secs(1);
        for (peer, site, expected) in [
            (1, SITE, until),
            (1, None, until),
            (2, None, until),
            (9, SITE, until),
            (9, None, None),
        ] {
            assert_eq!(slow.latest(soon, id(peer), site), expected, "{peer}");
            assert_eq!(slow.latest(now + BEHIND, id(peer), site), None);
        }
        // It was slow again, elsewhere.
        slow.insert(soon, id(1), None);
        assert_eq!(slow.latest(soon, id(1), SITE), Some(soon + BEHIND));
        assert_eq!(slow.latest(soon, id(9), SITE), until);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let now = Instant::now();
        let mut slow = Slow::default();
        for number in 0..=REMEMBERED {
            let at = now + Duration::from_millis(number as u64);
            slow.insert(at, id(number), None);
        }
        let end = now + Duration::from_secs(60);
        assert_eq!(slow.ids.len(), REMEMBERED);
        assert_eq!(slow.latest(end, id(0), None), None);
        assert!(slow.latest(end, id(1), None).is_some());
        slow.insert(end + BEHIND, id(1), None);
        assert_eq!(slow.ids.len(), 1);
    }
}
