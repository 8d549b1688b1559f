#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::task::{Context, Waker};

use futures::FutureExt as _;
use proptest::{collection::vec, prelude::*};

use super::*;

const MIB: usize = 1 << 20;

/// As a connection asks for it.
const STEP: usize = MIB;

/// Whether a message has got what it asked for.
fn has_room(permit: &mut Permit) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    std::pin::pin!(permit.room())
        .poll_unpin(&mut context)
        .is_ready()
}

#[tokio::test]
async fn permits_come_back_when_dropped() {
    let budget = ByteBudget::new(1000);
    let total = budget.total();
    let first = budget.acquire(900).await;
    assert!(budget.try_acquire(200).is_none());
    drop(first);
    assert_eq!(budget.available(), total);
    assert!(budget.try_acquire(200).is_some());
}

#[tokio::test]
async fn a_message_above_the_budget_gets_through_alone() {
    let budget = ByteBudget::new(1000);
    let all = budget.acquire(1_000_000).await;
    assert_eq!((all.bytes(), budget.available()), (1_000_000, 0));
}

#[tokio::test]
async fn large_messages_on_their_way_leave_half_to_small_ones() {
    let budget = ByteBudget::new(MIB);
    let slow = budget.try_acquire(500 << 10).expect("all is free");
    assert!(budget.try_acquire(500 << 10).is_none());
    let small: Vec<_> = (0..50).map(|_| budget.try_acquire(8 << 10)).collect();
    assert!(small.iter().all(Option::is_some));
    drop(small);
    let _whole = slow.arrived();
    assert!(budget.try_acquire(500 << 10).is_some());
}

#[tokio::test]
async fn an_abandoned_wait_is_not_counted() {
    let budget = ByteBudget::new(64);
    let held = budget.acquire(64).await;
    {
        let wait = budget.acquire(1);
        tokio::pin!(wait);
        assert!(futures::poll!(wait.as_mut()).is_pending());
        assert_eq!(budget.waiting(), 1);
    }
    assert_eq!(budget.waiting(), 0);
    drop(held);
    assert_eq!(budget.available(), 64);
}

#[test]
fn what_was_granted_and_not_fetched_comes_back() {
    let budget = ByteBudget::new(MIB);
    let held = budget.begin(MIB);
    let (first, mut second) = (budget.begin(MIB), budget.begin(MIB));
    drop(held);
    assert_eq!((budget.available(), budget.waiting()), (0, 1));
    drop(first);
    assert!(has_room(&mut second));
    drop(second);
    assert_eq!(budget.available(), MIB);
}

#[test]
fn who_is_woken_finds_its_room() {
    let budget = ByteBudget::new(MIB);
    let held = budget.begin(MIB);
    let woken = futures::executor::block_on(async {
        let wait = budget.acquire(1);
        let (woken, ()) = futures::join!(wait, async { drop(held) });
        woken
    });
    assert!(!woken.waits());
}

/// The small ones do not overtake a step for ever, and the oldest goes first.
#[test]
fn nobody_takes_what_is_kept_together_for_an_older_one() {
    let budget = ByteBudget::new(16 * MIB);
    let mut held: Vec<_> = (0..256).map(|_| budget.begin(64 << 10)).collect();
    let (mut step, mut small) = (budget.begin(STEP), budget.begin(1000));
    for left in (240..256).rev() {
        assert!(!has_room(&mut step) && !has_room(&mut small));
        held.truncate(left);
    }
    assert!(has_room(&mut step) && !has_room(&mut small));
    held.truncate(239);
    assert!(has_room(&mut small));
}

#[test]
fn one_that_passes_goes_beside_the_budget_within_a_bound() {
    let budget = ByteBudget::new(16 * MIB);
    let _held: Vec<_> = (0..256).map(|_| budget.begin(64 << 10)).collect();
    let mut passing = Vec::new();
    for _ in 0..ledger::PASSING / STEP {
        let mut permit = budget.begin(STEP);
        assert!(permit.waits());
        permit.pass(Standing::Unknown);
        assert!(has_room(&mut permit));
        passing.push(permit);
    }
    let mut first = budget.begin(STEP);
    first.pass(Standing::Unknown);
    let mut one_more = budget.begin(STEP);
    one_more.pass(Standing::Unknown);
    for _ in 0..9 {
        assert!(has_room(&mut first), "one takes what it needs");
        first.ask(STEP);
    }
    assert!(!has_room(&mut one_more));
    let first = first.arrived();
    assert!(!has_room(&mut one_more), "what was lent has not come back");
    drop(first);
    assert!(has_room(&mut one_more));
}

/// A large block that waits for the one below it holds the reserve; copies of that one pass.
#[test]
fn two_that_pass_do_not_stop_one_another_half_way() {
    const LARGEST: usize = 95;
    let budget = ByteBudget::new(64 * MIB);
    let mut above = budget.begin(STEP);
    let mut held: Vec<_> = (0..1008).map(|_| budget.begin(64 << 10)).collect();
    for _ in 1..LARGEST {
        above.ask(STEP);
        assert!(has_room(&mut above));
    }
    let _above = above.arrived();
    held.push(budget.begin(STEP));
    let mut copies = [budget.begin(STEP), budget.begin(STEP)];
    let mut sizes = [1, 1];
    for copy in &mut copies {
        copy.pass(Standing::Unknown);
    }
    for _ in 0..LARGEST {
        for (copy, size) in copies.iter_mut().zip(&mut sizes) {
            if has_room(copy) && *size < LARGEST {
                copy.ask(STEP);
                *size += 1;
            }
        }
    }
    assert!(sizes.contains(&LARGEST), "{sizes:?}");
    assert!(sizes.iter().sum::<usize>() < LARGEST + 34, "{sizes:?}");
}

/// In which order messages take what they need, one after the other, while all ask for more.
fn order(mut waiting: Vec<(Standing, Permit)>) -> Vec<Standing> {
    let mut order = Vec::new();
    while !waiting.is_empty() {
        let favoured = |permit: &Permit| permit.account.as_ref().unwrap().share.favoured;
        let next = waiting.iter_mut().position(|(_, permit)| {
            while has_room(permit) && !favoured(permit) {
                permit.ask(STEP);
            }
            favoured(permit)
        });
        let (standing, permit) = waiting.remove(next.expect("one takes what it needs"));
        order.push(standing);
        drop(permit.arrived());
    }
    order
}

const STANDINGS: [Standing; 5] = [
    Standing::Behind,
    Standing::Unknown,
    Standing::Proven,
    Standing::Behind,
    Standing::Proven,
];

/// Where only one takes what it needs it is one of a peer that has proven itself, and those of who was
/// slow before come last, however long they have been on their way.
#[test]
fn the_reserve_goes_by_standing_and_then_by_age() {
    let budget = ByteBudget::new(16 * MIB);
    let mut first = budget.begin(STEP);
    for _ in 1..10 {
        first.ask(STEP);
        assert!(has_room(&mut first));
    }
    let others = STANDINGS.map(|standing| (standing, budget.begin_of(STEP, standing)));
    let mut others = Vec::from(others);
    for (_, permit) in &mut others {
        while has_room(permit) {
            permit.ask(STEP);
        }
    }
    drop(first);
    let mut expected = STANDINGS;
    expected.sort();
    assert_eq!(order(others), expected);
}

#[test]
fn who_is_first_to_pass_goes_by_standing_and_then_by_age() {
    let budget = ByteBudget::new(16 * MIB);
    let _held: Vec<_> = (0..256).map(|_| budget.begin(64 << 10)).collect();
    let passing = || {
        let mut permit = budget.begin(STEP);
        permit.pass(Standing::Unknown);
        permit
    };
    let _passing: Vec<_> = (0..ledger::PASSING / STEP).map(|_| passing()).collect();
    let first = passing();
    let others = STANDINGS.map(|standing| {
        let mut permit = budget.begin(STEP);
        permit.pass(standing);
        assert!(!has_room(&mut permit));
        (standing, permit)
    });
    drop(first);
    let mut expected = STANDINGS;
    expected.sort();
    assert_eq!(order(others.into()), expected);
}

/// Who has the reserve and sends no more keeps others from nothing but the reserve.
#[test]
fn one_that_stops_half_way_keeps_nobody_from_the_budget() {
    let budget = ByteBudget::new(16 * MIB);
    let mut stops = budget.begin(STEP);
    let mut stuck = budget.begin(STEP);
    for _ in 1..40 {
        stops.ask(STEP);
        assert!(has_room(&mut stops));
    }
    for _ in 1..8 {
        stuck.ask(STEP);
        assert!(has_room(&mut stuck), "half of the budget is for large ones");
    }
    stuck.ask(STEP);
    assert!(!has_room(&mut stuck));
    let small: Vec<_> = (0..112).map(|_| budget.begin(64 << 10)).collect();
    assert!(small.iter().all(|permit| !permit.waits()));
    drop(stops);
    assert!(has_room(&mut stuck), "the reserve is lent again");
}

/// What one peer does with the message that it has on its way.
#[derive(Debug, Clone)]
struct Sender {
    bytes: usize,
    /// It sends so many bytes of it, and then nothing any more.
    stops_at: Option<usize>,
}

struct Arriving {
    sender: Sender,
    permit: Permit,
    here: usize,
    room: usize,
}

impl Arriving {
    fn new(budget: &ByteBudget, sender: Sender) -> Self {
        let room = sender.bytes.min(STEP);
        Self {
            permit: budget.begin(room),
            here: 0,
            room,
            sender,
        }
    }

    /// Whether something came of it; it asks for more room as a connection does.
    fn receive(&mut self, bytes: usize) -> bool {
        let end = self.sender.stops_at.unwrap_or(self.sender.bytes);
        if !has_room(&mut self.permit) || self.here >= end {
            return false;
        }
        self.here = (self.here + bytes).min(self.room).min(end);
        if self.here == self.room && self.room < self.sender.bytes {
            let step = STEP.min(self.sender.bytes - self.room);
            self.permit.ask(step);
            self.room += step;
        }
        true
    }

    fn is_whole(&self) -> bool {
        self.here == self.sender.bytes
    }
}

fn senders() -> impl Strategy<Value = Vec<Sender>> {
    let bytes = prop_oneof![1..100_000_usize, 1..4 * MIB, 1..100 * MIB];
    let sender = (
        bytes,
        prop::option::weighted(0.2, any::<prop::sample::Index>()),
    );
    let sender = sender.prop_map(|(bytes, stops_at)| Sender {
        bytes,
        stops_at: stops_at.map(|index| index.index(bytes)),
    });
    vec(sender, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// However messages arrive, and whoever stops in the middle of one: as long as anybody sends,
    /// something comes in, once what has arrived is dealt with and what has stopped is let go. No
    /// message that goes on is ever let go for it, and what is taken is bounded.
    #[test]
    fn while_any_peer_sends_some_message_arrives(
        senders in senders(),
        turns in vec((any::<prop::sample::Index>(), 1..3 * MIB, any::<bool>()), 1..200),
    ) {
        let budget = ByteBudget::new(16 * MIB);
        let mut arriving: Vec<_> = senders
            .iter()
            .map(|sender| Arriving::new(&budget, sender.clone()))
            .collect();
        let going = senders.iter().filter(|sender| sender.stops_at.is_none()).count();
        let (mut whole, mut arrived) = (Vec::new(), 0);
        let mut turns = turns.iter().cycle();
        while arrived < going {
            let (start, bytes, handle) = turns.next().unwrap();
            if *handle {
                whole.pop();
            }
            // The first one, from some place on, that gets on.
            let start = start.index(arriving.len());
            let count = arriving.len();
            let next = (0..count).map(|step| (start + step) % count);
            let got_on = next.into_iter().find(|&at| arriving[at].receive(*bytes));
            if let Some(at) = got_on && arriving[at].is_whole() {
                let message = arriving.swap_remove(at);
                whole.push(message.permit.arrived());
                arrived += 1;
            } else if got_on.is_none() && !whole.is_empty() {
                whole.clear();
            } else if got_on.is_none() {
                // Those that stopped, and only they, are noticed by a connection: it has their room.
                let stopped = arriving.iter_mut().position(|it| !it.permit.waits());
                let stopped = stopped.expect("all wait for one another");
                prop_assert!(arriving[stopped].sender.stops_at.is_some());
                arriving.swap_remove(stopped);
            }
            let all: usize = arriving.iter().map(|it| it.permit.account.as_ref().unwrap())
                .chain(whole.iter().map(|it: &Permit| it.account.as_ref().unwrap()))
                .map(|account| account.share.held())
                .sum();
            prop_assert!(all <= budget.total() + 100 * MIB, "{all}");
        }
        drop((arriving, whole));
        prop_assert_eq!((budget.available(), budget.waiting()), (budget.total(), 0));
    }
}
