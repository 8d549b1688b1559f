//! The state machine: one owner, no lock.

mod answer;
mod begin;
mod finalize;
mod getters;
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
use perihelion_types::{Address, BlockId, Height, PeerId, PublicKey, Rules, State, Vote};

pub use self::begin::StartError;
use self::{
    answer::Pending,
    begin::{first_round, last_commit},
    replay::Mode,
    rules::Transition,
};
use crate::{
    Announce, ConsensusConfig, EachSignature, Effect, Fault, Halt, Maj23, Message, Notice, Now,
    RequestId, Start, Step, TimeoutInfo, Verify, WalMessage, round_state::RoundState,
    timer::Timers,
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

    /// Gives the room for votes and claims that peers took which are gone to others; to be called
    /// where [`HeightVoteSet::is_crowded`](crate::HeightVoteSet::is_crowded).
    pub fn retain_peers(&mut self, is_there: impl Fn(&PeerId) -> bool) {
        self.rs.votes.retain_peers(is_there);
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

/// A moment in the future; a year ahead where the sum is beyond the clock.
fn later(instant: Instant, wait: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    instant.checked_add(wait).unwrap_or(instant + YEAR)
}
