//! A proposer that writes its block as no CometBFT does and every CometBFT reads it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use perihelion_consensus_reactor::wire::PeerMessage;
use perihelion_types::{
    Block, BlockId, Commit, Height, PartSet, Proposal, Round, Rules, SignedMsgType, Time,
};

use crate::{
    nodes::{Home, Node, close_all, connect_all, genesis, key, threads},
    strangers::Stranger,
};

/// A tag or length in ten bytes, with bits beyond the 64th.
fn wrapped(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..9 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(0x7e);
    bytes
}

/// The block in an encoding that other decoders than CometBFT's refuse.
fn odd(block: &Block) -> Bytes {
    let usual = block.encode();
    let mut rest = &usual[..];
    // A chain id that is no UTF-8 and a time, which the right ones replace; a group's wrong end.
    let mut odd = b"\x0a\x08\x12\x02\xff\xfe\x22\x02\x10\x07\x7b\x0b\x14\x0c".to_vec();
    while let Some((&tag, mut behind)) = rest.split_first() {
        let length = prost::encoding::decode_varint(&mut behind).unwrap();
        let (content, after) = behind.split_at(usize::try_from(length).unwrap());
        odd.extend(wrapped(tag.into()));
        odd.extend(wrapped(length));
        odd.extend_from_slice(content);
        rest = after;
    }
    odd.into()
}

/// What the first proposer, whose key the test has, says to have `parts` decided.
fn proposed(block: &Block, parts: &PartSet) -> Vec<PeerMessage> {
    let (height, round) = (block.header.height, Round::ZERO);
    let mut proposal = Proposal {
        proposal_type: SignedMsgType::Proposal,
        height,
        round,
        pol_round: Round::new(-1),
        block_id: BlockId {
            hash: block.hash(),
            part_set_header: parts.header(),
        },
        timestamp: Time::new(1_700_000_100, 0),
        signature: Bytes::new(),
    };
    proposal.signature = key(0).sign(&proposal.sign_bytes("loopback"));
    let part = |index| PeerMessage::Part {
        height,
        round,
        part: Arc::new(parts.part(index).unwrap().clone()),
    };
    let parts = (0..parts.header().total).map(part);
    let proposal = PeerMessage::Proposal(Arc::new(proposal));
    std::iter::once(proposal).chain(parts).collect()
}

/// The node holds the block as it came, and reads it.
fn assert_held(node: &Node, block: &Block, raw: &Bytes) {
    let store = &node.store;
    let height = block.header.height;
    assert_eq!(&store.load_block_bytes(height).unwrap().unwrap(), raw);
    assert_eq!(&node.block(height.get()), block);
    assert_eq!(store.load_header(height).unwrap().unwrap(), block.header);
    let commit = store.load_commit(height).unwrap().unwrap();
    let parts = PartSet::from_data(raw.clone()).header();
    assert_eq!(commit.block_id.part_set_header, parts);
    assert!(store.load_results(height).unwrap().is_some());
}

#[test]
fn a_block_in_an_odd_encoding_is_decided_read_back_and_served() {
    threads().block_on(async {
        // The first proposer, whom the others outvote, is the test.
        let genesis = genesis(&[11, 10, 10, 10]);
        let mut nodes = Vec::new();
        for mut home in Home::all(&genesis).into_iter().skip(1) {
            // Until the proposal is there, however long that takes.
            home.config.timeout_propose = Duration::from_secs(600);
            nodes.push(Node::open(home).await);
        }
        let state = nodes[0].executor.as_ref().unwrap().state_arc();
        let proposer = key(0).public_key().address();
        assert_eq!(state.validators.proposer().unwrap().address, proposer);
        let no_commit = Commit {
            height: Height::ZERO,
            round: Round::ZERO,
            block_id: BlockId::NIL,
            signatures: Vec::new(),
        };
        let block = state.make_block([b"odd=block"], no_commit, Vec::new(), proposer, Rules::V038);
        let block = block.unwrap();
        let raw = odd(&block);
        let parts = PartSet::from_data(raw.clone());
        for node in &mut nodes {
            node.enter().await;
        }
        connect_all(&nodes).await;
        let stranger = Stranger::connect(&nodes[0]).await;
        for message in proposed(&block, &parts) {
            stranger.say(&message).await;
        }
        for node in &nodes {
            node.reach(2).await;
            assert_held(node, &block, &raw);
        }
        let mut again = Vec::new();
        for home in close_all(nodes).await {
            again.push(Node::begin(home).await);
        }
        connect_all(&again).await;
        // One that comes late gets its parts.
        let late = Node::begin(Home::new(&genesis, None)).await;
        late.connect(&again[0]).await;
        for node in again.iter().chain([&late]) {
            node.reach(3).await;
            assert_held(node, &block, &raw);
        }
        again.push(late);
        close_all(again).await;
    });
}
