//! The thread that owns the state machine, its log and the signer.
//!
//! It takes one input at a time and does what the state machine wants, strictly in order: a record
//! stands in the log, and a signature in the signer's file, before what follows from it leaves the
//! node. While an answer is awaited nothing but answers and claims of majorities is taken; peers'
//! messages wait in a bounded queue. It never waits for a peer.
//!
//! Reading order: this file (the loop), `session` (inputs and effects), `begin` (entering: log and
//! last commit), `screen` (what is worth logging).

mod begin;
mod events;
mod screen;
mod session;
mod verify;

use std::{sync::Arc, time::Instant};

use perihelion_consensus::ConsensusConfig;
use perihelion_events::EventBus;
use perihelion_evidence::EvidencePool;
use perihelion_mempool::Mempool;
use perihelion_state::Executor;
use perihelion_store::Store;
use perihelion_types::RulesByHeight;
use tokio::{
    runtime::Runtime,
    sync::{mpsc, oneshot, watch},
};
use tokio_util::sync::CancellationToken;

use crate::{
    ConsensusError, ConsensusSetup,
    app::AppReport,
    privval::FilePrivval,
    shared::{Claim, FromPeer, Shared},
};
use session::Session;

/// The thread's name.
pub(crate) const THREAD: &str = "consensus";

/// An order of a handle.
pub(crate) enum Command {
    /// Consensus gets the executor.
    Enter {
        executor: Box<Executor>,
        reply: oneshot::Sender<Result<(), ConsensusError>>,
    },
    /// Consensus gives it back.
    Leave {
        reply: oneshot::Sender<Result<Executor, ConsensusError>>,
    },
}

/// What a session needs of the node.
pub(super) struct Node {
    pub(super) shared: Arc<Shared>,
    pub(super) config: ConsensusConfig,
    pub(super) rules: RulesByHeight,
    pub(super) store: Arc<Store>,
    pub(super) mempool: Arc<Mempool>,
    pub(super) evidence: Arc<EvidencePool>,
    pub(super) events: EventBus,
    pub(super) wal_file: std::path::PathBuf,
    pub(super) double_sign_check_height: u64,
    runtime: Runtime,
    stop: CancellationToken,
}

/// Something to take.
pub(super) enum Input {
    Command(Command),
    Report(AppReport),
    /// The application's thread is gone.
    AppGone,
    Message(FromPeer),
    Claim(Claim),
    TxsAvailable,
    Deadline,
    Stop,
}

/// The receiving ends of what comes whether or not consensus has the executor.
pub(super) struct Inputs {
    commands: mpsc::Receiver<Command>,
    messages: mpsc::Receiver<FromPeer>,
    claims: mpsc::Receiver<Claim>,
}

pub(crate) struct Routine {
    node: Arc<Node>,
    inputs: Inputs,
    /// While a session has it, it is there.
    privval: Option<FilePrivval>,
    session: Option<Session>,
    /// Own signatures in the last blocks were looked for: those found later are this process's.
    checked: bool,
}

impl Routine {
    pub(crate) fn new(
        setup: ConsensusSetup,
        shared: Arc<Shared>,
        commands: mpsc::Receiver<Command>,
        messages: mpsc::Receiver<FromPeer>,
        claims: mpsc::Receiver<Claim>,
        stop: CancellationToken,
    ) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        Ok(Self {
            privval: setup.privval,
            node: Arc::new(Node {
                shared,
                config: setup.config,
                rules: setup.rules,
                store: setup.store,
                mempool: setup.mempool,
                evidence: setup.evidence,
                events: setup.events,
                wal_file: setup.wal_file,
                double_sign_check_height: setup.double_sign_check_height,
                runtime,
                stop,
            }),
            inputs: Inputs {
                commands,
                messages,
                claims,
            },
            session: None,
            checked: false,
        })
    }

    /// Until the node stops, or something fails; tells why.
    pub(crate) fn run(mut self) -> ConsensusError {
        let reason = loop {
            let next = self.next();
            if let Err(reason) = self.take(next) {
                break reason;
            }
        };
        match &reason {
            ConsensusError::Stopped => tracing::debug!("consensus stops"),
            error => {
                // Whoever asks why it has ended tells of it in full.
                tracing::error!("consensus has failed: the node stops");
                tracing::debug!(%error, "consensus has failed");
                // The node need not wait for what the application is at.
                self.node.shared.end(error.clone());
            }
        }
        if let Some(session) = self.session.take()
            && let Err(error) = session.end()
        {
            tracing::debug!(%error, "after the end of consensus");
        }
        reason
    }

    fn next(&mut self) -> Input {
        let Self { node, session, .. } = self;
        let inputs = &mut self.inputs;
        match session {
            None => node.runtime.block_on(inputs.while_idle(&node.stop)),
            Some(session) => {
                let deadline = session.deadline();
                let waiting = session.is_waiting();
                let (reports, txs) = session.sources();
                let next = inputs.in_session(&node.stop, reports, txs, deadline, waiting);
                node.runtime.block_on(next)
            }
        }
    }

    fn take(&mut self, input: Input) -> Result<(), ConsensusError> {
        match (input, &mut self.session) {
            (Input::Stop, _) => Err(ConsensusError::Stopped),
            (Input::Command(Command::Enter { executor, reply }), None) => {
                let entered = self.enter(*executor);
                // A caller that went away does not make a difference.
                drop(reply.send(entered.clone()));
                entered
            }
            (Input::Command(Command::Enter { reply, .. }), Some(_)) => {
                drop(reply.send(Err(ConsensusError::AlreadyEntered)));
                Ok(())
            }
            (Input::Command(Command::Leave { reply }), Some(_)) => {
                let left = self.leave();
                let failed = left.as_ref().err().cloned();
                drop(reply.send(left));
                failed.map_or(Ok(()), Err)
            }
            (Input::Command(Command::Leave { reply }), None) => {
                drop(reply.send(Err(ConsensusError::NotEntered)));
                Ok(())
            }
            (input, Some(session)) => session.take(input, &mut self.inputs),
            // While this node syncs nothing of it is wanted.
            (Input::Message(message), None) => {
                self.node.shared.pass_over_queued(&message);
                Ok(())
            }
            (_, None) => Ok(()),
        }
    }

    fn enter(&mut self, executor: Executor) -> Result<(), ConsensusError> {
        let look_back = if std::mem::replace(&mut self.checked, true) {
            0
        } else {
            self.node.double_sign_check_height
        };
        self.inputs.forget_messages(&self.node.shared);
        let node = Arc::clone(&self.node);
        let privval = self.privval.take();
        self.session = Some(Session::begin(node, privval, executor, look_back)?);
        Ok(())
    }

    fn leave(&mut self) -> Result<Executor, ConsensusError> {
        let session = self.session.take().ok_or(ConsensusError::NotEntered)?;
        let (executor, privval) = session.end()?;
        self.privval = privval;
        Ok(executor)
    }
}

impl Node {
    /// Waits for what the application's thread reports, or until the node stops.
    pub(super) fn wait_for_report(
        &self,
        reports: &mut mpsc::Receiver<AppReport>,
    ) -> Result<AppReport, ConsensusError> {
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                report = reports.recv() => report.ok_or(ConsensusError::ThreadGone("application")),
                () = self.stop.cancelled() => Err(ConsensusError::Stopped),
            }
        })
    }
}

impl Inputs {
    async fn while_idle(&mut self, stop: &CancellationToken) -> Input {
        tokio::select! {
            biased;
            () = stop.cancelled() => Input::Stop,
            command = self.commands.recv() => command.map_or(Input::Stop, Input::Command),
            Some(message) = self.messages.recv() => Input::Message(message),
            Some(claim) = self.claims.recv() => Input::Claim(claim),
        }
    }

    /// Deadlines and answers come before peers, so that no flood holds them up.
    async fn in_session(
        &mut self,
        stop: &CancellationToken,
        reports: &mut mpsc::Receiver<AppReport>,
        txs: &mut watch::Receiver<u64>,
        deadline: Option<Instant>,
        waiting: bool,
    ) -> Input {
        let alarm = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => Input::Stop,
            command = self.commands.recv() => command.map_or(Input::Stop, Input::Command),
            report = reports.recv() => report.map_or(Input::AppGone, Input::Report),
            () = alarm => Input::Deadline,
            Some(claim) = self.claims.recv() => Input::Claim(claim),
            Ok(()) = txs.changed(), if !waiting => Input::TxsAvailable,
            Some(message) = self.messages.recv(), if !waiting => Input::Message(message),
        }
    }

    /// The next message that is there already.
    pub(super) fn more(&mut self) -> Option<FromPeer> {
        self.messages.try_recv().ok()
    }

    /// What came before this node was in consensus is not for it.
    fn forget_messages(&mut self, shared: &Shared) {
        while let Ok(message) = self.messages.try_recv() {
            shared.pass_over_queued(&message);
        }
        while self.claims.try_recv().is_ok() {}
    }
}
