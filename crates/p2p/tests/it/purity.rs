//! The pure modules stay pure.

use std::{fs, path::Path};

/// What has no place in a pure module: tasks, sockets, files, the clock, global randomness.
const BANNED: [&str; 9] = [
    "tokio",
    "std::net::",
    "std::fs",
    "std::io",
    "std::thread",
    "std::env",
    "Instant::now",
    "SystemTime",
    "rand::",
];

fn sources(path: &Path, found: &mut Vec<(String, String)>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            sources(&entry.unwrap().path(), found);
        }
    } else {
        let text = fs::read_to_string(path).unwrap();
        // Tests may ask the clock.
        let code = text
            .split("#[cfg(test)]\nmod tests")
            .next()
            .unwrap()
            .to_owned();
        found.push((path.display().to_string(), code));
    }
}

#[test]
fn the_pure_modules_use_no_shell() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    for module in [
        "frame.rs",
        "secret_connection.rs",
        "mconnection",
        "node_info.rs",
        "flow.rs",
        "switch/table.rs",
        "switch/backoff.rs",
    ] {
        sources(&src.join(module), &mut found);
    }
    assert!(found.len() >= 11);
    for (path, code) in found {
        let lines = code
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        for line in lines {
            for banned in BANNED {
                // An address is a value; a socket is not.
                let value = line.contains("net::IpAddr") || line.trim() == "net::IpAddr,";
                assert!(value || !line.contains(banned), "{path}: {line}");
            }
        }
    }
}
