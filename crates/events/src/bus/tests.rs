#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use perihelion_proto::tendermint::abci::{
    Event, EventAttribute, ExecTxResult, ResponseFinalizeBlock, ValidatorUpdate,
};
use perihelion_test_support::{Hex, load_lines};
use perihelion_types::{FetchedBlock, Hash, Height, Round};
use serde::Deserialize;

use super::*;
use crate::{Attributes, EventData, Message};

#[derive(Deserialize)]
struct Line {
    block: Hex,
}

fn query(text: &str) -> Query {
    Query::parse(text).unwrap()
}

fn event(kind: &str, key: &'static str, value: &'static str) -> Event {
    Event {
        r#type: kind.to_owned(),
        attributes: vec![EventAttribute {
            key: key.into(),
            value: value.into(),
            index: false,
        }],
    }
}

/// A block with transactions, of which the last one has an event; the block has one too.
fn block() -> Arc<AppliedBlock> {
    let lines: Vec<Line> = load_lines("chain_basic/blocks.jsonl");
    let blocks = lines.into_iter().map(|line| line.block.0);
    let mut blocks = blocks.map(|raw| FetchedBlock::decode(raw.into(), None).unwrap());
    let block = blocks.find(|block| block.block().data.iter().count() > 1);
    let block = block.unwrap();
    let count = block.block().data.iter().count();
    let mut tx_results = vec![ExecTxResult::default(); count];
    tx_results[count - 1].events = vec![event("transfer", "sender", "ada")];
    let response = ResponseFinalizeBlock {
        events: vec![event("epoch", "number", "3")],
        tx_results,
        validator_updates: vec![ValidatorUpdate::default()],
        ..Default::default()
    };
    Arc::new(AppliedBlock::new(&block, response))
}

fn step(name: &'static str) -> RoundEvent {
    RoundEvent::NewRoundStep {
        height: Height::new(1),
        round: Round::ZERO,
        step: name,
    }
}

async fn names(subscription: &mut Subscription, count: usize) -> Vec<String> {
    let mut names = Vec::new();
    for _ in 0..count {
        let message = subscription.next().await.unwrap();
        let name = &message.attributes().values(b"tm.event")[0];
        names.push(String::from_utf8(name.to_vec()).unwrap());
    }
    names
}

#[tokio::test]
async fn a_block_is_told_in_order() {
    let bus = EventBus::default();
    assert!(!bus.has_subscribers());
    bus.publish_block(block());
    let mut all = bus.subscribe("a", query("tm EXISTS"), 100).unwrap();
    assert!(bus.has_subscribers());
    let block = block();
    let txs = block.block.data.iter().count();
    let evidence = block.block.evidence.len();
    bus.publish_block(block);
    let mut expected = vec!["NewBlock", "NewBlockHeader", "NewBlockEvents"];
    expected.extend(vec!["NewEvidence"; evidence]);
    expected.extend(vec!["Tx"; txs]);
    expected.push("ValidatorSetUpdates");
    assert_eq!(names(&mut all, expected.len()).await, expected);
    bus.publish_round(step("RoundStepPropose"));
    assert_eq!(names(&mut all, 1).await, ["NewRoundStep"]);
    drop(bus);
    assert_eq!(all.next().await.unwrap_err(), Cancelled::Exited);
}

#[tokio::test]
async fn each_hears_what_it_asked_for() {
    let bus = EventBus::default();
    let block = block();
    let (last, tx) = block.block.data.iter().enumerate().last().unwrap();
    let hash = Hash::of(tx).to_string();
    let height = block.block.header.height;
    let text = format!("tx.height = {height} AND transfer.sender = 'ada'");
    let mut sent = bus.subscribe("a", query(&text), 10).unwrap();
    let mut found = bus.subscribe("a", Query::for_tx(&hash), 10).unwrap();
    let mut epochs = bus.subscribe("b", query("epoch.number > 2"), 10).unwrap();
    let mut steps = bus
        .subscribe("b", Query::for_event("NewRoundStep"), 10)
        .unwrap();
    bus.publish_block(Arc::clone(&block));
    bus.publish_round(step("RoundStepPropose"));
    for subscription in [&mut sent, &mut found] {
        let message = subscription.next().await.unwrap();
        let EventData::Tx {
            height,
            index,
            tx: told,
            result,
        } = message.data()
        else {
            panic!("{message:?}");
        };
        assert_eq!(*height, block.block.header.height);
        assert_eq!(*index as usize, last);
        assert_eq!(&told[..], tx);
        assert_eq!(*result, block.response.tx_results[last]);
        assert_eq!(message.attributes().values(b"tx.hash"), [hash.as_bytes()]);
    }
    assert_eq!(names(&mut epochs, 2).await, ["NewBlock", "NewBlockEvents"]);
    let message = steps.next().await.unwrap();
    assert!(matches!(
        message.data(),
        EventData::Round(RoundEvent::NewRoundStep { .. })
    ));
}

#[tokio::test]
async fn who_does_not_pull_is_cancelled_and_the_others_are_not() {
    let bus = EventBus::default();
    let mut slow = bus
        .subscribe("slow", Query::for_event("NewRoundStep"), 2)
        .unwrap();
    let mut other = bus
        .subscribe("other", Query::for_event("NewRoundStep"), 10)
        .unwrap();
    for _ in 0..3 {
        bus.publish_round(step("RoundStepPropose"));
    }
    assert_eq!(names(&mut other, 3).await.len(), 3);
    // Each is given its messages in turn.
    while bus.num_clients() > 1 {
        tokio::task::yield_now().await;
    }
    // What waits comes first.
    assert_eq!(names(&mut slow, 2).await.len(), 2);
    let reason = slow.next().await.unwrap_err();
    assert_eq!(
        reason.to_string(),
        "internal subscription event buffer is out of capacity"
    );
    assert_eq!(bus.num_client_subscriptions("slow"), 0);
}

#[test]
fn bytes_that_wait_are_bounded() {
    let bus = EventBus::default();
    let registered = Registered {
        shared: Arc::downgrade(&bus.inner.shared),
        query: String::new(),
        subscriber: String::new(),
        id: 0,
    };
    let (outlet, subscription) = ends(1_000, registered);
    let large = ExecTxResult {
        data: vec![0; 40 << 20].into(),
        ..Default::default()
    };
    let data = EventData::of_tx(Height::new(1), 0, b"", &large);
    let message = Arc::new(Message::new(data, Attributes::default()));
    assert_eq!(outlet.give(&message), Ok(()));
    assert_eq!(outlet.give(&message), Err(Cancelled::OutOfCapacity));
    drop(subscription);
}

#[tokio::test]
async fn leaving_ends_a_subscription() {
    let bus = EventBus::default();
    let tx = Query::for_event("Tx");
    let mut first = bus.subscribe("a", tx.clone(), 1).unwrap();
    let error = bus.subscribe("a", query("tm.event='Tx'"), 1).unwrap_err();
    assert_eq!(error.to_string(), "already subscribed");
    assert_eq!(bus.unsubscribe("b", &tx), Err(NotSubscribed));
    assert_eq!(bus.unsubscribe("a", &tx), Ok(()));
    assert_eq!(first.next().await.unwrap_err(), Cancelled::Unsubscribed);
    assert_eq!(bus.unsubscribe("a", &tx), Err(NotSubscribed));
    let _second = bus.subscribe("a", tx.clone(), 1).unwrap();
    // The first one is gone already, and takes nothing with it.
    drop(first);
    let third = bus.subscribe("a", query("a EXISTS"), 1).unwrap();
    assert_eq!(bus.num_client_subscriptions("a"), 2);
    drop(third);
    assert_eq!(bus.num_client_subscriptions("a"), 1);
    assert_eq!(bus.unsubscribe_all("a"), Ok(()));
    assert_eq!(bus.unsubscribe_all("a"), Err(NotSubscribed));
    assert!(!bus.has_subscribers());
}

#[test]
fn subscribers_are_bounded() {
    let bus = EventBus::default();
    let limits = Limits {
        clients: 2,
        per_client: 2,
    };
    let subscribe = |name: &str, text: &str| bus.subscribe_within(limits, name, query(text), 1);
    let _a = subscribe("a", "a=1").unwrap();
    let _b = subscribe("a", "a=2").unwrap();
    let error = subscribe("a", "a=3").unwrap_err();
    assert_eq!(error.to_string(), "max_subscriptions_per_client 2 reached");
    let _c = subscribe("b", "a=1").unwrap();
    for name in ["a", "b", "c"] {
        let error = subscribe(name, "a=4").unwrap_err();
        assert_eq!(error.to_string(), "max_subscription_clients 2 reached");
        assert!(bus.check(limits, name).is_err());
    }
}

/// A block with one event whose value is so long.
fn with_value(length: usize) -> Arc<AppliedBlock> {
    let mut block = AppliedBlock::clone(&block());
    block.response.events = vec![Event {
        r#type: "long".to_owned(),
        attributes: vec![EventAttribute {
            key: "value".into(),
            value: vec![b'a'; length].into(),
            index: false,
        }],
    }];
    Arc::new(block)
}

/// The thread takes nothing until all is published.
fn publish_held(bus: &EventBus, publish: impl FnOnce()) {
    let held = bus.inner.shared.lock();
    publish();
    drop(held);
}

#[tokio::test]
async fn who_costs_most_is_cancelled_and_those_who_wait_for_a_tx_are_not() {
    let bus = EventBus::default();
    let block = with_value(64_000);
    let tx = block.block.data.iter().last().unwrap();
    let hash = Hash::of(tx).to_string();
    let costly = vec!["long.value CONTAINS 'a'"; 16].join(" AND ");
    let mut costly: Vec<_> = (0..5)
        .map(|number| {
            let text = format!("{costly} AND epoch.number = {number}");
            let name = ["costly", "costly too"][number % 2];
            bus.subscribe(name, query(&text), 10).unwrap()
        })
        .collect();
    let mut cheap = bus.subscribe("cheap", Query::for_tx(&hash), 1_000).unwrap();
    let mut steps = bus
        .subscribe("steps", Query::for_event("Vote"), 1_000)
        .unwrap();
    publish_held(&bus, || {
        for _ in 0..800 {
            bus.publish_block(Arc::clone(&block));
        }
    });
    for subscription in &mut costly {
        assert_eq!(
            subscription.next().await.unwrap_err(),
            Cancelled::OutOfCapacity
        );
    }
    assert_eq!(names(&mut cheap, 800).await, vec!["Tx"; 800]);
    assert_eq!(bus.num_clients(), 2);
    drop(bus);
    assert_eq!(steps.next().await.unwrap_err(), Cancelled::Exited);
}

/// However large it is and whatever the queries cost: nothing waits behind it.
#[tokio::test]
async fn a_single_large_block_cancels_nobody() {
    let bus = EventBus::default();
    let mut subscriptions = ["a", "b"].map(|name| {
        let query = query("long.value CONTAINS 'a'");
        bus.subscribe(name, query, 10).unwrap()
    });
    bus.publish_block(with_value(MAX_WAITING_BYTES / 2));
    for subscription in &mut subscriptions {
        assert_eq!(names(subscription, 2).await, ["NewBlock", "NewBlockEvents"]);
    }
    assert_eq!(bus.num_clients(), 2);
}

#[tokio::test]
async fn a_burst_of_little_work_cancels_nobody() {
    let bus = EventBus::default();
    let mut subscription = bus
        .subscribe("a", Query::for_event("NewRoundStep"), MAX_WAITING)
        .unwrap();
    publish_held(&bus, || {
        for _ in 0..MAX_WAITING_STEPS {
            bus.publish_round(step("RoundStepPropose"));
        }
    });
    assert_eq!(
        names(&mut subscription, MAX_WAITING_STEPS).await.len(),
        MAX_WAITING_STEPS
    );
}

#[tokio::test]
async fn lost_steps_cancel_those_who_asked_for_steps_alone() {
    let bus = EventBus::default();
    let mut steps = bus
        .subscribe("a", Query::for_event("NewRoundStep"), 2 * MAX_WAITING)
        .unwrap();
    let mut all = bus
        .subscribe("a", query("tm.event EXISTS"), 2 * MAX_WAITING)
        .unwrap();
    let mut blocks = bus.subscribe("a", Query::for_event("NewBlock"), 2).unwrap();
    publish_held(&bus, || {
        for _ in 0..MAX_WAITING {
            bus.publish_round(step("RoundStepPropose"));
        }
        // There is room for it.
        bus.publish_block(block());
    });
    assert_eq!(names(&mut blocks, 1).await, ["NewBlock"]);
    for subscription in [&mut steps, &mut all] {
        let reason = loop {
            if let Err(reason) = subscription.next().await {
                break reason;
            }
        };
        assert_eq!(reason, Cancelled::OutOfCapacity);
    }
    assert_eq!(bus.num_client_subscriptions("a"), 1);
}

#[tokio::test]
async fn a_lost_block_cancels_all() {
    let bus = EventBus::default();
    let mut steps = bus
        .subscribe("a", Query::for_event("NewRoundStep"), 2)
        .unwrap();
    let mut txs = bus.subscribe("b", Query::for_event("Tx"), 2 * MAX_WAITING);
    publish_held(&bus, || {
        let block = block();
        for _ in 0..MAX_WAITING + 2 {
            bus.publish_block(Arc::clone(&block));
        }
    });
    for subscription in [&mut steps, txs.as_mut().unwrap()] {
        let reason = loop {
            if let Err(reason) = subscription.next().await {
                break reason;
            }
        };
        assert_eq!(reason, Cancelled::OutOfCapacity);
    }
    assert_eq!(bus.num_clients(), 0);
}

/// Whoever publishes does not wait for the thread that hands out: who would miss something is
/// cancelled.
#[tokio::test]
async fn publishing_never_waits() {
    let bus = EventBus::default();
    let mut subscription = bus
        .subscribe("a", Query::for_event("NewRoundStep"), 2 * MAX_WAITING)
        .unwrap();
    {
        // The thread cannot go on.
        let _held = bus.inner.shared.lock();
        for _ in 0..MAX_WAITING + 2 {
            bus.publish_round(step("RoundStepPropose"));
        }
    }
    let mut count = 0;
    let reason = loop {
        match subscription.next().await {
            Ok(_) => count += 1,
            Err(reason) => break reason,
        }
    };
    assert_eq!(reason, Cancelled::OutOfCapacity);
    assert!(count <= 1, "{count}");
}
