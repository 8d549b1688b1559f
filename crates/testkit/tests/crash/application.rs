//! The application of the node that is killed.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use perihelion_testkit::power::{RecordedProcess, SyncRecord, SyncWatch};

use crate::{
    chain::perihelion,
    plan::{Draw, Plan},
    trial::{Crash, lost},
};

/// Blocks over which a short plan's kills are spread.
const SHORT_BLOCKS: u64 = 400;

/// Where the application of the node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum App {
    /// In the node; its state is written with the blocks.
    BuiltIn,
    /// In a process with a database of its own, behind a Unix socket.
    OwnProcess,
}

impl App {
    pub(crate) const ALL: [Self; 2] = [Self::BuiltIn, Self::OwnProcess];

    /// Blocks of the chain: a sync that many kills are for takes a second or two where the binary is
    /// optimised and nothing else runs. An application of its own waits for the disk at each block.
    pub(crate) fn blocks(self, plan: Plan) -> u64 {
        match self {
            _ if plan.is_short() => SHORT_BLOCKS,
            Self::BuiltIn => 15_000,
            Self::OwnProcess => 2_000,
        }
    }

    /// `proxy_app` of a node in `home`.
    pub(crate) fn proxy_app(self, home: &Path) -> String {
        match self {
            Self::BuiltIn => "persistent_kvstore".to_owned(),
            Self::OwnProcess => format!("unix://{}", home.join("app.sock").display()),
        }
    }

    /// Starts it, where it has a process.
    pub(crate) fn start(self, home: &Path, crash: Crash) -> Option<AppProcess> {
        (self == Self::OwnProcess).then(|| AppProcess::start(home, crash))
    }
}

/// An application that runs, and whose state is below the home.
pub(crate) struct AppProcess {
    child: Child,
    recorded: Option<RecordedProcess>,
}

impl AppProcess {
    fn start(home: &Path, crash: Crash) -> Self {
        let state = home.join("app");
        fs::create_dir_all(&state).unwrap();
        let socket: PathBuf = home.join("app.sock");
        let log = home.join("app.log");
        let log = File::options().create(true).append(true).open(log).unwrap();
        let mut command = Command::new(perihelion());
        command
            .args(["abci", "kvstore", "--address"])
            .arg(format!("unix://{}", socket.display()))
            .arg("--persist")
            .arg(&state)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        match crash {
            Crash::Kill => Self {
                child: command.spawn().unwrap(),
                recorded: None,
            },
            Crash::PowerCut => {
                let record = SyncRecord::begin(&state, &home.join("app.kept")).unwrap();
                let (child, recorded) = SyncWatch::new(record).spawn(&mut command).unwrap();
                Self {
                    child,
                    recorded: Some(recorded),
                }
            }
        }
    }

    /// Fails when it has ended.
    pub(crate) fn check_alive(&mut self) {
        let ended = self.child.try_wait().unwrap();
        assert_eq!(ended, None, "the application ended");
    }

    /// Kills it; when its power is cut, tells what that took.
    pub(crate) fn crash(mut self, draw: &mut Draw) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let cut = self.recorded.take().map(|recorded| lost(recorded, draw));
        cut.map_or(String::new(), |cut| format!(", its application {cut}"))
    }
}

impl Drop for AppProcess {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing left to do.
        if self.child.kill().is_ok() {
            drop(self.child.wait());
        }
    }
}
