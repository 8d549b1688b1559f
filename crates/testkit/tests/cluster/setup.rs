//! Binaries, folders and turns.

use std::{
    env,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use perihelion_testkit::{cluster::Cluster, network::NetworkShape, process::Launch};
use tempfile::TempDir;

/// Far longer than anything takes: who waits so long waits for what never comes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);

/// A test's turn and folder: networks of several processes share the processors, so only one runs
/// at a time.
pub(crate) struct Turn {
    pub(crate) folder: TempDir,
    _alone: MutexGuard<'static, ()>,
}

pub(crate) fn turn() -> Turn {
    static SUITE: Mutex<()> = Mutex::new(());
    Turn {
        // A failed test says nothing of the next one.
        _alone: SUITE.lock().unwrap_or_else(PoisonError::into_inner),
        folder: tempfile::tempdir().unwrap(),
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

/// The nodes of a network with short waits and an application that keeps its state.
pub(crate) fn make(turn: &Turn, shape: &NetworkShape) -> Cluster {
    let launches = shape.make(turn.folder.path(), &perihelion()).unwrap();
    cluster(launches)
}

pub(crate) fn cluster(launches: Vec<Launch>) -> Cluster {
    let launches = launches.into_iter().map(|launch| {
        let launch = launch.quick().set("proxy_app", "persistent_kvstore");
        launch.set("tx_index.indexer", "null")
    });
    Cluster::new(launches.collect(), PATIENCE)
}
