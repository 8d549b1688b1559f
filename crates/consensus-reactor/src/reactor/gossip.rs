//! One peer's task.

use std::{
    mem::{Discriminant, discriminant},
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use perihelion_consensus::{Message, Step};
use perihelion_p2p::{DisconnectReason, Permit, SendError};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc, watch},
    time::{MissedTickBehavior, Sleep, interval_at, sleep},
};
use tokio_util::sync::CancellationToken;

use super::Incoming;
use crate::{
    peer::{PeerState, Received, View},
    shared::{CORE_QUEUE_OF_ONE, Claim, FromPeer, NAME, News, Peer, Shared, disconnect, lock},
    stored::{Held, Look, Wanted},
    wire::{Channel, MAX_MESSAGE_BYTES, NewRoundStep, PeerMessage},
};

/// Messages that are taken in before the peer is looked after again.
const TAKEN_AT_ONCE: usize = 64;
/// Claims that are heeded between two of our own: honest peers send four at most in that time.
/// More cost the routine time; fewer, and an honest peer's may be passed over until they come again.
const CLAIMS_AT_ONCE: u32 = 16;
/// What the log adds to a message: the sender, and lengths. A message that is longer with it could
/// not be logged, and so is not taken.
const LOG_BYTES: usize = 128;

/// The shortest pause there is; none at all would keep a core busy.
const SHORTEST: Duration = Duration::from_millis(1);

/// Keeps track of what a peer has and sends it what it lacks.
pub(super) struct Gossip {
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    incoming: mpsc::Receiver<Incoming>,
    view: watch::Receiver<Option<Arc<View>>>,
    news: broadcast::Receiver<News>,
    /// The peer's places in the queue of the state machine.
    places: Arc<Semaphore>,
    /// A message that waits for one. Nothing more is taken in before.
    to_core: Option<(Message, Option<Permit>)>,
    /// What waits for room on the channel that tells of states. Two at most.
    to_say: Vec<News>,
    /// News were missed: with the next view the peer is told again where this node is.
    behind: bool,
    data_full: bool,
    votes_full: bool,
    claims_left: u32,
    /// What is loaded for the peer. One at a time.
    pub(super) load: Option<watch::Receiver<()>>,
    /// Kinds of what was loaded for the peer since the last tick.
    loaded: Vec<Discriminant<Wanted>>,
    /// The stored block of which more parts wait for room on the data channel.
    held: Option<Held>,
}

/// What woke the task.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Woken {
    By,
    Tick,
    Gone,
}

impl Gossip {
    pub(super) fn new(
        shared: Arc<Shared>,
        peer: Arc<Peer>,
        incoming: mpsc::Receiver<Incoming>,
    ) -> Self {
        Self {
            // News first: what is not in the view yet will be in these.
            news: shared.news.subscribe(),
            view: shared.view.subscribe(),
            peer,
            incoming,
            places: Arc::new(Semaphore::new(CORE_QUEUE_OF_ONE)),
            to_core: None,
            to_say: Vec::new(),
            behind: false,
            data_full: false,
            votes_full: false,
            claims_left: CLAIMS_AT_ONCE,
            load: None,
            loaded: Vec::new(),
            held: None,
            shared,
        }
    }

    /// Until `stop`, or until the peer is gone.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut tick = pin!(None::<Sleep>);
        let pause = self.shared.maj23_sleep.max(SHORTEST);
        let mut claims = interval_at(tokio::time::Instant::now() + pause, pause);
        claims.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (peer, shared) = (Arc::clone(&self.peer), Arc::clone(&self.shared));
        let handle = &peer.handle;
        self.tell_place();
        loop {
            let woken = tokio::select! {
                biased;
                () = stop.cancelled() => Woken::Gone,
                changed = self.view.changed() => match changed {
                    Ok(()) => self.take_view(),
                    Err(_) => Woken::Gone,
                },
                ready = handle.ready(Channel::State.id()), if !self.to_say.is_empty() => {
                    self.say_on(ready)
                }
                slot = slot(&shared.to_core, &self.places), if self.to_core.is_some() => {
                    match (slot, self.to_core.take()) {
                        (Some((place, slot)), Some((message, permit))) => {
                            slot.send(FromPeer {
                                peer: handle.id(),
                                message,
                                _place: place,
                                _permit: permit,
                            });
                            Woken::By
                        }
                        _ => Woken::Gone,
                    }
                }
                incoming = self.incoming.recv(), if self.to_core.is_none() => match incoming {
                    Some(incoming) => self.take_in(incoming),
                    None => Woken::Gone,
                },
                ready = handle.ready(Channel::Data.id()), if self.data_full => {
                    self.data_full = false;
                    on(ready)
                }
                ready = handle.ready(Channel::Vote.id()), if self.votes_full => {
                    self.votes_full = false;
                    on(ready)
                }
                () = loaded(&mut self.load), if self.load.is_some() => {
                    self.load = None;
                    Woken::By
                }
                () = due(tick.as_mut()), if tick.is_some() => {
                    tick.set(None);
                    Woken::Tick
                }
                _ = claims.tick() => self.claim_majorities(),
            };
            if woken == Woken::Gone {
                return;
            }
            self.take_news();
            if !self.gossip(woken == Woken::Tick) {
                // No thread is woken for a peer that nothing is to be done for.
                tick.set(None);
            } else if tick.is_none() {
                tick.set(Some(sleep(shared.gossip_sleep.max(SHORTEST))));
            }
        }
    }

    fn current(&self) -> Option<Arc<View>> {
        self.view.borrow().clone()
    }

    fn take_view(&mut self) -> Woken {
        let view = self.view.borrow_and_update().clone();
        let Some(view) = view else {
            // While this node syncs nothing of it would be taken.
            if let Some((message, _)) = self.to_core.take() {
                self.shared.pass_over(&self.peer, message.height());
            }
            return Woken::By;
        };
        if self.peer.take_passed_over(view.height()) {
            // The height is that which the peer had been told of before consensus was left, since
            // blocksync had nothing to apply. What the peer sent meanwhile it sends no more: that
            // this node is at that height and round is no news to it, and nothing else takes back
            // that it has what was sent. Were these votes needed, and no majority there to ask for
            // them, all would wait forever. Over a new connection it begins anew.
            let reason = DisconnectReason::PassedOver(NAME);
            self.peer.handle.disconnect(reason);
            return Woken::Gone;
        }
        if std::mem::take(&mut self.behind) {
            self.tell_place();
        }
        Woken::By
    }

    /// Takes in messages until one must wait for the state machine.
    fn take_in(&mut self, first: Incoming) -> Woken {
        let mut next = Some(first);
        let mut left = TAKEN_AT_ONCE;
        while let Some(incoming) = next {
            if let Err(fault) = self.take_message(incoming) {
                disconnect(&self.peer.handle, &fault);
                return Woken::Gone;
            }
            left -= 1;
            if left == 0 || self.to_core.is_some() {
                break;
            }
            next = self.incoming.try_recv().ok();
        }
        Woken::By
    }

    /// What CometBFT would disconnect a peer for is an error.
    fn take_message(&mut self, incoming: Incoming) -> Result<(), crate::wire::WireError> {
        let Some(channel) = Channel::from_id(incoming.channel) else {
            return Ok(());
        };
        let view = self.current();
        let rules = self.shared.rules_now(view.as_deref());
        let Some(message) = PeerMessage::decode_on(channel, &incoming.bytes, rules)? else {
            return Ok(());
        };
        let received = lock(&self.peer.state).handle(Instant::now(), view.as_deref(), &message)?;
        match received {
            Received::Noted => {}
            Received::PassedOver(height) => self.shared.pass_over(&self.peer, height),
            Received::Claim(claim) => self.take_claim(claim),
            Received::Core(message) => {
                if incoming.bytes.len() + LOG_BYTES > MAX_MESSAGE_BYTES {
                    tracing::debug!(
                        peer = %self.peer.handle.id(),
                        bytes = incoming.bytes.len(),
                        "a message that is too long for the log is not taken"
                    );
                    return Ok(());
                }
                self.count(&message);
                self.hand_over(message, incoming.permit);
            }
        }
        Ok(())
    }

    fn count(&self, message: &Message) {
        match message {
            Message::Vote(_) => self.peer.votes.fetch_add(1, Ordering::Relaxed),
            Message::Part { .. } => self.peer.parts.fetch_add(1, Ordering::Relaxed),
            Message::Proposal(_) => 0,
        };
    }

    /// Gives a message to the state machine, or lets it wait for a place.
    fn hand_over(&mut self, message: Message, permit: Option<Permit>) {
        let place = Arc::clone(&self.places).try_acquire_owned();
        match (place, self.shared.to_core.try_reserve()) {
            (Ok(place), Ok(slot)) => slot.send(FromPeer {
                peer: self.peer.handle.id(),
                message,
                _place: place,
                _permit: permit,
            }),
            _ => self.to_core = Some((message, permit)),
        }
    }

    fn take_claim(&mut self, claim: perihelion_consensus::Maj23) {
        let Some(left) = self.claims_left.checked_sub(1) else {
            return;
        };
        self.claims_left = left;
        let peer = self.peer.handle.id();
        if self.shared.claims.try_send(Claim { peer, claim }).is_err() {
            tracing::debug!(%peer, "a claim of a majority is passed over");
        }
    }

    /// Says what is new, as much as there is room for.
    fn take_news(&mut self) {
        while self.to_say.is_empty() {
            match self.news.try_recv() {
                Ok(news) => self.say(news),
                Err(broadcast::error::TryRecvError::Lagged(_)) => {
                    self.news = self.news.resubscribe();
                    self.behind = true;
                    self.tell_place();
                }
                Err(
                    broadcast::error::TryRecvError::Empty | broadcast::error::TryRecvError::Closed,
                ) => return,
            }
        }
    }

    /// Tells the peer where this node is, and which parts it has of what it collects: those that it
    /// was sent over an earlier connection are not sent again.
    fn tell_place(&mut self) {
        let Some(view) = self.current() else { return };
        let step = NewRoundStep::of(view.round_step(), Instant::now());
        self.say_message(&PeerMessage::NewRoundStep(step));
        if let Some(block) = view.valid_block() {
            self.say_message(&PeerMessage::NewValidBlock(block));
        }
    }

    fn say_message(&mut self, message: &PeerMessage) {
        self.say(News {
            channel: message.channel(),
            bytes: message.encode(),
        });
    }

    /// Queues what the peer is to be told, in order.
    fn say(&mut self, news: News) {
        if self.to_say.is_empty() {
            let bytes = news.bytes.clone();
            match self.peer.handle.try_send(news.channel.id(), bytes) {
                Err(SendError::Full(_)) => {}
                Ok(()) | Err(SendError::NoChannel(_) | SendError::Disconnected) => return,
            }
        }
        self.to_say.push(news);
    }

    fn say_on(&mut self, ready: Result<(), SendError>) -> Woken {
        if ready.is_err() {
            return Woken::Gone;
        }
        for news in std::mem::take(&mut self.to_say) {
            self.say(news);
        }
        Woken::By
    }

    /// Sends what the peer lacks, as much as there is room for. Tells whether it is to be looked at
    /// by the clock too: all else that may change what can be done wakes this task.
    pub(super) fn gossip(&mut self, is_tick: bool) -> bool {
        if is_tick {
            self.loaded.clear();
        }
        let Some(view) = self.current() else {
            return !self.loaded.is_empty();
        };
        let look = self.shared.stored.look(self.held.take());
        let mut state = lock(&self.peer.state);
        if !self.data_full && may_ask_for_data(&state, &view, is_tick) {
            self.data_full = self.send_all(&mut state, &view, &look, Channel::Data);
        }
        if !self.votes_full {
            self.votes_full = self.send_all(&mut state, &view, &look, Channel::Vote);
        }
        let waits = view.has_stored(state.height()) && !may_ask_for_data(&state, &view, false);
        drop(state);
        let missed = look.missed();
        self.held = look.into_held().filter(|_| self.data_full);
        self.load(missed);
        waits || !self.loaded.is_empty()
    }

    /// Has the first loaded of what the peer lacks and was not at hand, unless something is loaded
    /// for it already; one commit and one block a tick: a peer can claim to lack them again and
    /// again.
    fn load(&mut self, missed: impl Iterator<Item = Wanted>) {
        if self.load.is_some() {
            return;
        }
        for wanted in missed {
            let kind = discriminant(&wanted);
            if !self.loaded.contains(&kind) {
                self.loaded.push(kind);
                self.load = Some(self.shared.stored.load(wanted));
                return;
            }
        }
    }

    /// Whether the channel's queue was full before all was sent.
    fn send_all(
        &self,
        state: &mut PeerState,
        view: &View,
        stored: &Look<'_>,
        channel: Channel,
    ) -> bool {
        loop {
            let next = match channel {
                Channel::Vote => state.next_vote(view, stored),
                _ => state.next_data(view, stored),
            };
            let Some(message) = next else { return false };
            let sent = self
                .peer
                .handle
                .try_send(message.channel().id(), message.encode());
            match sent {
                Ok(()) => state.sent(view, &message),
                Err(SendError::Full(_)) => return true,
                Err(SendError::NoChannel(_) | SendError::Disconnected) => return false,
            }
        }
    }

    /// Tells the peer of majorities. What finds no room is told the next time.
    fn claim_majorities(&mut self) -> Woken {
        self.claims_left = CLAIMS_AT_ONCE;
        if let Some(view) = self.current() {
            // What is not at hand is loaded when the peer is next looked after.
            let look = self.shared.stored.look(None);
            let claims = lock(&self.peer.state).next_maj23(&view, &look);
            for claim in claims {
                let sent = self
                    .peer
                    .handle
                    .try_send(claim.channel().id(), claim.encode());
                if sent.is_err() {
                    break;
                }
            }
        }
        Woken::By
    }
}

/// How often a peer that lags was looked at tells how long it has not said what it collects; so it
/// is looked at by the clock until it has.
fn may_ask_for_data(state: &PeerState, view: &View, is_tick: bool) -> bool {
    let lags = state.height() != view.height();
    is_tick || !lags || state.parts().is_some() || state.step() == Some(Step::Commit)
}

/// When it is time, if a time is set.
async fn due(tick: Pin<&mut Option<Sleep>>) {
    match tick.as_pin_mut() {
        Some(sleep) => sleep.await,
        None => std::future::pending().await,
    }
}

/// A place of the peer's own, and one in the queue.
async fn slot<'a>(
    queue: &'a mpsc::Sender<FromPeer>,
    places: &Arc<Semaphore>,
) -> Option<(OwnedSemaphorePermit, mpsc::Permit<'a, FromPeer>)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    let slot = queue.reserve().await.ok()?;
    Some((place, slot))
}

/// When what is loaded is there, or cannot be had.
async fn loaded(load: &mut Option<watch::Receiver<()>>) {
    if let Some(load) = load {
        while load.changed().await.is_ok() {}
    }
}

fn on(ready: Result<(), SendError>) -> Woken {
    if ready.is_ok() {
        Woken::By
    } else {
        Woken::Gone
    }
}
