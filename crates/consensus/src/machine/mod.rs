//! The state machine: one owner, no lock.

mod answer;
mod finalize;
mod receive;
mod replay;
mod rules;
mod sign;
mod transition;

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use perihelion_types::{
    Address, BlockId, Commit, ExtendedCommit, ExtendedCommitSig, FetchedBlock, Height, PartSet,
    PeerId, Proposal, PublicKey, Round, Rules, State, Validator, ValidatorSet, Vote,
};
use thiserror::Error;

use self::{answer::Pending, replay::Mode, rules::Transition};
use crate::{
    Announce, Candidate, ConsensusConfig, EachSignature, Effect, Fault, Halt, HeightVoteSet,
    LastCommit, Maj23, Message, Notice, Now, RequestId, RoundStep, Start, Step, TimeoutInfo,
    Verify, VoteSet, WalMessage,
    round_state::{Elapsed, RoundState},
    timer::Timers,
    votes::VoteError,
};

/// Most inputs kept while an answer is awaited. A shell that heeds
/// [`is_waiting`](Consensus::is_waiting) hands in at most one; beyond the bound they are dropped.
pub const MAX_DEFERRED_INPUTS: usize = 1024;

/// How many verdicts on blocks of this height are remembered; more than one is needed only where
/// rounds propose different blocks.
const MAX_VERDICTS: usize = 16;

/// The round state machine of one validator, or of a node that only follows.
///
/// Invariants: at most one question is open; while it is, no input is taken. The effects, in order,
/// put every input into the log before what follows from it leaves the node. A lock is given up
/// only for a later polka.
#[derive(Debug)]
pub struct Consensus {
    config: ConsensusConfig,
    verify: Arc<dyn Verify>,
    chain_id: Arc<str>,
    own: Option<(Address, PublicKey)>,
    state: Arc<State>,
    rules: Rules,
    last_header_app_hash: Option<Bytes>,
    rs: RoundState,
    timers: Timers,
    effects: VecDeque<Effect>,
    inputs: VecDeque<Input>,
    own_messages: VecDeque<Message>,
    pending: Option<Pending>,
    next_id: u64,
    verdicts: VecDeque<(BlockId, Result<(), String>)>,
    mode: Mode,
    pinned: Height,
    txs_available: bool,
    dropped_inputs: u64,
    halted: Option<Halt>,
}

/// What is taken one at a time.
#[derive(Debug)]
enum Input {
    Message { peer: PeerId, message: Message },
    Timeout(TimeoutInfo),
    Replayed(WalMessage),
}

/// Consensus cannot begin with what it was given.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StartError {
    /// There are blocks, and nothing says why the last one is final.
    #[error("no commit for block {height}, which was applied last")]
    NoLastCommit {
        /// The last applied block's height.
        height: Height,
    },
    /// Vote extensions are enabled at the last block's height and its extended commit is not there.
    #[error("no extended commit for block {height}, which was applied last")]
    NoExtendedCommit {
        /// The last applied block's height.
        height: Height,
    },
    /// The commit is of another block than the one applied last.
    #[error("the commit is for block {got}, the last applied block is {expected}")]
    OtherCommit {
        /// The last applied block.
        expected: Box<BlockId>,
        /// What the commit is for.
        got: Box<BlockId>,
    },
    /// The commit has another number of places than there are validators.
    #[error("the commit has {got} places, there were {expected} validators")]
    CommitSize {
        /// Validators of the last block.
        expected: usize,
        /// Places of the commit.
        got: usize,
    },
    /// A vote of the commit does not hold.
    #[error("the last block's commit: {0}")]
    Vote(#[from] VoteError),
    /// The commit has too little power.
    #[error("the commit for block {height} has too little power")]
    TooLittlePower {
        /// The last applied block's height.
        height: Height,
    },
}

impl Consensus {
    /// Stands before the height after the last applied block. Nothing happens before
    /// [`start`](Self::start); what the log has of this height goes to [`replay`](Self::replay)
    /// before.
    ///
    /// # Errors
    /// When the last block's commit is missing or does not hold.
    pub fn new(now: Now, config: ConsensusConfig, start: Start) -> Result<Self, StartError> {
        Self::with_verifier(now, config, start, Arc::new(EachSignature))
    }

    /// As [`new`](Self::new), with another way of verifying signatures.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_verifier(
        now: Now,
        config: ConsensusConfig,
        start: Start,
        verify: Arc<dyn Verify>,
    ) -> Result<Self, StartError> {
        let chain_id: Arc<str> = start.state.chain_id.as_str().into();
        let last_commit = last_commit(&chain_id, &start, &*verify)?;
        let start_time = later(now.instant, config.timeout_commit);
        Ok(Self {
            rs: first_round(&chain_id, &start.state, last_commit, start_time),
            verify,
            chain_id,
            own: start.own_key.map(|key| (key.address(), key)),
            state: start.state,
            rules: start.rules,
            last_header_app_hash: start.last_header_app_hash,
            config,
            timers: Timers::default(),
            effects: VecDeque::new(),
            inputs: VecDeque::new(),
            own_messages: VecDeque::new(),
            pending: None,
            next_id: 0,
            verdicts: VecDeque::new(),
            mode: Mode::Replaying { unanswered: None },
            pinned: Height::ZERO,
            txs_available: false,
            dropped_inputs: 0,
            halted: None,
        })
    }

    /// Takes a proposal, part or vote of a peer, which has passed its `validate_basic`.
    pub fn handle_message(&mut self, now: Now, peer: PeerId, message: Message) {
        self.push(Input::Message { peer, message });
        self.run(now);
    }

    /// Takes a peer's claim that some block has more than 2/3 of a round's votes. It counts at
    /// once, whatever is awaited. Claims about other heights are ignored.
    pub fn handle_maj23(&mut self, peer: PeerId, claim: &Maj23) {
        if claim.height != self.rs.height {
            return;
        }
        if let Err(fault) = self.rs.votes.claim_maj23(peer, claim) {
            self.punish(Some(peer), fault);
        }
    }

    /// The mempool has transactions, for the first time at this height.
    pub fn handle_txs_available(&mut self, now: Now) {
        self.txs_available = true;
        self.propose_what_is_there();
        self.run(now);
    }

    /// Takes all deadlines that are due.
    pub fn handle_deadline(&mut self, now: Now) {
        while self.poll_deadline().is_some() {
            let Some(timeout) = self.timers.expire(now.instant) else {
                break;
            };
            self.push(Input::Timeout(timeout));
            self.run(now);
        }
    }

    /// A final block of `height` is held that did not come from here: nothing is signed at this
    /// height or below it any more.
    pub fn handle_pinned(&mut self, height: Height) {
        self.pinned = self.pinned.max(height);
    }

    /// What is to be done next; to be asked until there is nothing.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`handle_deadline`](Self::handle_deadline) is to be called; never while an answer is
    /// awaited.
    #[must_use]
    pub fn poll_deadline(&self) -> Option<Instant> {
        let idle = self.pending.is_none() && self.halted.is_none() && self.mode.is_running();
        idle.then(|| self.timers.next()).flatten()
    }

    /// Whether an answer is awaited: then hand in nothing but answers (and claims of majorities).
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.pending.as_ref().is_some_and(Pending::is_asked)
    }

    /// Takes inputs one at a time, and after each makes every transition that it allows, until an
    /// answer is needed.
    fn run(&mut self, now: Now) {
        while self.halted.is_none() {
            if self.pending.is_some() {
                if !self.resume_replay(now) {
                    return;
                }
            } else if let Some(message) = self.own_messages.pop_front() {
                self.take_message(now, None, message);
            } else if let Some(transition) = self.next_transition() {
                self.make(now, transition);
            } else if let Some(input) = self.inputs.pop_front() {
                self.take(now, input);
            } else {
                return;
            }
        }
    }

    fn push(&mut self, input: Input) {
        if self.inputs.len() < MAX_DEFERRED_INPUTS {
            self.inputs.push_back(input);
        } else {
            self.dropped_inputs += 1;
        }
    }

    fn take(&mut self, now: Now, input: Input) {
        match input {
            Input::Message { peer, message } => {
                self.append(
                    WalMessage::Message {
                        peer: Some(peer),
                        message: message.clone(),
                    },
                    false,
                );
                self.take_message(now, Some(peer), message);
            }
            Input::Timeout(timeout) => {
                self.append(WalMessage::Timeout(timeout), false);
                self.take_timeout(timeout);
            }
            Input::Replayed(record) => self.take_record(now, record),
        }
    }

    /// A timeout counts only for the step that it was for, or an earlier one.
    fn take_timeout(&mut self, timeout: TimeoutInfo) {
        let rs = &mut self.rs;
        if (timeout.height, timeout.round) != (rs.height, rs.round) || timeout.step < rs.step {
            return;
        }
        match timeout.step {
            Step::NewHeight => rs.elapsed.new_height = true,
            Step::NewRound => rs.elapsed.new_round = true,
            Step::Propose => rs.elapsed.propose = true,
            Step::PrevoteWait => rs.elapsed.prevote = true,
            Step::PrecommitWait => rs.elapsed.precommit = true,
            Step::Prevote | Step::Precommit | Step::Commit => {}
        }
    }

    fn append(&mut self, message: WalMessage, sync: bool) {
        if self.mode.is_running() {
            self.effects.push_back(Effect::Append { message, sync });
        }
    }

    fn announce(&mut self, announce: Announce) {
        self.effects.push_back(Effect::Announce(announce));
    }

    fn notice(&mut self, notice: Notice) {
        self.effects.push_back(Effect::Notice(notice));
    }

    fn punish(&mut self, peer: Option<PeerId>, fault: Fault) {
        // A record of the log is no reason to punish anybody now.
        if let Some(peer) = peer
            && self.mode.is_running()
        {
            self.effects.push_back(Effect::Punish { peer, fault });
        }
    }

    fn halt(&mut self, halt: Halt) {
        self.effects.push_back(Effect::Halt(halt.clone()));
        self.halted = Some(halt);
    }

    fn new_id(&mut self) -> RequestId {
        self.next_id += 1;
        RequestId(self.next_id)
    }

    fn is_own(&self, vote: &Vote) -> bool {
        self.own
            .as_ref()
            .is_some_and(|(address, _)| vote.validator_address[..] == address.as_bytes()[..])
    }

    fn extensions_enabled(&self) -> bool {
        self.state
            .consensus_params
            .vote_extensions_enabled(self.rs.height)
    }
}

/// Getters.
impl Consensus {
    /// The height that is being decided.
    #[must_use]
    pub fn height(&self) -> Height {
        self.rs.height
    }

    /// Its round.
    #[must_use]
    pub fn round(&self) -> Round {
        self.rs.round
    }

    /// The step of the round.
    #[must_use]
    pub fn step(&self) -> Step {
        self.rs.step
    }

    /// When round 0 begins or began.
    #[must_use]
    pub fn start_time(&self) -> Instant {
        self.rs.start_time
    }

    /// The round whose precommits decided, while the block is waited for or applied.
    #[must_use]
    pub fn commit_round(&self) -> Option<Round> {
        self.rs.commit_round
    }

    /// The state after the last applied block.
    #[must_use]
    pub fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// The validators of the height, with the priorities of the round.
    #[must_use]
    pub fn validators(&self) -> &Arc<ValidatorSet> {
        &self.rs.validators
    }

    /// Who proposes in this round.
    #[must_use]
    pub fn proposer(&self) -> Option<&Validator> {
        self.rs.validators.proposer()
    }

    /// The round's proposal.
    #[must_use]
    pub fn proposal(&self) -> Option<&Arc<Proposal>> {
        self.rs.proposal.as_ref()
    }

    /// The block that the parts make, once they are complete.
    #[must_use]
    pub fn block(&self) -> Option<&Arc<FetchedBlock>> {
        self.rs.block.as_ref()
    }

    /// The parts that are being collected, or are complete.
    #[must_use]
    pub fn parts(&self) -> Option<&Arc<PartSet>> {
        self.rs.parts.as_ref()
    }

    /// The block locked on.
    #[must_use]
    pub fn locked(&self) -> Option<&Candidate> {
        self.rs.locked.as_ref()
    }

    /// The last block that had a polka while it was here; proposed again.
    #[must_use]
    pub fn valid(&self) -> Option<&Candidate> {
        self.rs.valid.as_ref()
    }

    /// The votes of the height.
    #[must_use]
    pub fn votes(&self) -> &HeightVoteSet {
        &self.rs.votes
    }

    /// The precommits for the block below; `None` at the initial height.
    #[must_use]
    pub fn last_commit(&self) -> Option<&VoteSet> {
        self.rs.last_commit.as_ref()
    }

    /// What `NewRoundStep` tells a peer.
    #[must_use]
    pub fn round_step(&self) -> RoundStep {
        let rs = &self.rs;
        RoundStep {
            height: rs.height,
            round: rs.round,
            step: rs.step,
            start_time: rs.start_time,
            last_commit_round: rs
                .last_commit
                .as_ref()
                .map_or(Round::new(-1), VoteSet::round),
        }
    }

    /// What `NewValidBlock` tells a peer, while parts are collected or complete.
    #[must_use]
    pub fn valid_block(&self) -> Option<Announce> {
        let rs = &self.rs;
        Some(Announce::ValidBlock {
            height: rs.height,
            round: rs.round,
            header: rs.parts.as_ref()?.header(),
            parts: rs.part_bits(),
            is_commit: rs.step == Step::Commit,
        })
    }

    /// Whether the log was replayed and [`start`](Self::start) called.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.mode.is_running()
    }

    /// The height up to which nothing is signed, because a final block is held.
    #[must_use]
    pub fn pinned(&self) -> Height {
        self.pinned
    }

    /// How many inputs were dropped because too many came while an answer was awaited.
    #[must_use]
    pub fn dropped_inputs(&self) -> u64 {
        self.dropped_inputs
    }

    /// Why nothing more is done, if so.
    #[must_use]
    pub fn halted(&self) -> Option<&Halt> {
        self.halted.as_ref()
    }
}

/// A moment in the future; a year ahead where the sum is beyond the clock.
fn later(instant: Instant, wait: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    instant.checked_add(wait).unwrap_or(instant + YEAR)
}

/// The state of a height before its first round.
fn first_round(
    chain_id: &Arc<str>,
    state: &State,
    last_commit: Option<VoteSet>,
    start_time: Instant,
) -> RoundState {
    let height = state.next_height();
    let extensions = state.consensus_params.vote_extensions_enabled(height);
    let validators = Arc::clone(&state.validators);
    RoundState {
        height,
        round: Round::ZERO,
        step: Step::NewHeight,
        start_time,
        commit_time: None,
        votes: HeightVoteSet::new(
            Arc::clone(chain_id),
            height,
            Arc::clone(&validators),
            extensions,
        ),
        validators,
        proposal: None,
        block: None,
        parts: None,
        locked: None,
        valid: None,
        commit_round: None,
        last_commit,
        elapsed: Elapsed::default(),
        precommit_wait: false,
    }
}

/// The votes of the last applied block's commit, each verified.
fn last_commit(
    chain_id: &Arc<str>,
    start: &Start,
    verify: &dyn Verify,
) -> Result<Option<VoteSet>, StartError> {
    let state = &start.state;
    let height = state.last_block_height;
    if height == Height::ZERO {
        return Ok(None);
    }
    let extensions = state.consensus_params.vote_extensions_enabled(height);
    let commit = match &start.last_commit {
        LastCommit::None => return Err(StartError::NoLastCommit { height }),
        LastCommit::Plain(_) if extensions => return Err(StartError::NoExtendedCommit { height }),
        LastCommit::Plain(commit) => without_extensions(commit),
        LastCommit::Extended(commit) if extensions => commit.clone(),
        LastCommit::Extended(commit) => without_extensions(&commit.to_commit()),
    };
    if (commit.height, commit.block_id) != (height, state.last_block_id) {
        return Err(StartError::OtherCommit {
            expected: Box::new(state.last_block_id),
            got: Box::new(commit.block_id),
        });
    }
    let (expected, got) = (
        state.last_validators.len(),
        commit.extended_signatures.len(),
    );
    if expected != got {
        return Err(StartError::CommitSize { expected, got });
    }
    let set = Arc::clone(&state.last_validators);
    let votes = VoteSet::from_commit(Arc::clone(chain_id), &commit, set, extensions, verify)?;
    if votes.maj23() != Some(state.last_block_id) {
        return Err(StartError::TooLittlePower { height });
    }
    Ok(Some(votes))
}

fn without_extensions(commit: &Commit) -> ExtendedCommit {
    ExtendedCommit {
        height: commit.height,
        round: commit.round,
        block_id: commit.block_id,
        extended_signatures: commit
            .signatures
            .iter()
            .map(|place| ExtendedCommitSig {
                commit_sig: place.clone(),
                extension: Bytes::new(),
                extension_signature: Bytes::new(),
            })
            .collect(),
    }
}
