use std::time::Duration;

use perihelion_types::{Genesis, InvalidError, Time, ValidatorSet};

/// How long to wait until the chain begins, when its genesis time is after `now`. Nothing may be
/// executed before.
#[must_use]
pub fn until_genesis(genesis: &Genesis, now: Time) -> Option<Duration> {
    let start = genesis.genesis_time;
    if start <= now {
        return None;
    }
    let mut seconds = start.seconds().saturating_sub(now.seconds());
    let mut nanos = i64::from(start.nanos()) - i64::from(now.nanos());
    if nanos < 0 {
        seconds -= 1;
        nanos += 1_000_000_000;
    }
    Some(Duration::new(
        u64::try_from(seconds).unwrap_or(0),
        u32::try_from(nanos).unwrap_or(0),
    ))
}

/// The same set one height on; an empty one stays as it is.
pub(crate) fn rotated(set: &ValidatorSet) -> Result<ValidatorSet, InvalidError> {
    let mut next = set.clone();
    if !next.is_empty() {
        next.increment_proposer_priority(1)?;
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use perihelion_types::{ConsensusParams, Height};

    #[test]
    fn a_future_genesis_is_waited_for() {
        let genesis = Genesis {
            genesis_time: Time::new(100, 200_000_000),
            chain_id: "c".to_owned(),
            initial_height: Height::new(1),
            consensus_params: ConsensusParams::default_v038(),
            validators: Vec::new(),
            app_hash: bytes::Bytes::new(),
            app_state: bytes::Bytes::new(),
        };
        let wait = |seconds, nanos| until_genesis(&genesis, Time::new(seconds, nanos));
        assert_eq!(wait(100, 200_000_000), None);
        assert_eq!(wait(101, 0), None);
        assert_eq!(wait(100, 0), Some(Duration::from_millis(200)));
        assert_eq!(wait(98, 700_000_000), Some(Duration::from_millis(1_500)));
    }
}
