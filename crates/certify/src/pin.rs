//! Certifies a linked run of blocks by one commit.
//!
//! Let V be a validator set that we know. If members of V with more than 2/3 of its power have
//! precommitted the run's last block, honest members with more than 1/3 did, each of them in the
//! state after the block below it; so every block below it is final. The last block itself is
//! final only by its own set. `docs/pinning.md` has the whole argument.

use std::{collections::BTreeSet, sync::Arc};

use perihelion_types::{
    Address, BlockIdFlag, Commit, FetchedBlock, Height, Validator, ValidatorSet,
};

use crate::{
    CertifiedBlock, CommitFault, CommitVerification, LastBlock, LocalFault, Run, RunVerdict,
    SignatureCount,
    run::UnfittingFault,
    tally::{Claim, two_thirds, wrong_claims},
};

/// Certifies `run`, and says how many signatures that took: as few as decide it.
///
/// Nothing of the run is taken on trust: chain, heights and links are checked again. The run's
/// blocks are as long as their hashes say, for a [`FetchedBlock`] is decoded from its own bytes.
#[must_use]
pub fn certify_run(run: &Run) -> (RunVerdict, SignatureCount) {
    let target = match run.check_links().and_then(|()| run.target()) {
        Ok(target) => target,
        Err(fault) => return (RunVerdict::Broken { fault }, SignatureCount::ZERO),
    };
    if let Some(fault) = unconfirmed_mismatch(run) {
        return (RunVerdict::Unfitting { fault }, SignatureCount::ZERO);
    }
    let commit = match run.closing_commit(target) {
        Ok(commit) => commit,
        Err(fault) => return (blame_closing(run, fault), SignatureCount::ZERO),
    };
    let mut count = SignatureCount::ZERO;
    let verdict = match examine(run, target, commit, &mut count) {
        Finding::All => release(run, run.blocks.len(), LastBlock::Final),
        Finding::AllButLast(last) if run.blocks.len() > 1 => {
            release(run, run.blocks.len() - 1, last)
        }
        Finding::AllButLast(LastBlock::Suspect { fault, .. }) | Finding::Suspect(fault) => {
            blame_closing(run, fault)
        }
        Finding::AllButLast(_) | Finding::Drifted => RunVerdict::Drifted,
    };
    (verdict, count)
}

/// What the signatures say.
enum Finding {
    All,
    AllButLast(LastBlock),
    Drifted,
    Suspect(CommitFault),
}

/// The set of the target's own height, as far as it is known.
enum OwnSet<'a> {
    /// From our own state: whatever the header says.
    Given(&'a ValidatorSet),
    /// The header names V. That it does so truly is shown by V's signatures.
    NamedAnchor(&'a ValidatorSet),
    /// The header names the set above V.
    NamedNext(&'a ValidatorSet),
    Unknown,
}

fn own_set<'a>(run: &'a Run, target: &FetchedBlock) -> OwnSet<'a> {
    let anchor = &run.anchor;
    if target.height() == anchor.height {
        return OwnSet::Given(&anchor.set);
    }
    let named = target.block().header.validators_hash;
    let next = anchor.next.as_deref().map(|next| (next, next.hash()));
    if target.height() == anchor.height.next() && next.is_some_and(|(_, hash)| hash != named) {
        // The state knows the set above V, and the header names another one.
        return OwnSet::Unknown;
    }
    if named == anchor.set.hash() {
        return OwnSet::NamedAnchor(&anchor.set);
    }
    match next {
        Some((next, hash)) if hash == named => OwnSet::NamedNext(next),
        _ => OwnSet::Unknown,
    }
}

fn examine(
    run: &Run,
    target: &FetchedBlock,
    commit: &Commit,
    count: &mut SignatureCount,
) -> Finding {
    let light = |set: &ValidatorSet, count: &mut SignatureCount| {
        CommitVerification::new(&run.chain_id, set, commit)
            .light_counted(target.block_id(), target.height(), count)
            .map_err(CommitFault::OwnSet)
    };
    let own = own_set(run, target);
    match own {
        // Ordinary blocksync: the set is V, and the commit must hold against it.
        OwnSet::Given(set) => {
            return match light(set, count) {
                Ok(()) => Finding::All,
                Err(fault) => Finding::Suspect(fault),
            };
        }
        // One check serves both: the light check against V counts each member of V once.
        OwnSet::NamedAnchor(set) => {
            if light(set, count).is_ok() {
                return Finding::All;
            }
        }
        OwnSet::NamedNext(_) | OwnSet::Unknown => {}
    }
    match pinned_by(run, commit, count) {
        Pin::Short => Finding::Drifted,
        Pin::Wrong(fault) => Finding::Suspect(fault),
        Pin::Reached => match own {
            OwnSet::Unknown => Finding::AllButLast(LastBlock::UnknownSet),
            OwnSet::Given(set) | OwnSet::NamedAnchor(set) | OwnSet::NamedNext(set) => {
                match light(set, count) {
                    Ok(()) => Finding::All,
                    Err(fault) => Finding::AllButLast(LastBlock::Suspect {
                        height: run.closing.height(),
                        fault,
                    }),
                }
            }
        },
    }
}

enum Pin {
    Reached,
    Short,
    Wrong(CommitFault),
}

/// Whether members of V, matched by address and key and each counted once, that hold more than 2/3
/// of its power have precommitted the commit's block. The commit's set may be another one.
fn pinned_by(run: &Run, commit: &Commit, count: &mut SignatureCount) -> Pin {
    let set = &run.anchor.set;
    let needed = two_thirds(set.total_voting_power());
    let mut signers = signers_of(set, commit);
    // The strongest first: as few signatures as possible. The sort is stable.
    signers.sort_by_key(|(_, member)| std::cmp::Reverse(member.voting_power));
    let mut got = 0_i64;
    let enough = signers.iter().position(|(_, member)| {
        got = got.saturating_add(member.voting_power);
        got > needed
    });
    let Some(enough) = enough else {
        return Pin::Short;
    };
    signers.truncate(enough + 1);
    let template = commit.sign_bytes(&run.chain_id);
    let mut faults = Vec::with_capacity(signers.len());
    let mut claims = Vec::with_capacity(signers.len());
    for (index, member) in signers {
        let fault = CommitFault::WrongSignature {
            index,
            address: member.address,
        };
        let Some(message) = template.of(&commit.signatures[index]) else {
            return Pin::Wrong(fault);
        };
        claims.push(Claim {
            index,
            key: &member.pub_key,
            message,
            signature: &commit.signatures[index].signature,
        });
        faults.push(fault);
    }
    *count += SignatureCount::of(claims.len());
    match wrong_claims(claims).first() {
        None => Pin::Reached,
        Some(first) => Pin::Wrong(faults.swap_remove(*first)),
    }
}

/// The places that name a member of `set` and precommit the block; the first place of each.
fn signers_of<'a>(set: &'a ValidatorSet, commit: &Commit) -> Vec<(usize, &'a Validator)> {
    let mut seen = BTreeSet::new();
    commit
        .signatures
        .iter()
        .enumerate()
        .filter(|(_, sig)| sig.block_id_flag == BlockIdFlag::Commit)
        .filter_map(|(index, sig)| {
            let address = Address::try_from(&sig.validator_address[..]).ok()?;
            let (_, member) = set.by_address(&address)?;
            seen.insert(address).then_some((index, member))
        })
        .collect()
}

/// At the initial height nothing has confirmed V: a header that names another set convicts nobody.
fn unconfirmed_mismatch(run: &Run) -> Option<UnfittingFault> {
    if run.anchor.confirmed {
        return None;
    }
    let first = run.blocks.first()?;
    let (ours, header) = (run.anchor.set.hash(), first.block().header.validators_hash);
    (first.height() == run.anchor.height && ours != header).then_some(
        UnfittingFault::ValidatorsHash {
            height: first.height(),
            ours,
            header,
        },
    )
}

fn blame_closing(run: &Run, fault: CommitFault) -> RunVerdict {
    if run.anchor.confirmed {
        RunVerdict::Suspect {
            height: run.closing.height(),
            fault,
        }
    } else {
        RunVerdict::Unfitting {
            fault: UnfittingFault::Commit(fault),
        }
    }
}

/// Releases the first `final_blocks` of the run, unless they contradict our own state.
fn release(run: &Run, final_blocks: usize, last: LastBlock) -> RunVerdict {
    let certified = &run.blocks[..final_blocks];
    if let Some(fault) = certified
        .iter()
        .find_map(|fetched| contradiction(run, fetched))
    {
        return RunVerdict::LocalFault { fault };
    }
    let all = final_blocks == run.blocks.len();
    let blocks: Vec<CertifiedBlock> = certified
        .iter()
        .enumerate()
        .map(|(index, fetched)| {
            if index + 1 < final_blocks {
                // The block above is final too, and its last commit with it.
                CertifiedBlock::pinned(
                    Arc::clone(fetched),
                    Some(Arc::clone(&certified[index + 1])),
                    false,
                )
            } else if all {
                CertifiedBlock::pinned(Arc::clone(fetched), Some(Arc::clone(&run.closing)), true)
            } else {
                CertifiedBlock::pinned(Arc::clone(fetched), None, false)
            }
        })
        .collect();
    let next_validators_hash = blocks
        .last()
        .map(|block| block.block().header.next_validators_hash)
        .unwrap_or_default();
    RunVerdict::Certified {
        blocks,
        last,
        next_validators_hash,
    }
}

/// A final header that names other validators than our own state, at the heights whose validators
/// our state knows.
fn contradiction(run: &Run, fetched: &FetchedBlock) -> Option<LocalFault> {
    let anchor = &run.anchor;
    let known = |height: Height| {
        if height == anchor.height {
            Some(&anchor.set)
        } else if height == anchor.height.next() {
            anchor.next.as_ref()
        } else {
            None
        }
    };
    let ours = known(fetched.height())?.hash();
    let header = fetched.block().header.validators_hash;
    (ours != header).then(|| LocalFault::ValidatorsHash {
        height: fetched.height(),
        block_id: fetched.block_id(),
        ours,
        header,
    })
}
