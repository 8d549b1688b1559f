use std::{path::Path, time::Duration};

use super::*;

fn reading(text: &str) -> Reading {
    read(
        Path::new("/home"),
        Path::new("/home/config/config.toml"),
        text,
        &Overrides::default(),
    )
}

fn problems(text: &str) -> Vec<String> {
    reading(text)
        .problems
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn what_is_written_is_read_back() {
    let mut config = Config::new(Path::new("/home"));
    assert!(reading(&write(&config)).problems.is_empty());
    config.base.moniker = "a \"quoted\" \\ name".to_owned();
    config.p2p.persistent_peers = format!("{}@[::1]:26656", "ab".repeat(20));
    config.p2p.libp2p.scaler.max_workers = 33;
    config.p2p.libp2p.scaler.overrides.clear();
    config.mempool.kind = MempoolType::App;
    config.mempool.reap_max_gas = 7;
    config.perihelion.median_time.push(MedianTimeRule {
        from_height: 900,
        rule: MedianTime::V040,
    });
    config.state_sync.rpc_servers = CommaList(vec!["a".into(), "b".into()]);
    let reading = reading(&write(&config));
    assert_eq!(reading.problems, []);
    assert_eq!(reading.config, config);
}

#[test]
fn every_problem_is_named_with_its_line() {
    let text = "\
moniker = \"x\"
proxy_ap = \"kvstore\"
[rpc]
laddr = \"here\"
max_open_connections = -1
[p2p]
persistent_peers = \"nobody\"
handshake_timeout = \"20\"
max_subscription_clients = 1
[blocksync]
verify = \"some\"
[perihelion]
median_time = [
  { from_height = 1, rule = \"v0.38\" },
  { from_height = 9, rule = \"v0.41\" },
]
[mempol]
";
    let found = problems(text);
    let starts = [
        (
            2,
            "unknown key \"proxy_ap\"; the nearest known key is \"proxy_app\"",
        ),
        (4, "rpc.laddr: \"here\" is no address to listen on"),
        (
            5,
            "rpc.max_open_connections = -1 is not allowed: expected a whole number, 0 or more",
        ),
        (
            7,
            "p2p.persistent_peers: \"nobody\" is no peer, it has no @: write ID@HOST:PORT",
        ),
        (
            8,
            "p2p.handshake_timeout = \"20\" is not allowed: expected a duration such as",
        ),
        (
            9,
            "unknown key \"p2p.max_subscription_clients\"; the nearest known key is \"rpc.max_subscription_clients\"",
        ),
        (
            11,
            "blocksync.verify = \"some\" is not allowed: expected one of \"pinned\", \"every\"",
        ),
        (
            15,
            "perihelion.median_time = [ is not allowed: expected rule to be one of \"v0.38\", \"v0.40\"",
        ),
        (
            17,
            "unknown key \"mempol\"; the nearest known key is \"mempool\"",
        ),
    ];
    for (found, (line, start)) in found.iter().zip(starts) {
        let start = format!("/home/config/config.toml:{line}: {start}");
        assert!(found.starts_with(&start), "{found}\n{start}");
    }
    assert_eq!(found.len(), starts.len(), "{found:#?}");
}

#[test]
fn broken_toml_names_the_line() {
    let found = problems("moniker = \"a\"\n[rpc\nladdr = 1\n");
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(
        found[0].starts_with("/home/config/config.toml:2: not valid TOML: "),
        "{found:?}"
    );
    let found = problems("moniker = \"a\"\nmoniker = \"b\"\n");
    assert!(
        found[0].starts_with("/home/config/config.toml:2: not valid TOML: "),
        "{found:?}"
    );
}

#[test]
fn a_value_where_a_table_belongs() {
    assert_eq!(
        problems("rpc = 5\n"),
        ["/home/config/config.toml:1: rpc must be a table, written [rpc]"]
    );
}

#[test]
fn flag_over_environment_over_file_over_default() {
    let file = "moniker = \"file\"\n[rpc]\nladdr = \"tcp://127.0.0.1:1\"\n";
    let mut overrides = Overrides::default();
    let load = |overrides: &Overrides| {
        let reading = read(Path::new("/h"), Path::new("/h/c"), file, overrides);
        assert_eq!(reading.problems, []);
        (
            reading.config.base.moniker,
            reading.config.rpc.laddr,
            reading.config.mempool.keep_invalid_txs_in_cache,
        )
    };
    let expect = |moniker: &str, keep| (moniker.to_owned(), "tcp://127.0.0.1:1".to_owned(), keep);
    assert_eq!(load(&overrides), expect("file", false));
    let mut set = |name: &str, value: &str| {
        overrides
            .environment
            .insert(name.to_owned(), value.to_owned());
        load(&overrides)
    };
    assert_eq!(set("CMT_MONIKER", ""), expect("file", false));
    assert_eq!(set("CMT_MONIKER", "cmt"), expect("cmt", false));
    assert_eq!(set("PERIHELION_MONIKER", "own"), expect("own", false));
    assert_eq!(
        set("CMT_MEMPOOL_KEEP_INVALID_TXS_IN_CACHE", "true"),
        expect("own", true)
    );
    let flag = Flag {
        name: "moniker".into(),
        value: "flag".into(),
    };
    overrides.flags.insert("moniker".into(), flag);
    assert_eq!(load(&overrides), expect("flag", true));
}

#[test]
fn wrong_environment_and_flags_are_named() {
    let mut overrides = Overrides::default();
    overrides
        .environment
        .insert("CMT_P2P_SEND_RATE".into(), "fast".into());
    let flag = Flag {
        name: "p2p.pex".into(),
        value: "maybe".into(),
    };
    overrides.flags.insert("p2p.pex".into(), flag);
    let reading = read(Path::new("/h"), Path::new("/h/c"), "", &overrides);
    let found: Vec<_> = reading.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "environment variable CMT_P2P_SEND_RATE: p2p.send_rate = \"fast\" is not allowed: expected a whole number, 0 or more",
            "flag --p2p.pex = \"maybe\" is not allowed: expected true or false",
        ]
    );
    assert_eq!(reading.config.p2p.send_rate, 5_120_000);
}

#[test]
fn names_do_not_depend_on_case() {
    let reading = reading("Moniker = \"x\"\n[RPC]\nLaddr = \"\"\n");
    assert_eq!(reading.problems, []);
    assert_eq!(reading.config.base.moniker, "x");
    assert_eq!(reading.config.rpc.laddr, "");
}

#[test]
fn rules_of_cometbft_and_ours() {
    for (text, key) in [
        ("version = \"1.2\"", "version"),
        ("log_level = \"p2p\"", "log_level"),
        (
            "[rpc]\nexperimental_subscription_buffer_size = 99",
            "rpc.experimental_subscription_buffer_size",
        ),
        (
            "[rpc]\nexperimental_subscription_buffer_size = 201",
            "rpc.experimental_websocket_write_buffer_size",
        ),
        ("moniker = \"\"", "moniker"),
        ("moniker = \"  \"", "moniker"),
        ("moniker = \"M\u{fc}nchen\"", "moniker"),
        ("moniker = \"two\\nlines\"", "moniker"),
        ("[rpc]\nladdr = \"unix:///tmp/\u{fc}\"", "rpc.laddr"),
        (
            "[p2p]\nmax_packet_msg_payload_size = 0",
            "p2p.max_packet_msg_payload_size",
        ),
        (
            "[p2p]\nmax_packet_msg_payload_size = 1048577",
            "p2p.max_packet_msg_payload_size",
        ),
        ("[p2p]\nladdr = \"\"", "p2p.laddr"),
        ("[p2p]\nladdr = \"tcp://0.0.0.0:65536\"", "p2p.laddr"),
        ("[p2p]\nprivate_peer_ids = \"abc\"", "p2p.private_peer_ids"),
        ("[p2p]\nseeds = \"abc@host:1\"", "p2p.seeds"),
        (
            "[consensus]\nblock_time_tolerance = \"0s\"",
            "consensus.block_time_tolerance",
        ),
        ("[blocksync]\nversion = \"v1\"", "blocksync.version"),
        ("[blocksync]\nwindow_bytes = 1", "blocksync.window_bytes"),
        (
            "[blocksync]\npeer_requests = 501",
            "blocksync.peer_requests",
        ),
        ("[perihelion]\nmedian_time = []", "perihelion.median_time"),
        (
            "[perihelion]\nmedian_time = [{from_height = 2, rule = \"v0.38\"}]",
            "perihelion.median_time",
        ),
        (
            "[perihelion]\nsearch_entries = 999",
            "perihelion.search_entries",
        ),
        (
            "[perihelion]\nsearch_timeout = \"99ms\"",
            "perihelion.search_timeout",
        ),
    ] {
        let found = reading(text).problems;
        assert!(
            matches!(&found[..], [Problem::Rule { key: named, .. }] if named == key),
            "{text}: {found:?}"
        );
    }
    let sync = "[statesync]\nenable = true\n";
    assert_eq!(problems(sync).len(), 3, "{:#?}", problems(sync));
}

/// Who runs an explorer lifts them.
#[test]
fn the_bounds_of_a_search_are_those_that_are_set() {
    let text = "[perihelion]\nsearch_entries = 5000\nsearch_timeout = \"7s\"";
    for (text, entries, seconds) in [("", 1_000_000, 2), (text, 5_000, 7)] {
        let reading = reading(text);
        assert_eq!(reading.problems, []);
        let server = reading.config.rpc_server();
        assert_eq!(server.max_search_entries, entries);
        assert_eq!(server.search_timeout, Duration::from_secs(seconds));
    }
}

#[test]
fn what_is_just_allowed() {
    for text in [
        "moniker = \"n\"",
        "moniker = \"my node ~ 1!\"",
        "[p2p]\nmax_packet_msg_payload_size = 1",
        "[p2p]\nmax_packet_msg_payload_size = 1048576",
    ] {
        assert_eq!(reading(text).problems, [], "{text}");
    }
}

/// A fresh home on any machine can be used.
#[test]
fn a_machine_whose_name_peers_refuse_is_anonymous() {
    for (machine, expected) in [
        ("host-1.example", "host-1.example"),
        ("", "anonymous"),
        (" ", "anonymous"),
        ("M\u{fc}nchen", "anonymous"),
        ("a\u{7f}b", "anonymous"),
    ] {
        assert_eq!(super::moniker_of(machine), expected, "{machine:?}");
    }
}

#[test]
fn addresses() {
    for (text, expected) in [
        ("host:1", Some(("host", 1))),
        (":26660", Some(("", 26660))),
        ("[::1]:2", Some(("::1", 2))),
        ("::1:2", None),
        ("host", None),
        ("host:", None),
        ("host:+1", None),
        ("host:65536", None),
    ] {
        assert_eq!(host_and_port(text), expected, "{text}");
    }
}
