use thiserror::Error;

use crate::Height;

/// Where the stateless rules of CometBFT's versions differ. A chain follows one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    max_signature_bytes: usize,
}

impl Rules {
    /// v0.38: the default, and what every `validate_basic` and `TryFrom` applies.
    pub const V038: Self = Self {
        max_signature_bytes: 64,
    };

    /// v0.40, which has room for ML-DSA-65.
    pub const V040: Self = Self {
        max_signature_bytes: 3309,
    };

    /// The widest of all: for what was judged when it was stored, by the rules of its height, and
    /// is read back. Not for judging.
    pub const STORED: Self = Self::V040;

    /// The longest signature of a vote, a proposal, a commit's place or a vote extension, in bytes.
    #[must_use]
    pub const fn max_signature_bytes(self) -> usize {
        self.max_signature_bytes
    }
}

/// Which release's rules judge a block at each height: a chain that was upgraded has blocks of
/// both. Until the first height that is listed, and where nothing is, v0.38's hold.
///
/// The rules differ in which votes of the last commit count for a block's time (v0.38: all but the
/// absent, v0.40: those for the block) and in the longest signature allowed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RulesByHeight(Vec<(Height, Rules)>);

/// A list of rules by height is out of order.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("rules by height: {next} is listed behind {previous}, heights must rise")]
pub struct RulesOrderError {
    /// The height listed first.
    pub previous: Height,
    /// The height behind it, not above.
    pub next: Height,
}

impl RulesByHeight {
    /// Rules that hold from each height on, until the next one listed.
    ///
    /// # Errors
    /// When the heights do not rise.
    pub fn new(from: Vec<(Height, Rules)>) -> Result<Self, RulesOrderError> {
        match from.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
            Some(pair) => Err(RulesOrderError {
                previous: pair[0].0,
                next: pair[1].0,
            }),
            None => Ok(Self(from)),
        }
    }

    /// The same rules at every height.
    #[must_use]
    pub fn always(rules: Rules) -> Self {
        Self(vec![(Height::ZERO, rules)])
    }

    /// The rules that judge the block of `height`.
    #[must_use]
    pub fn at(&self, height: Height) -> Rules {
        self.0
            .iter()
            .take_while(|(from, _)| *from <= height)
            .last()
            .map_or(Rules::V038, |(_, rules)| *rules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_hold_from_their_height_on() {
        let upgraded = RulesByHeight::new(vec![(Height::new(100), Rules::V040)]).unwrap();
        assert_eq!(upgraded.at(Height::new(99)), Rules::V038);
        assert_eq!(upgraded.at(Height::new(100)), Rules::V040);
        assert_eq!(upgraded.at(Height::MAX), Rules::V040);
        assert_eq!(RulesByHeight::default().at(Height::new(1)), Rules::V038);
        let always = RulesByHeight::always(Rules::V040);
        assert_eq!(always.at(Height::new(1)), Rules::V040);
    }

    #[test]
    fn heights_must_rise() {
        let list = vec![(Height::new(5), Rules::V040), (Height::new(5), Rules::V038)];
        let error = RulesByHeight::new(list).unwrap_err();
        assert_eq!(error.previous, Height::new(5));
    }
}
