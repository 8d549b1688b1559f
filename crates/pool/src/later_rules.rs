//! When an operator is told that the chain may follow later rules than this node.

use std::{
    collections::BTreeSet,
    fmt,
    time::{Duration, Instant},
};

use perihelion_types::PeerId;

/// How long what strangers sent is not told of again, and likewise what configured peers sent. Shorter,
/// and strangers could fill the log; longer, and a lie of theirs would hide the truth for that long.
const INTERVAL: Duration = Duration::from_secs(3600);

/// Who sent blocks that only the later rules allow. Anybody can make one: the word of one peer that is
/// not configured is none.
#[derive(Debug)]
pub(crate) struct LaterRules {
    configured: BTreeSet<PeerId>,
    /// The stranger that sent one since strangers were told of.
    stranger: Option<PeerId>,
    told: Option<Instant>,
    told_of_strangers: Option<Instant>,
}

/// By whom such blocks were sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Senders {
    /// A configured peer.
    Configured(PeerId),
    /// Two that are not configured.
    Strangers(PeerId, PeerId),
}

impl LaterRules {
    pub(crate) const fn new(configured: BTreeSet<PeerId>) -> Self {
        Self {
            configured,
            stranger: None,
            told: None,
            told_of_strangers: None,
        }
    }

    /// A peer sent such a block: whom to tell of, if that is to be told.
    pub(crate) fn note(&mut self, now: Instant, peer: PeerId) -> Option<Senders> {
        let is_due = |told: Option<Instant>| {
            told.is_none_or(|told| now.saturating_duration_since(told) >= INTERVAL)
        };
        if self.configured.contains(&peer) {
            return is_due(self.told).then(|| {
                self.told = Some(now);
                Senders::Configured(peer)
            });
        }
        match self.stranger {
            Some(other) if other != peer && is_due(self.told_of_strangers) => {
                self.stranger = None;
                self.told_of_strangers = Some(now);
                Some(Senders::Strangers(other, peer))
            }
            _ => {
                self.stranger = Some(peer);
                None
            }
        }
    }
}

impl fmt::Display for Senders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configured(peer) => write!(f, "{peer}, which is configured"),
            Self::Strangers(one, other) => write!(f, "{one} and {other}, which are not configured"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8) -> PeerId {
        PeerId::new([number; 20])
    }

    #[test]
    fn one_stranger_is_not_believed_and_uses_up_nothing() {
        let now = Instant::now();
        let mut rules = LaterRules::new([peer(1)].into());
        for _ in 0..3 {
            assert_eq!(rules.note(now, peer(8)), None);
        }
        let two = Some(Senders::Strangers(peer(8), peer(9)));
        assert_eq!(rules.note(now, peer(9)), two);
        for stranger in [7, 8, 9] {
            assert_eq!(rules.note(now, peer(stranger)), None);
        }
        let configured = Some(Senders::Configured(peer(1)));
        assert_eq!(rules.note(now, peer(1)), configured);
        assert_eq!(rules.note(now, peer(1)), None);
        let later = now + INTERVAL;
        let two = Some(Senders::Strangers(peer(9), peer(7)));
        assert_eq!(rules.note(later, peer(7)), two);
        assert_eq!(rules.note(later, peer(1)), configured);
    }
}
