//! What nodes of both kinds complain about in their logs.

/// What is excused while a part of the logs is written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Excuses {
    /// Ids and addresses of nodes whose connections the test cuts meanwhile, by killing or stopping
    /// them, or which it starts.
    pub(crate) cut: Vec<String>,
    /// Whether the node that wrote it was told to stop: it may close its connections itself.
    pub(crate) is_stopping: bool,
    /// Further texts that the test itself brings about.
    pub(crate) texts: Vec<&'static str>,
}

/// What was found in a part of a log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Findings {
    /// Lines that nothing excuses.
    pub(crate) complaints: Vec<String>,
    /// How often CometBFT dropped a peer for a block that it had asked for, got elsewhere, and then
    /// got again.
    pub(crate) unsolicited: usize,
    /// Ends of connections that may be the other side of those.
    pub(crate) closed: Vec<String>,
}

/// What CometBFT logs as errors without anybody's fault.
const HARMLESS: [&str; 11] = [
    // While it stops.
    "Stopped accept routine, as transport is closed",
    "Error stopping pool",
    "Not stopping",
    "Error stopping consensus state",
    "error while stopping peer",
    "error stopping peer",
    "Won't start a peer - switch is not running",
    "Error serving server",
    // After it was killed between a block and the log's end of its height, and after blocksync.
    "error on catchup replay; proceeding to start state anyway",
    // A timer of blocksync that goes on after its end; during it, a stopped peer is told besides.
    "SendTimeout",
    // A block that it had asked two peers for: it punishes neither.
    "got an already committed block",
];

/// How ends of connections are told by either kind.
const ENDS: [&str; 10] = [
    "EOF",
    "connection reset by peer",
    "broken pipe",
    "connection refused",
    "use of closed network connection",
    "closed by the peer",
    "connection lost",
    "cannot be reached",
    "i/o timeout",
    // CometBFT stops a connection that its other half has stopped.
    "already stopped",
];

/// Reads a part of a log, of either kind.
pub(crate) fn examine(log: &str, excuses: &Excuses) -> Findings {
    let mut findings = Findings::default();
    for line in log.lines() {
        match kind(line) {
            Kind::Fine => {}
            Kind::Error if line.starts_with("E[") && line.contains("unsolicited") => {
                findings.unsolicited += 1;
            }
            Kind::Error if excuses.is_stopping && line.contains("use of closed network") => {}
            Kind::Error if is_excused(line, excuses) => {}
            Kind::Error => findings.complaints.push(line.to_owned()),
            Kind::End if is_excused(line, excuses) => {}
            // Its reactors stop one after another.
            Kind::End
                if excuses.is_stopping && line.contains("reactor of this node has stopped") => {}
            Kind::End if line.contains("reason=closed by the peer") => {
                findings.closed.push(line.to_owned());
            }
            Kind::End => findings.complaints.push(line.to_owned()),
        }
    }
    findings
}

enum Kind {
    Fine,
    /// An error, or a warning of ours.
    Error,
    /// The end of a connection, which we do not call an error.
    End,
}

fn kind(line: &str) -> Kind {
    if line.starts_with("E[") {
        return Kind::Error;
    }
    let Some((_, rest)) = line.split_once("Z ") else {
        return if line.starts_with("panic:") {
            Kind::Error
        } else {
            Kind::Fine
        };
    };
    let rest = rest.trim_start();
    if rest.starts_with("ERROR ") || rest.starts_with("WARN ") {
        Kind::Error
    } else if rest.contains(": disconnected from a peer") || rest.contains(": banned a peer") {
        Kind::End
    } else {
        Kind::Fine
    }
}

fn is_excused(line: &str, excuses: &Excuses) -> bool {
    let is_cut =
        excuses.cut.iter().any(|id| line.contains(id)) && ENDS.iter().any(|end| line.contains(end));
    is_cut
        || line.contains("reason=this node shuts down")
        || HARMLESS.iter().any(|text| line.contains(text))
        || excuses.texts.iter().any(|text| line.contains(text))
}

#[test]
fn complaints_of_both_kinds_are_found_and_cut_connections_excused() {
    let cometbft = "E[2026-11-21|06:11:39.857] Stopping peer for error                      module=p2p peer=\"Peer{MConn{127.0.0.1:60798} aa in}\" err=EOF";
    let ours = "2026-11-21T09:01:30.288683Z  INFO perihelion_p2p::switch::tasks: disconnected from a peer peer=aa reason=connection lost: broken pipe left_out=0";
    let closed = "2026-11-21T09:01:30.288683Z  INFO perihelion_p2p::switch::tasks: disconnected from a peer peer=aa reason=closed by the peer left_out=0";
    let warning = "2026-11-21T09:01:30.288683Z  WARN perihelion_pool::routine: no progress";
    let unsolicited =
        "E[2026-11-21|06:11:39.857] Stopping peer for error module=p2p err=\"unsolicited block\"";
    let fine = "I[2026-11-21|06:11:39.857] executed block height=1\n2026-11-21T09:01:30.288683Z  INFO perihelion_node: height 1";
    let log = [cometbft, ours, closed, warning, unsolicited, fine].join("\n");
    let nothing = Excuses::default();
    assert_eq!(
        examine(&log, &nothing),
        Findings {
            complaints: vec![cometbft.to_owned(), ours.to_owned(), warning.to_owned()],
            unsolicited: 1,
            closed: vec![closed.to_owned()],
        }
    );
    let cut = Excuses {
        cut: vec!["aa".to_owned()],
        texts: vec!["no progress"],
        ..Excuses::default()
    };
    let rest = examine(&log, &cut);
    assert_eq!((rest.complaints.len(), rest.closed.len()), (0, 0));
    let other = Excuses {
        cut: vec!["bb".to_owned()],
        ..Excuses::default()
    };
    assert_eq!(examine(&log, &other), examine(&log, &nothing));
}

#[test]
fn a_reactor_that_stops_is_excused_while_its_node_does() {
    let line = "2026-11-21T09:01:30.288683Z  INFO perihelion_p2p::switch::tasks: disconnected from a peer peer=aa reason=the consensus reactor of this node has stopped left_out=0";
    let stopping = Excuses {
        is_stopping: true,
        ..Excuses::default()
    };
    assert_eq!(examine(line, &stopping), Findings::default());
    assert_eq!(examine(line, &Excuses::default()).complaints, [line]);
}
