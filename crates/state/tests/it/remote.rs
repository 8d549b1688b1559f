//! Applications in another process: over loopback, with the store as it is on the disk when their
//! calls come.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, mpsc::channel},
    time::Duration,
};

use perihelion_abci::{
    AppAddress, AppConnections, AppFault, AppServer, AppTransport, Application, CallName, KvStore,
    KvStoreOptions, MemoryAppStore,
    types::{
        RequestCommit, RequestFinalizeBlock, RequestInfo, RequestInitChain, ResponseCommit,
        ResponseFinalizeBlock, ResponseInfo, ResponseInitChain,
    },
};
use perihelion_state::{ApplyError, Executor, ExecutorConfig, StartError};
use perihelion_store::Store;
use perihelion_test_support::copy_folder;
use perihelion_types::Height;

use crate::{chain_file::Chain, crashes::open_store};

const TRANSPORTS: [AppTransport; 2] = [AppTransport::Socket, AppTransport::Grpc];
/// Far longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(240);

/// The key-value application that keeps its own state on `disk`.
fn standalone(disk: &Arc<MemoryAppStore>) -> Arc<dyn Application> {
    let store = Arc::clone(disk) as _;
    Arc::new(KvStore::standalone(store, KvStoreOptions::default()).unwrap())
}

fn serve(transport: AppTransport, app: Arc<dyn Application>) -> AppServer {
    let address: AppAddress = "tcp://127.0.0.1:0".parse().unwrap();
    AppServer::start(&address, transport, app, drop).unwrap()
}

fn connect(server: &AppServer, transport: AppTransport) -> AppConnections {
    AppConnections::connect(server.address(), transport).unwrap()
}

fn start(store: &Arc<Store>, chain: &Chain, app: &AppConnections) -> Result<Executor, StartError> {
    Executor::start(
        Arc::clone(store),
        &chain.genesis,
        app.consensus.clone(),
        &app.query,
        ExecutorConfig::default(),
    )
}

fn apply_to(executor: &mut Executor, chain: &Chain, height: i64) -> Result<(), ApplyError> {
    let from = executor.state().next_height().get();
    let lines = chain.blocks.iter();
    for line in lines.filter(|line| (from..=height).contains(&line.height)) {
        let block = line.certified(executor.state());
        executor.apply(&block)?;
    }
    Ok(())
}

/// A node's folder and an application's disk after so many blocks each.
fn prepared(chain: &Chain, height: i64, app: i64) -> (tempfile::TempDir, Arc<MemoryAppStore>) {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(MemoryAppStore::new());
    let node = AppConnections::in_process(standalone(&disk));
    let mut executor = start(&open_store(folder.path()), chain, &node).unwrap();
    apply_to(&mut executor, chain, app.min(height)).unwrap();
    let behind = disk.fork();
    apply_to(&mut executor, chain, height).unwrap();
    (
        folder,
        Arc::new(if app < height { behind } else { disk.fork() }),
    )
}

/// Copies the node's folder, as a power cut would leave it, when Commit comes.
struct Witness {
    app: Arc<dyn Application>,
    folder: PathBuf,
    copies: PathBuf,
}

impl Application for Witness {
    fn info(&self, request: &RequestInfo) -> Result<ResponseInfo, AppFault> {
        self.app.info(request)
    }
    fn init_chain(&self, request: &RequestInitChain) -> Result<ResponseInitChain, AppFault> {
        self.app.init_chain(request)
    }
    fn finalize_block(
        &self,
        request: &RequestFinalizeBlock,
    ) -> Result<ResponseFinalizeBlock, AppFault> {
        self.app.finalize_block(request)
    }
    fn commit(&self, request: &RequestCommit) -> Result<ResponseCommit, AppFault> {
        let before = self.app.info(&RequestInfo::default())?.last_block_height;
        copy_folder(&self.folder, &self.copies.join(before.to_string()));
        self.app.commit(request)
    }
}

fn assert_holds(copy: &Path, chain: &Chain, height: i64) {
    let store = open_store(copy);
    let at = Height::new(height);
    assert!(store.height() >= at, "block {height} is not on the disk");
    let line = &chain.blocks[usize::try_from(height).unwrap() - 1];
    let bytes = store.load_block_bytes(at).unwrap().unwrap();
    assert_eq!(bytes, line.block.0);
    let results = store.load_results(at).unwrap().unwrap();
    assert_eq!(results, line.finalize_response.0, "response of {height}");
    let seen = store.load_seen_commit(at).unwrap();
    let next = store.load_commit(at).unwrap();
    assert!(seen.or(next).is_some(), "the commit of {height}");
}

#[test]
fn block_commit_and_response_are_on_the_disk_before_commit_is_sent() {
    let chain = Chain::load("chain_basic");
    for transport in TRANSPORTS {
        let (folder, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let witness = Witness {
            app: standalone(&Arc::new(MemoryAppStore::new())),
            folder: folder.path().to_owned(),
            copies: copies.path().to_owned(),
        };
        let server = serve(transport, Arc::new(witness));
        let app = connect(&server, transport);
        let mut executor = start(&open_store(folder.path()), &chain, &app).unwrap();
        apply_to(&mut executor, &chain, 3).unwrap();
        for line in &chain.blocks[3..6] {
            let block = line.certified(executor.state());
            executor.apply_unsettled(&block, None).unwrap();
        }
        // The key-value application tells the finalized height before it is committed.
        for height in 1..=6 {
            assert_holds(&copies.path().join(height.to_string()), &chain, height);
        }
    }
}

#[test]
fn blocks_that_are_replayed_are_on_the_disk_before_commit_is_sent() {
    let chain = Chain::load("chain_basic");
    let (folder, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open_store(folder.path());
    let volatile = KvStore::in_memory(KvStoreOptions::default());
    let built_in = AppConnections::in_process(Arc::new(volatile));
    let mut executor = start(&store, &chain, &built_in).unwrap();
    apply_to(&mut executor, &chain, 6).unwrap();
    // What it would sync at its end is left as it is.
    std::mem::forget(executor);
    let witness = Witness {
        app: standalone(&Arc::new(MemoryAppStore::new())),
        folder: folder.path().to_owned(),
        copies: copies.path().to_owned(),
    };
    let server = serve(AppTransport::Socket, Arc::new(witness));
    let app = connect(&server, AppTransport::Socket);
    start(&store, &chain, &app).unwrap();
    for height in 1..=6 {
        assert_holds(&copies.path().join(height.to_string()), &chain, height);
    }
}

#[test]
fn an_application_ahead_is_refused_with_heights() {
    let chain = Chain::load("chain_basic");
    for transport in TRANSPORTS {
        let (_, disk) = prepared(&chain, 20, 20);
        let (folder, _) = prepared(&chain, 10, 10);
        let server = serve(transport, standalone(&disk));
        let app = connect(&server, transport);
        let refused = start(&open_store(folder.path()), &chain, &app);
        let text = refused.err().unwrap().to_string();
        let begin = "the application is at height 20 ";
        assert!(text.starts_with(begin), "{text}");
        assert!(text.contains("above the last stored block 10 "), "{text}");
    }
}

#[test]
fn an_application_behind_gets_what_it_lacks_and_one_level_nothing() {
    let chain = Chain::load("chain_basic");
    for transport in TRANSPORTS {
        for behind in [0, 7, 20] {
            let (folder, disk) = prepared(&chain, 20, behind);
            let server = serve(transport, standalone(&disk));
            let app = connect(&server, transport);
            let mut executor = start(&open_store(folder.path()), &chain, &app).unwrap();
            let info = app.query.info(&RequestInfo::default()).unwrap();
            assert_eq!(info.last_block_height, 20, "from {behind}");
            apply_to(&mut executor, &chain, 25).unwrap();
            let hash = &chain.blocks[24].app_hash_after[..];
            assert_eq!(executor.state().app_hash[..], *hash);
        }
    }
}

/// Goes away in FinalizeBlock at a height: the test drops its server then.
struct Leaves {
    app: Arc<dyn Application>,
    at: i64,
    leaving: std::sync::Mutex<std::sync::mpsc::Sender<()>>,
    gone: std::sync::Mutex<std::sync::mpsc::Receiver<()>>,
}

impl Application for Leaves {
    fn info(&self, request: &RequestInfo) -> Result<ResponseInfo, AppFault> {
        self.app.info(request)
    }
    fn init_chain(&self, request: &RequestInitChain) -> Result<ResponseInitChain, AppFault> {
        self.app.init_chain(request)
    }
    fn finalize_block(
        &self,
        request: &RequestFinalizeBlock,
    ) -> Result<ResponseFinalizeBlock, AppFault> {
        if request.height == self.at {
            self.leaving.lock().unwrap().send(()).unwrap();
            // It never answers.
            let _gone = self.gone.lock().unwrap().recv();
        }
        self.app.finalize_block(request)
    }
    fn commit(&self, request: &RequestCommit) -> Result<ResponseCommit, AppFault> {
        self.app.commit(request)
    }
}

#[test]
fn an_application_that_goes_is_named_with_call_and_height_and_goes_on_when_it_is_back() {
    let chain = Chain::load("chain_basic");
    for transport in TRANSPORTS {
        let folder = tempfile::tempdir().unwrap();
        let disk = Arc::new(MemoryAppStore::new());
        let (leaving, left) = channel();
        let (end, gone) = channel();
        let app = Leaves {
            app: standalone(&disk),
            at: 11,
            leaving: leaving.into(),
            gone: gone.into(),
        };
        let server = serve(transport, Arc::new(app));
        let app = connect(&server, transport);
        let store = open_store(folder.path());
        let mut executor = start(&store, &chain, &app).unwrap();
        let error = std::thread::scope(|scope| {
            let applying = scope.spawn(|| apply_to(&mut executor, &chain, 20).unwrap_err());
            left.recv_timeout(PATIENCE).unwrap();
            let running = app.running();
            assert_eq!(running[0].call, CallName::FinalizeBlock);
            assert_eq!(running[0].height, Some(Height::new(11)));
            drop(server);
            applying.join().unwrap()
        });
        drop(end);
        let ApplyError::Application(error) = error else {
            panic!("{error}");
        };
        assert_eq!(error.call, CallName::FinalizeBlock);
        assert_eq!(error.height, Some(Height::new(11)));
        assert!(matches!(error.reason, AppFault::Closed(_)), "{error}");
        // The block that it was given is stored: the start has it executed.
        let server = serve(transport, standalone(&disk));
        let app = connect(&server, transport);
        let mut executor = start(&store, &chain, &app).unwrap();
        assert_eq!(executor.state().last_block_height.get(), 11);
        apply_to(&mut executor, &chain, 20).unwrap();
        let hash = &chain.blocks[19].app_hash_after[..];
        assert_eq!(executor.state().app_hash[..], *hash);
    }
}
