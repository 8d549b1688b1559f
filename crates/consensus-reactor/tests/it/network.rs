//! Nodes that speak by encoded messages over a pipe: real state machines, and between them nothing
//! but what this crate decides to send.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use perihelion_consensus::{
    Announce, Answer, Ask, BlockVerdict, Consensus, ConsensusConfig, Effect, LastCommit, Now,
    SignRequest, Start,
};
use perihelion_consensus_reactor::{
    peer::{MAX_STATE_BITS, PeerState, Received, Stored, View, VotesView, answer_maj23},
    wire::{Channel, PeerMessage},
};
use perihelion_crypto::PrivateKey;
use perihelion_types::{
    BlockId, Height, NodeId, PartSet, PartSetHeader, PeerId, Rules, SignedMsgType, State,
};

use crate::chain::{self, Validators};

pub(crate) const TICK: Duration = Duration::from_millis(10);
/// What is told to one peer in one tick.
const AT_ONCE: usize = 4;
/// Ticks between claims of majorities.
const CLAIMS_EVERY: u64 = 200;

/// Decided blocks.
#[derive(Default)]
pub(crate) struct Blocks(BTreeMap<Height, (BlockId, Arc<PartSet>, Arc<VotesView>)>);

impl Stored for Blocks {
    fn header(&self, height: Height) -> Option<PartSetHeader> {
        Some(self.0.get(&height)?.0.part_set_header)
    }

    fn parts(&self, height: Height) -> Option<Arc<PartSet>> {
        Some(Arc::clone(&self.0.get(&height)?.1))
    }

    fn commit(&self, height: Height) -> Option<Arc<VotesView>> {
        Some(Arc::clone(&self.0.get(&height)?.2))
    }
}

pub(crate) struct Node {
    id: PeerId,
    key: PrivateKey,
    pub(crate) core: Consensus,
    state: Arc<State>,
    pub(crate) view: Arc<View>,
    pub(crate) blocks: Blocks,
    pub(crate) peers: BTreeMap<usize, PeerState>,
    /// Bytes of the transaction in each of its blocks.
    tx_bytes: usize,
}

impl Node {
    pub(crate) fn decided(&self) -> Vec<BlockId> {
        self.blocks.0.values().map(|(id, ..)| *id).collect()
    }

    pub(crate) fn look(&mut self) {
        let base = self.blocks.0.keys().next().copied();
        let base = base.unwrap_or(Height::ZERO);
        self.view = Arc::new(View::of(&self.core, base, Some(&self.view)));
    }

    fn told(&self, ask: &Ask) -> Answer {
        match ask {
            Ask::MakeBlock {
                height,
                proposer,
                last_commit,
                ..
            } => {
                let byte = height.get() as u8;
                let tx = vec![byte; self.tx_bytes];
                let txs: &[&[u8]] = &[&tx];
                let block = chain::raw_block(&self.state, last_commit.to_commit(), txs, *proposer);
                Answer::Block(Box::new(block))
            }
            Ask::ProcessProposal { block } | Ask::ValidateBlock { block } => {
                let verdict = match chain::validate(&self.state, block.block(), |_| true) {
                    Ok(()) => BlockVerdict::Accepted,
                    Err(reason) => BlockVerdict::Invalid(reason),
                };
                Answer::Verdict(verdict)
            }
            Ask::ExtendVote { .. } => Answer::Extension(Bytes::new()),
            Ask::VerifyExtension { .. } => Answer::ExtensionAccepted(true),
        }
    }

    fn signed(&self, request: SignRequest) -> Answer {
        match request {
            SignRequest::Vote { mut vote, .. } => {
                vote.signature = self.key.sign(&vote.sign_bytes(chain::CHAIN_ID));
                Answer::SignedVote(vote)
            }
            SignRequest::Proposal(mut proposal) => {
                proposal.signature = self.key.sign(&proposal.sign_bytes(chain::CHAIN_ID));
                Answer::SignedProposal(proposal)
            }
        }
    }

    /// Does what the state machine wants; what it tells all peers comes back.
    fn drain(&mut self, now: Now) -> Vec<Announce> {
        let mut news = Vec::new();
        while let Some(effect) = self.core.poll_effect() {
            let (id, answer) = match effect {
                Effect::Ask { id, ask } => (id, self.told(&ask)),
                Effect::Sign { id, request } => (id, self.signed(request)),
                Effect::Apply { id, block } => {
                    self.state = Arc::new(chain::execute(&self.state, block.fetched()));
                    let state = Arc::clone(&self.state);
                    let rules = Rules::V038;
                    (id, Answer::Applied { state, rules })
                }
                Effect::Commit(block) => {
                    let parts = PartSet::from_data(block.fetched().raw().clone());
                    let commit = VotesView::of_commit(block.commit().unwrap());
                    let stored = (block.block_id(), Arc::new(parts), Arc::new(commit));
                    self.blocks.0.insert(block.height(), stored);
                    continue;
                }
                Effect::Announce(announce) => {
                    news.push(announce);
                    continue;
                }
                Effect::Punish { fault, .. } => panic!("an honest peer is punished: {fault}"),
                Effect::Halt(halt) => panic!("{halt}"),
                _ => continue,
            };
            self.core.handle_answer(now, id, answer);
        }
        self.look();
        news
    }
}

/// What must not be sent twice to one peer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Item {
    Part(Height, u32, Bytes),
    Vote(Height, i32, i32, i32, Vec<u8>),
}

impl Item {
    pub(crate) fn of(message: &PeerMessage) -> Option<Self> {
        match message {
            PeerMessage::Part { height, part, .. } => {
                let leaf = part.proof.leaf_hash.clone();
                Some(Self::Part(*height, part.index, leaf))
            }
            PeerMessage::Vote(vote) => Some(Self::Vote(
                vote.height,
                vote.round.get(),
                vote.vote_type.to_i32(),
                vote.validator_index,
                vote.block_id.key(),
            )),
            _ => None,
        }
    }
}

pub(crate) struct Network {
    pub(crate) nodes: Vec<Node>,
    pub(crate) now: Now,
    ticks: u64,
    links: BTreeSet<(usize, usize)>,
    pipe: VecDeque<(usize, usize, Channel, Bytes)>,
    sent: BTreeMap<(usize, usize), BTreeSet<Item>>,
    /// What was sent twice, though the peer had not said that it lacks it.
    pub(crate) twice: Vec<(usize, usize, Item)>,
    /// Parts sent in all.
    pub(crate) parts_sent: usize,
}

impl Network {
    /// Validators of equal power, not linked; each block has a transaction of so many bytes.
    pub(crate) fn new(count: usize, tx_bytes: usize) -> Self {
        let Validators { keys, genesis } = Validators::new(&vec![10; count], 0);
        let now = Now {
            instant: Instant::now(),
            time: genesis
                .last_block_time
                .checked_add_nanos(1_000_000_000)
                .unwrap(),
        };
        let nodes = keys.into_iter().enumerate().map(|(number, key)| {
            let start = Start {
                state: Arc::clone(&genesis),
                rules: Rules::V038,
                own_key: Some(key.public_key()),
                last_commit: LastCommit::None,
                last_header_app_hash: None,
            };
            let core = Consensus::new(now, ConsensusConfig::default(), start).unwrap();
            Node {
                id: NodeId::new([number as u8 + 1; 20]),
                key,
                view: Arc::new(View::of(&core, Height::ZERO, None)),
                core,
                state: Arc::clone(&genesis),
                blocks: Blocks::default(),
                peers: BTreeMap::new(),
                tx_bytes,
            }
        });
        let mut network = Self {
            nodes: nodes.collect(),
            now,
            ticks: 0,
            links: BTreeSet::new(),
            pipe: VecDeque::new(),
            sent: BTreeMap::new(),
            twice: Vec::new(),
            parts_sent: 0,
        };
        for node in 0..count {
            network.nodes[node].core.start(now);
            network.drain(node);
        }
        network
    }

    pub(crate) fn link(&mut self, a: usize, b: usize) {
        for (from, to) in [(a, b), (b, a)] {
            let id = self.nodes[to].id;
            let state = PeerState::new(&self.nodes[from].id, &id, Height::new(1));
            self.nodes[from].peers.insert(to, state);
            self.links.insert((from, to));
            self.sent.remove(&(from, to));
            let step = *self.nodes[from].view.round_step();
            let step = PeerMessage::announcing(&Announce::RoundStep(step), self.now.instant);
            self.send(from, to, &step.unwrap());
        }
    }

    pub(crate) fn cut(&mut self, a: usize, b: usize) {
        for (from, to) in [(a, b), (b, a)] {
            self.links.remove(&(from, to));
            self.nodes[from].peers.remove(&to);
            self.pipe.retain(|(f, t, ..)| (*f, *t) != (from, to));
        }
    }

    fn send(&mut self, from: usize, to: usize, message: &PeerMessage) {
        if let Some(item) = Item::of(message) {
            self.parts_sent += usize::from(matches!(item, Item::Part(..)));
            let sent = self.sent.entry((from, to)).or_default();
            if !sent.insert(item.clone()) {
                self.twice.push((from, to, item));
            }
        }
        let channel = message.channel();
        self.pipe.push_back((from, to, channel, message.encode()));
    }

    fn drain(&mut self, node: usize) {
        let news = self.nodes[node].drain(self.now);
        for announce in news {
            if let Some(message) = PeerMessage::announcing(&announce, self.now.instant) {
                let to: Vec<usize> = self.nodes[node].peers.keys().copied().collect();
                to.into_iter().for_each(|to| self.send(node, to, &message));
            }
        }
    }

    fn deliver(&mut self, from: usize, to: usize, channel: Channel, bytes: &Bytes) {
        let message = PeerMessage::decode_on(channel, bytes, Rules::V038)
            .unwrap()
            .expect("of its channel");
        if let PeerMessage::NewValidBlock(block) = &message {
            let sent = self.sent.entry((to, from)).or_default();
            let lacks = |index: u32| !block.parts.get(index as usize);
            sent.retain(|item| {
                !matches!(item, Item::Part(height, index, _) if *height == block.height && lacks(*index))
            });
        }
        let (now, id) = (self.now, self.nodes[from].id);
        let node = &mut self.nodes[to];
        let view = Arc::clone(&node.view);
        let Some(peer) = node.peers.get_mut(&from) else {
            return;
        };
        let received = peer.handle(now.instant, Some(&view), &message).unwrap();
        assert!(peer.held_bits() <= MAX_STATE_BITS);
        match received {
            Received::Noted | Received::PassedOver(_) => {}
            Received::Core(message) => node.core.handle_message(now, id, message),
            Received::Claim(claim) => {
                node.core.handle_maj23(id, &claim);
                if let Some(answer) = answer_maj23(node.core.votes(), &claim) {
                    self.send(to, from, &answer);
                }
            }
        }
        self.drain(to);
    }

    /// What is on its way arrives, deadlines run out, and everybody tells its peers something.
    pub(crate) fn tick(&mut self) {
        self.ticks += 1;
        self.now.instant += TICK;
        let nanos = i64::try_from(TICK.as_nanos()).unwrap();
        self.now.time = self.now.time.checked_add_nanos(nanos).unwrap();
        for (from, to, channel, bytes) in std::mem::take(&mut self.pipe) {
            self.deliver(from, to, channel, &bytes);
        }
        for node in 0..self.nodes.len() {
            let due = self.nodes[node].core.poll_deadline();
            if due.is_some_and(|due| due <= self.now.instant) {
                self.nodes[node].core.handle_deadline(self.now);
                self.drain(node);
            }
        }
        for (from, to) in self.links.clone() {
            for _ in 0..AT_ONCE {
                self.tell(from, to, PeerState::next_data);
                self.tell(from, to, PeerState::next_vote);
            }
            if self.ticks.is_multiple_of(CLAIMS_EVERY) {
                let node = &self.nodes[from];
                let claims = node.peers[&to].next_maj23(&node.view, &node.blocks);
                claims.iter().for_each(|claim| self.send(from, to, claim));
            }
        }
    }

    fn tell(
        &mut self,
        from: usize,
        to: usize,
        next: impl Fn(&mut PeerState, &View, &dyn Stored) -> Option<PeerMessage>,
    ) {
        let node = &mut self.nodes[from];
        let peer = node.peers.get_mut(&to).unwrap();
        if let Some(message) = next(peer, &node.view, &node.blocks) {
            peer.sent(&node.view, &message);
            self.send(from, to, &message);
        }
    }

    /// Until the node has decided `height`.
    pub(crate) fn run_to(&mut self, node: usize, height: i64, most_ticks: u64) {
        let end = self.ticks + most_ticks;
        while (self.nodes[node].blocks.0.len() as i64) < height {
            assert!(self.ticks < end, "no progress: {:?}", self.places());
            self.tick();
        }
    }

    pub(crate) fn places(&self) -> Vec<String> {
        let place = |node: &Node| {
            let core = &node.core;
            format!("{}/{}/{}", core.height(), core.round(), core.step())
        };
        self.nodes.iter().map(place).collect()
    }

    /// All have decided the same as far as each got.
    pub(crate) fn assert_agreed(&self) {
        let longest = self.nodes.iter().map(Node::decided).max_by_key(Vec::len);
        let longest = longest.unwrap();
        for node in &self.nodes {
            let decided = node.decided();
            assert_eq!(decided, longest[..decided.len()]);
        }
    }

    /// A vote of validator `by`, signed.
    pub(crate) fn vote(
        &self,
        by: usize,
        vote_type: SignedMsgType,
        (height, round): (i64, i32),
        block_id: BlockId,
    ) -> perihelion_types::Vote {
        let set = &self.nodes[0].state.validators;
        let place = (Height::new(height), round);
        let key = &self.nodes[by].key;
        chain::vote(key, set, vote_type, place, block_id, self.now.time)
    }

    /// Gives a node a message as if a stranger had sent it.
    pub(crate) fn give(&mut self, node: usize, message: perihelion_consensus::Message) {
        let stranger = NodeId::new([0xee; 20]);
        let now = self.now;
        self.nodes[node].core.handle_message(now, stranger, message);
        self.drain(node);
    }
}

impl Network {
    /// A proposal of the proposer of that round, signed.
    pub(crate) fn proposal(
        &self,
        (height, round): (i64, i32),
        pol_round: i32,
        block_id: BlockId,
    ) -> perihelion_types::Proposal {
        let address = chain::proposer(&self.nodes[0].state.validators, round);
        let by = |node: &&Node| node.key.public_key().address() == address;
        let key = &self.nodes.iter().find(by).unwrap().key;
        let place = (Height::new(height), round);
        chain::proposal(key, place, pol_round, block_id, self.now.time)
    }
}
