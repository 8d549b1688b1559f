//! Judges proofs of misbehaviour against the chain, verdict for verdict as CometBFT's
//! `evidence/verify.go` and `CheckEvidence` of its pool.

use std::{collections::BTreeMap, sync::Arc};

use perihelion_types::{
    Address, BlockIdFlag, DuplicateVoteEvidence, Evidence, Hash, Header, Height,
    LightClientAttackEvidence, SignedHeader, State, Time, Validator, ValidatorSet, Vote,
    params::EvidenceParams,
};

use crate::{CommitVerification, EvidenceError, HistoryError, TrustLevel};

/// What evidence verification needs of the chain below, and at, the state's height. An
/// implementation over a store that runs ahead of the state answers `None` above it.
pub trait History {
    /// The header of the block at `height`; `None` above the state's height and where pruned.
    ///
    /// # Errors
    /// When it cannot be read.
    fn header(&self, height: Height) -> Result<Option<Header>, HistoryError>;

    /// The header at `height` with the commit for it out of the block above; `None` where there is
    /// no such block yet.
    ///
    /// # Errors
    /// When it cannot be read.
    fn signed_header(&self, height: Height) -> Result<Option<SignedHeader>, HistoryError>;

    /// The validators of `height`.
    ///
    /// # Errors
    /// When they cannot be read.
    fn validators(&self, height: Height) -> Result<Option<Arc<ValidatorSet>>, HistoryError>;

    /// Whether a block of the chain holds `evidence` already, by height and hash.
    ///
    /// # Errors
    /// When that cannot be read.
    fn is_committed(&self, evidence: &Evidence) -> Result<bool, HistoryError>;
}

/// Judges the evidence of a block: none committed before, none twice, each one verified.
///
/// # Errors
/// Names the first rule that is broken. [`EvidenceError::History`] is a local fault.
pub fn verify_evidence_list(
    evidence: &[Evidence],
    state: &State,
    history: &impl History,
) -> Result<(), EvidenceError> {
    let mut seen: BTreeMap<Hash, usize> = BTreeMap::new();
    for (index, item) in evidence.iter().enumerate() {
        if history.is_committed(item)? {
            return Err(EvidenceError::AlreadyCommitted);
        }
        verify_evidence(item, state, history)?;
        if let Some(first) = seen.insert(item.hash(), index) {
            return Err(EvidenceError::Duplicate {
                first,
                second: index,
            });
        }
    }
    Ok(())
}

/// Judges one piece of evidence, which has passed `validate_basic`, against the state before the
/// block that carries it. Whether it was committed before is left to [`verify_evidence_list`].
///
/// # Errors
/// Names the first rule that is broken. [`EvidenceError::History`] is a local fault.
pub fn verify_evidence(
    evidence: &Evidence,
    state: &State,
    history: &impl History,
) -> Result<(), EvidenceError> {
    let height = evidence.height();
    if height > state.last_block_height {
        return Err(EvidenceError::NoHeader(height));
    }
    let header = history
        .header(height)?
        .ok_or(EvidenceError::NoHeader(height))?;
    if evidence.time() != header.time {
        return Err(EvidenceError::Time {
            expected: header.time,
            got: evidence.time(),
        });
    }
    if is_expired(state, height, header.time, &state.consensus_params.evidence) {
        return Err(EvidenceError::Expired { height });
    }
    match evidence {
        Evidence::DuplicateVote(duplicate) => {
            let set = validators(history, height)?;
            verify_duplicate_vote(duplicate, &state.chain_id, &set)
        }
        Evidence::LightClientAttack(attack) => {
            let common = signed_header(history, height)?;
            let common_set = validators(history, height)?;
            let trusted = trusted_header(attack, &common, state, history)?;
            verify_light_client_attack(attack, &common, &trusted, &common_set)
        }
    }
}

/// Whether evidence of `height`, whose block is of `time`, is too old after the state's last block:
/// in blocks *and* in time.
#[must_use]
pub fn is_expired(state: &State, height: Height, time: Time, params: &EvidenceParams) -> bool {
    let age_blocks = state.last_block_height.since(height);
    let age = state.last_block_time.nanos_since(time);
    // Go's durations saturate at 64 bits.
    let age = age.clamp(i128::from(i64::MIN), i128::from(i64::MAX));
    age > i128::from(params.max_age_duration) && age_blocks > params.max_age_num_blocks
}

/// One validator, two votes of one height, round and type for different blocks, both signed.
///
/// # Errors
/// Names the first rule that is broken.
pub fn verify_duplicate_vote(
    evidence: &DuplicateVoteEvidence,
    chain_id: &str,
    set: &ValidatorSet,
) -> Result<(), EvidenceError> {
    let (a, b) = (&evidence.vote_a, &evidence.vote_b);
    let (_, member) = a
        .address()
        .and_then(|address| set.by_address(&address))
        .ok_or(EvidenceError::NotAValidator { height: a.height })?;
    let place = |vote: &Vote| (vote.height, vote.round, vote.vote_type);
    if place(a) != place(b) {
        return Err(EvidenceError::VotesDiffer {
            a: place(a),
            b: place(b),
        });
    }
    if a.validator_address != b.validator_address {
        return Err(EvidenceError::VotersDiffer);
    }
    if a.block_id == b.block_id {
        return Err(EvidenceError::SameBlock(a.block_id));
    }
    if member.pub_key.address() != member.address {
        return Err(EvidenceError::KeyAddress(member.address));
    }
    if member.voting_power != evidence.validator_power {
        return Err(EvidenceError::ValidatorPower {
            expected: member.voting_power,
            got: evidence.validator_power,
        });
    }
    check_total_power(set, evidence.total_voting_power)?;
    for (name, vote) in [('a', a), ('b', b)] {
        member
            .pub_key
            .verify(&vote.sign_bytes(chain_id), &vote.signature)
            .map_err(|_| EvidenceError::WrongVoteSignature(name))?;
    }
    Ok(())
}

fn check_total_power(set: &ValidatorSet, got: i64) -> Result<(), EvidenceError> {
    let expected = set.total_voting_power();
    if expected == got {
        Ok(())
    } else {
        Err(EvidenceError::TotalPower { expected, got })
    }
}

fn signed_header(history: &impl History, height: Height) -> Result<SignedHeader, EvidenceError> {
    history
        .signed_header(height)?
        .ok_or(EvidenceError::NoCommit(height))
}

fn validators(history: &impl History, height: Height) -> Result<Arc<ValidatorSet>, EvidenceError> {
    history
        .validators(height)?
        .ok_or(EvidenceError::NoValidators(height))
}

/// The chain's header that the conflicting one is compared with: that of its height, or the latest
/// one for a block that is ahead of the chain (a forward lunatic attack, which must violate time).
fn trusted_header(
    attack: &LightClientAttackEvidence,
    common: &SignedHeader,
    state: &State,
    history: &impl History,
) -> Result<SignedHeader, EvidenceError> {
    let conflicting = &attack.conflicting_block.signed_header.header;
    if conflicting.height == attack.common_height {
        return Ok(common.clone());
    }
    if conflicting.height <= state.last_block_height
        && let Some(trusted) = history.signed_header(conflicting.height)?
    {
        return Ok(trusted);
    }
    let latest = signed_header(history, state.last_block_height)?;
    if latest.header.time < conflicting.time {
        return Err(EvidenceError::TimeNotViolated {
            latest: latest.header.time,
            conflicting: conflicting.time,
        });
    }
    Ok(latest)
}

/// A header that conflicts with the chain's, with a commit that holds, signed by enough of the
/// validators of the last height that both agree on.
///
/// # Errors
/// Names the first rule that is broken.
pub fn verify_light_client_attack(
    attack: &LightClientAttackEvidence,
    common: &SignedHeader,
    trusted: &SignedHeader,
    common_set: &ValidatorSet,
) -> Result<(), EvidenceError> {
    let conflicting = &attack.conflicting_block;
    let SignedHeader { header, commit } = &conflicting.signed_header;
    let chain_id = &trusted.header.chain_id;
    if common.header.height != header.height {
        CommitVerification::new(chain_id, common_set, commit)
            .trusting_all(TrustLevel::ONE_THIRD)
            .map_err(EvidenceError::CommonSet)?;
    } else if is_lunatic(header, &trusted.header) {
        return Err(EvidenceError::NotDerived);
    }
    CommitVerification::new(chain_id, &conflicting.validator_set, commit)
        .light_all(commit.block_id, header.height)
        .map_err(EvidenceError::ConflictingCommit)?;
    check_total_power(common_set, attack.total_voting_power)?;
    if header.height > trusted.header.height && header.time > trusted.header.time {
        return Err(EvidenceError::TimeNotViolated {
            latest: trusted.header.time,
            conflicting: header.time,
        });
    }
    if header.hash() == trusted.header.hash() {
        return Err(EvidenceError::SameHeader);
    }
    check_byzantine(attack, common_set, trusted)
}

/// Whether a header cannot follow from the chain's state: one of the fields that the state decides
/// is another.
fn is_lunatic(conflicting: &Header, trusted: &Header) -> bool {
    trusted.validators_hash != conflicting.validators_hash
        || trusted.next_validators_hash != conflicting.next_validators_hash
        || trusted.consensus_hash != conflicting.consensus_hash
        || trusted.app_hash != conflicting.app_hash
        || trusted.last_results_hash != conflicting.last_results_hash
}

/// The validators that an attack convicts, strongest first: in a lunatic attack the members of the
/// common set that signed, in an equivocation those that signed both headers in the same round, in
/// an amnesia attack none.
#[must_use]
pub fn byzantine_validators<'a>(
    attack: &'a LightClientAttackEvidence,
    common_set: &'a ValidatorSet,
    trusted: &SignedHeader,
) -> Vec<&'a Validator> {
    let conflicting = &attack.conflicting_block;
    let SignedHeader { header, commit } = &conflicting.signed_header;
    let lunatic = is_lunatic(header, &trusted.header);
    if !lunatic && commit.round != trusted.commit.round {
        return Vec::new();
    }
    let set = if lunatic {
        common_set
    } else {
        &conflicting.validator_set
    };
    let mut byzantine: Vec<&Validator> = commit
        .signatures
        .iter()
        .enumerate()
        .filter(|(_, sig)| sig.block_id_flag == BlockIdFlag::Commit)
        .filter(|(index, _)| {
            // With one validator set the places of both commits are those of the same validators.
            lunatic
                || trusted
                    .commit
                    .signatures
                    .get(*index)
                    .is_some_and(|sig| sig.block_id_flag == BlockIdFlag::Commit)
        })
        .filter_map(|(_, sig)| {
            let address = Address::try_from(&sig.validator_address[..]).ok()?;
            set.by_address(&address).map(|(_, member)| member)
        })
        .collect();
    byzantine.sort_by_key(|member| (std::cmp::Reverse(member.voting_power), member.address));
    byzantine
}

/// The evidence must list exactly the validators that follow from the headers: the application
/// punishes those that are listed.
fn check_byzantine(
    attack: &LightClientAttackEvidence,
    common_set: &ValidatorSet,
    trusted: &SignedHeader,
) -> Result<(), EvidenceError> {
    let expected = byzantine_validators(attack, common_set, trusted);
    if expected.is_empty() {
        return Err(EvidenceError::NobodyByzantine);
    }
    let listed = &attack.byzantine_validators;
    if expected.len() != listed.len() {
        return Err(EvidenceError::ByzantineCount {
            expected: expected.len(),
            got: listed.len(),
        });
    }
    for (index, (expected, listed)) in expected.into_iter().zip(listed).enumerate() {
        if expected.address != listed.address {
            return Err(EvidenceError::ByzantineAddress {
                index,
                expected: expected.address,
                got: listed.address,
            });
        }
        if expected.voting_power != listed.voting_power {
            return Err(EvidenceError::ByzantinePower {
                index,
                expected: expected.voting_power,
                got: listed.voting_power,
            });
        }
        // The application is told the key's address, not the one that is listed.
        if listed.pub_key.address() != listed.address {
            return Err(EvidenceError::KeyAddress(listed.address));
        }
    }
    Ok(())
}
