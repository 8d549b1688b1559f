use std::{
    net::{Ipv4Addr, TcpListener},
    thread,
};

use super::*;

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
