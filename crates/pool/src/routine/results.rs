//! What workers and executor report.

use std::{sync::Arc, time::Instant};

use perihelion_certify::{CertifiedBlock, CommitError, RunVerdict, SignatureCount};
use perihelion_schedule::{BodyFault, Fault, Reception, RunId, Verdict};
use perihelion_types::{Height, ValidatorSet};
use tracing::{debug, info, warn};

use super::{KNOWN_SETS, Pool, PoolError, applied_facts};
use crate::{
    Command, VerifyMode,
    applier::Report,
    translate,
    workers::{Decoded, Done, ExtendedVerdict},
};

impl Pool {
    pub(super) fn take_result(&mut self, done: Done) {
        match done {
            Done::Decoded(blocks) => blocks.into_iter().for_each(|block| self.take_block(block)),
            Done::Certified {
                id,
                verdict,
                signatures,
            } => {
                self.take_verdict(id, verdict, signatures);
            }
            Done::Probed {
                id,
                verdict,
                in_full,
            } => {
                if let (Some(commit), Some(applier)) = (in_full, &self.applier) {
                    applier.keep_commit(commit);
                }
                let (verdict, signatures) = match verdict {
                    Ok(signatures) => (Verdict::Vouched, signatures),
                    Err(error) => (
                        Verdict::Suspect {
                            fault: translate::commit_error(&error),
                        },
                        SignatureCount::ZERO,
                    ),
                };
                self.tell_verdict(id, verdict, signatures);
            }
            Done::Extended(verdicts) => {
                for verdict in verdicts {
                    self.take_extended(verdict);
                }
            }
            Done::Decided {
                id,
                signatures,
                result,
            } => {
                self.take_decided(id, result, signatures);
            }
        }
        self.resubmit();
    }

    /// An extended commit of a final block.
    fn take_extended(&mut self, verdict: ExtendedVerdict) {
        let ExtendedVerdict {
            height,
            from,
            result,
        } = verdict;
        let good = result.is_ok();
        match result {
            Ok(block) => {
                if let Some(kept) = self.certified.get_mut(height) {
                    *kept = block;
                }
            }
            Err(error) => debug!(%height, peer = %from, %error, "extended commit discarded"),
        }
        self.schedule
            .handle_extended_commit_verdict(Instant::now(), height, from, good);
    }

    /// A block that its own extended commit was to make final.
    fn take_decided(
        &mut self,
        id: RunId,
        result: Result<CertifiedBlock, CommitError>,
        signatures: SignatureCount,
    ) {
        let awaited = self.certified.take_verdict(id);
        let verdict = match result {
            Ok(block) if awaited => {
                let to = block.height();
                self.certified.insert(to, id, block);
                Verdict::Pinned { to }
            }
            Ok(_) => Verdict::Drifted,
            Err(error) => {
                debug!(%error, "extended commit of the last block discarded");
                Verdict::Suspect {
                    fault: translate::commit_error(&error),
                }
            }
        };
        self.tell_verdict(id, verdict, signatures);
    }

    fn tell_verdict(&mut self, id: RunId, verdict: Verdict, signatures: SignatureCount) {
        self.schedule
            .handle_verdict(Instant::now(), id, verdict, signatures.get());
    }

    fn take_block(&mut self, decoded: Decoded) {
        let Decoded {
            peer,
            connection,
            result,
        } = decoded;
        let now = Instant::now();
        match result {
            // It was asked for over an earlier connection, and is asked for again.
            Ok(_) if self.connections.get(&peer) != Some(&connection) => {}
            // A link does not show it; a peer of this network cannot have it from anybody else.
            Ok(block) if block.block().header.chain_id != *self.chain_id => {
                let (height, fault) = (block.height(), BodyFault::OtherChain);
                self.schedule.handle_bad_block(now, peer, height, fault);
            }
            Ok(block) => {
                let height = block.height();
                match self.schedule.handle_block(now, peer, block) {
                    Reception::Wanted | Reception::Late | Reception::Refused => {}
                    Reception::Unsolicited => debug!(%peer, %height, "block was never asked for"),
                }
            }
            Err(refused) => {
                let fault = translate::body_fault(&refused.error);
                debug!(%peer, height = ?refused.height, error = %refused.error, "block refused");
                if refused.fits_later_rules
                    && let Some(senders) = self.later_rules.note(now, peer)
                {
                    warn!(
                        height = refused.height.map(tracing::field::display),
                        %senders,
                        "blocks have signatures that v0.40 allows and v0.38 does not: if this chain runs \
                         v0.40 there, say from which height on in perihelion.median_time"
                    );
                }
                match refused.height {
                    Some(height) => self.schedule.handle_bad_block(now, peer, height, fault),
                    None => self.push_command(Command::Punish {
                        peer,
                        connection,
                        fault: Fault::Body {
                            height: Height::ZERO,
                            fault: BodyFault::Undecodable,
                        },
                        ban: true,
                    }),
                }
            }
        }
    }

    fn take_verdict(&mut self, id: RunId, verdict: RunVerdict, signatures: SignatureCount) {
        if !self.certified.take_verdict(id) {
            // Its signatures count all the same; the schedule knows the run no more.
            self.tell_verdict(id, Verdict::Drifted, signatures);
            return;
        }
        let verdict = match verdict {
            RunVerdict::Certified { blocks, .. } => {
                let Some(last) = blocks.last() else { return };
                let to = last.height();
                for block in blocks {
                    self.certified.insert(block.height(), id, block);
                }
                Verdict::Pinned { to }
            }
            RunVerdict::Drifted => Verdict::Drifted,
            RunVerdict::Suspect { fault, .. } => Verdict::Suspect {
                fault: translate::commit_fault(&fault),
            },
            RunVerdict::Unfitting { fault } => {
                info!(%fault, "the first block offered does not fit our genesis");
                Verdict::Suspect {
                    fault: translate::unfitting(&fault),
                }
            }
            RunVerdict::Broken { fault } => {
                // The schedule links blocks before it asks; halving leads to the pair at fault.
                warn!(%fault, run = id.get(), "a run that does not link was given to certification");
                Verdict::Drifted
            }
            RunVerdict::LocalFault { fault } => translate::local_fault(&fault),
            RunVerdict::InvalidFinalCommit { height, error } => {
                self.failed = Some(PoolError::InvalidFinalCommit {
                    height,
                    error: Box::new(error),
                });
                return;
            }
        };
        self.tell_verdict(id, verdict, signatures);
    }

    pub(super) fn take_report(&mut self, report: Report) {
        let now = Instant::now();
        match report {
            Report::Applied { applied, state } => {
                self.certified.pass(applied.height);
                self.times.add(applied.times);
                self.remember(&state.next_validators);
                self.schedule
                    .handle_applied(now, applied_facts(&state, self.own_address));
            }
            Report::ExtensionRequired { height } => {
                self.schedule.handle_extension_required(now, height);
            }
            Report::InvalidCommit { height, error } => {
                self.schedule.handle_apply_failed(now, height, None);
                self.failed = Some(PoolError::InvalidFinalCommit {
                    height,
                    error: Box::new(error),
                });
            }
            Report::Failed { height, error } => {
                self.schedule.handle_apply_failed(now, height, None);
                self.failed = Some(PoolError::Apply { height, error });
            }
        }
    }

    pub(super) fn remember(&mut self, set: &Arc<ValidatorSet>) {
        if self.verify == VerifyMode::Every
            && self
                .sets
                .back()
                .is_none_or(|last| last.hash() != set.hash())
        {
            self.sets.push_back(Arc::clone(set));
            if self.sets.len() > KNOWN_SETS {
                self.sets.pop_front();
            }
        }
    }
}
