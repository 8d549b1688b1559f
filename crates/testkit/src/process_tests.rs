use super::*;

#[test]
fn keys_are_changed_where_they_stand_and_added_where_they_are_not() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("config/config.toml");
    fs::create_dir(path.parent().unwrap()).unwrap();
    fs::write(&path, "moniker = \"a\" # mine\n\n[p2p]\nladdr = \"x\"\n").unwrap();
    edit_config(
        home.path(),
        [
            ("p2p.laddr", "y".into()),
            ("p2p.send_rate", 5.into()),
            ("rpc.laddr", "z".into()),
        ],
    )
    .unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let read: toml_edit::DocumentMut = text.parse().unwrap();
    assert_eq!(read["p2p"]["laddr"].as_str(), Some("y"));
    assert_eq!(read["p2p"]["send_rate"].as_integer(), Some(5));
    assert_eq!(read["rpc"]["laddr"].as_str(), Some("z"));
    assert!(text.starts_with("moniker = \"a\" # mine\n"), "{text}");
}

#[test]
fn usage_of_this_process_is_told_and_of_none_is_not() {
    let used = usage(std::process::id()).unwrap();
    assert!(used.peak_rss_bytes > 100_000, "{used:?}");
    assert!(usage(u32::MAX).is_err());
}

#[test]
fn the_body_is_what_follows_the_head() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        stream
            .write_all(b"HTTP/1.0 200 OK\r\nA: b\r\n\r\n{\"result\":1}")
            .unwrap();
        String::from_utf8(head).unwrap()
    });
    assert_eq!(http_get(address, "/status").unwrap(), b"{\"result\":1}");
    assert!(server.join().unwrap().starts_with("GET /status HTTP/1."));
}

#[test]
fn a_status_is_read_and_one_that_lacks_something_is_not() {
    let mut status = serde_json::json!({
        "node_info": { "id": "aa", "version": "0.38.25" },
        "sync_info": {
            "latest_block_hash": "BB", "latest_app_hash": "CC", "latest_block_height": "12",
            "earliest_block_height": "3", "catching_up": true,
        },
    });
    let read = NodeStatus::from_json(&status).unwrap();
    assert_eq!((read.base, read.height, read.catching_up), (3, 12, true));
    status["sync_info"]["latest_block_height"] = 12.into();
    assert!(NodeStatus::from_json(&status).is_err());
}

#[test]
fn a_missing_binary_is_named() {
    let home = tempfile::tempdir().unwrap();
    let launch = Launch::new("a", &home.path().join("none"), home.path()).unwrap();
    let error = launch.start().unwrap_err().to_string();
    assert!(error.contains("there is no binary"), "{error}");
}
