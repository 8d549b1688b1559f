use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use perihelion_types::{BlockId, FetchedBlock, Hash, Height, PeerId, Round};

use crate::{CommitFault, RunId};

/// What a block says, whatever bytes said it: everything that the header's hash covers, and the
/// three fields of the last commit that it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Content {
    /// Hash of the header.
    pub(crate) header: Hash,
    /// Hash of the block below, as the header names it.
    pub(crate) below: Hash,
    commit: Option<(Height, Round, BlockId)>,
}

impl Content {
    pub(crate) fn of(block: &FetchedBlock) -> Self {
        Self {
            header: block.block_id().hash,
            below: block.block().header.last_block_id.hash,
            commit: block
                .block()
                .last_commit
                .as_ref()
                .map(|commit| (commit.height, commit.round, commit.block_id)),
        }
    }
}

/// A copy that a peer delivered, remembered until its height is final.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt {
    pub(crate) peer: PeerId,
    pub(crate) content: Content,
    /// Its last commit failed: guilty if other content becomes final, cleared if its own does.
    pub(crate) suspect: Option<CommitFault>,
}

/// Why a peer is not asked for a height.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exclusion {
    /// It said that it has no such block.
    NoBlock,
    /// It did not deliver in time.
    Late,
    /// Its copy was set aside.
    SetAside,
}

/// The block that is held for a height.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) block: Arc<FetchedBlock>,
    pub(crate) from: PeerId,
    pub(crate) bytes: usize,
    pub(crate) content: Content,
    /// Its last commit failed to verify: it may stand inside of a run, and must not close one.
    pub(crate) no_close: bool,
}

/// How far a height has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nobody is asked.
    Wanted,
    /// At least one peer is asked.
    Asked,
    /// A block is held.
    Here,
    /// And every block below it too, each naming the id of the one before.
    Linked,
    /// And part of a run that the workers verify.
    Certifying(RunId),
    /// Final.
    Certified(RunId),
    /// Final, and handed to the executor.
    Applying(RunId),
}

/// Where a height's extended commit stands; only looked at once its block is final.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extended {
    /// Not looked at.
    Unknown,
    /// The workers verify the one from this peer.
    Checking(PeerId),
    /// Verified.
    Good,
    /// There is none, or a bad one: others are asked.
    Wanting,
}

/// Peers whose copies of one height were set aside, remembered at most: each has sent a block for
/// it. Fewer, and a few liars that come back could be asked in turn; more would be memory for
/// nothing.
const MAX_SET_ASIDE: usize = 64;

/// Copies of one height that are remembered at most, the latest ones. Fewer, and liars could hide
/// behind one another.
const MAX_ATTEMPTS: usize = 256;

/// One height of the window.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) stage: Stage,
    /// Some from `Here` on.
    pub(crate) held: Option<Held>,
    /// Who is asked right now; for most heights at most one, two when hedged.
    pub(crate) asks: Vec<PeerId>,
    /// The held block was encoded canonically again, or cannot be told from what it would be then.
    pub(crate) reencoded: bool,
    /// Another copy is wanted although one is held.
    pub(crate) seek: bool,
    /// Since when it has been in doubt, for the first time: what is above it waits only so long,
    /// whatever others are asked meanwhile.
    pub(crate) doubted: Option<Instant>,
    /// The final block's id, when a verified commit names it and the block itself is not here.
    pub(crate) expected: Option<BlockId>,
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) excluded: Vec<(PeerId, Exclusion)>,
    /// Since when it has been noticed that it waits while somebody is excluded.
    pub(crate) excluded_since: Option<Instant>,
    pub(crate) extended: Extended,
    /// Another extended commit is wanted before the one at hand is looked at: its sender had a bad
    /// one elsewhere.
    pub(crate) spare: bool,
    /// Its last commit was probed in vain for the block below.
    pub(crate) probed: bool,
    /// Whose copies were to be made final by their extended commit, in vain.
    pub(crate) undecided: Vec<PeerId>,
}

impl Slot {
    pub(crate) fn new() -> Self {
        Self {
            stage: Stage::Wanted,
            held: None,
            asks: Vec::new(),
            reencoded: false,
            seek: false,
            doubted: None,
            excluded_since: None,
            expected: None,
            attempts: Vec::new(),
            excluded: Vec::new(),
            extended: Extended::Unknown,
            spare: false,
            probed: false,
            undecided: Vec::new(),
        }
    }

    /// Whether a peer is to be found for it: nothing held, or another copy sought.
    pub(crate) fn needs_ask(&self) -> bool {
        self.asks.is_empty() && (self.held.is_none() || self.seeks_copy())
    }

    /// Whether another copy is wanted of a block that is held.
    pub(crate) fn seeks_copy(&self) -> bool {
        self.seek || self.spare || self.extended == Extended::Wanting
    }

    /// Whether a peer is not to be asked. Who sent the copy that is held has no other one: that is
    /// no reason to leave it out once that copy is gone.
    pub(crate) fn is_excluded(&self, peer: PeerId) -> bool {
        self.excluded.iter().any(|&(excluded, _)| excluded == peer)
            || (self.seek && self.is_copy_of(peer))
    }

    /// Whether a peer has sent what is held.
    fn is_copy_of(&self, peer: PeerId) -> bool {
        self.held.as_ref().is_some_and(|held| {
            let same = |attempt: &Attempt| attempt.peer == peer && attempt.content == held.content;
            held.from == peer || self.attempts.iter().any(same)
        })
    }

    /// Another copy of the block that is held is wanted.
    pub(crate) fn doubt(&mut self, now: Instant) {
        self.seek = true;
        self.doubted.get_or_insert(now);
    }

    /// Whether what is above waits for another copy: not for ever.
    pub(crate) fn is_doubtful(&self, now: Instant, patience: Duration) -> bool {
        self.seek && self.doubted.is_some_and(|since| now < since + patience)
    }

    /// Forgets, after a time, who was late or had a copy set aside: while strangers are asked, the
    /// height would not be offered to them again. Says whether it did.
    pub(crate) fn readmit_after(&mut self, now: Instant, patience: Duration) -> bool {
        if self
            .excluded
            .iter()
            .all(|&(_, why)| why == Exclusion::NoBlock)
        {
            self.excluded_since = None;
            return false;
        }
        let since = *self.excluded_since.get_or_insert(now);
        if now < since + patience {
            return false;
        }
        self.excluded.retain(|&(_, why)| why == Exclusion::NoBlock);
        self.excluded_since = None;
        true
    }

    pub(crate) fn exclude(&mut self, peer: PeerId, why: Exclusion) {
        match self.excluded.iter_mut().find(|(other, _)| *other == peer) {
            Some(entry) => entry.1 = why,
            None => {
                let set_aside = |&(_, why): &(PeerId, Exclusion)| why == Exclusion::SetAside;
                if self
                    .excluded
                    .iter()
                    .filter(|entry| set_aside(entry))
                    .count()
                    >= MAX_SET_ASIDE
                    && let Some(oldest) = self.excluded.iter().position(set_aside)
                {
                    self.excluded.remove(oldest);
                }
                self.excluded.push((peer, why));
            }
        }
    }

    /// A peer is gone: what it lacked or was late with is forgotten, so that ids which come and go
    /// do not add up. What it lied about is not: it is not asked for that again when it comes back.
    pub(crate) fn forget(&mut self, peer: PeerId) {
        self.unask(peer);
        self.excluded
            .retain(|&(other, why)| other != peer || why == Exclusion::SetAside);
    }

    /// Forgets that `peer` was asked; says whether it was.
    pub(crate) fn unask(&mut self, peer: PeerId) -> bool {
        let before = self.asks.len();
        self.asks.retain(|&asked| asked != peer);
        if self.asks.is_empty() && self.stage == Stage::Asked {
            self.stage = Stage::Wanted;
        }
        before != self.asks.len()
    }

    /// Remembers a copy for the day on which its height is final.
    pub(crate) fn remember(&mut self, peer: PeerId, content: Content) {
        let known = |attempt: &Attempt| attempt.peer == peer && attempt.content == content;
        if !self.attempts.iter().any(known) {
            if self.attempts.len() >= MAX_ATTEMPTS {
                self.attempts.remove(0);
            }
            self.attempts.push(Attempt {
                peer,
                content,
                suspect: None,
            });
        }
    }

    /// Makes every copy of `content` a suspect.
    pub(crate) fn suspect(&mut self, content: Content, fault: CommitFault) {
        for attempt in &mut self.attempts {
            if attempt.content == content {
                attempt.suspect = Some(fault);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u32) -> PeerId {
        let mut id = [0; 20];
        id[..4].copy_from_slice(&number.to_be_bytes());
        PeerId::new(id)
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "an origin for made-up instants")]
    fn a_doubt_begins_once_and_ends() {
        let (start, patience) = (Instant::now(), Duration::from_secs(2));
        let at = |ms| start + Duration::from_millis(ms);
        let mut slot = Slot::new();
        assert!(!slot.is_doubtful(start, patience));
        slot.doubt(start);
        assert!(slot.is_doubtful(at(1_900), patience));
        // However often it is doubted, by whatever copies.
        slot.seek = false;
        slot.doubt(at(1_900));
        assert!(slot.is_doubtful(at(1_900), patience));
        assert!(!slot.is_doubtful(at(2_000), patience));
    }

    #[test]
    fn peers_that_come_and_go_do_not_add_up() {
        let mut slot = Slot::new();
        for number in 0..1000 {
            let why = [Exclusion::NoBlock, Exclusion::Late][number as usize % 2];
            slot.asks.push(peer(number));
            slot.exclude(peer(number), why);
            slot.forget(peer(number));
        }
        assert!(slot.excluded.is_empty() && slot.asks.is_empty());
    }

    #[test]
    fn who_lied_about_a_height_is_remembered_within_a_bound() {
        let mut slot = Slot::new();
        for number in 0..1000 {
            slot.exclude(peer(number), Exclusion::SetAside);
            slot.forget(peer(number));
            assert!(slot.is_excluded(peer(number)));
        }
        assert_eq!(slot.excluded.len(), MAX_SET_ASIDE);
        assert!(!slot.is_excluded(peer(0)));
    }

    #[test]
    fn the_latest_copies_are_remembered_within_a_bound() {
        let mut slot = Slot::new();
        let content = Content {
            header: Hash::of(b"a header"),
            below: Hash::of(b"the header below"),
            commit: None,
        };
        for number in 0..1000 {
            slot.remember(peer(number), content);
        }
        assert_eq!(slot.attempts.len(), MAX_ATTEMPTS);
        assert_eq!(slot.attempts.last().map(|last| last.peer), Some(peer(999)));
    }
}
