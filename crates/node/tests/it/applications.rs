//! Nodes and applications as processes.

use std::{
    io::{BufRead as _, BufReader, Lines, Read as _},
    net::TcpListener,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::binary::{Home, error_of, perihelion};

/// A process whose log is read; it ends with the test.
struct Process {
    child: Child,
    log: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, log }
    }

    /// Reads the log until a line has `part`.
    fn wait_for(&mut self, part: &str) -> String {
        let mut seen = String::new();
        for line in self.log.by_ref() {
            let line = line.unwrap();
            if line.contains(part) {
                return line;
            }
            seen += &line;
            seen += "\n";
        }
        let mut error = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        stderr.read_to_string(&mut error).unwrap();
        panic!("it ended without {part:?}:\n{seen}{error}");
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// How it ended, and what it said on standard error.
    fn ended(mut self) -> (ExitStatus, String) {
        self.log.by_ref().for_each(drop);
        let mut error = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        stderr.read_to_string(&mut error).unwrap();
        (self.child.wait().unwrap(), error)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.child.kill().is_ok() {
            drop(self.child.wait());
        }
    }
}

fn serve(address: &str, folder: &str, transport: &str) -> Process {
    let arguments = ["abci", "kvstore", "--address", address, "--abci", transport];
    let mut app = Process::start(perihelion(
        &[&arguments[..], &["--persist", folder]].concat(),
    ));
    app.wait_for("kvstore is served");
    app
}

#[test]
fn a_node_waits_for_its_application_and_ends_with_it() {
    for transport in ["socket", "grpc"] {
        let home = Home::new();
        let address = format!("unix://{}", home.file("app.sock").display());
        let folder = home.file("app").display().to_string();
        let start = ["start", "--home", home.text(), "--proxy_app", &address];
        let start = [&start[..], &["--abci", transport]].concat();
        let mut node = Process::start(perihelion(&start));
        let line = node.wait_for("cannot be reached");
        assert!(
            line.contains(&address) && line.contains("again in 3 s"),
            "{line}"
        );
        let app = serve(&address, &folder, transport);
        node.wait_for("connected to the application");
        node.wait_for("Perihelion is running");
        app.signal(Signal::KILL);
        let (status, error) = node.ended();
        assert_eq!(status.code(), Some(1), "{error}");
        assert!(
            error.contains("connection to the application is lost"),
            "{error}"
        );
        assert!(error.contains("start the application again"), "{error}");
        // What the application left does not keep it from starting, and the node goes on.
        drop(app);
        let app = serve(&address, &folder, transport);
        let mut node = Process::start(perihelion(&start));
        node.wait_for("Perihelion is running");
        node.signal(Signal::TERM);
        let (status, error) = node.ended();
        assert!(status.success(), "{error}");
        app.signal(Signal::TERM);
        let (status, error) = app.ended();
        assert!(status.success(), "{error}");
    }
}

/// Whoever stops a node whose application hangs is told what is waited for, and not made to wait without
/// end; and nothing is lost.
#[test]
fn a_node_whose_application_hangs_can_be_stopped() {
    let home = Home::new();
    let address = format!("unix://{}", home.file("app.sock").display());
    let folder = home.file("app").display().to_string();
    let start = ["start", "--home", home.text(), "--proxy_app", &address];
    let app = serve(&address, &folder, "socket");
    let mut node = Process::start(perihelion(&start));
    node.wait_for("block applied");
    app.signal(Signal::STOP);
    // The only validator of its chain asks it for the next block.
    let line = node.wait_for("the application has not finished");
    node.signal(Signal::TERM);
    node.wait_for("stopping once the application has finished");
    let told = node.wait_for("the application does not finish");
    assert!(told.contains("its connections are closed"), "{told}");
    node.wait_for("stopped without waiting for the application");
    let (status, error) = node.ended();
    assert!(status.success(), "{line}: {error}");
    app.signal(Signal::CONT);
    let mut node = Process::start(perihelion(&start));
    node.wait_for("block applied");
    node.signal(Signal::TERM);
    let (status, error) = node.ended();
    assert!(status.success(), "{error}");
}

#[test]
fn a_node_that_waits_for_its_application_can_be_stopped() {
    let home = Home::new();
    let address = format!("unix://{}", home.file("app.sock").display());
    let start = ["start", "--home", home.text(), "--proxy_app", &address];
    let mut node = Process::start(perihelion(&start));
    node.wait_for("cannot be reached");
    node.signal(Signal::INT);
    let (status, error) = node.ended();
    assert!(status.success(), "{error}");
}

#[test]
fn applications_that_cannot_be_served() {
    let home = Home::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("tcp://{}", taken.local_addr().unwrap());
    let file = home.file("config/genesis.json").display().to_string();
    let free = "tcp://127.0.0.1:0";
    for (arguments, part) in [
        (
            ["--address", "kvstore", "--abci", "grpc"],
            "tcp://HOST:PORT",
        ),
        (["--address", free, "--abci", "http"], "grpc"),
        (
            ["--address", &taken, "--abci", "grpc"],
            "cannot be listened on",
        ),
        (["--address", free, "--persist", &file], "genesis.json"),
    ] {
        let command = [&["abci", "kvstore"][..], &arguments].concat();
        let error = error_of(&perihelion(&command).output().unwrap());
        assert!(error.contains(part), "{arguments:?}: {error}");
    }
    // A node's own data is no place for an application's.
    let start = ["start", "--home", home.text()];
    let mut node = Process::start(perihelion(&start));
    node.wait_for("Perihelion is running");
    node.signal(Signal::TERM);
    assert!(node.ended().0.success());
    let data = home.file("data").display().to_string();
    let persist = ["abci", "kvstore", "--address", free, "--persist", &data];
    let error = error_of(&perihelion(&persist).output().unwrap());
    assert!(error.contains("holds the chain of a node"), "{error}");
}
