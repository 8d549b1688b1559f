//! What is told of the sync: progress, the target, and why nothing moves.

use std::time::{Duration, Instant};

use perihelion_types::{Hash, Height, PeerId};

use super::Schedule;
use crate::{
    Effect, Limit, Mode, PeerProgress, Progress, StallReason, TargetSource, WindowProgress,
    meter::seconds,
    slot::{Extended, Stage},
    timer::Timer,
};

/// Sums since the start.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) applied: u64,
    pub(super) blocks_received: u64,
    pub(super) bytes_received: u64,
    pub(super) signatures_verified: u64,
    pub(super) signatures_total: u64,
    pub(super) longest_run: usize,
    /// Changes of the mode.
    pub(super) switches: u64,
    /// Held blocks that were let go for want of space.
    pub(super) shed: u64,
}

impl Schedule {
    /// The last applied height; one below the initial height before the first block.
    #[must_use]
    pub fn height(&self) -> Height {
        self.applied.0
    }

    /// What the node is at.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The id of the last applied block; nil before the first.
    #[must_use]
    pub fn applied_id(&self) -> perihelion_types::BlockId {
        self.applied.1
    }

    /// Where the chain seems to end, and how that is known: the highest claim but one, so that a
    /// single peer cannot move it. Decides when runs stop waiting and what is shown, nothing more.
    pub(super) fn target(&self) -> (Height, TargetSource) {
        let (mut highest, mut second, mut claims) = (Height::ZERO, Height::ZERO, 0);
        for (_, top) in self.peers.values().filter_map(|peer| peer.serves()) {
            claims += 1;
            if top > highest {
                (second, highest) = (highest, top);
            } else {
                second = second.max(top);
            }
        }
        let (claim, source) = match claims {
            0 => (Height::ZERO, TargetSource::Unknown),
            1 => (highest, TargetSource::OnePeer),
            _ => (second, TargetSource::Peers),
        };
        if claim <= self.certified_to && claims > 0 {
            (self.certified_to, TargetSource::Certified)
        } else {
            (claim.max(self.certified_to), source)
        }
    }

    /// Everything that a status, a metric, a page or a progress line shows.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let (target, target_source) = self.target();
        let per_minute = self.blocks_applied.last_minute();
        let left = target.since(self.applied.0) as f64;
        Progress {
            mode: self.mode,
            why: self.why,
            in_mode: self.now.saturating_duration_since(self.mode_since),
            switches: self.totals.switches,
            start: self.start_height,
            height: if self.totals.applied == 0 {
                self.start_height
            } else {
                self.applied.0
            },
            certified: self.certified_to,
            target,
            target_source,
            block_age: self.block_age(),
            blocks_per_second: self.blocks_applied.last_second(),
            blocks_per_second_minute: per_minute,
            bytes_per_second: self.bytes_received.last_second(),
            bytes_per_second_minute: self.bytes_received.last_minute(),
            eta: (per_minute > 0.0 && left / per_minute < 1e9)
                .then(|| Duration::from_secs_f64(left.max(0.0) / per_minute)),
            window: self.window(),
            limit: self.limit(target),
            peers: self
                .peers
                .keys()
                .filter_map(|&id| self.peer_progress(id))
                .collect(),
            stalled: self.halted.clone().or_else(|| self.stalled_now()),
            signatures_verified: self.totals.signatures_verified,
            signatures_total: self.totals.signatures_total,
            longest_run: self.totals.longest_run,
            blocks_received: self.totals.blocks_received,
            bytes_received: self.totals.bytes_received,
        }
    }

    fn block_age(&self) -> Option<Duration> {
        let nanos = self.abreast.age(self.now)?.max(0);
        u64::try_from(nanos).ok().map(Duration::from_nanos)
    }

    fn peer_progress(&self, id: PeerId) -> Option<PeerProgress> {
        let peer = self.peers.get(&id)?;
        Some(PeerProgress {
            peer: id,
            range: peer.range,
            bytes_per_second: peer.meter.last_ten_seconds(self.now),
            latency: seconds(peer.latency.get().unwrap_or(0.0)),
            in_flight: peer.asks.len(),
            allowance: peer.allowance as usize,
            blocks: peer.blocks,
            bytes: peer.bytes,
            no_blocks: peer.no_blocks,
            stalls: peer.stalls,
            set_aside: peer.set_aside,
        })
    }

    fn window(&self) -> WindowProgress {
        let mut window = WindowProgress {
            held_bytes: self.held_bytes,
            expected_bytes: self.expected_bytes(),
            ..WindowProgress::default()
        };
        for slot in &self.slots {
            match slot.stage {
                Stage::Wanted => {}
                Stage::Asked => window.in_flight += 1,
                Stage::Here => window.here += 1,
                Stage::Linked | Stage::Certifying(_) => window.linked += 1,
                Stage::Certified(_) | Stage::Applying(_) => window.pinned += 1,
            }
        }
        window
    }

    fn limit(&self, target: Height) -> Limit {
        let pinned = self.certified_to.since(self.applied.0);
        if target <= self.applied.0 && self.slots.iter().all(|slot| slot.held.is_none()) {
            Limit::Nothing
        } else if pinned >= self.config.applying as i64
            || pinned > self.linked_to.since(self.certified_to)
        {
            Limit::Execution
        } else if self.runs.len() >= self.config.runs {
            Limit::Verification
        } else {
            Limit::Network
        }
    }

    /// The peer whose connection is worth the least, for when the space is needed: one that has
    /// nothing for us, whose blocks were of the least use, or the slowest.
    #[must_use]
    pub fn least_useful(&self) -> Option<PeerId> {
        let size = self.expected_size() as f64;
        let rank = |id: &&PeerId| {
            let peer = &self.peers[id];
            let serves = peer.serves().is_some_and(|(_, top)| top > self.applied.0);
            ((!serves, peer.standing(self.now)), peer.cost(size))
        };
        self.peers
            .keys()
            .max_by(|a, b| {
                let (a, b) = (rank(a), rank(b));
                a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
            })
            .copied()
    }

    /// Tells why nothing was applied for so long, once for each reason.
    pub(super) fn tell_stall(&mut self, now: Instant) {
        self.timers.set(Timer::Stall, now + self.config.stall_after);
        let reason = self.stall_reason();
        if let Some(reason @ StallReason::OtherGenesis { .. }) = &reason
            && self.unfitting(true).is_some()
        {
            self.halt(reason.clone());
            return;
        }
        if reason != self.stalled {
            self.stalled.clone_from(&reason);
            if let Some(reason) = reason {
                self.effects.push_back(Effect::Stalled { reason });
            }
        }
    }

    /// What is told of a stall; before any peer has told its range, at once.
    fn stalled_now(&self) -> Option<StallReason> {
        if self.mode == Mode::WaitForPeers {
            self.stall_reason()
        } else {
            self.stalled.clone()
        }
    }

    fn stall_reason(&self) -> Option<StallReason> {
        let next = self.first();
        if matches!(self.mode, Mode::Consensus) {
            return None;
        }
        if !self.has_executor {
            return (self.certified_to > self.applied.0)
                .then_some(StallReason::Leaving { height: next });
        }
        if self.applying_to > self.applied.0 {
            return Some(StallReason::Executing { height: next });
        }
        if self.certified_to > self.applied.0 {
            let lacks = self
                .slot(next)
                .is_some_and(|slot| slot.extended != Extended::Good);
            return lacks.then_some(StallReason::ExtendedCommit { height: next });
        }
        if self.peers.is_empty() {
            return Some(StallReason::NoPeers { failure: None });
        }
        let ranges: Vec<_> = self.peers.values().filter_map(|peer| peer.range).collect();
        let Some(lowest_base) = ranges.iter().map(|range| range.base()).min() else {
            return Some(StallReason::NoStatus {
                peers: self.peers.len(),
            });
        };
        if lowest_base > next {
            return Some(StallReason::AllPruned {
                next,
                lowest_base,
                peers: ranges.len(),
            });
        }
        if let Some(theirs) = self.unfitting(true).or_else(|| self.unfitting(false)) {
            return Some(StallReason::OtherGenesis {
                ours: self.anchors.current.hash(),
                theirs,
            });
        }
        if !self.runs.is_empty() || self.probe.is_some() {
            return Some(StallReason::Verifying {
                height: self.certified_to,
            });
        }
        self.missing(next)
    }

    /// The validators' hash in the first blocks that are offered, when all who claim to have it
    /// offered one that does not fit our genesis: of the configured peers, or of all. Strangers can
    /// claim and offer what they like.
    fn unfitting(&self, configured: bool) -> Option<Hash> {
        let first = self.initial_height;
        if self.first() != first || self.held(first).is_some() {
            return None;
        }
        let mut found = None;
        for (id, peer) in &self.peers {
            let counts = !configured || self.persistent.contains(id);
            if counts && peer.range.is_some_and(|range| range.contains(first)) {
                found = Some(peer.unfitting?);
            }
        }
        found
    }

    /// The lowest block that is missing and that some peer claims, or that is in doubt.
    fn missing(&self, next: Height) -> Option<StallReason> {
        let claimed = |height: Height| {
            let holds = |range: perihelion_types::HeightRange| range.contains(height);
            self.peers
                .values()
                .any(|peer| peer.range.is_some_and(holds))
        };
        let mut near = [next, next.next()].into_iter();
        let lacks = |&height: &Height| self.held(height).is_none_or(|held| held.no_close);
        let Some(height) = near.clone().find(lacks) else {
            let height = near.find(|&height| self.slot(height).is_some_and(|slot| slot.seek))?;
            let asked = self.slot(height).map_or(0, |slot| slot.asks.len());
            return Some(StallReason::Doubtful { height, asked });
        };
        if !claimed(height) {
            return None;
        }
        let slot = self.slot(height);
        Some(StallReason::Waiting {
            height,
            asked: slot.map_or(0, |slot| slot.asks.len()),
            failed: slot.map_or(0, |slot| slot.excluded.len()),
        })
    }
}
