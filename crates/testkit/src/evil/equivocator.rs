//! A second signer with a validator's key, which votes for other blocks than the validator.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use bytes::Bytes;
use perihelion_consensus_reactor::wire::{self, Channel, HasVote, PeerMessage};
use perihelion_crypto::{NodeId, PrivateKey};
use perihelion_p2p::{
    MConnectionConfig, NodeKey, P2pConfig, PeerEvent, PeerHandle, Switch, SwitchHandle, SwitchSetup,
};
use perihelion_types::{
    BlockId, Hash, Height, PartSetHeader, Round, Rules, SignedMsgType, Time, Vote,
};
use tokio::sync::mpsc;

use super::node_info;

/// A peer that has a validator's key. When told to, it waits until a victim says that it has the
/// validator's prevote, and sends it another one for a block that nobody made. The validator itself
/// votes as it should. It ends with the runtime, or by [`stop`](Self::stop).
#[derive(Debug)]
pub struct Equivocator {
    switch: SwitchHandle,
    lies: Arc<Lies>,
}

/// Heights at which it votes.
#[derive(Debug, Default)]
struct Lies {
    wanted: AtomicU64,
    told: AtomicU64,
}

/// Whose name it votes in.
struct Signer {
    chain_id: String,
    key: PrivateKey,
    index: i32,
}

impl Equivocator {
    /// Dials `victims` (`ID@HOST:PORT`); it will lie to them alone. `index` is the validator's place
    /// in the set.
    ///
    /// # Errors
    /// When it cannot listen, or a victim cannot be dialled.
    pub async fn start(
        chain_id: &str,
        key: PrivateKey,
        index: i32,
        victims: &[String],
    ) -> anyhow::Result<Self> {
        let (switch, mut events) = Switch::start(SwitchSetup {
            config: P2pConfig {
                laddr: "tcp://127.0.0.1:0".to_owned(),
                allow_duplicate_ip: true,
                ..P2pConfig::default()
            },
            connection: MConnectionConfig::default(),
            node_key: NodeKey::generate(),
            node_info: node_info(chain_id),
            reactors: vec![("equivocator", wire::channels())],
            filter: None,
        })
        .await?;
        let events = events.pop().context("one reactor")?;
        let lies = Arc::new(Lies::default());
        let signer = Signer {
            chain_id: chain_id.to_owned(),
            key,
            index,
        };
        tokio::spawn(lie(signer, events, Arc::clone(&lies)));
        for victim in victims {
            let address = victim.parse()?;
            switch
                .dial(&address)
                .await
                .with_context(|| format!("cannot dial {victim}"))?;
        }
        Ok(Self { switch, lies })
    }

    /// Its identity.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.switch.id()
    }

    /// Lets it vote for a block that nobody made at one more height. An application may take no
    /// second piece of evidence of one validator in a block, so one lie is to be committed before
    /// the next is told.
    pub fn lie_once(&self) {
        self.lies.wanted.fetch_add(1, Ordering::Relaxed);
    }

    /// At how many heights it has voted for a block that nobody made.
    #[must_use]
    pub fn told(&self) -> u64 {
        self.lies.told.load(Ordering::Relaxed)
    }

    /// Leaves.
    pub async fn stop(self) {
        self.switch.shutdown().await;
    }
}

async fn lie(signer: Signer, mut events: mpsc::Receiver<PeerEvent>, lies: Arc<Lies>) {
    let mut last = Height::ZERO;
    // All victims hear the same vote, so that all of them have the same evidence.
    let mut said: Option<((Height, Round), PeerMessage)> = None;
    while let Some(event) = events.recv().await {
        let PeerEvent::Message { from, bytes, .. } = event else {
            continue;
        };
        let Ok(PeerMessage::HasVote(at)) = PeerMessage::decode(&bytes, Rules::V040) else {
            continue;
        };
        // Were it earlier, nobody would send the victim the validator's own vote any more.
        let is_voted = at.vote_type == SignedMsgType::Prevote && at.index == signer.index;
        let is_wanted = || {
            let wanted = lies.wanted.load(Ordering::Relaxed);
            at.height > last && lies.told.load(Ordering::Relaxed) < wanted
        };
        if !is_voted || (at.height != last && !is_wanted()) {
            continue;
        }
        let place = (at.height, at.round);
        let vote = match said.take() {
            Some((before, vote)) if before == place => vote,
            _ => signer.vote(&at),
        };
        said = Some((place, vote.clone()));
        send(&from, vote).await;
        if at.height > last {
            last = at.height;
            lies.told.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Signer {
    /// A prevote for a block that follows from height and round.
    fn vote(&self, at: &HasVote) -> PeerMessage {
        let hash = Hash::of(format!("{}/{}", at.height, at.round).as_bytes());
        let mut vote = Vote {
            vote_type: SignedMsgType::Prevote,
            height: at.height,
            round: at.round,
            block_id: BlockId {
                hash,
                part_set_header: PartSetHeader { total: 1, hash },
            },
            timestamp: now(),
            validator_address: Bytes::copy_from_slice(self.key.public_key().address().as_bytes()),
            validator_index: self.index,
            signature: Bytes::new(),
            extension: Bytes::new(),
            extension_signature: Bytes::new(),
        };
        vote.signature = self.key.sign(&vote.sign_bytes(&self.chain_id));
        PeerMessage::Vote(Arc::new(vote))
    }
}

fn now() -> Time {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Time::new(
        i64::try_from(since.as_secs()).unwrap_or_default(),
        i32::try_from(since.subsec_nanos()).unwrap_or_default(),
    )
}

/// A victim that has left hears nothing more.
async fn send(to: &PeerHandle, message: PeerMessage) {
    if let Err(error) = to.send(Channel::Vote.id(), message.encode()).await {
        tracing::debug!(peer = %to.id(), %error, "not sent");
    }
}
