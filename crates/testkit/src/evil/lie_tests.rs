#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use perihelion_types::FetchedBlock;

use super::*;
use crate::home::{ChainShape, make_home, validator_key};

const BLOCKS: u64 = 60;

fn chain() -> (tempfile::TempDir, Arc<Store>) {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    let shape = ChainShape {
        extensions_height: 1,
        ..ChainShape::new("lies", 4, BLOCKS)
    };
    make_home(&home, &shape).unwrap();
    let store = Store::open(
        &home.join("data"),
        &perihelion_store::StoreOptions::default(),
    );
    (folder, Arc::new(store.unwrap()))
}

fn told(store: &Arc<Store>, lie: Lie, height: Height) -> Option<wire::Message> {
    let keys: Vec<_> = (0..4).map(|number| validator_key(1, number)).collect();
    let chain = LyingChain::new(Arc::clone(store), lie, &keys).unwrap();
    let (answer, is_lie) = chain.answer(height)?;
    assert!(is_lie, "{lie:?} at {height} is true");
    Some(wire::Message::decode(&answer).unwrap())
}

fn block(message: Option<wire::Message>) -> wire::EncodedBlock {
    match message {
        Some(wire::Message::BlockResponse(block)) => block,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_lie_is_the_one_that_it_is_called() {
    let (_folder, store) = chain();
    let height = Height::new(30);
    let id = store.load_block_id(height).unwrap().unwrap();
    let fetch = |lie| {
        let told = block(told(&store, lie, height));
        FetchedBlock::decode(told.block, told.extended_commit)
    };
    fetch(Lie::CorruptBody).unwrap_err();
    for lie in [Lie::ForgedCommit, Lie::StaleFork] {
        let forged = fetch(lie).unwrap();
        assert_ne!(forged.block_id().hash, id.hash, "{lie:?}");
        assert_eq!(forged.reencoded().map(|_| ()), None);
    }
    let bent = fetch(Lie::BadExtendedCommit).unwrap();
    assert_eq!(bent.block_id(), id);
    let own = store.load_extended_commit(height).unwrap();
    assert_ne!(bent.extended_commit(), own.as_ref());
    for lie in Lie::ALL {
        if let Lie::OtherEncoding(_) = lie {
            let other = fetch(lie).unwrap();
            assert_eq!(other.block_id().hash, id.hash, "{lie:?}");
            assert_ne!(other.block_id(), id, "{lie:?}");
            assert_eq!(other.reencoded().unwrap().block_id(), id, "{lie:?}");
        }
    }
}

#[test]
fn a_fork_links_to_the_true_chain_and_to_itself() {
    let (_folder, store) = chain();
    let first = Height::new(1).plus(59 / 20 + 2);
    let mut before = store.load_block_id(first.prev()).unwrap().unwrap();
    for offset in 0..5 {
        let told = block(told(&store, Lie::StaleFork, first.plus(offset)));
        let forged = FetchedBlock::decode(told.block, None).unwrap();
        assert_eq!(forged.block().header.last_block_id, before);
        before = forged.block_id();
    }
}

#[test]
fn heights_are_withheld_and_ranges_inflated() {
    let (_folder, store) = chain();
    assert_eq!(told(&store, Lie::WithheldHeight, Height::new(10)), None);
    for (lie, height) in [(Lie::WithheldHeight, 20), (Lie::InflatedRange, 1_000)] {
        let height = Height::new(height);
        let no_block = wire::Message::NoBlockResponse(height);
        assert_eq!(told(&store, lie, height), Some(no_block));
    }
}

#[test]
fn an_endless_block_is_announced_and_true_blocks_are_not_begun() {
    let (_folder, store) = chain();
    for lie in Lie::ALL {
        let keys: Vec<_> = (0..4).map(|number| validator_key(1, number)).collect();
        let chain = LyingChain::new(Arc::clone(&store), lie, &keys).unwrap();
        let begin = chain.beginning();
        assert_eq!(begin.is_some(), lie == Lie::EndlessBlock);
        if let Some(begin) = begin {
            assert!(begin.len() < 1024, "one packet");
            let whole = wire::block_response(&vec![0; 104_000_000 - 5], None);
            assert_eq!(begin, whole[..begin.len()]);
        }
    }
}
