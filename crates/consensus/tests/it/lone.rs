//! One state machine among validators that the test plays.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use perihelion_consensus::{
    Announce, Answer, Ask, BlockVerdict, Consensus, ConsensusConfig, Effect, Fault, LastCommit,
    Maj23, Message, Notice, Now, SignRequest, Start, Step, WalMessage,
};
use perihelion_crypto::PrivateKey;
use perihelion_types::{
    BlockId, Commit, Height, NodeId, PeerId, Round, Rules, SignedMsgType, State, Vote,
};

use crate::chain::{self, Built, CHAIN_ID, Validators};

pub(crate) const PREVOTE: SignedMsgType = SignedMsgType::Prevote;
pub(crate) const PRECOMMIT: SignedMsgType = SignedMsgType::Precommit;

/// A peer.
pub(crate) fn peer(number: u8) -> PeerId {
    NodeId::new([number; 20])
}

/// That more than 2/3 have prevoted a block of height 1, as a peer may say.
pub(crate) fn claim(round: i32, block_id: BlockId) -> Maj23 {
    Maj23 {
        height: Height::new(1),
        round: Round::new(round),
        vote_type: PREVOTE,
        block_id,
    }
}

/// What a shell answers.
#[derive(Debug, Clone)]
pub(crate) struct Answers {
    pub(crate) verdict: BlockVerdict,
    pub(crate) signs: bool,
    pub(crate) accepts_extensions: bool,
    /// Answers are held back until `go_on`.
    pub(crate) waits: bool,
}

/// One state machine, its shell and its clock.
pub(crate) struct Lone {
    pub(crate) core: Consensus,
    pub(crate) state: Arc<State>,
    pub(crate) keys: Vec<PrivateKey>,
    /// Its own place among the keys.
    pub(crate) me: usize,
    pub(crate) now: Now,
    pub(crate) answers: Answers,
    /// Everything that it wanted, in order.
    pub(crate) effects: Vec<Effect>,
    pub(crate) wal: Vec<WalMessage>,
    pub(crate) decided: Vec<BlockId>,
    pub(crate) txs: Vec<Bytes>,
    config: ConsensusConfig,
}

impl Lone {
    /// The validator who proposes in `round` of height 1, of four with equal power; started, in
    /// round 0 of height 1.
    pub(crate) fn proposing_in(round: i32) -> Self {
        let mut lone = Self::with(&[10; 4], 0, ConsensusConfig::default(), round);
        lone.begin();
        lone
    }

    pub(crate) fn with(
        powers: &[i64],
        extensions: i64,
        config: ConsensusConfig,
        proposes_in: i32,
    ) -> Self {
        let validators = Validators::new(powers, extensions);
        let address = chain::proposer(&validators.genesis.validators, proposes_in);
        let me = validators
            .keys
            .iter()
            .position(|key| key.public_key().address() == address)
            .unwrap();
        Self::at(validators, config, me)
    }

    fn at(validators: Validators, config: ConsensusConfig, me: usize) -> Self {
        let Validators { keys, genesis } = validators;
        let now = Now {
            instant: Instant::now(),
            time: genesis
                .last_block_time
                .checked_add_nanos(1_000_000_000)
                .unwrap(),
        };
        let core = Consensus::new(
            now,
            config.clone(),
            start(&genesis, keys.get(me), LastCommit::None, None),
        );
        Self {
            core: core.unwrap(),
            state: genesis,
            keys,
            me,
            now,
            answers: Answers {
                verdict: BlockVerdict::Accepted,
                signs: true,
                accepts_extensions: true,
                waits: false,
            },
            effects: Vec::new(),
            wal: Vec::new(),
            decided: Vec::new(),
            txs: Vec::new(),
            config,
        }
    }

    /// One that is no validator.
    pub(crate) fn follower() -> Self {
        let mut lone = Self::at(
            Validators::new(&[10; 4], 0),
            ConsensusConfig::default(),
            usize::MAX,
        );
        lone.begin();
        lone
    }

    /// Starts it and lets the height begin.
    pub(crate) fn begin(&mut self) {
        self.core.start(self.now);
        self.drain();
        assert_eq!(self.core.step(), Step::NewHeight);
        self.elapse();
    }

    /// Another state machine with the same key at the last applied state, not started.
    pub(crate) fn restarted(&self, last_commit: LastCommit) -> Consensus {
        let start = start(&self.state, self.keys.get(self.me), last_commit, None);
        Consensus::new(self.now, self.config.clone(), start).unwrap()
    }

    /// Does what it wants.
    pub(crate) fn drain(&mut self) {
        while let Some(effect) = self.core.poll_effect() {
            self.effects.push(effect.clone());
            if !self.answers.waits {
                self.answer(effect);
            } else if let Effect::Append { message, .. } = effect {
                self.wal.push(message);
            }
        }
    }

    /// Gives the answers that were held back.
    pub(crate) fn go_on(&mut self) {
        self.answers.waits = false;
        if let Some(effect) = self.effects.last().cloned() {
            self.answer(effect);
        }
        self.drain();
    }

    fn answer(&mut self, effect: Effect) {
        let now = self.now;
        let (id, answer) = match effect {
            Effect::Ask { id, ask } => (id, self.told(&ask)),
            Effect::Sign { id, request } if self.answers.signs => (id, self.signed(request)),
            Effect::Sign { id, .. } => (id, Answer::NotSigned),
            Effect::Apply { id, block } => {
                self.state = Arc::new(chain::execute(&self.state, block.fetched()));
                let state = Arc::clone(&self.state);
                let rules = Rules::V038;
                (id, Answer::Applied { state, rules })
            }
            Effect::Append { message, .. } => return self.wal.push(message),
            Effect::Commit(block) => return self.decided.push(block.block_id()),
            _ => return,
        };
        self.core.handle_answer(now, id, answer);
    }

    fn told(&mut self, ask: &Ask) -> Answer {
        match ask {
            Ask::MakeBlock {
                proposer,
                last_commit,
                ..
            } => {
                let txs: Vec<&[u8]> = self.txs.iter().map(|tx| &tx[..]).collect();
                let commit = last_commit.to_commit();
                let block = chain::raw_block(&self.state, commit, &txs, *proposer);
                Answer::Block(Box::new(block))
            }
            Ask::ProcessProposal { .. } | Ask::ValidateBlock { .. } => {
                Answer::Verdict(self.answers.verdict.clone())
            }
            Ask::ExtendVote { .. } => Answer::Extension(Bytes::from_static(b"mine")),
            Ask::VerifyExtension { .. } => {
                Answer::ExtensionAccepted(self.answers.accepts_extensions)
            }
        }
    }

    fn signed(&self, request: SignRequest) -> Answer {
        let key = &self.keys[self.me];
        match request {
            SignRequest::Vote {
                mut vote,
                extension,
            } => {
                vote.signature = key.sign(&vote.sign_bytes(CHAIN_ID));
                if extension {
                    vote.extension_signature = key.sign(&vote.extension_sign_bytes(CHAIN_ID));
                }
                Answer::SignedVote(vote)
            }
            SignRequest::Proposal(mut proposal) => {
                proposal.signature = key.sign(&proposal.sign_bytes(CHAIN_ID));
                Answer::SignedProposal(proposal)
            }
        }
    }

    /// Lets the clock run to the next deadline.
    pub(crate) fn elapse(&mut self) {
        let at = self.core.poll_deadline().expect("there is a deadline");
        self.wait(at.saturating_duration_since(self.now.instant));
    }

    pub(crate) fn wait(&mut self, time: Duration) {
        self.now.instant += time;
        let nanos = i64::try_from(time.as_nanos()).unwrap();
        self.now.time = self.now.time.checked_add_nanos(nanos).unwrap();
        self.core.handle_deadline(self.now);
        self.drain();
    }

    /// How long until the next deadline.
    pub(crate) fn until_deadline(&self) -> Option<Duration> {
        let at = self.core.poll_deadline()?;
        Some(at.saturating_duration_since(self.now.instant))
    }

    pub(crate) fn send(&mut self, from: PeerId, message: Message) {
        self.core.handle_message(self.now, from, message);
        self.drain();
    }

    fn height(&self) -> Height {
        self.core.height()
    }

    /// A block after the present state, by the proposer of `round`.
    pub(crate) fn block(&self, round: i32, tx: &str) -> Built {
        let commit = match self.core.last_commit() {
            None => chain::no_commit(),
            Some(votes) => votes.commit().unwrap(),
        };
        self.block_with(round, tx, commit)
    }

    pub(crate) fn block_with(&self, round: i32, tx: &str, commit: Commit) -> Built {
        let proposer = chain::proposer(&self.state.validators, round);
        let txs: &[&[u8]] = if tx.is_empty() { &[] } else { &[tx.as_bytes()] };
        chain::block(&self.state, commit, txs, proposer)
    }

    /// A peer proposes `block` in `round`, with all its parts.
    pub(crate) fn propose(&mut self, round: i32, block: &Built, pol_round: i32) {
        self.propose_without_parts(round, block, pol_round);
        self.send_parts(round, block);
    }

    pub(crate) fn propose_without_parts(&mut self, round: i32, block: &Built, pol_round: i32) {
        let proposal = self.proposal(round, block.id(), pol_round);
        self.send(peer(1), proposal);
    }

    pub(crate) fn proposal(&self, round: i32, block_id: BlockId, pol_round: i32) -> Message {
        let address = chain::proposer(&self.state.validators, round);
        let mut keys = self.keys.iter();
        let key = keys
            .find(|key| key.public_key().address() == address)
            .unwrap();
        let place = (self.height(), round);
        let proposal = chain::proposal(key, place, pol_round, block_id, self.now.time);
        Message::Proposal(Arc::new(proposal))
    }

    pub(crate) fn send_parts(&mut self, round: i32, block: &Built) {
        for index in 0..block.parts.header().total {
            let message = Message::Part {
                height: self.height(),
                round: Round::new(round),
                part: Arc::new(block.parts.part(index).unwrap().clone()),
            };
            self.send(peer(1), message);
        }
    }

    /// The validators that the test plays.
    pub(crate) fn others(&self) -> Vec<usize> {
        (0..self.keys.len())
            .filter(|index| *index != self.me)
            .collect()
    }

    pub(crate) fn vote_of(
        &self,
        index: usize,
        vote_type: SignedMsgType,
        round: i32,
        block_id: BlockId,
    ) -> Vote {
        let key = &self.keys[index];
        let set = &self.state.validators;
        let place = (self.height(), round);
        let vote = chain::vote(key, set, vote_type, place, block_id, self.now.time);
        let params = &self.state.consensus_params;
        let extends = vote_type == PRECOMMIT && !block_id.is_nil();
        if extends && params.vote_extensions_enabled(self.height()) {
            return chain::extended(key, vote, format!("of {index}").as_bytes());
        }
        vote
    }

    /// `count` of the others vote.
    pub(crate) fn votes(
        &mut self,
        count: usize,
        vote_type: SignedMsgType,
        round: i32,
        block_id: BlockId,
    ) {
        for index in self.others().into_iter().take(count) {
            let vote = self.vote_of(index, vote_type, round, block_id);
            self.send(peer(1), Message::Vote(Arc::new(vote)));
        }
    }

    /// All others prevote and precommit a block that one of them proposes, or this one.
    pub(crate) fn decide(&mut self, tx: &str) -> BlockId {
        if self.core.step() == Step::NewHeight {
            self.elapse();
        }
        let id = match self.core.block() {
            Some(mine) => mine.block_id(),
            None => {
                let block = self.block(0, tx);
                self.propose(0, &block, -1);
                block.id()
            }
        };
        self.votes(3, PREVOTE, 0, id);
        let height = self.height();
        // The last one comes late.
        for index in self.others() {
            if self.height() == height {
                let vote = self.vote_of(index, PRECOMMIT, 0, id);
                self.send(peer(1), Message::Vote(Arc::new(vote)));
            }
        }
        assert_eq!(self.decided.last(), Some(&id), "decided");
        id
    }

    /// What it has voted: type, round, block.
    pub(crate) fn voted(&self) -> Vec<(SignedMsgType, i32, BlockId)> {
        let mut voted = Vec::new();
        for effect in &self.effects {
            if let Effect::Sign {
                request: SignRequest::Vote { vote, .. },
                ..
            } = effect
            {
                voted.push((vote.vote_type, vote.round.get(), vote.block_id));
            }
        }
        voted
    }

    pub(crate) fn last_vote(&self) -> (SignedMsgType, i32, BlockId) {
        *self.voted().last().expect("it has voted")
    }

    /// What it has proposed: round, round of the proof of lock, block.
    pub(crate) fn proposed(&self) -> Vec<(i32, i32, BlockId)> {
        let mut proposed = Vec::new();
        for effect in &self.effects {
            if let Effect::Sign {
                request: SignRequest::Proposal(proposal),
                ..
            } = effect
            {
                let (round, pol) = (proposal.round.get(), proposal.pol_round.get());
                proposed.push((round, pol, proposal.block_id));
            }
        }
        proposed
    }

    pub(crate) fn punished(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        for effect in &self.effects {
            if let Effect::Punish { fault, .. } = effect {
                faults.push(*fault);
            }
        }
        faults
    }

    pub(crate) fn reported(&self) -> Vec<(Vote, Vote)> {
        let mut reported = Vec::new();
        for effect in &self.effects {
            if let Effect::Report { first, second } = effect {
                reported.push((Vote::clone(first), Vote::clone(second)));
            }
        }
        reported
    }

    pub(crate) fn noticed(&self) -> Vec<Notice> {
        let mut notices = Vec::new();
        for effect in &self.effects {
            if let Effect::Notice(notice) = effect {
                notices.push(notice.clone());
            }
        }
        notices
    }

    pub(crate) fn announced(&self) -> Vec<Announce> {
        let mut news = Vec::new();
        for effect in &self.effects {
            if let Effect::Announce(announce) = effect {
                news.push(announce.clone());
            }
        }
        news
    }
}

pub(crate) fn start(
    state: &Arc<State>,
    key: Option<&PrivateKey>,
    last_commit: LastCommit,
    last_header_app_hash: Option<Bytes>,
) -> Start {
    Start {
        state: Arc::clone(state),
        rules: Rules::V038,
        own_key: key.map(PrivateKey::public_key),
        last_commit,
        last_header_app_hash,
    }
}
