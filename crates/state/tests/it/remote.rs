//! Applications in another process: over loopback, with the store as it is on the disk when their
//! calls come.

use std::{
    path::Path,
    sync::{Arc, Mutex, mpsc::channel},
    time::Duration,
};

use perihelion_abci::{
    AppAddress, AppConnections, AppFault, AppServer, AppTransport, Application, CallName, KvStore,
    KvStoreOptions, MemoryAppStore, types::RequestInfo,
};
use perihelion_state::{ApplyError, Executor, ExecutorConfig, StartError};
use perihelion_store::Store;
use perihelion_test_support::copy_folder;
use perihelion_types::Height;

use crate::{
    apps::{Hooked, Recorded, Task, Trouble, standalone},
    chain_file::Chain,
    crashes::open_store,
};

pub(crate) const TRANSPORTS: [AppTransport; 2] = [AppTransport::Socket, AppTransport::Grpc];
/// Far longer than anything takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);

fn kvstore(disk: &Arc<MemoryAppStore>) -> Arc<dyn Application> {
    standalone(disk, KvStoreOptions::default())
}

pub(crate) fn serve(transport: AppTransport, app: Arc<dyn Application>) -> AppServer {
    let address: AppAddress = "tcp://127.0.0.1:0".parse().unwrap();
    AppServer::start(&address, transport, app, drop).unwrap()
}

pub(crate) fn connect(server: &AppServer, transport: AppTransport) -> AppConnections {
    AppConnections::connect(server.address(), transport).unwrap()
}

pub(crate) fn start(
    store: &Arc<Store>,
    chain: &Chain,
    app: &AppConnections,
) -> Result<Executor, StartError> {
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
    let node = AppConnections::in_process(kvstore(&disk));
    let mut executor = start(&open_store(folder.path()), chain, &node).unwrap();
    apply_to(&mut executor, chain, app.min(height)).unwrap();
    let behind = disk.fork();
    apply_to(&mut executor, chain, height).unwrap();
    (
        folder,
        Arc::new(if app < height { behind } else { disk.fork() }),
    )
}

/// A new application that copies the node's folder, as a power cut would leave it, when Commit comes.
fn witness(folder: &Path, copies: &Path) -> Arc<dyn Application> {
    let (folder, copies) = (folder.to_owned(), copies.to_owned());
    let app = kvstore(&Arc::new(MemoryAppStore::new()));
    Hooked::new(app, move |task| {
        if let Task::Commit(height) = task {
            copy_folder(&folder, &copies.join(height.to_string()));
        }
    })
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
        let witness = witness(folder.path(), copies.path());
        let server = serve(transport, witness);
        let app = connect(&server, transport);
        let mut executor = start(&open_store(folder.path()), &chain, &app).unwrap();
        apply_to(&mut executor, &chain, 3).unwrap();
        for line in &chain.blocks[3..6] {
            let block = line.certified(executor.state());
            executor.apply_unsettled(&block, None).unwrap();
        }
        for height in 1..=6 {
            assert_holds(&copies.path().join(height.to_string()), &chain, height);
        }
    }
}

/// Who reads the store, the index of transactions among them, takes results for those of the chain.
#[test]
fn an_answer_against_the_rules_is_not_stored() {
    let chain = Chain::load("chain_basic");
    for transport in TRANSPORTS {
        let folder = tempfile::tempdir().unwrap();
        let store = open_store(folder.path());
        let disk = Arc::new(MemoryAppStore::new());
        let (app, _) = Recorded::new(kvstore(&disk), Trouble::NegativePower(3));
        let server = serve(transport, app);
        let mut executor = start(&store, &chain, &connect(&server, transport)).unwrap();
        let error = apply_to(&mut executor, &chain, 3).unwrap_err();
        assert!(error.to_string().contains("negative power"), "{error}");
        assert!(store.load_results(Height::new(2)).unwrap().is_some());
        assert_eq!(store.load_results(Height::new(3)).unwrap(), None);
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
    let witness = witness(folder.path(), copies.path());
    let server = serve(AppTransport::Socket, witness);
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
        let server = serve(transport, kvstore(&disk));
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
            let server = serve(transport, kvstore(&disk));
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

#[test]
fn an_application_that_goes_is_named_with_call_and_height_and_goes_on_when_it_is_back() {
    let chain = Chain::load("chain_basic");
    for transport in TRANSPORTS {
        let folder = tempfile::tempdir().unwrap();
        let disk = Arc::new(MemoryAppStore::new());
        let (leaving, left) = channel();
        let (end, gone) = channel::<()>();
        let gone = Mutex::new(gone);
        // It goes away in FinalizeBlock: the test drops its server then.
        let app = Hooked::new(kvstore(&disk), move |task| {
            if task == Task::Execute(11) {
                leaving.send(()).unwrap();
                // It never answers.
                let _gone = gone.lock().unwrap().recv();
            }
        });
        let server = serve(transport, app);
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
        let server = serve(transport, kvstore(&disk));
        let app = connect(&server, transport);
        let mut executor = start(&store, &chain, &app).unwrap();
        assert_eq!(executor.state().last_block_height.get(), 11);
        apply_to(&mut executor, &chain, 20).unwrap();
        let hash = &chain.blocks[19].app_hash_after[..];
        assert_eq!(executor.state().app_hash[..], *hash);
    }
}
