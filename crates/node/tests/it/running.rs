//! A node as its operator meets it: what it says when it starts, while it runs, and when it is told
//! to stop.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, ExitStatus, Stdio},
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use perihelion_abci::{
    AppFault, AppServer, AppTransport, Application,
    types::{RequestQuery, ResponseQuery},
};
use perihelion_node::{
    config::{Config, Flag, Overrides},
    prepare,
    signals::hangup_is_ignored,
};
use perihelion_store::{Store, StoreOptions};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::binary::{Home, error_of, perihelion, succeed, tree};

/// Who waits so long waits for what never comes.
const PATIENCE: Duration = Duration::from_secs(120);

/// A node that runs, with the lines of its log.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Running {
    pub(crate) fn start(home: &Home, flags: &[&str]) -> Self {
        let start = ["start", "--home", home.text()];
        let mut child = perihelion(&[&start, flags].concat())
            .env("PERIHELION_LOG_FORMAT", "json")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                drop(sender.send(line));
            }
        });
        Self {
            child,
            lines,
            said: Vec::new(),
        }
    }

    /// The next line that holds `part`.
    pub(crate) fn says(&mut self, part: &str) -> Value {
        loop {
            let Ok(line) = self.lines.recv_timeout(PATIENCE) else {
                panic!("no {part:?} in {:#?}", self.said);
            };
            let found = line.contains(part);
            self.said.push(line);
            if found {
                let line = self.said.last().unwrap();
                return serde_json::from_str(line).unwrap();
            }
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        kill_process(id, signal).unwrap();
    }

    pub(crate) fn ended(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

fn store_height(home: &Home) -> i64 {
    let store = Store::open(&home.file("data"), &StoreOptions::default()).unwrap();
    store.height().get()
}

#[test]
fn a_signal_stops_it_with_its_stores_closed() {
    let signals = [Signal::INT, Signal::TERM, Signal::HUP];
    // Under `nohup` it takes no notice of the last one.
    let signals = &signals[..if hangup_is_ignored() { 2 } else { 3 }];
    for &signal in signals {
        let home = Home::new();
        let mut node = Running::start(&home, &[]);
        node.says("Perihelion is running");
        node.signal(signal);
        node.says("stopping; once more to stop at once");
        let stopped = node.says("\"stopped\"");
        assert!(node.ended().success(), "{signal:?}");
        // The only validator of its chain may have made a block by then.
        assert_eq!(stopped["height"], store_height(&home).to_string());
    }
}

#[test]
fn a_second_signal_stops_it_at_once() {
    let home = Home::new();
    let mut node = Running::start(&home, &[]);
    node.says("Perihelion is running");
    // Both wait for it when it goes on.
    for signal in [Signal::STOP, Signal::INT, Signal::TERM, Signal::CONT] {
        node.signal(signal);
    }
    // Which of them came second is not said.
    let last = node.says("ended at once").to_string();
    let code = if last.contains("SIGINT") { 130 } else { 143 };
    assert_eq!(node.ended().code(), Some(code));
    assert!(store_height(&home) >= 0);
}

#[test]
fn a_chain_that_has_not_begun_is_waited_for() {
    let home = Home::new();
    let file = home.file("config/genesis.json");
    let mut genesis: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    genesis["genesis_time"] = "2999-01-01T00:00:00Z".into();
    fs::write(&file, genesis.to_string()).unwrap();
    let before = tree(home.path());
    let mut node = Running::start(&home, &[]);
    let line = node.says("The chain begins at");
    assert!(line.to_string().contains("2999-01-01T00:00:00Z"), "{line}");
    node.signal(Signal::TERM);
    assert!(node.ended().success());
    assert!(tree(home.path()) == before);
}

#[test]
fn data_of_cometbft_is_told_of_and_left_alone() {
    let home = Home::new();
    for name in ["blockstore.db", "state.db"] {
        let folder = home.file("data").join(name);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("CURRENT"), "MANIFEST-000007\n").unwrap();
        fs::write(folder.join("LOCK"), "").unwrap();
    }
    let theirs = |home: &Home| {
        let folders = ["blockstore.db", "state.db"];
        folders.map(|name| tree(&home.file("data").join(name)))
    };
    let before = theirs(&home);
    let mut node = Running::start(&home, &[]);
    let line = node.says("belong to CometBFT");
    assert_eq!(line["level"], "WARN");
    assert!(line.to_string().contains("data/state.db"), "{line}");
    node.says("Perihelion is running");
    node.signal(Signal::TERM);
    assert!(node.ended().success());
    assert!(theirs(&home) == before);
}

#[test]
fn an_unknown_key_is_warned_of_with_its_line_and_the_nearest() {
    let home = Home::new();
    home.edit("moniker = ", "monicker = ");
    let text = fs::read_to_string(home.file("config/config.toml")).unwrap();
    let line = text.lines().position(|line| line.starts_with("monicker"));
    let mut node = Running::start(&home, &[]);
    let warning = node.says("unknown key");
    assert_eq!(warning["level"], "WARN");
    let message = warning["message"].as_str().unwrap();
    for part in [
        &*format!("config.toml:{}", line.unwrap() + 1),
        "\"monicker\"",
        "nearest known key is \"moniker\"",
    ] {
        assert!(message.contains(part), "{message}");
    }

    // A network's homes may be made from such a configuration.
    let net = home.file("net");
    let said = succeed(&[
        "testnet",
        "--o",
        net.to_str().unwrap(),
        "--v",
        "1",
        "--config",
        home.file("config/config.toml").to_str().unwrap(),
    ]);
    assert!(said.contains("unknown key"), "{said}");
}

/// A second node, and whatever removes data, beside one that runs.
#[test]
fn a_second_process_is_refused_by_name() {
    let home = Home::new();
    let mut node = Running::start(&home, &[]);
    let running = node.says("Perihelion is running");
    let database = names(&home.file("data/perihelion/db"));
    assert!(database.contains("CURRENT"), "{database:?}");
    let address = format!("tcp://{}", running["listen"].as_str().unwrap());
    let holder = format!("process {} (perihelion)", node.id());
    for arguments in [
        &["start"][..],
        &["start", "--p2p.laddr", &address],
        &["unsafe-reset-all"],
        &["reset-state"],
        &["unsafe-reset-priv-validator"],
    ] {
        let arguments = [arguments, &["--home", home.text()]].concat();
        let error = error_of(&perihelion(&arguments).output().unwrap());
        for part in ["perihelion/LOCK", &holder, "stop that process"] {
            assert!(
                error.contains(part),
                "{arguments:?}: no {part:?} in {error}"
            );
        }
    }
    // The database is in use: its log and its manifest come and go.
    let still = names(&home.file("data/perihelion/db"));
    let stays = |name: &&String| {
        ["CURRENT", "IDENTITY"].contains(&name.as_str())
            || [".sst", ".blob"].iter().any(|end| name.ends_with(end))
    };
    for name in database.iter().filter(stays) {
        assert!(still.contains(name), "{name} is gone: {still:?}");
    }
    node.signal(Signal::TERM);
    let stopped = node.says("\"stopped\"");
    assert!(node.ended().success());
    assert_eq!(stopped["height"], store_height(&home).to_string());
}

/// The names in a folder whose files may come and go.
fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

#[test]
fn a_peer_of_another_network_is_warned_of_and_is_why_nothing_moves() {
    let (home, other) = (Home::new(), Home::new());
    // Another network with the same validator: this node, which is none, needs peers.
    let genesis = fs::read(other.file("config/genesis.json")).unwrap();
    let mut genesis: Value = serde_json::from_slice(&genesis).unwrap();
    genesis["chain_id"] = "another".into();
    fs::write(home.file("config/genesis.json"), genesis.to_string()).unwrap();
    let mut theirs = Running::start(&other, &[]);
    let listening = theirs.says("Perihelion is running");
    let peer = format!(
        "{}@{}",
        listening["node_id"].as_str().unwrap(),
        listening["listen"].as_str().unwrap()
    );
    let mut node = Running::start(&home, &["--p2p.persistent_peers", &peer]);
    let running = node.says("Perihelion is running");
    let warning = node.says("a persistent peer is not connected");
    assert_eq!(warning["level"], "WARN");
    let text = warning.to_string();
    for part in [&*peer, "on the network", "persistent_peers", "genesis.json"] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    let line = node.says("stalled: no peers");
    assert!(line.to_string().contains("on the network"), "{line}");
    let rpc = running["rpc"].as_str().unwrap();
    let status = succeed(&["status", "--rpc", rpc, "--home", "/nonexistent"]);
    for part in ["stalled: no peers", &peer, "on the network"] {
        assert!(status.contains(part), "no {part:?} in {status}");
    }
}

/// The answer to a call by GET.
fn get(rpc: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(rpc).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {rpc}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut reply = String::new();
    io::Read::read_to_string(&mut stream, &mut reply).unwrap();
    reply
}

/// Rule: CometBFT's names; and what the node is at has its reason.
#[test]
fn the_only_validator_of_a_chain_is_told_of_by_metrics() {
    let home = Home::new();
    home.edit("prometheus = false", "prometheus = true");
    let listen = "prometheus_listen_addr = \"127.0.0.1:0\"";
    home.edit("prometheus_listen_addr = \":26660\"", listen);
    let mut node = Running::start(&home, &[]);
    let running = node.says("Perihelion is running");
    let served = node.says("metrics are served");
    // The second block carries the commit of the first.
    for waits in [
        "/broadcast_tx_commit?tx=%22a=1%22",
        "/broadcast_tx_commit?tx=%22a=2%22",
    ] {
        let answer = get(running["rpc"].as_str().unwrap(), waits);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    let text = get(served["address"].as_str().unwrap(), "/metrics");
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    let figure = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let value = line.and_then(|rest| rest.rsplit(' ').next());
        value.unwrap_or_else(|| panic!("no {name} in {text}"))
    };
    for (name, expected) in [
        ("cometbft_mode{mode=\"consensus\"}", "1"),
        ("cometbft_mode{mode=\"block_sync\"}", "0"),
        ("cometbft_mode_reason{reason=\"caught_up\"}", "1"),
        ("cometbft_mode_reason{reason=\"started\"}", "0"),
        ("cometbft_blocksync_syncing", "0"),
        ("cometbft_consensus_validators ", "1"),
        ("cometbft_consensus_missing_validators ", "0"),
        ("cometbft_consensus_missing_validators_power ", "0"),
        ("cometbft_consensus_byzantine_validators ", "0"),
        ("cometbft_consensus_byzantine_validators_power ", "0"),
        ("cometbft_p2p_peers ", "0"),
    ] {
        assert_eq!(figure(name), expected, "{name}");
    }
    let number = |name: &str| figure(name).parse::<i64>().unwrap();
    let latest = number("cometbft_consensus_latest_block_height ");
    assert!(
        latest >= 2 && number("cometbft_consensus_height ") >= latest,
        "{text}"
    );
    // As with CometBFT the block with the commit counts, not the one that the commit is for.
    let signed = number("cometbft_consensus_validator_last_signed_height{");
    assert_eq!(signed, latest);
}

/// With `rpc.unsafe` a client has peers dialled; without it there is no such call.
#[test]
fn an_operator_has_peers_dialled_where_that_is_configured() {
    let (home, other) = (Home::new(), Home::new());
    let genesis = fs::read(home.file("config/genesis.json")).unwrap();
    fs::write(other.file("config/genesis.json"), genesis).unwrap();
    let mut node = Running::start(&home, &["--rpc.unsafe"]);
    let mut peer = Running::start(&other, &[]);
    let (running, running_peer) = (
        node.says("Perihelion is running"),
        peer.says("Perihelion is running"),
    );
    let text = |line: &Value, name: &str| line[name].as_str().unwrap().to_owned();
    let id = text(&running_peer, "node_id");
    let path = format!(
        "/dial_peers?persistent=true&peers=[%22{id}@{}%22]",
        text(&running_peer, "listen")
    );
    let refused = get(&text(&running_peer, "rpc"), &path);
    assert!(refused.starts_with("HTTP/1.1 404 "), "{refused}");
    let answer = get(&text(&running, "rpc"), &path);
    let log = "Dialing peers in progress. See /net_info for details";
    assert!(answer.contains(log), "{answer}");
    let connected = node.says("connected to a peer");
    assert_eq!(connected["peer"], id);
}

/// Lets every address in, and no node.
struct Strict {
    asked: Sender<String>,
}

impl Application for Strict {
    fn query(&self, request: &RequestQuery) -> Result<ResponseQuery, AppFault> {
        // The test may have ended.
        drop(self.asked.send(request.path.clone()));
        Ok(ResponseQuery {
            code: u32::from(request.path.contains("/id/")),
            log: "not on the list".to_owned(),
            ..ResponseQuery::default()
        })
    }
}

#[test]
fn with_filter_peers_the_application_decides_who_is_a_peer() {
    let (home, other) = (Home::new(), Home::new());
    let genesis = "config/genesis.json";
    fs::copy(home.file(genesis), other.file(genesis)).unwrap();
    home.edit("filter_peers = false", "filter_peers = true");
    let (asked, questions) = channel();
    let address = format!("unix://{}/app.sock", home.text());
    let app = Arc::new(Strict { asked });
    let at = address.parse().unwrap();
    let _serves = AppServer::start(&at, AppTransport::Socket, app, drop).unwrap();
    let levels = "p2p:debug,*:info";
    let mut node = Running::start(&home, &["--proxy_app", &address, "--log_level", levels]);
    let running = node.says("Perihelion is running");
    let peer = format!(
        "{}@{}",
        running["node_id"].as_str().unwrap(),
        running["listen"].as_str().unwrap()
    );
    let mut dialling = Running::start(&other, &["--p2p.persistent_peers", &peer]);
    let dialler = dialling.says("Perihelion is running");
    let refused = node.says("refused an inbound connection").to_string();
    for part in ["the application says code 1", "not on the list"] {
        assert!(refused.contains(part), "no {part:?} in {refused}");
    }
    let question = questions.recv_timeout(PATIENCE).unwrap();
    assert!(
        question.starts_with("/p2p/filter/addr/127.0.0.1:"),
        "{question}"
    );
    let id = dialler["node_id"].as_str().unwrap();
    let question = questions.recv_timeout(PATIENCE).unwrap();
    assert_eq!(question, format!("/p2p/filter/id/{id}"));
}

/// Before its application is there, a node serves no RPC.
#[test]
fn a_node_that_waits_for_its_application_is_named_by_status() {
    let home = Home::new();
    let application = format!("unix://{}/none.sock", home.text());
    let mut node = Running::start(&home, &["--proxy_app", &application]);
    node.says(&application);
    let arguments = ["status", "--home", home.text()];
    let error = error_of(&perihelion(&arguments).output().unwrap());
    let holder = format!("process {} (perihelion) runs on", node.id());
    for part in [&*holder, "waits for its application"] {
        assert!(error.contains(part), "no {part:?} in {error}");
    }
}

/// A genesis without a time begins when it is read first, and is the same genesis ever after.
#[test]
fn a_genesis_without_a_time_starts_again() {
    let home = Home::new();
    let file = home.file("config/genesis.json");
    let mut genesis: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    genesis.as_object_mut().unwrap().remove("genesis_time");
    fs::write(&file, genesis.to_string()).unwrap();
    for _ in 0..2 {
        let mut node = Running::start(&home, &[]);
        node.says("Perihelion is running");
        node.signal(Signal::TERM);
        assert!(node.ended().success());
    }
    assert!(Path::new(&home.file("data/perihelion/GENESIS")).exists());
}

/// The home of a new node, with nothing chosen: it runs, and starts again.
#[test]
fn a_home_without_an_application_runs_a_built_in_one() {
    if TcpStream::connect("127.0.0.1:26658").is_ok() {
        // Not by a macro, whose output the test harness keeps to itself.
        let _unseen = writeln!(
            io::stderr(),
            "\n*** NOT RUN: an application listens at CometBFT's default address ***\n"
        );
        return;
    }
    let home = Home::without_application();
    succeed(&["config", "check", "--home", home.text()]);
    for _ in 0..2 {
        let mut node = Running::start(&home, &[]);
        let warning = node.says("persistent_kvstore");
        assert_eq!(warning["level"], "WARN");
        let message = warning["message"].as_str().unwrap();
        for part in ["tcp://127.0.0.1:26658", "app_state", "set proxy_app"] {
            assert!(message.contains(part), "{message}");
        }
        node.says("Perihelion is running");
        node.signal(Signal::TERM);
        assert!(node.ended().success());
    }
}

/// Where an application is named, or the genesis speaks to one, none stands in.
#[test]
fn an_application_that_is_needed_is_not_replaced() {
    let address = "tcp://127.0.0.1:26658";
    let may = |home: &Home| {
        let (config, _) = Config::load(home.path(), &Overrides::default()).unwrap();
        prepare::prepare(config, None).unwrap().may_stand_in
    };
    let home = Home::without_application();
    assert!(may(&home));
    assert!(!may(&Home::new()));
    let file = home.file("config/genesis.json");
    let mut genesis: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    for (state, expected) in [
        (Value::Null, true),
        (serde_json::json!({}), true),
        (serde_json::json!(""), true),
        (serde_json::json!({"bank": {}}), false),
        (serde_json::json!([]), false),
    ] {
        genesis["app_state"] = state;
        fs::write(&file, genesis.to_string()).unwrap();
        assert_eq!(may(&home), expected, "{genesis}");
    }
    let flag = |name: &str| Flag {
        name: name.to_owned(),
        value: address.to_owned(),
    };
    let said = |flags: &[&str], variables: &[&str]| Overrides {
        environment: variables
            .iter()
            .map(|name| ((*name).to_owned(), address.to_owned()))
            .collect(),
        flags: flags
            .iter()
            .map(|name| ((*name).to_owned(), flag(name)))
            .collect(),
    };
    assert!(!said(&["abci"], &["CMT_ABCI"]).sets("proxy_app"));
    assert!(said(&["proxy_app"], &[]).sets("proxy_app"));
    assert!(said(&[], &["CMT_PROXY_APP"]).sets("proxy_app"));
    assert!(said(&[], &["PERIHELION_PROXY_APP"]).sets("proxy_app"));
}
