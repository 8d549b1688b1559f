//! Who may connect: limits, bans, and who is connected. Pure: the time comes in as an argument.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

use perihelion_crypto::NodeId;

use super::network::{Arrivals, Network, site};
use crate::{P2pConfig, RejectReason};

/// Bans kept at most, of ids and of addresses each; beyond it the one that ends first goes.
const MAX_BANS: usize = 10_000;
/// How long a peer stays away after a connection that it lost by its own fault. Shorter, and who
/// breaks the protocol could do so again and again; longer, and a mended node would wait.
const FAULT_PAUSE: Duration = Duration::from_secs(30);
/// Of the inbound places, those of one network: whoever rents a /24 or a /64 must not have them all.
const NETWORK_SHARE: usize = 4;
/// Peers that are persistent or unconditional, each kind, beyond which none is made so while the node
/// runs. Each persistent one is dialled for ever.
pub(super) const MAX_NAMED: usize = 1000;
/// Disconnects remembered at most, for people to read.
const MAX_RECENT: usize = 64;

/// Somebody who wants to become a peer and has proven its id.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub(super) id: NodeId,
    pub(super) ip: IpAddr,
    pub(super) outbound: bool,
}

/// The peers of a switch. `P` is what is kept of each, `D` of each disconnect.
#[derive(Debug)]
pub(super) struct PeerTable<P, D> {
    myself: NodeId,
    max_inbound: usize,
    max_outbound: usize,
    allow_duplicate_ip: bool,
    persistent: HashSet<NodeId>,
    unconditional: HashSet<NodeId>,
    peers: HashMap<NodeId, Entry<P>>,
    banned_ids: Bans<NodeId>,
    banned_ips: Bans<IpAddr>,
    arrivals: Arrivals,
    recent: VecDeque<D>,
}

#[derive(Debug)]
struct Entry<P> {
    candidate: Candidate,
    peer: P,
}

impl<P, D> PeerTable<P, D> {
    pub(super) fn new(myself: NodeId, config: &P2pConfig) -> Self {
        Self {
            myself,
            max_inbound: config.max_num_inbound_peers,
            max_outbound: config.max_num_outbound_peers,
            allow_duplicate_ip: config.allow_duplicate_ip,
            persistent: config.persistent_peers.iter().map(|peer| peer.id).collect(),
            unconditional: config.unconditional_peer_ids.iter().copied().collect(),
            peers: HashMap::new(),
            banned_ids: Bans::default(),
            banned_ips: Bans::default(),
            arrivals: Arrivals::default(),
            recent: VecDeque::new(),
        }
    }

    /// Gives a candidate a place, with what `peer` makes.
    pub(super) fn admit(
        &mut self,
        now: Instant,
        candidate: Candidate,
        peer: impl FnOnce() -> P,
    ) -> Result<&P, RejectReason> {
        self.check(now, &candidate)?;
        if let Some(network) = self.limited_network(&candidate) {
            self.arrivals.note(now, network);
        }
        let entry = self.peers.entry(candidate.id);
        Ok(&entry
            .insert_entry(Entry {
                candidate,
                peer: peer(),
            })
            .into_mut()
            .peer)
    }

    /// Whether a candidate may become a peer.
    pub(super) fn check(&self, now: Instant, candidate: &Candidate) -> Result<(), RejectReason> {
        let Candidate { id, ip, outbound } = *candidate;
        if id == self.myself {
            return Err(RejectReason::Myself);
        }
        if let Some(why) = self.banned_ids.reason(now, &id) {
            return Err(RejectReason::Banned(why.to_owned()));
        }
        if self.peers.contains_key(&id) {
            return Err(RejectReason::DuplicateId);
        }
        let named = self.is_persistent(&id) || self.unconditional.contains(&id);
        if !named {
            self.check_ip(now, ip)?;
        }
        let taken = || {
            let peers = self.peers.values().map(|entry| &entry.candidate);
            peers
                .filter(|peer| peer.outbound == outbound && self.is_counted(peer))
                .count()
        };
        if !self.is_counted(candidate) {
            Ok(())
        } else if outbound && taken() >= self.max_outbound {
            Err(RejectReason::OutboundFull(self.max_outbound))
        } else if !outbound && taken() >= self.max_inbound {
            Err(RejectReason::InboundFull(self.max_inbound))
        } else {
            self.check_network(now, candidate)
        }
    }

    /// Whether the network of an inbound candidate has a place for it, and not too many came from it
    /// of late.
    fn check_network(&self, now: Instant, candidate: &Candidate) -> Result<(), RejectReason> {
        let Some(network) = self.limited_network(candidate) else {
            return Ok(());
        };
        let places = (self.max_inbound / NETWORK_SHARE).max(1);
        let peers = self.peers.values().map(|entry| &entry.candidate);
        let taken = peers.filter(|peer| self.limited_network(peer) == Some(network));
        if taken.count() >= places {
            Err(RejectReason::NetworkFull(places))
        } else if self.arrivals.are_too_many(now, network) {
            Err(RejectReason::NetworkCrowded)
        } else {
            Ok(())
        }
    }

    /// The network whose share of the inbound places a peer takes from. Where several peers may come
    /// from one address, the operator knows them.
    fn limited_network(&self, peer: &Candidate) -> Option<Network> {
        let is_limited = !peer.outbound && !self.allow_duplicate_ip && self.is_counted(peer);
        let is_named = self.is_persistent(&peer.id);
        (is_limited && !is_named)
            .then(|| Network::of(peer.ip))
            .flatten()
    }

    /// Whether somebody of this address who has not proven any id may go on.
    pub(super) fn check_ip(&self, now: Instant, ip: IpAddr) -> Result<(), RejectReason> {
        if let Some(why) = self.banned_ips.reason(now, &site(ip)) {
            return Err(RejectReason::Banned(why.to_owned()));
        }
        let mut peers = self.peers.values();
        if !self.allow_duplicate_ip && peers.any(|entry| entry.candidate.ip == ip) {
            return Err(RejectReason::DuplicateIp);
        }
        Ok(())
    }

    /// Whether the address is banned.
    pub(super) fn check_ip_ban(&self, now: Instant, ip: IpAddr) -> Result<(), RejectReason> {
        self.banned_ips
            .reason(now, &site(ip))
            .map_or(Ok(()), |why| Err(RejectReason::Banned(why.to_owned())))
    }

    /// A peer is gone. After a fault of its own it may not come back at once, unless it is named in
    /// the configuration.
    pub(super) fn remove(
        &mut self,
        now: Instant,
        id: &NodeId,
        disconnect: D,
        fault: Option<String>,
    ) {
        self.peers.remove(id);
        if let Some(fault) = fault
            && !self.is_persistent(id)
            && !self.unconditional.contains(id)
        {
            self.ban(now, *id, FAULT_PAUSE, fault);
        }
        if self.recent.len() == MAX_RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(disconnect);
    }

    pub(super) fn ban(&mut self, now: Instant, id: NodeId, duration: Duration, why: String) {
        self.banned_ids.insert(now, id, duration, why);
    }

    pub(super) fn ban_ip(&mut self, now: Instant, ip: IpAddr, duration: Duration, why: String) {
        self.banned_ips.insert(now, site(ip), duration, why);
    }

    /// Until when an id is banned.
    pub(super) fn banned_until(&self, now: Instant, id: &NodeId) -> Option<Instant> {
        self.banned_ids.until(now, id)
    }

    /// Whether so many peers may be made persistent, or unconditional, if they are not yet.
    pub(super) fn may_name(&self, ids: &[NodeId], persistent: bool, unconditional: bool) -> bool {
        let fit = |named: &HashSet<NodeId>| {
            let new: HashSet<_> = ids.iter().filter(|id| !named.contains(*id)).collect();
            new.is_empty() || named.len() + new.len() <= MAX_NAMED
        };
        (!persistent || fit(&self.persistent)) && (!unconditional || fit(&self.unconditional))
    }

    /// Makes a peer persistent; whether it was not before.
    pub(super) fn make_persistent(&mut self, id: NodeId) -> bool {
        self.persistent.insert(id)
    }

    /// Makes a peer unconditional.
    pub(super) fn make_unconditional(&mut self, id: NodeId) {
        self.unconditional.insert(id);
    }

    pub(super) fn is_persistent(&self, id: &NodeId) -> bool {
        self.persistent.contains(id)
    }

    pub(super) fn get(&self, id: &NodeId) -> Option<&P> {
        self.peers.get(id).map(|entry| &entry.peer)
    }

    pub(super) fn peers(&self) -> impl Iterator<Item = &P> {
        self.peers.values().map(|entry| &entry.peer)
    }

    pub(super) fn recent(&self) -> impl Iterator<Item = &D> {
        self.recent.iter()
    }

    /// Whether a peer takes one of the limited places of its direction.
    fn is_counted(&self, peer: &Candidate) -> bool {
        let dialled_by_name = peer.outbound && self.is_persistent(&peer.id);
        !dialled_by_name && !self.unconditional.contains(&peer.id)
    }
}

/// Who is banned, until when and why.
#[derive(Debug)]
struct Bans<K>(HashMap<K, (Instant, String)>);

impl<K> Default for Bans<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Copy + Eq + std::hash::Hash> Bans<K> {
    /// Bans for a time, or for longer than before.
    fn insert(&mut self, now: Instant, key: K, duration: Duration, why: String) {
        let until = now + duration;
        self.0.retain(|_, (until, _)| *until > now);
        if self.0.len() >= MAX_BANS
            && !self.0.contains_key(&key)
            && let Some(first) = self.0.iter().min_by_key(|(_, (until, _))| *until)
        {
            let first = *first.0;
            self.0.remove(&first);
        }
        let ban = self.0.entry(key).or_insert((until, why));
        ban.0 = ban.0.max(until);
    }

    fn reason(&self, now: Instant, key: &K) -> Option<&str> {
        self.0
            .get(key)
            .filter(|(until, _)| *until > now)
            .map(|(_, why)| why.as_str())
    }

    fn until(&self, now: Instant, key: &K) -> Option<Instant> {
        self.0
            .get(key)
            .map(|(until, _)| *until)
            .filter(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PeerAddress;

    type Table = PeerTable<(), &'static str>;

    fn id(byte: u8) -> NodeId {
        NodeId::new([byte; 20])
    }

    fn candidate(byte: u8, outbound: bool) -> Candidate {
        Candidate {
            id: id(byte),
            ip: IpAddr::from([127, 0, 0, byte]),
            outbound,
        }
    }

    fn table(change: impl FnOnce(&mut P2pConfig)) -> Table {
        let mut config = P2pConfig::default();
        change(&mut config);
        PeerTable::new(id(0), &config)
    }

    fn admit(table: &mut Table, now: Instant, candidate: Candidate) -> Result<(), RejectReason> {
        table.admit(now, candidate, || ()).copied()
    }

    #[test]
    fn limits_count_each_direction_and_free_places_again() {
        let now = Instant::now();
        let mut table = table(|config| {
            config.max_num_inbound_peers = 2;
            config.max_num_outbound_peers = 1;
        });
        for byte in [1, 2] {
            admit(&mut table, now, candidate(byte, false)).unwrap();
        }
        assert_eq!(
            admit(&mut table, now, candidate(3, false)),
            Err(RejectReason::InboundFull(2))
        );
        admit(&mut table, now, candidate(3, true)).unwrap();
        assert_eq!(
            admit(&mut table, now, candidate(4, true)),
            Err(RejectReason::OutboundFull(1))
        );
        table.remove(now, &id(1), "gone", None);
        admit(&mut table, now, candidate(4, false)).unwrap();
        assert_eq!(table.recent().collect::<Vec<_>>(), [&"gone"]);
    }

    fn from(number: u16, ip: [u16; 8]) -> Candidate {
        let mut id = [9; 20];
        id[..2].copy_from_slice(&number.to_be_bytes());
        let ip = std::net::Ipv6Addr::from(ip);
        Candidate {
            id: NodeId::new(id),
            ip: ip.to_ipv4_mapped().map_or(ip.into(), IpAddr::from),
            outbound: false,
        }
    }

    /// An address of one /64, and one of one /24.
    fn neighbours(number: u16) -> [[u16; 8]; 2] {
        let v4 = [0, 0, 0, 0, 0, 0xffff, 0xcb00, 0x7100 + number];
        [[0x2001, 0xdb8, 0, 0, number, 0, 0, 1], v4]
    }

    #[test]
    fn one_network_does_not_get_all_inbound_places() {
        let now = Instant::now();
        for kind in 0..2 {
            let mut table = table(|_| {});
            for number in 0..10 {
                admit(&mut table, now, from(number, neighbours(number)[kind])).unwrap();
            }
            let next = from(10, neighbours(10)[kind]);
            let refused = Err(RejectReason::NetworkFull(10));
            assert_eq!(admit(&mut table, now, next), refused);
            let dialled = Candidate {
                outbound: true,
                ..next
            };
            admit(&mut table, now, dialled).unwrap();
            let elsewhere = from(11, neighbours(11)[1 - kind]);
            admit(&mut table, now, elsewhere).unwrap();
        }
    }

    #[test]
    fn one_network_does_not_send_new_ids_without_end() {
        let now = Instant::now();
        let mut table = table(|_| {});
        let mut come = |number: u16, at: Instant| {
            let candidate = from(number, neighbours(number)[0]);
            let admitted = admit(&mut table, at, candidate);
            table.remove(at, &candidate.id, "gone", None);
            admitted
        };
        for number in 0..30 {
            come(number, now).unwrap();
        }
        assert_eq!(come(30, now), Err(RejectReason::NetworkCrowded));
        come(31, now + Duration::from_secs(60)).unwrap();
    }

    #[test]
    fn a_banned_address_stands_for_its_whole_site() {
        let now = Instant::now();
        let mut table = table(|_| {});
        let [first, second] = [1, 2].map(|number| from(number, neighbours(number)[0]));
        let minute = Duration::from_secs(60);
        table.ban_ip(now, first.ip, minute, "lied".into());
        let refused = Err(RejectReason::Banned("lied".to_owned()));
        assert_eq!(admit(&mut table, now, second), refused);
    }

    #[test]
    fn named_peers_are_not_limited() {
        let now = Instant::now();
        let mut table = table(|config| {
            config.max_num_inbound_peers = 0;
            config.max_num_outbound_peers = 0;
            config.unconditional_peer_ids = vec![id(1)];
            config.persistent_peers = vec![PeerAddress {
                id: id(2),
                host: "127.0.0.1".into(),
                port: 1,
            }];
        });
        admit(&mut table, now, candidate(1, false)).unwrap();
        admit(&mut table, now, candidate(2, true)).unwrap();
        // One address may hold several named peers.
        table.remove(now, &id(2), "gone", None);
        let same_ip = Candidate {
            ip: IpAddr::from([127, 0, 0, 1]),
            ..candidate(2, true)
        };
        admit(&mut table, now, same_ip).unwrap();
    }

    #[test]
    fn ids_and_addresses_are_unique() {
        let now = Instant::now();
        let mut table = table(|_| {});
        admit(&mut table, now, candidate(1, false)).unwrap();
        assert_eq!(
            admit(&mut table, now, candidate(1, true)),
            Err(RejectReason::DuplicateId)
        );
        let same_ip = Candidate {
            id: id(9),
            ..candidate(1, false)
        };
        assert_eq!(
            admit(&mut table, now, same_ip),
            Err(RejectReason::DuplicateIp)
        );
        assert_eq!(
            admit(&mut table, now, candidate(0, true)),
            Err(RejectReason::Myself)
        );
    }

    #[test]
    fn bans_end() {
        let now = Instant::now();
        let mut table = table(|_| {});
        let minute = Duration::from_secs(60);
        table.ban(now, id(1), minute, "lied".into());
        table.ban_ip(now, [127, 0, 0, 2].into(), minute, "flood".into());
        for byte in [1, 2] {
            assert!(matches!(
                admit(&mut table, now, candidate(byte, false)),
                Err(RejectReason::Banned(_))
            ));
            assert!(admit(&mut table, now + minute, candidate(byte, false)).is_ok());
        }
        assert_eq!(table.banned_until(now, &id(1)), Some(now + minute));
        assert_eq!(table.banned_until(now + minute, &id(1)), None);
    }

    #[test]
    fn who_was_at_fault_does_not_come_back_at_once() {
        let now = Instant::now();
        let mut table = table(|config| config.unconditional_peer_ids = vec![id(3)]);
        for (byte, fault) in [(1, None), (2, Some("flood")), (3, Some("flood"))] {
            admit(&mut table, now, candidate(byte, false)).unwrap();
            table.remove(now, &id(byte), "gone", fault.map(str::to_owned));
        }
        admit(&mut table, now, candidate(1, false)).unwrap();
        assert_eq!(
            admit(&mut table, now, candidate(2, false)),
            Err(RejectReason::Banned("flood".to_owned()))
        );
        admit(&mut table, now, candidate(3, false)).unwrap();
        admit(&mut table, now + FAULT_PAUSE, candidate(2, false)).unwrap();
    }

    #[test]
    fn so_many_peers_are_named_while_the_node_runs_and_no_more() {
        let id = |number: usize| {
            let mut bytes = [0; 20];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            NodeId::new(bytes)
        };
        let ids: Vec<_> = (0..=MAX_NAMED).map(id).collect();
        let mut table = PeerTable::<(), ()>::new(id(usize::MAX), &P2pConfig::default());
        assert!(!table.may_name(&ids, true, false) && !table.may_name(&ids, false, true));
        assert!(table.may_name(&ids, false, false));
        for &id in &ids[..MAX_NAMED] {
            assert!(table.may_name(&[id], true, true));
            assert!(table.make_persistent(id) && !table.make_persistent(id));
        }
        let last = ids[MAX_NAMED];
        assert!(!table.may_name(&[last], true, true) && table.may_name(&[last], false, true));
        // Who is persistent already may be told so again.
        assert!(table.may_name(&ids[..MAX_NAMED], true, true));
    }

    #[test]
    fn a_second_ban_never_shortens_the_first() {
        let now = Instant::now();
        let mut bans = Bans::default();
        bans.insert(now, 1, Duration::from_secs(60), "first".into());
        bans.insert(now, 1, Duration::from_secs(1), "second".into());
        assert_eq!(bans.until(now, &1), Some(now + Duration::from_secs(60)));
    }

    #[test]
    fn bans_are_bounded() {
        let now = Instant::now();
        let mut bans = Bans::default();
        for key in 0..=MAX_BANS {
            let duration = Duration::from_secs(60 + key as u64);
            bans.insert(now, key, duration, String::new());
        }
        assert_eq!(bans.0.len(), MAX_BANS);
        assert_eq!(bans.until(now, &0), None);
        assert!(bans.until(now, &MAX_BANS).is_some());
    }
}
