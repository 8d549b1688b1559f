use std::sync::Arc;

use perihelion_types::{BlockId, FetchedBlock, Hash, Height, PeerId, ValidatorSet};
use thiserror::Error;

/// Names one run or one commit given to the verification workers. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub(crate) u64);

impl RunId {
    /// The id as a number, for logs.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// The validator set that a run is verified against.
#[derive(Debug, Clone)]
pub struct RunAnchor {
    /// V: the set of the first height of the run or, when not `exact`, of a height below it with
    /// everything between certified. Known from our own state or by a certified header.
    pub set: Arc<ValidatorSet>,
    /// The set of the height after the first one, when our own state knows it.
    pub next: Option<Arc<ValidatorSet>>,
    /// The height whose set it is.
    pub height: Height,
    /// Whether `height` is the first height of the run. A run of one block always is.
    pub exact: bool,
    /// False at the chain's initial height, where nothing has confirmed the set yet.
    pub confirmed: bool,
}

/// A linked run to be certified by one commit.
#[derive(Debug, Clone)]
pub struct RunRequest {
    /// To be given back with the verdict.
    pub id: RunId,
    /// The set to verify against.
    pub anchor: RunAnchor,
    /// h+1 ..= h+k, at least one; each names the id of the one before, the first that of the last
    /// certified block.
    pub blocks: Vec<Arc<FetchedBlock>>,
    /// h+k+1, whose last commit is for h+k.
    pub closing: Arc<FetchedBlock>,
}

/// A single last commit to be verified against a known set, for the block id that it names
/// itself: the way out where two blocks do not link.
#[derive(Debug, Clone)]
pub struct ProbeRequest {
    /// To be given back with the verdict ([`Verdict::Vouched`] or [`Verdict::Suspect`]).
    pub id: RunId,
    /// The validator set of the height below `closing`.
    pub set: Arc<ValidatorSet>,
    /// The block whose `last_commit` is verified by VerifyCommitLight for its own block id and the
    /// height below `closing`; in full when `in_full`.
    pub closing: Arc<FetchedBlock>,
    /// Whether each signature counts (VerifyCommit): the last commit before consensus.
    pub in_full: bool,
}

/// What the verification workers found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Final up to this height: the last of the run, or the one before it.
    Pinned {
        /// The last final height.
        to: Height,
    },
    /// Too little power of V signed, and nothing is wrong: the set has moved on.
    Drifted,
    /// The closing block's last commit does not hold.
    Suspect {
        /// In which way.
        fault: CommitFault,
    },
    /// A probed commit holds for the block id that it names.
    Vouched,
    /// A final block contradicts our own state: nobody's fault but ours.
    LocalFault {
        /// Its height.
        height: Height,
        /// What our state says.
        ours: Hash,
        /// What the final header says.
        theirs: Hash,
    },
}

/// What is wrong with a block's last commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CommitFault {
    /// It is for another height or block id than its header says, or missing.
    #[error("the last commit does not fit its header")]
    DoesNotFit,
    /// A member of the set did not make the signature that stands for it.
    #[error("a signature of the last commit is wrong")]
    WrongSignature,
    /// Less than 2/3 of the set's power signed, where the set is certain.
    #[error("too little power signed the last commit")]
    TooLittlePower,
    /// Malformed in another way (counts, addresses, duplicates).
    #[error("the last commit is malformed")]
    Malformed,
}

/// What is wrong with a message whose sender alone can be to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BodyFault {
    /// The bytes do not decode, or break a stateless rule.
    #[error("the block does not decode")]
    Undecodable,
    /// Data, evidence or last commit do not hash to the header's fields.
    #[error("the body does not belong to its header")]
    Mismatch,
    /// More signatures, validators or parts than may be.
    #[error("the block is beyond a bound")]
    BeyondBound,
    /// Its header names another chain than the network that the peer belongs to.
    #[error("the block is of another chain")]
    OtherChain,
}

/// Why a peer is punished or what it is counted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Fault {
    /// A block whose bytes contradict themselves.
    #[error("block {height}: {fault}")]
    Body {
        /// Of the block.
        height: Height,
        /// In which way.
        fault: BodyFault,
    },
    /// A block that is not the final one of its height.
    #[error("forged block at height {height}")]
    Forged {
        /// Of the block.
        height: Height,
    },
    /// A last commit that failed, in a block that turned out not to be final.
    #[error("forged last commit in block {height}: {fault}")]
    ForgedCommit {
        /// Of the block that held it.
        height: Height,
        /// In which way it failed.
        fault: CommitFault,
    },
    /// A status with a lower height or base than before.
    #[error("status went back from {before} to {now}")]
    StatusWentBack {
        /// What it had said.
        before: Height,
        /// What it says.
        now: Height,
    },
    /// A status with base above height, or a negative one.
    #[error("status with base {base} and height {height}")]
    StatusImpossible {
        /// As claimed.
        base: Height,
        /// As claimed.
        height: Height,
    },
    /// A block that it was never asked for.
    #[error("block {height} was never asked for")]
    Unsolicited {
        /// Of the block.
        height: Height,
    },
}

/// What happened to a block that came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reception {
    /// It was taken.
    Wanted,
    /// It had been asked for, and is not needed any more. Nobody's fault.
    Late,
    /// It was asked for and is not what it should be; the sender was or may be found guilty.
    Refused,
    /// It was never asked for.
    Unsolicited,
}

/// Why nothing moves, or why the node must stop.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StallReason {
    /// There is nobody to ask.
    #[error("no peers{}", failure.as_ref().map(|why| format!("; {why}")).unwrap_or_default())]
    NoPeers {
        /// Why configured peers are not connected, as far as the owner of the schedule knows.
        failure: Option<String>,
    },
    /// Peers are there, none has told its range yet.
    #[error("waiting for {peers} peers to tell their heights")]
    NoStatus {
        /// How many are connected.
        peers: usize,
    },
    /// Every peer has pruned the block that is needed.
    #[error("all {peers} peers have pruned height {next}; the lowest base is {lowest_base}")]
    AllPruned {
        /// The next height to apply.
        next: Height,
        /// The lowest base that a peer claims.
        lowest_base: Height,
        /// How many peers told their range.
        peers: usize,
    },
    /// Peers claim the block, and none has delivered it yet.
    #[error("waiting for block {height}; {asked} peers are asked, {failed} have failed")]
    Waiting {
        /// The height that is missing.
        height: Height,
        /// How many are asked right now.
        asked: usize,
        /// How many did not deliver it.
        failed: usize,
    },
    /// The block is here, and another copy is looked for before it is verified.
    #[error("block {height} is in doubt; {asked} peers are asked for another copy")]
    Doubtful {
        /// Its height.
        height: Height,
        /// How many are asked right now.
        asked: usize,
    },
    /// Blocks are certified, and consensus has yet to give the executor back.
    #[error("consensus is still at block {height}, which is final")]
    Leaving {
        /// The height that is to be applied next.
        height: Height,
    },
    /// Blocks are certified and the executor does not finish.
    #[error("block {height} is not applied yet")]
    Executing {
        /// The height that is being applied.
        height: Height,
    },
    /// The application does not finish a call. Told by the owner of the schedule.
    #[error("the application is busy with {call} of block {height} for {seconds} s")]
    Application {
        /// The height that is being applied.
        height: Height,
        /// The call.
        call: String,
        /// For how long, in seconds.
        seconds: u64,
    },
    /// The application has done its part, and the store does not finish. Told by the owner of the
    /// schedule.
    #[error("the disk is busy with block {height}: the application waits for it")]
    Storing {
        /// The height that is being stored.
        height: Height,
    },
    /// Blocks are here, and their verification does not finish.
    #[error("verification is busy behind height {height}")]
    Verifying {
        /// The last certified height.
        height: Height,
    },
    /// An extended commit is needed, and nobody has offered a good one.
    #[error("no peer has offered a valid extended commit for height {height}")]
    ExtendedCommit {
        /// Of the block.
        height: Height,
    },
    /// No block that any peer offers at the initial height fits our genesis.
    #[error(
        "no peer offers a first block for our validators: ours hash to {ours}, the network's to \
         {theirs}"
    )]
    OtherGenesis {
        /// Hash of our validators.
        ours: Hash,
        /// What the offered header says.
        theirs: Hash,
    },
    /// A final block contradicts our own state or application. Nothing more is done.
    #[error("final block {height} contradicts our state: ours {ours}, the chain's {theirs}")]
    LocalFault {
        /// Of the block.
        height: Height,
        /// Ours.
        ours: Hash,
        /// The chain's.
        theirs: Hash,
    },
    /// Applying failed for a reason that the executor told. Nothing more is done.
    #[error("block {height} could not be applied")]
    ApplyFailed {
        /// Of the block.
        height: Height,
    },
    /// More than a third of the validators signed two blocks of one height. Nothing more is done.
    #[error("two certified blocks at height {height}: {ours:?} and {other:?}")]
    TwoCertified {
        /// The height of both.
        height: Height,
        /// The one that we have.
        ours: BlockId,
        /// The other.
        other: BlockId,
    },
}

/// What the owner of a schedule is to do, in the order given.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Send a BlockRequest.
    Request {
        /// To whom.
        peer: PeerId,
        /// Which block.
        height: Height,
    },
    /// Send a StatusRequest.
    AskStatus {
        /// To whom.
        peer: PeerId,
    },
    /// Give a run to the workers; the answer comes by `handle_verdict`.
    Certify(RunRequest),
    /// Give a single commit to the workers; the answer comes by `handle_verdict`.
    Probe(ProbeRequest),
    /// A run is not needed any more; its verdict is ignored and its certified blocks are dropped.
    Cancel {
        /// Which one.
        run: RunId,
    },
    /// Verify an extended commit in full, against the set of its height; the answer comes by
    /// `handle_extended_commit_verdict`.
    VerifyExtended {
        /// The certified block's height.
        height: Height,
        /// Who sent the extended commit.
        from: PeerId,
        /// The block that carries it; its block id is that of the certified one.
        block: Arc<FetchedBlock>,
        /// The height's validators.
        set: Arc<ValidatorSet>,
    },
    /// Verify the extended commit of the chain's last block in full, and make the block final by
    /// it (`CertifiedBlock::decided_extended`): where precommits carry extensions, no block above
    /// is needed. The answer comes by `handle_verdict`: [`Verdict::Pinned`] to its height, or
    /// [`Verdict::Suspect`].
    Decide {
        /// To be given back with the verdict, and named when the block is applied.
        id: RunId,
        /// The block with its extended commit.
        block: Arc<FetchedBlock>,
        /// The height's validators.
        set: Arc<ValidatorSet>,
    },
    /// Apply a certified block: strictly ascending heights.
    Apply {
        /// Which one.
        height: Height,
        /// The run that certified it.
        run: RunId,
        /// The verified extended commit belongs to it and is stored with it.
        extended: bool,
    },
    /// Disconnect a peer.
    Punish {
        /// Whom.
        peer: PeerId,
        /// What for.
        fault: Fault,
        /// And refuse it for a while.
        ban: bool,
    },
    /// Nothing is left to be learnt from peers. The executor, to which nothing is handed out that it
    /// has not applied, goes to consensus now.
    CaughtUp {
        /// The last applied height.
        height: Height,
    },
    /// While consensus has the executor: a block of this height is final, which consensus has not told
    /// yet. It must not vote there, nor below.
    Pinned {
        /// Which height; ascending.
        height: Height,
    },
    /// Consensus is behind what is final: it is to give the executor back, which is told by
    /// `handle_executor`. Blocks are fetched meanwhile, and none is applied.
    FallenBehind {
        /// The last certified height.
        pinned: Height,
    },
    /// Nothing moves; told once for each reason.
    Stalled {
        /// Why.
        reason: StallReason,
    },
    /// Nothing more will be done: a local fault or a broken chain. Nobody is blamed.
    Halt {
        /// Why.
        reason: StallReason,
    },
}
