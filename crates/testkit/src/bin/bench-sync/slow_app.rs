//! An application in a process of its own that takes its time for each block, and tells how long it
//! was busy.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use perihelion_abci::{
    AppAddress, AppFault, AppServer, AppTransport, Application, Finalized, KvStore, KvStoreOptions,
    types::{
        RequestCheckTx, RequestCommit, RequestFinalizeBlock, RequestInfo, RequestInitChain,
        RequestQuery, ResponseCheckTx, ResponseCommit, ResponseFinalizeBlock, ResponseInfo,
        ResponseInitChain, ResponseQuery,
    },
};
use perihelion_testkit::process::NodeProcess;

/// What a block takes.
const BLOCK_TIME: Duration = Duration::from_millis(5);
/// The query that is answered with the time that the application was busy.
const BUSY: &str = "/busy";
/// Said on standard output once nodes can connect.
const READY: &str = "ready";

/// The key-value application, made slow.
struct SlowApp {
    inner: KvStore,
    /// Nanoseconds in calls that execute a block.
    busy: AtomicU64,
}

impl SlowApp {
    /// Counts the time of a call.
    fn timed<R>(
        &self,
        call: impl FnOnce(&KvStore) -> Result<R, AppFault>,
        at_least: Duration,
    ) -> Result<R, AppFault> {
        let start = Instant::now();
        let answer = call(&self.inner);
        thread::sleep(at_least.saturating_sub(start.elapsed()));
        let took = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.busy.fetch_add(took, Ordering::Relaxed);
        answer
    }
}

impl Application for SlowApp {
    fn info(&self, request: &RequestInfo) -> Result<ResponseInfo, AppFault> {
        self.inner.info(request)
    }

    fn query(&self, request: &RequestQuery) -> Result<ResponseQuery, AppFault> {
        if request.path != BUSY {
            return self.inner.query(request);
        }
        Ok(ResponseQuery {
            value: self.busy.load(Ordering::Relaxed).to_string().into(),
            ..ResponseQuery::default()
        })
    }

    fn check_tx(&self, request: &RequestCheckTx) -> Result<ResponseCheckTx, AppFault> {
        self.inner.check_tx(request)
    }

    fn init_chain(&self, request: &RequestInitChain) -> Result<ResponseInitChain, AppFault> {
        self.inner.init_chain(request)
    }

    fn finalize_block(
        &self,
        request: &RequestFinalizeBlock,
    ) -> Result<ResponseFinalizeBlock, AppFault> {
        self.timed(|app| app.finalize_block(request), BLOCK_TIME)
    }

    fn finalize_block_encoded(
        &self,
        request: &RequestFinalizeBlock,
    ) -> Result<Finalized, AppFault> {
        self.timed(|app| app.finalize_block_encoded(request), BLOCK_TIME)
    }

    fn commit(&self, request: &RequestCommit) -> Result<ResponseCommit, AppFault> {
        self.timed(|app| app.commit(request), Duration::ZERO)
    }
}

/// Serves the application at a Unix socket until standard input ends.
pub(crate) fn serve(socket: &Path) -> anyhow::Result<()> {
    let app = SlowApp {
        inner: KvStore::in_memory(KvStoreOptions::default()),
        busy: AtomicU64::new(0),
    };
    let address = AppAddress::Unix(socket.to_owned());
    let server = AppServer::start(&address, AppTransport::Socket, Arc::new(app), |error| {
        eprintln!("the application failed: {error}");
    })?;
    println!("{READY}");
    std::io::stdout().flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    drop(server);
    Ok(())
}

/// The application as a process. It ends with this.
pub(crate) struct AppProcess {
    child: Child,
    socket: PathBuf,
}

impl AppProcess {
    /// Starts this program once more, as the application at a socket in `folder`.
    pub(crate) fn start(folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        // A socket's path may have 108 bytes.
        let socket = std::path::absolute(folder.join("app.sock"))?;
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--slow-app")
            .arg(&socket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the application")?;
        let output = child.stdout.take().context("its output is piped")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let process = Self { child, socket };
        ensure!(line.trim() == READY, "the application did not start");
        Ok(process)
    }

    /// What a node's `proxy_app` is to be.
    pub(crate) fn address(&self) -> String {
        format!("unix://{}", self.socket.display())
    }
}

impl Drop for AppProcess {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        drop(self.child.wait());
    }
}

/// How long the application behind a node was busy so far.
pub(crate) fn busy(node: &NodeProcess) -> anyhow::Result<Duration> {
    let answer = node.call(&format!("/abci_query?path=\"{BUSY}\""))?;
    let value = answer["response"]["value"]
        .as_str()
        .context("the application does not say how long it was busy")?;
    let nanos = String::from_utf8(BASE64_STANDARD.decode(value)?)?;
    Ok(Duration::from_nanos(nanos.parse()?))
}
