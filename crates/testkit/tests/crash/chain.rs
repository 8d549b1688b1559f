//! The chain that is synced, and what is known of it.

use std::{
    env,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use perihelion_crypto::sha256;
use perihelion_store::{IndexKind, Store, StoreOptions};
use perihelion_testkit::home::{ChainShape, make_home};
use perihelion_types::{Hash, Height};

/// A chain in a home, and what a node must have of each height.
pub(crate) struct Chain {
    pub(crate) home: PathBuf,
    heights: Vec<Told>,
}

/// What two nodes have in common of a height.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    /// Hash of the bytes of the block.
    block: [u8; 32],
    /// Hash of the response to FinalizeBlock.
    results: [u8; 32],
    /// The set that signs it.
    validators: Hash,
    /// The application's hash after it.
    app_hash: Bytes,
}

impl Chain {
    /// With transactions, absent validators, commits of later rounds, and validators that change.
    pub(crate) fn make(home: &Path, blocks: u64) -> Self {
        let shape = ChainShape {
            txs: 4,
            tx_bytes: 250,
            churn: 20,
            absent: 0.1,
            rounds: 2,
            ..ChainShape::new("crash", 10, blocks)
        };
        let made = make_home(home, &shape).unwrap();
        let store = open(home);
        let heights = (1..=made.height.get()).map(|height| tell(&store, Height::new(height)));
        Self {
            home: home.to_owned(),
            heights: heights.collect(),
        }
    }

    /// Its last height.
    pub(crate) fn last(&self) -> i64 {
        i64::try_from(self.heights.len()).unwrap()
    }

    /// Asserts that a home, whose node does not run, has the chain, and nothing else.
    pub(crate) fn assert_held(&self, home: &Path) {
        let store = open(home);
        let (base, top) = store.base_and_height();
        assert_eq!((base.get(), top.get()), (1, self.last()));
        let state = store.state_height();
        // The next start executes the last block.
        assert!(
            state >= Height::new(top.get() - 1),
            "the state is at {state}"
        );
        for (height, told) in (1..=state.get()).zip(&self.heights) {
            assert_eq!(&tell(&store, Height::new(height)), told, "height {height}");
        }
    }
}

fn open(home: &Path) -> Store {
    let options = StoreOptions {
        index: IndexKind::Null,
        ..StoreOptions::default()
    };
    Store::open(&home.join("data"), &options).unwrap()
}

fn tell(store: &Store, height: Height) -> Told {
    let state = store.load_state().unwrap().unwrap();
    let app_hash = match store.load_header(height.next()).unwrap() {
        Some(next) => next.app_hash,
        None => state.app_hash,
    };
    let missing = |what| format!("no {what} at {height}");
    let block = store.load_block_bytes(height).unwrap();
    let results = store.load_results(height).unwrap();
    let validators = store.load_validators(height).unwrap();
    Told {
        block: sha256(&block.unwrap_or_else(|| panic!("{}", missing("block")))),
        results: sha256(&results.unwrap_or_else(|| panic!("{}", missing("results")))),
        validators: validators
            .unwrap_or_else(|| panic!("{}", missing("set")))
            .hash(),
        app_hash,
    }
}

/// The node's binary: of the build that this test belongs to.
pub(crate) fn perihelion() -> PathBuf {
    if let Some(named) = env::var_os("PERIHELION") {
        return named.into();
    }
    let test = env::current_exe().unwrap();
    let profile = test.ancestors().nth(2).unwrap();
    profile.join("perihelion")
}
