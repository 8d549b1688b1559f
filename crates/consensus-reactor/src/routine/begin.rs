//! Entering consensus: the log, the last commit, and what was signed before.

use std::{sync::Arc, time::Instant};

use perihelion_consensus::{Consensus, LastCommit, Now, Start, Step, WalMessage};
use perihelion_state::Executor;
use perihelion_store::Store;
use perihelion_types::{State, Time};
use tokio::sync::mpsc;

use super::{Node, screen::Screen, session::Session, verify::RememberLast};
use crate::{
    ConsensusError,
    app::{AppThread, Pools},
    privval::{
        self, FilePrivval, HeightRoundStep, LastLock, LeasedExecutor, check_replayed,
        check_sign_state, check_signed_lately,
    },
    wal::{Wal, WalOptions},
};

/// Reports of the application's thread that may wait. One question is open at a time, and behind a
/// failure nothing more comes.
const REPORTS: usize = 16;

impl Session {
    /// Brings the log to the last applied block, replays what it has of the next height, and begins.
    /// `look_back` blocks are searched for own signatures.
    pub(super) fn begin(
        node: Arc<Node>,
        privval: Option<FilePrivval>,
        executor: Executor,
        look_back: u64,
    ) -> Result<Self, ConsensusError> {
        let state = executor.state_arc();
        let height = state.next_height();
        if let Some(privval) = &privval {
            check_signer(privval, &node.store, &state.chain_id, look_back)?;
        }
        let wal = open_wal(&node, &state)?;
        let start = Start {
            rules: node.rules.at(height),
            own_key: privval.as_ref().map(|privval| privval.public_key().clone()),
            last_commit: last_commit(&node.store, &state)?,
            last_header_app_hash: node
                .store
                .load_header(state.last_block_height)?
                .map(|header| header.app_hash),
            state: Arc::clone(&state),
        };
        let verify = Arc::new(RememberLast::default());
        let core = Consensus::with_verifier(now(), node.config.clone(), start, verify.clone())
            .map_err(|source| ConsensusError::Start { height, source })?;
        let (leased, lease) = LeasedExecutor::new(executor);
        let (report, reports) = mpsc::channel(REPORTS);
        let pools = Pools {
            mempool: Arc::clone(&node.mempool),
            evidence: Arc::clone(&node.evidence),
        };
        let app = AppThread::start(leased, pools, node.rules.clone(), move |told| {
            // Whoever has left consensus wants no answer.
            drop(report.try_send(told));
        })
        .map_err(|source| ConsensusError::Thread {
            name: "application",
            source: Arc::new(source),
        })?;
        let mut session = Self {
            chain_id: state.chain_id.clone(),
            txs: node.mempool.txs_available(),
            core,
            wal,
            privval,
            lease,
            app,
            reports,
            verify,
            screen: Screen::default(),
            watcher: Default::default(),
            view: None,
            changed: true,
            asked: None,
            began: state.last_block_height,
            deciding: None,
            silence: None,
            node,
        };
        session.replay()?;
        session.remember_lock();
        session.start()?;
        Ok(session)
    }

    /// Takes what the log has of the height that is to be decided. Nothing is signed meanwhile.
    fn replay(&mut self) -> Result<(), ConsensusError> {
        let from = self.began;
        // Ends of heights that the log has already are not to be marked again at its end.
        let marked = self.wal.last_end_height()?.unwrap_or(from);
        let mut taken = 0;
        loop {
            let mut append = None;
            let Some(records) = self.wal.search_end_height(from)? else {
                return Ok(());
            };
            for entry in records.skip(taken) {
                taken += 1;
                let record = entry?.decode()?;
                if let Some(privval) = &self.privval {
                    check_replayed(privval.state(), privval.state_file(), &record)?;
                }
                self.core.replay(now(), record);
                let mut pump = Pump {
                    node: &self.node,
                    core: &mut self.core,
                    app: &self.app,
                    reports: &mut self.reports,
                };
                append = pump.run()?;
                if append.is_some() {
                    break;
                }
            }
            if taken > 0 && append.is_none() {
                tracing::info!(
                    height = self.core.height().get(),
                    records = taken,
                    "the consensus log was replayed"
                );
            }
            // The log cannot be read and written at once: after a record was added, reading goes on
            // where it was.
            let Some(mut message) = append else {
                return Ok(());
            };
            loop {
                if !matches!(message, WalMessage::EndHeight(height) if height <= marked) {
                    self.wal.append_message(now().time, &message, true)?;
                }
                let mut pump = Pump {
                    node: &self.node,
                    core: &mut self.core,
                    app: &self.app,
                    reports: &mut self.reports,
                };
                match pump.run()? {
                    Some(next) => message = next,
                    None => break,
                }
            }
        }
    }

    /// Where the signer has signed at this height what the log does not lead to, the log was lost: the
    /// last signature tells what the validator may be locked on.
    fn remember_lock(&mut self) {
        let Some(privval) = &self.privval else {
            return;
        };
        let (signed, file) = (privval.state().at(), privval.state_file().display());
        let here = place_of(&self.core);
        // In the last round of all nothing was voted, and nothing can be after it.
        if signed.height != here.height || signed <= here || signed.round == i32::MAX {
            return;
        }
        if self.decides_alone() {
            tracing::warn!(
                "the consensus log does not have what this validator signed last ({signed}); it has \
                 more than 2/3 of the power, and goes on as if it were locked on no block. A node \
                 that has its precommit may have decided one"
            );
            return;
        }
        match privval.state().lock() {
            LastLock::None => {
                tracing::info!("the consensus log does not have what was signed last ({signed})");
            }
            LastLock::Block { round, block_id } => {
                self.core.bind(round, block_id);
                tracing::warn!(
                    block = %block_id.hash,
                    "the consensus log does not have what this validator signed last ({signed}): \
                     until more than 2/3 of the power prevote otherwise it prevotes at this height the \
                     block that it voted for, and no other. Should the height stand still because no \
                     node has that block any more, stop this node, remove \"signature\" and \
                     \"signbytes\" from {file}, and start it again: it then votes for others too"
                );
            }
            LastLock::Unknown => tracing::warn!(
                "the consensus log does not have what this validator signed last ({signed}), and the \
                 block that it may be locked on at this height is not known: it goes on as if there \
                 were none. Where a third of the power does, and some node has decided a block there, \
                 another one can be decided: keep this node stopped until the others have decided \
                 the height, if there is any doubt"
            ),
        }
    }

    /// Whether this validator has more than 2/3 of the power.
    fn decides_alone(&self) -> bool {
        let set = self.core.validators();
        let own = self.privval.as_ref().map(FilePrivval::address);
        let own = own.and_then(|address| set.by_address(&address));
        own.is_some_and(|(_, member)| {
            i128::from(member.voting_power) * 3 > i128::from(set.total_voting_power()) * 2
        })
    }

    fn start(&mut self) -> Result<(), ConsensusError> {
        let shared = &self.node.shared;
        self.core.handle_pinned(shared.pinned());
        self.core.start(now());
        tracing::info!(
            height = self.core.height().get(),
            round = self.core.round().get(),
            step = self.core.step().name(),
            validator = self.is_validator(),
            "consensus begins"
        );
        // Before peers are told: what they send then is passed over while there is no view, and
        // they would not send it again.
        self.publish();
        self.drain()?;
        if self.node.mempool.size() > 0 {
            self.core.handle_txs_available(now());
            self.drain()?;
        }
        self.publish();
        Ok(())
    }
}

/// Does what the state machine wants while the log is replayed.
struct Pump<'a> {
    node: &'a Node,
    core: &'a mut Consensus,
    app: &'a AppThread,
    reports: &'a mut mpsc::Receiver<crate::app::AppReport>,
}

impl Pump<'_> {
    /// Until nothing is left to do, or something is to be appended to the log.
    fn run(&mut self) -> Result<Option<WalMessage>, ConsensusError> {
        use perihelion_consensus::Effect;
        loop {
            match self.core.poll_effect() {
                Some(Effect::Append { message, .. }) => return Ok(Some(message)),
                Some(Effect::Ask { id, ask }) => self.app.ask(id, ask),
                Some(Effect::Commit(block)) => {
                    if self.app.commit(&block).is_err() {
                        return Err(self.failure());
                    }
                }
                Some(Effect::Apply { id, block }) => self.app.apply(id, block),
                Some(Effect::Report { first, second }) => {
                    self.node.evidence.report_conflicting_votes(first, second);
                }
                Some(Effect::Halt(halt)) => return Err(ConsensusError::Halted(halt)),
                Some(Effect::Notice(notice)) => tracing::debug!(%notice, "in the consensus log"),
                // Peers knew of it, and nothing is signed.
                Some(
                    Effect::Announce(_)
                    | Effect::SyncWal
                    | Effect::Sign { .. }
                    | Effect::Punish { .. },
                ) => {}
                None if self.core.is_waiting() => {
                    let report = self.node.wait_for_report(self.reports)?;
                    let (id, answer) = super::session::answer_of(report)?;
                    super::session::tell_decided(&self.node.shared, &answer);
                    self.core.handle_answer(now(), id, answer);
                }
                None => return Ok(None),
            }
        }
    }

    fn failure(&mut self) -> ConsensusError {
        super::session::failure_of(self.node, self.reports)
    }
}

/// The last place in which the state machine may have wanted a signature.
fn place_of(core: &Consensus) -> HeightRoundStep {
    HeightRoundStep {
        height: core.height().get(),
        round: core.round().get(),
        step: match core.step() {
            Step::NewHeight | Step::NewRound => privval::Step::None,
            Step::Propose => privval::Step::Propose,
            Step::Prevote | Step::PrevoteWait => privval::Step::Prevote,
            Step::Precommit | Step::PrecommitWait | Step::Commit => privval::Step::Precommit,
        },
    }
}

/// What the chain in the store says against signing. Blocks that were fetched since the start may
/// show that the sign state is too old.
fn check_signer(
    privval: &FilePrivval,
    store: &Store,
    chain_id: &str,
    look_back: u64,
) -> Result<(), ConsensusError> {
    let (state, key) = (privval.state(), privval.public_key());
    check_sign_state(state, privval.state_file(), key, chain_id, store)?;
    if look_back > 0 {
        check_signed_lately(store, key, chain_id, look_back)?;
    }
    Ok(())
}

/// The log, with the end of the last applied block's height marked.
fn open_wal(node: &Node, state: &State) -> Result<Wal, ConsensusError> {
    let last = state.last_block_height;
    let path = &node.wal_file;
    let (mut wal, _) = Wal::open(path, WalOptions::default(), now().time)?;
    if wal.search_end_height(last)?.is_some() {
        return Ok(wal);
    }
    match wal.last_end_height()? {
        Some(log) if log > last => Err(ConsensusError::WalAhead {
            path: path.clone(),
            log,
            last,
        }),
        log => {
            tracing::info!(
                height = last.get(),
                log = log.map(perihelion_types::Height::get),
                "the consensus log ends below the last applied block, as after blocksync or a torn end; \
                 the block's end is marked"
            );
            wal.end_height(now().time, last)?;
            Ok(wal)
        }
    }
}

/// What made the last applied block final. The state machine says what is missing.
fn last_commit(store: &Store, state: &State) -> Result<LastCommit, ConsensusError> {
    let last = state.last_block_height;
    if !last.is_positive() {
        return Ok(LastCommit::None);
    }
    if state.consensus_params.vote_extensions_enabled(last)
        && let Some(commit) = store.load_extended_commit(last)?
    {
        return Ok(LastCommit::Extended(commit));
    }
    let commit = match store.load_seen_commit(last)? {
        Some(commit) => Some(commit),
        None => store.load_commit(last)?,
    };
    Ok(commit.map_or(LastCommit::None, LastCommit::Plain))
}

/// The moment, by both clocks.
pub(super) fn now() -> Now {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    Now {
        instant: Instant::now(),
        time: Time::new(
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            i32::try_from(since.subsec_nanos()).unwrap_or(0),
        ),
    }
}
