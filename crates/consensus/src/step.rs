use std::fmt;

/// The steps of a height, in order. The numbers are the wire's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Step {
    /// The block below is decided; its late precommits are collected (`timeout_commit`).
    NewHeight = 1,
    /// The round has begun; transactions may be waited for.
    NewRound = 2,
    /// A proposal is made or waited for.
    Propose = 3,
    /// Prevoted.
    Prevote = 4,
    /// More than 2/3 have prevoted anything; more prevotes are waited for.
    PrevoteWait = 5,
    /// Precommitted.
    Precommit = 6,
    /// Only as the name of a timeout: more precommits are waited for. Never the step itself.
    PrecommitWait = 7,
    /// A block has more than 2/3 of the precommits; it is waited for or being applied.
    Commit = 8,
}

impl Step {
    /// All of them, in order.
    pub const ALL: [Self; 8] = [
        Self::NewHeight,
        Self::NewRound,
        Self::Propose,
        Self::Prevote,
        Self::PrevoteWait,
        Self::Precommit,
        Self::PrecommitWait,
        Self::Commit,
    ];

    /// The wire's number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The step of a number of the wire.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|step| u32::from(step.number()) == number)
    }

    /// The name that CometBFT's WAL and RPC have for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NewHeight => "RoundStepNewHeight",
            Self::NewRound => "RoundStepNewRound",
            Self::Propose => "RoundStepPropose",
            Self::Prevote => "RoundStepPrevote",
            Self::PrevoteWait => "RoundStepPrevoteWait",
            Self::Precommit => "RoundStepPrecommit",
            Self::PrecommitWait => "RoundStepPrecommitWait",
            Self::Commit => "RoundStepCommit",
        }
    }

    /// The step of such a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.name() == name)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_lead_back() {
        for (number, step) in (1..).zip(Step::ALL) {
            assert_eq!(Step::from_number(number), Some(step));
            assert_eq!(Step::from_name(step.name()), Some(step));
        }
        assert_eq!(Step::from_number(0), None);
        assert_eq!(Step::from_number(9), None);
        assert_eq!(Step::from_name("RoundStepUnknown"), None);
    }
}
