//! The chain that evidence is judged by.

use perihelion_certify::History as _;
use perihelion_state::StoreHistory;
use perihelion_store::{BlockSave, Store, StoreOptions, Sync};
use perihelion_types::{FetchedBlock, Height};

use crate::chain_file::Chain;

/// CometBFT judges the evidence of a block before it stores the block, in consensus, in blocksync
/// and not at all when it replays. So the commit for the state's last block, which the block itself
/// carries, is not there yet, whatever our store holds above the state.
#[test]
fn the_commit_for_the_last_block_is_not_part_of_the_history() {
    let chain = Chain::load("chain_basic");
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path(), &StoreOptions::default()).unwrap();
    for line in &chain.blocks[..6] {
        let block = FetchedBlock::decode(line.block.0.clone().into(), None).unwrap();
        let save = BlockSave {
            block: &block,
            commit: None,
            extended_commit: None,
            results: None,
        };
        store.save_block(&save, Sync::No).unwrap();
    }
    let last = Height::new(4);
    let history = StoreHistory::new(&store, last);
    for (height, has_header, has_commit) in [(3, true, true), (4, true, false), (5, false, false)] {
        let height = Height::new(height);
        let header = history.header(height).unwrap();
        assert_eq!(header.is_some(), has_header, "{height}");
        let signed = history.signed_header(height).unwrap();
        assert_eq!(signed.is_some(), has_commit, "{height}");
        if let Some(signed) = signed {
            assert_eq!(Some(signed.header), header);
            assert_eq!(Some(signed.commit), store.load_commit(height).unwrap());
        }
    }
}
