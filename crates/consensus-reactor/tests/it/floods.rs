//! Peers that send too much: what of it is logged, and asked about.

use std::{fs, sync::Arc};

use bytes::Bytes;
use perihelion_consensus::{Message, WalMessage};
use perihelion_consensus_reactor::wire::PeerMessage;
use perihelion_types::{Height, Part, PartSet, Round, SignedMsgType};

use crate::{
    apps::{EXTENSION, Gate, gated},
    nodes::{Home, close_all, genesis, key, mesh, soon, threads},
    strangers::{Stranger, block_id, stuck, vote},
};

#[test]
fn a_flood_neither_fills_the_log_nor_holds_up_the_others() {
    threads().block_on(async {
        let nodes = mesh(Home::all(&genesis(&[10; 4]))).await;
        nodes[0].reach(1).await;
        let mut flooders = Vec::new();
        for _ in 0..2 {
            let stranger = Stranger::connect(&nodes[0]).await;
            let far = vote(&nodes[0], 1, 1, (1_000_000, 7), block_id(3, 1));
            let odd = vote(&nodes[0], 1, 1, (1, 1_000), block_id(3, 1));
            let data = PartSet::from_data(Bytes::from(vec![5; 60_000]));
            let part = PeerMessage::Part {
                height: Height::new(1_000_000),
                round: Round::ZERO,
                part: Arc::new(Part::clone(data.part(0).unwrap())),
            };
            let junk = [
                PeerMessage::Vote(Arc::new(far)),
                PeerMessage::Vote(Arc::new(odd)),
                part,
            ];
            let stop = tokio_util::sync::CancellationToken::new();
            let until = stop.clone();
            let task = tokio::spawn(async move {
                let mut sent = 0_u64;
                'all: loop {
                    for message in &junk {
                        tokio::select! {
                            () = until.cancelled() => break 'all,
                            () = stranger.say(message) => sent += 1,
                        }
                    }
                }
                (stranger, sent)
            });
            flooders.push((stop, task));
        }
        let here = nodes[0].see("a height", |_| true).await.height().get();
        for node in &nodes {
            node.reach(here + 10).await;
        }
        let mut all = 0;
        for (stop, task) in flooders {
            stop.cancel();
            let (stranger, sent) = soon("the flood to end", task).await.unwrap();
            assert!(nodes[0].switch.peer(&stranger.switch.id()).is_some());
            all += sent;
        }
        assert!(all > 100, "{all}");
        let homes = close_all(nodes).await;
        let bytes = fs::metadata(homes[0].wal()).unwrap().len();
        let calm = fs::metadata(homes[1].wal()).unwrap().len();
        assert!(bytes < 3 * calm, "{bytes} bytes, without a flood {calm}");
        for home in homes {
            home.assert_signed_once();
        }
    });
}

#[test]
fn a_validator_that_signs_without_end_is_reported_once_and_not_logged_without_end() {
    threads().block_on(async {
        let nodes = stuck().await;
        let mut stranger = Stranger::connect(&nodes[0]).await;
        for number in 0..200_u8 {
            let other = vote(&nodes[0], 2, 2, (1, 0), block_id(number, 1));
            stranger.say(&PeerMessage::Vote(Arc::new(other))).await;
        }
        // All were taken before this is answered: it comes behind them in the node's queue.
        let last = vote(&nodes[0], 3, 3, (1, 0), block_id(1, 1));
        stranger.say(&PeerMessage::Vote(Arc::new(last))).await;
        stranger
            .hear("the last vote to be had", |message| match message {
                PeerMessage::HasVote(has) if has.vote_type == SignedMsgType::Prevote => {
                    let view = nodes[0].handle.view().borrow().clone().unwrap();
                    let address = key(3).public_key().address();
                    let (index, _) = view.validator_set().by_address(&address).unwrap();
                    (usize::try_from(has.index) == Ok(index)).then_some(())
                }
                _ => None,
            })
            .await;
        let mut homes = Vec::new();
        for node in nodes {
            homes.push(node.close().await);
        }
        let address = key(2).public_key().address();
        let logged = homes[0]
            .records()
            .into_iter()
            .filter(|record| match record {
                WalMessage::Message {
                    message: Message::Vote(vote),
                    ..
                } => vote.validator_address[..] == address.as_bytes()[..],
                _ => false,
            })
            .count();
        // Its first vote, and the one that convicts it.
        assert_eq!(logged, 2);
    });
}

#[test]
fn an_extension_that_the_application_rejects_is_judged_once_and_few_of_a_place() {
    threads().block_on(async {
        let mut genesis = genesis(&[10; 4]);
        genesis.consensus_params.abci.vote_extensions_enable_height = 1;
        let home = Home::all(&genesis).remove(0);
        let gate = Arc::new(Gate::default());
        let mut node = gated(home, &gate).await;
        node.enter().await;
        let mut stranger = Stranger::connect(&node).await;
        let with = |number: usize, extension: &'static [u8]| {
            let mut vote = vote(&node, number, number, (1, 0), block_id(1, 1));
            vote.vote_type = SignedMsgType::Precommit;
            vote.extension = Bytes::from_static(extension);
            vote.signature = key(number).sign(&vote.sign_bytes("loopback"));
            vote.extension_signature = key(number).sign(&vote.extension_sign_bytes("loopback"));
            PeerMessage::Vote(Arc::new(vote))
        };
        for _ in 0..50 {
            stranger.say(&with(2, b"bad")).await;
        }
        // Others of the same place, too, but for one.
        for extension in [&b"worse"[..], b"even worse", b"worst"] {
            stranger.say(&with(2, extension)).await;
        }
        stranger.say(&with(3, EXTENSION)).await;
        stranger
            .hear("the good vote to be had", |message| match message {
                PeerMessage::HasVote(has) if has.vote_type == SignedMsgType::Precommit => Some(()),
                _ => None,
            })
            .await;
        assert_eq!(gate.verified(), 3);
        node.close().await;
    });
}
