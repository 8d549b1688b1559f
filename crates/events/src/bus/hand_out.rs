//! The thread that hands out what was published.

use std::sync::{
    Arc,
    atomic::Ordering,
    mpsc::{Receiver, TryRecvError},
};

use super::{Item, MAX_WAITING, MAX_WAITING_BYTES, Shared};
use crate::{AppliedBlock, Attributes, Cancelled, EventData, Message};

/// Hands out what is published until the bus is gone.
pub(super) fn run(shared: &Shared, items: &Receiver<Item>) {
    while let Some(item) = next(shared, items) {
        shared.waiting.fetch_sub(1, Ordering::AcqRel);
        shared.cancel_losers();
        match item {
            Item::Block(block, size) => {
                shared.in_hand.store(size, Ordering::Release);
                shared.send_block(&block);
                drop(block);
                shared.in_hand.store(0, Ordering::Release);
                shared.waiting_bytes.fetch_sub(size, Ordering::AcqRel);
            }
            Item::Round(event) => {
                shared.send(Attributes::of_name(event.name()), || {
                    EventData::Round(event)
                });
            }
        }
    }
    shared.cancel_all(Cancelled::Exited);
}

fn next(shared: &Shared, items: &Receiver<Item>) -> Option<Item> {
    match items.try_recv() {
        Ok(item) => Some(item),
        Err(TryRecvError::Disconnected) => None,
        Err(TryRecvError::Empty) => {
            shared.lock().rest();
            items.recv().ok()
        }
    }
}

impl Shared {
    /// Cancels those who would miss what was lost.
    fn cancel_losers(&self) {
        if self.lost_block.swap(false, Ordering::AcqRel) {
            tracing::warn!("more happens than can be handed out: all subscribers are cancelled");
            self.lost_step.store(false, Ordering::Release);
            self.cancel_all(Cancelled::OutOfCapacity);
        } else if self.lost_step.swap(false, Ordering::AcqRel) {
            tracing::warn!(
                "more steps happen than can be handed out: who subscribed to steps is cancelled"
            );
            let mut subscribers = self.lock();
            subscribers.cancel_steps(Cancelled::OutOfCapacity);
            self.count(&subscribers);
        }
    }

    /// How much waits behind what is handed out now, in thousandths of what may: a single large
    /// block, behind which nothing waits, is nobody's burden.
    fn load(&self) -> usize {
        let of = |waiting: usize, most: usize| waiting.saturating_mul(1_000) / most;
        let items = of(self.waiting.load(Ordering::Acquire), MAX_WAITING);
        let bytes = self.waiting_bytes.load(Ordering::Acquire);
        let behind = bytes.saturating_sub(self.in_hand.load(Ordering::Acquire));
        items.max(of(behind, MAX_WAITING_BYTES))
    }

    /// Hands one event to those who asked for it; `make` makes its data once somebody did.
    fn send(&self, attributes: Attributes, make: impl FnOnce() -> EventData) {
        let mut subscribers = self.lock();
        subscribers.relieve(self.load());
        let wanting = subscribers.wanting(&attributes);
        if !wanting.is_empty() {
            let message = Arc::new(Message::new(make(), attributes));
            for query in wanting {
                subscribers.give(&query, &message);
            }
        }
        self.count(&subscribers);
    }

    fn send_block(&self, block: &Arc<AppliedBlock>) {
        let (applied, response) = (&block.block, &block.response);
        let height = applied.header.height;
        self.send(Attributes::of_events(&response.events, "NewBlock"), || {
            EventData::NewBlock(Arc::clone(block))
        });
        self.send(Attributes::of_name("NewBlockHeader"), || {
            EventData::NewBlockHeader(Arc::clone(block))
        });
        self.send(
            Attributes::of_events(&response.events, "NewBlockEvents"),
            || EventData::NewBlockEvents(Arc::clone(block)),
        );
        for index in 0..applied.evidence.len() {
            self.send(Attributes::of_name("NewEvidence"), || {
                let block = Arc::clone(block);
                EventData::NewEvidence { block, index }
            });
        }
        let txs = applied.data.iter().zip(&response.tx_results);
        for ((tx, result), index) in txs.zip(0_u32..) {
            self.send(Attributes::of_tx(height, tx, &result.events), || {
                EventData::of_tx(height, index, tx, result)
            });
        }
        if !response.validator_updates.is_empty() {
            self.send(Attributes::of_name("ValidatorSetUpdates"), || {
                EventData::ValidatorSetUpdates(Arc::clone(block))
            });
        }
    }
}
