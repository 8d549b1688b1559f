//! `status` against a server that answers as a node does.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener},
    thread,
};

use perihelion_node::files::SignState;
use socket2::{Domain, Socket, Type};

use crate::{
    binary::{Home, error_of, perihelion, succeed},
    running::Running,
};

/// Answers `requests` requests, with the body that `answer` gives for a path, 404 without one.
fn serve(requests: usize, answer: fn(&str) -> Option<&'static str>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for _ in 0..requests {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let first = lines.next().unwrap().unwrap();
            let path = first.split(' ').nth(1).unwrap().to_owned();
            while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
            let (status, body) =
                answer(&path).map_or(("404 Not Found", ""), |body| ("200 OK", body));
            write!(
                stream,
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            )
            .unwrap();
        }
    });
    address
}

#[test]
fn a_node_with_its_sync_status() {
    let address = serve(1, |path| {
        assert_eq!(path, "/sync_status");
        Some(
            r#"{"jsonrpc":"2.0","id":-1,"result":{"mode":"block_sync","height":"500","start_height":"1",
            "target_height":"1000","blocks_per_second":25.04,"bytes_per_second":2500000,
            "remaining_time":"20000000000","peers":[{}],"limiting_stage":"network"}}"#,
        )
    });
    assert_eq!(
        succeed(&["status", "--rpc", &address, "--home", "/nonexistent"]),
        "syncing blocks 500/1000 50.00% 25.0 blocks/s 2.5 MB/s ETA 20s 1 peer, limited by network\n"
    );
}

/// Who mistypes the home must not be told of another node.
#[test]
fn a_home_that_is_not_there_is_named() {
    let output = perihelion(&["status", "--home", "/nonexistent"]).output();
    let error = error_of(&output.unwrap());
    assert!(
        error.starts_with("/nonexistent/config/config.toml does not exist"),
        "{error}"
    );
}

#[test]
fn a_node_without_it() {
    let address = serve(4, |path| match path {
        "/status" => Some(
            r#"{"jsonrpc":"2.0","id":-1,"result":{"sync_info":{"latest_block_height":"12","catching_up":false}}}"#,
        ),
        "/net_info" => Some(r#"{"jsonrpc":"2.0","id":-1,"result":{"n_peers":"2"}}"#),
        _ => None,
    });
    assert_eq!(
        succeed(&[
            "status",
            "--rpc",
            &format!("tcp://{address}"),
            "--home",
            "/nonexistent"
        ]),
        "consensus 12, 0.0 blocks/s 2 peers\n"
    );
}

/// Rule: height and round are of one moment: of one answer, or else the height is that below the round.
#[test]
fn height_and_round_of_a_node_in_consensus_fit() {
    // Who tells both at once is asked once.
    let address = serve(1, |path| {
        assert_eq!(path, "/sync_status");
        Some(
            r#"{"result":{"mode":"consensus","height":"4","height/round/step":"5/0/3","peers":[]}}"#,
        )
    });
    assert_eq!(
        succeed(&["status", "--rpc", &address, "--home", "/nonexistent"]),
        "consensus 4, deciding 5 at round 0, propose, 0.0 blocks/s 0 peers\n"
    );
    let address = serve(4, |path| match path {
        "/status" => {
            Some(r#"{"result":{"sync_info":{"latest_block_height":"4","catching_up":false}}}"#)
        }
        "/net_info" => Some(r#"{"result":{"n_peers":"2"}}"#),
        "/consensus_state" => Some(r#"{"result":{"round_state":{"height/round/step":"6/1/4"}}}"#),
        _ => None,
    });
    assert_eq!(
        succeed(&["status", "--rpc", &address, "--home", "/nonexistent"]),
        "consensus 5, deciding 6 at round 1, prevote, 0.0 blocks/s 2 peers\n"
    );
}

#[test]
fn no_node_and_no_node_at_all() {
    // Nobody else gets a port that is held, and who does not listen there refuses.
    let held = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    held.bind(&any.into()).unwrap();
    let address = held.local_addr().unwrap().as_socket().unwrap().to_string();
    let output = perihelion(&["status", "--rpc", &address]).output().unwrap();
    let error = error_of(&output);
    assert!(
        error.contains(&address) && error.contains("start one"),
        "{error}"
    );

    let address = serve(2, |_| Some("hello"));
    let output = perihelion(&["status", "--rpc", &address]).output().unwrap();
    assert!(error_of(&output).contains("not as a node does"));
}

/// A validator alone whose state is ahead of the chain signs nothing, and nothing goes on.
#[test]
fn a_node_that_stands_still_says_why_and_that_its_validator_is_silent() {
    let home = Home::new();
    let signed = SignState {
        height: 5_000,
        step: 3,
        ..SignState::default()
    };
    let file = home.file("data/priv_validator_state.json");
    signed.save(&file).unwrap();
    let mut node = Running::start(&home, &[]);
    let running = node.says("Perihelion is running");
    let rpc = running["rpc"].as_str().unwrap().to_owned();
    let told = node.says("stalled: height 1 round 0 waits (");
    assert_eq!(told["level"], "WARN", "{told}");
    let status = succeed(&["status", "--rpc", &rpc, "--home", home.text()]);
    for part in [
        "stalled: height 1 round 0 waits (",
        "prevotes of 0 of 1 validators (0 % of the power, more than 2/3 needed); missing: ",
        " (this node), the validator stays silent: not signed: height 1 round 0 prevote is before \
         height 5000 round 0 precommit, which was signed already",
    ] {
        assert!(status.contains(part), "no {part:?} in {status}");
    }
}
