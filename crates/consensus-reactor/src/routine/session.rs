//! Consensus while it has the executor: inputs in, effects done in order.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use perihelion_consensus::{
    Answer, Ask, Consensus, Effect, Notice, RequestId, SignRequest, Step, WalMessage,
};
use perihelion_p2p::LogLimit;
use perihelion_state::Executor;
use perihelion_types::{Height, Round, Vote};
use tokio::sync::{mpsc, watch};

use super::{
    Input, Inputs, Node,
    begin::now,
    events::RoundWatcher,
    screen::{Screen, Worth},
    verify::RememberLast,
};
use crate::{
    ConsensusError,
    app::{AppReport, AppThread},
    peer::{View, VotesView, answer_maj23},
    privval::{FilePrivval, SigningLease},
    shared::{Claim, FromPeer, Shared},
    standing::{STANDS_AFTER, Stay},
    wal::Wal,
};

/// Messages that are taken before what has changed is shown to the peers' tasks. More, and peers
/// hear later; fewer, and pictures are taken more often.
const TAKEN_AT_ONCE: usize = 64;
/// How long an answer of the application is waited for before the log tells, again and again.
const SLOW: Duration = Duration::from_secs(10);
/// Lines of one kind at once, and how often after that: a peer or a proposer can bring them about.
static NOTICES: LogLimit = LogLimit::new(20, Duration::from_secs(10));

/// One stay in consensus.
pub(super) struct Session {
    pub(super) node: Arc<Node>,
    pub(super) chain_id: String,
    pub(super) core: Consensus,
    pub(super) wal: Wal,
    pub(super) privval: Option<FilePrivval>,
    pub(super) lease: SigningLease,
    pub(super) app: AppThread,
    pub(super) reports: mpsc::Receiver<AppReport>,
    pub(super) txs: watch::Receiver<u64>,
    pub(super) verify: Arc<RememberLast>,
    pub(super) screen: Screen,
    pub(super) watcher: RoundWatcher,
    pub(super) view: Option<Arc<View>>,
    /// Something may have changed since.
    pub(super) changed: bool,
    /// The question that is open.
    pub(super) asked: Option<Asked>,
    /// The last block applied before.
    pub(super) began: Height,
    /// The height that is being decided, and since when.
    pub(super) deciding: Option<(Height, Instant)>,
    /// Why nothing is signed.
    pub(super) silence: Option<Arc<str>>,
}

/// A question to the application that is open.
pub(super) struct Asked {
    /// When the log is to tell of it.
    tell_at: Instant,
    since: Instant,
    /// The vote whose extension is judged.
    extension_of: Option<Arc<Vote>>,
}

impl Session {
    /// Whether only answers and claims may be taken.
    pub(super) fn is_waiting(&self) -> bool {
        self.core.is_waiting()
    }

    /// When to come back without an input.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let slow = self.asked.as_ref().map(|asked| asked.tell_at);
        [self.core.poll_deadline(), self.wal.sync_deadline(), slow]
            .into_iter()
            .flatten()
            .min()
    }

    pub(super) fn sources(
        &mut self,
    ) -> (&mut mpsc::Receiver<AppReport>, &mut watch::Receiver<u64>) {
        (&mut self.reports, &mut self.txs)
    }

    pub(super) fn is_validator(&self) -> bool {
        self.privval.as_ref().is_some_and(|privval| {
            let set = self.core.validators();
            set.by_address(&privval.address()).is_some()
        })
    }

    /// Takes one input, or several messages that are there, and shows what has changed.
    pub(super) fn take(&mut self, input: Input, inputs: &mut Inputs) -> Result<(), ConsensusError> {
        self.core.handle_pinned(self.node.shared.pinned());
        match input {
            Input::Message(message) => self.take_messages(message, inputs)?,
            Input::Claim(claim) => self.take_claim(&claim),
            Input::Report(report) => self.take_report(report)?,
            Input::TxsAvailable => {
                // They may have gone into a block meanwhile.
                if self.node.mempool.size() > 0 {
                    self.core.handle_txs_available(now());
                }
            }
            Input::Deadline => self.take_deadlines()?,
            Input::AppGone => return Err(ConsensusError::ThreadGone("application")),
            Input::Command(_) | Input::Stop => {}
        }
        self.drain()?;
        self.publish();
        Ok(())
    }

    fn take_messages(
        &mut self,
        first: FromPeer,
        inputs: &mut Inputs,
    ) -> Result<(), ConsensusError> {
        let mut next = Some(first);
        for _ in 0..TAKEN_AT_ONCE {
            let Some(message) = next.take() else { break };
            self.take_message(message);
            self.drain()?;
            if self.core.is_waiting() {
                break;
            }
            next = inputs.more();
        }
        if let Some(message) = next {
            self.take_message(message);
        }
        Ok(())
    }

    /// Peers that are gone leave room for others.
    fn make_room(&mut self) {
        if self.core.votes().is_crowded() {
            let before = self.core.votes().rounds().count();
            let peers = self.node.shared.peers();
            self.core.retain_peers(|peer| peers.contains_key(peer));
            if self.core.votes().rounds().count() < before {
                self.screen.forget_closed(&self.core);
            }
        }
    }

    fn take_message(&mut self, from: FromPeer) {
        let FromPeer { peer, message, .. } = from;
        self.make_room();
        match self.screen.judge(&self.core, peer, &message, &*self.verify) {
            Worth::Take => {
                self.changed = true;
                self.core.handle_message(now(), peer, message);
            }
            Worth::Nothing => {}
            Worth::Fault(fault) => self.node.shared.punish(&peer, &fault),
        }
    }

    /// A claim counts whatever is awaited, and is answered by the votes that are here.
    fn take_claim(&mut self, Claim { peer, claim }: &Claim) {
        self.make_room();
        self.core.handle_maj23(*peer, claim);
        let Some(answer) = answer_maj23(self.core.votes(), claim) else {
            return;
        };
        if let Some(peer) = self.node.shared.peer(peer) {
            // What finds no room is asked for again.
            let _ = peer.handle.try_send(answer.channel().id(), answer.encode());
        }
    }

    fn take_report(&mut self, report: AppReport) -> Result<(), ConsensusError> {
        let (id, answer) = answer_of(report)?;
        let asked = self.asked.take();
        if let (Answer::ExtensionAccepted(false), Some(vote)) =
            (&answer, asked.and_then(|asked| asked.extension_of))
        {
            self.screen.rejected(&vote);
        }
        let applied = tell_decided(&self.node.shared, &answer);
        self.core.handle_answer(now(), id, answer);
        if applied {
            // Peers may be told of the new height before anything else.
            self.drain()?;
        }
        Ok(())
    }

    fn take_deadlines(&mut self) -> Result<(), ConsensusError> {
        let at = Instant::now();
        if self.wal.sync_deadline().is_some_and(|due| due <= at) {
            self.wal.sync()?;
        }
        if let Some(asked) = self.asked.as_mut().filter(|asked| asked.tell_at <= at) {
            asked.tell_at = at + SLOW;
            let waited = at.duration_since(asked.since).as_secs();
            let call = self.app.busy().map(|(call, _)| call);
            let height = self.core.height().get();
            tracing::warn!(height, call, seconds = waited, "the application is slow");
        }
        self.core.handle_deadline(now());
        Ok(())
    }

    /// Does all that the state machine wants.
    pub(super) fn drain(&mut self) -> Result<(), ConsensusError> {
        while let Some(effect) = self.core.poll_effect() {
            self.perform(effect)?;
        }
        let bus = &self.node.events;
        self.watcher.look(&self.core, bus);
        Ok(())
    }

    fn perform(&mut self, effect: Effect) -> Result<(), ConsensusError> {
        self.changed = true;
        // Behind one of these nothing stands that happened before it was asked for.
        let is_at_rest = matches!(
            effect,
            Effect::SyncWal | Effect::Ask { .. } | Effect::Commit(_)
        );
        if is_at_rest {
            self.watcher.look(&self.core, &self.node.events);
        }
        match effect {
            Effect::Append { message, sync } => self.append(&message, sync)?,
            Effect::SyncWal => {
                // Peers need not wait for the disk.
                self.publish();
                self.wal.sync()?;
            }
            Effect::Sign { id, request } => {
                let answer = self.sign(request);
                self.core.handle_answer(now(), id, answer);
            }
            Effect::Ask { id, ask } => {
                self.note_question(Some(&ask));
                self.app.ask(id, ask);
            }
            Effect::Announce(announce) => {
                self.watcher.hear(&announce, &self.core, &self.node.events);
                self.node.shared.announce(&announce);
            }
            Effect::Commit(block) => {
                self.publish();
                let commit = block.extended_commit().map_or_else(
                    || block.commit().map(VotesView::of_commit),
                    |commit| Some(VotesView::of_extended_commit(commit)),
                );
                if self.app.commit(&block).is_err() {
                    return Err(failure_of(&self.node, &mut self.reports));
                }
                let height = block.height();
                if let Some(commit) = commit {
                    let parts = self.core.parts().cloned();
                    self.node.shared.stored.decided(height, parts, commit);
                }
                let round = self.core.commit_round().map(perihelion_types::Round::get);
                tracing::debug!(height = height.get(), round, block = %block.block_id().hash, "decided");
            }
            Effect::Apply { id, block } => {
                self.note_question(None);
                self.app.apply(id, block);
            }
            Effect::Report { first, second } => {
                self.screen.caught(&second);
                self.node.evidence.report_conflicting_votes(first, second);
            }
            Effect::Punish { peer, fault } => self.node.shared.punish(&peer, &fault),
            Effect::Notice(notice) => tell(&notice),
            Effect::Halt(halt) => return Err(ConsensusError::Halted(halt)),
        }
        Ok(())
    }

    fn append(&mut self, message: &WalMessage, sync: bool) -> Result<(), ConsensusError> {
        if let WalMessage::Timeout(timeout) = message {
            self.watcher.timeout(timeout, &self.core, &self.node.events);
        }
        Ok(self.wal.append_message(now().time, message, sync)?)
    }

    fn note_question(&mut self, ask: Option<&Ask>) {
        let since = Instant::now();
        self.asked = Some(Asked {
            since,
            tell_at: since + SLOW,
            extension_of: match ask {
                Some(Ask::VerifyExtension { vote }) => Some(Arc::clone(vote)),
                _ => None,
            },
        });
    }

    /// Signs, unless consensus is to be left or a final block of the height is held.
    fn sign(&mut self, request: SignRequest) -> Answer {
        let shared = &self.node.shared;
        let height = match &request {
            SignRequest::Vote { vote, .. } => vote.height,
            SignRequest::Proposal(proposal) => proposal.height,
        };
        if shared.leaving.load(Ordering::Acquire) || height <= shared.pinned() {
            return Answer::NotSigned;
        }
        let Some(privval) = &mut self.privval else {
            return Answer::NotSigned;
        };
        let signed = match request {
            SignRequest::Vote {
                mut vote,
                extension,
            } => privval
                .sign_vote(&self.lease, &self.chain_id, &mut vote)
                .map(|()| {
                    if !extension {
                        vote.extension_signature = Bytes::new();
                    }
                    Answer::SignedVote(vote)
                }),
            SignRequest::Proposal(mut proposal) => privval
                .sign_proposal(&self.lease, &self.chain_id, &mut proposal)
                .map(|()| Answer::SignedProposal(proposal)),
        };
        match signed {
            Ok(answer) => {
                self.silence = None;
                answer
            }
            Err(error) => {
                if let Some(left_out) = NOTICES.pass() {
                    tracing::error!(%error, left_out, "the validator stays silent");
                }
                self.silence = Some(error.to_string().into());
                Answer::NotSigned
            }
        }
    }

    /// What is known of the stay, the beginning of the height included.
    fn stay(&mut self) -> Stay {
        let (height, round) = (self.core.height(), self.core.round());
        let is_due = round > Round::ZERO || self.core.step() > Step::NewRound;
        self.deciding = match self.deciding {
            _ if !is_due => None,
            Some(since) if since.0 == height => Some(since),
            _ => Some((height, Instant::now())),
        };
        let config = &self.node.config;
        let (first, privval) = (Round::ZERO, self.privval.as_ref());
        let round = config.propose(first) + config.prevote(first) + config.precommit(first);
        Stay {
            own_address: privval.map(FilePrivval::address),
            since: self.deciding.map(|(_, since)| since),
            patience: STANDS_AFTER.max(round * 2),
            silence: self.silence.clone().filter(|_| self.is_validator()),
        }
    }

    /// Shows the peers' tasks where the state machine is.
    pub(super) fn publish(&mut self) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        let stay = self.stay();
        let shared = &self.node.shared;
        let view = View::of(&self.core, shared.stored.base(), self.view.as_deref());
        let view = Arc::new(view.with_stay(stay));
        self.view = Some(Arc::clone(&view));
        shared.show(view);
    }

    /// Ends the stay: nothing is signed any more, the job at hand is waited for, and the executor
    /// comes back.
    pub(super) fn end(self) -> Result<(Executor, Option<FilePrivval>), ConsensusError> {
        let Self {
            node,
            core,
            mut wal,
            privval,
            lease,
            app,
            mut reports,
            ..
        } = self;
        node.shared.view.send_replace(None);
        let known = core.state().last_block_height;
        drop(core);
        if let Err(error) = wal.sync() {
            // What was signed is there; peers say their part again.
            tracing::warn!(%error, "the consensus log cannot be synced");
        }
        drop(wal);
        let Ok(leased) = app.end() else {
            return Err(failure_of(&node, &mut reports));
        };
        let executor = leased
            .end(lease)
            .map_err(|_| ConsensusError::ThreadGone("application"))?;
        if executor.state().last_block_height > known {
            let state = Some(executor.state_arc());
            node.shared.decided.send_replace(state);
        }
        Ok((executor, privval))
    }
}

/// The answer in a report; a failure ends the node.
pub(super) fn answer_of(report: AppReport) -> Result<(RequestId, Answer), ConsensusError> {
    match report {
        AppReport::Answer { id, answer } => Ok((id, answer)),
        AppReport::Failed(error) => Err(ConsensusError::Apply(Arc::from(error))),
    }
}

/// Why the application's thread has ended.
pub(super) fn failure_of(node: &Node, reports: &mut mpsc::Receiver<AppReport>) -> ConsensusError {
    loop {
        match node.wait_for_report(reports).and_then(answer_of) {
            Ok(_) => {}
            Err(error) => return error,
        }
    }
}

/// Tells who waits for blocks that one was applied; whether one was.
pub(super) fn tell_decided(shared: &Shared, answer: &Answer) -> bool {
    let Answer::Applied { state, .. } = answer else {
        return false;
    };
    shared.decided.send_replace(Some(Arc::clone(state)));
    true
}

fn tell(notice: &Notice) {
    let Some(left_out) = NOTICES.pass() else {
        return;
    };
    match notice {
        Notice::OwnVoteConflict { .. } => tracing::error!(left_out, "{notice}"),
        Notice::Withheld { .. } => tracing::info!(left_out, "{notice}"),
        // Where the signer failed that is told as an error; consensus may also be about to end, or
        // a final block of the height is here.
        Notice::NotSigned { .. } => tracing::debug!(left_out, "{notice}"),
        _ => tracing::warn!(left_out, "{notice}"),
    }
}
