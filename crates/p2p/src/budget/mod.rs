//! The bytes that the messages of all peers share.

mod ledger;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    future::poll_fn,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use tokio::sync::OwnedSemaphorePermit;

use self::ledger::{Age, Ask, Ledger, Share};
use crate::peer::{Standing, lock};

/// A number of bytes that the messages of all peers share. Clones share the same bytes.
///
/// A connection takes room for a message step by step, as it comes, and stops reading from its peer
/// while it finds none, without blaming it. What is free goes to the message that has been on its way
/// the longest. A [`Permit`] is what a message has; whoever keeps the message keeps its permit.
///
/// - Large messages that are still on their way take half of the bytes at the most, but for the one
///   that has the reserve, so that a few peers that send slowly do not keep all others waiting.
/// - Messages that have begun cannot wait for one another: the oldest of the best
///   [standing](Standing) that finds no room gets the reserve. It goes on beside the budget, with what it had, and takes what it needs until it has
///   arrived. There is one reserve; it is lent again once all of it has been given back. So while any
///   peer sends, and what has arrived is dealt with, some message arrives.
/// - A message that was let [pass](crate::PeerHandle::admit_one) goes beside the budget, as far as all
///   of these together stay below 32 MiB; one of them at a time takes what it needs, chosen as for
///   the reserve.
///
/// So at most the budget, two largest messages and 32 MiB are taken at a time, and a peer that
/// announces much and sends nothing has one step of it.
#[derive(Debug, Clone)]
pub struct ByteBudget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    total: usize,
    ledger: Mutex<Ledger>,
}

impl Shared {
    /// Does something with the ledger, and wakes whom that lets go on.
    fn settle(&self, what: impl FnOnce(&mut Ledger) -> Vec<Waker>) {
        // Whoever is woken may be dropped for it, and lock.
        let woken = what(&mut lock(&self.ledger));
        for waker in woken {
            waker.wake();
        }
    }
}

impl ByteBudget {
    /// A budget of `bytes` bytes, all of them free.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let total = bytes.max(1);
        Self {
            shared: Arc::new(Shared {
                total,
                ledger: Mutex::new(Ledger::new(total)),
            }),
        }
    }

    /// All bytes of the budget, free or taken.
    #[must_use]
    pub fn total(&self) -> usize {
        self.shared.total
    }

    /// Bytes that nobody has.
    #[must_use]
    pub fn available(&self) -> usize {
        lock(&self.shared.ledger).available()
    }

    /// How many messages wait for room.
    #[must_use]
    pub fn waiting(&self) -> usize {
        lock(&self.shared.ledger).waiting()
    }

    /// Whether somebody waits who would go on if those gave bytes back whose messages have arrived:
    /// large messages may also wait for others that are on their way.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        lock(&self.shared.ledger).is_spent()
    }

    /// Waits until `bytes` bytes are free and takes them. More than the whole budget counts as the
    /// whole budget.
    pub async fn acquire(&self, bytes: usize) -> Permit {
        let mut permit = self.begin(bytes);
        permit.room().await;
        permit
    }

    /// Takes `bytes` bytes if they are free now and nobody waits for them.
    #[must_use]
    pub fn try_acquire(&self, bytes: usize) -> Option<Permit> {
        Some(self.begin(bytes)).filter(|permit| !permit.waits())
    }

    /// A message begins: it gets room for `bytes` bytes, or waits for it.
    pub(crate) fn begin(&self, bytes: usize) -> Permit {
        self.begin_of(bytes, Standing::Unknown)
    }

    /// The same for a message of a peer that stands so among others.
    pub(crate) fn begin_of(&self, bytes: usize, standing: Standing) -> Permit {
        let shared = Arc::clone(&self.shared);
        let ask = Ask {
            bytes: bytes.min(shared.total),
            share: Share::default(),
            passes: false,
            standing,
        };
        let (age, at_once) = lock(&shared.ledger).begin(ask);
        let mut account = Account {
            shared,
            age,
            share: at_once.unwrap_or_default(),
            waits: false,
            passes: false,
            standing,
        };
        if at_once.is_none() {
            account.wait(ask);
        }
        Permit {
            bytes,
            account: Some(account),
            _unhandled: None,
        }
    }
}

/// Bytes taken of a [`ByteBudget`], and of what a reactor may have in hand of one peer; dropping it
/// gives them back. Whoever keeps the message keeps its permit.
#[derive(Debug)]
pub struct Permit {
    bytes: usize,
    account: Option<Account>,
    /// The message's share of what its reactor may have in hand of this peer.
    _unhandled: Option<OwnedSemaphorePermit>,
}

/// What one message has of a budget.
struct Account {
    shared: Arc<Shared>,
    age: Age,
    share: Share,
    /// It is known to the ledger as one that waits.
    waits: bool,
    passes: bool,
    standing: Standing,
}

impl Permit {
    /// Adds a message's share of what its reactor may have in hand of its peer.
    pub(crate) fn with_unhandled(
        permit: Option<Self>,
        bytes: usize,
        unhandled: OwnedSemaphorePermit,
    ) -> Self {
        let account = permit.and_then(|permit| permit.account);
        Self {
            bytes,
            account,
            _unhandled: Some(unhandled),
        }
    }

    /// Room for so many bytes more, now or once [`room`](Self::room) says so.
    pub(crate) fn ask(&mut self, bytes: usize) {
        self.bytes += bytes;
        if let Some(account) = &mut self.account {
            account.ask(bytes);
        }
    }

    /// Whether it waits for room.
    pub(crate) fn waits(&self) -> bool {
        self.account.as_ref().is_some_and(|account| account.waits)
    }

    /// Waits until the room that was asked for is there. Nothing is lost when it is dropped.
    pub(crate) async fn room(&mut self) {
        if let Some(account) = &mut self.account {
            poll_fn(|context| account.poll_room(context)).await;
        }
    }

    /// The message may go beside the budget where that has no room.
    pub(crate) fn pass(&mut self, standing: Standing) {
        if let Some(account) = &mut self.account {
            account.passes = true;
            account.standing = standing;
            let age = account.age;
            account.shared.settle(|ledger| ledger.pass(age, standing));
        }
    }

    /// The message is whole.
    pub(crate) fn arrived(mut self) -> Self {
        if let Some(account) = &mut self.account {
            account.arrived();
        }
        self
    }

    /// The room that was asked for, in bytes: once the message is whole, its size by its own account.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Account {
    fn ask(&mut self, bytes: usize) {
        let ask = Ask {
            bytes: bytes.min(self.shared.total),
            share: self.share,
            passes: self.passes,
            standing: self.standing,
        };
        let at_once = lock(&self.shared.ledger).try_take(self.age, ask);
        match at_once {
            Some(share) => self.share = share,
            None => self.wait(ask),
        }
    }

    fn wait(&mut self, ask: Ask) {
        self.waits = true;
        let age = self.age;
        self.shared.settle(|ledger| ledger.wait(age, ask));
        // It may be among those that got something.
        let _ = self.poll_room(&mut Context::from_waker(Waker::noop()));
    }

    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if !self.waits {
            return Poll::Ready(());
        }
        match lock(&self.shared.ledger).fetch(self.age, context.waker()) {
            Some(share) => {
                self.waits = false;
                self.share = share;
                Poll::Ready(())
            }
            None => Poll::Pending,
        }
    }

    fn arrived(&mut self) {
        let arriving = std::mem::take(&mut self.share.arriving);
        if arriving > 0 || std::mem::take(&mut self.share.favoured) {
            let age = self.age;
            self.shared.settle(|ledger| ledger.arrived(age, arriving));
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let (age, waits, share) = (self.age, self.waits, self.share);
        self.shared
            .settle(|ledger| ledger.give_back(age, waits, share));
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("age", &self.age)
            .field("share", &self.share)
            .field("waits", &self.waits)
            .finish_non_exhaustive()
    }
}
