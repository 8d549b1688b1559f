//! Passing evidence on to one peer.

use std::{collections::HashSet, sync::Arc, time::Duration};

use perihelion_p2p::PeerHandle;
use perihelion_types::{Height, PeerId};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::{EvidencePool, pool::Pending, wire};

/// How far peers are: the height that a peer works on, as it said last; `None` where it has not said
/// yet.
pub type PeerHeights = Arc<dyn Fn(&PeerId) -> Option<Height> + Send + Sync>;

/// When a peer is sent everything again that waits: CometBFT's interval. Most evidence is in the
/// next block, and is sent once.
const AGAIN: Duration = Duration::from_secs(10);
/// When to look again whether a peer that is behind has come far enough.
const BEHIND_PAUSE: Duration = Duration::from_millis(500);

/// What is to be done with a piece of evidence.
#[derive(Debug, PartialEq, Eq)]
enum Fit {
    Send,
    /// The peer lacks the blocks that it needs to verify it.
    Later,
    /// For the peer it is too old, or too large.
    Never,
}

fn fit(pending: &Pending, peer: Option<Height>, max_age_blocks: i64) -> Fit {
    match peer {
        // A client gave it to us; peers take no such message.
        _ if pending.message.len() > wire::MAX_MESSAGE_BYTES => Fit::Never,
        None => Fit::Later,
        Some(height) if height < pending.peers_from => Fit::Later,
        Some(height) if height.since(pending.evidence.height()) > max_age_blocks => Fit::Never,
        Some(_) => Fit::Send,
    }
}

/// Sends a peer all evidence that it can verify, until it is gone.
pub(crate) async fn run(
    pool: Arc<EvidencePool>,
    heights: PeerHeights,
    mut active: watch::Receiver<bool>,
    peer: PeerHandle,
) {
    let id = peer.id();
    let mut added = pool.subscribe_added();
    let mut sent = HashSet::new();
    let mut again = Instant::now() + AGAIN;
    loop {
        if active.wait_for(|active| *active).await.is_err() {
            return;
        }
        added.mark_unchanged();
        let max_age = pool.state().consensus_params.evidence.max_age_num_blocks;
        let mut next = again;
        for pending in pool.snapshot() {
            if sent.contains(&pending.hash) {
                continue;
            }
            match fit(&pending, heights(&id), max_age) {
                Fit::Send => {
                    let message = pending.message.clone();
                    if peer.send(wire::CHANNEL, message).await.is_err() {
                        return;
                    }
                    sent.insert(pending.hash);
                }
                Fit::Later => next = next.min(Instant::now() + BEHIND_PAUSE),
                Fit::Never => {}
            }
        }
        tokio::select! {
            changed = added.changed() => if changed.is_err() {
                return;
            },
            () = sleep_until(next) => {}
        }
        if Instant::now() >= again {
            sent.clear();
            again = Instant::now() + AGAIN;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use bytes::Bytes;
    use perihelion_test_support as vectors;
    use perihelion_types::{Evidence, Rules};
    use serde::Deserialize as _;

    use super::*;

    /// The evidence of the vectors' messages.
    fn evidence() -> Vec<Evidence> {
        let file: serde_json::Value = vectors::load("p2p.json");
        let messages = file["messages"].as_array().unwrap().iter();
        let wires = messages
            .filter(|message| message["channel"] == "0x38")
            .map(|message| vectors::Hex::deserialize(&message["wire"]).unwrap());
        let lists = wires.map(|wire| wire::decode(&Bytes::from(wire.0), Rules::V038).unwrap());
        lists.flatten().collect()
    }

    #[test]
    fn vector_evidence_goes_to_peers_that_have_what_verifies_it() {
        let (mut votes, mut attacks) = (0, 0);
        for evidence in evidence() {
            let at = evidence.height();
            for last in [at.plus(1), at.plus(50)] {
                let needed = match &evidence {
                    Evidence::DuplicateVote(_) => {
                        votes += 1;
                        at.next()
                    }
                    Evidence::LightClientAttack(attack) => {
                        attacks += 1;
                        let header = &attack.conflicting_block.signed_header.header;
                        header.height.min(last).max(at).plus(2)
                    }
                };
                let pending = Pending::new(evidence.clone(), last);
                let fits = |height| fit(&pending, height, 20);
                assert_eq!(fits(None), Fit::Later);
                assert_eq!(fits(Some(Height::ZERO)), Fit::Later);
                assert_eq!(fits(Some(needed.prev())), Fit::Later);
                assert_eq!(fits(Some(needed)), Fit::Send);
                assert_eq!(fits(Some(at.plus(20))), Fit::Send);
                assert_eq!(fits(Some(at.plus(21))), Fit::Never);
            }
        }
        assert!(votes > 0 && attacks > 0);
    }
}
