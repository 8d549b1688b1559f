use std::fs;

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
fn the_end_of_a_log_begins_with_a_line() {
    let log = b"first\nsecond\nthird\n";
    for (most, expected) in [
        (100, "first\nsecond\nthird\n"),
        (19, "first\nsecond\nthird\n"),
        (18, "second\nthird\n"),
        (13, "second\nthird\n"),
        (12, "third\n"),
        (6, "third\n"),
        // Of one long line what fits.
        (3, "rd\n"),
    ] {
        let end = node::last_lines(log, most);
        assert_eq!(String::from_utf8_lossy(end), expected, "{most}");
    }
    assert_eq!(node::last_lines(b"", 5), b"");
    assert_eq!(node::last_lines(b"no end", 3), b"end");
}

#[test]
fn usage_of_this_process_is_told_and_of_none_is_not() {
    let used = usage(std::process::id()).unwrap();
    assert!(used.peak_rss_bytes > 100_000, "{used:?}");
    assert!(usage(u32::MAX).is_err());
}

#[test]
fn a_missing_binary_is_named() {
    let home = tempfile::tempdir().unwrap();
    let launch = Launch::new("a", &home.path().join("none"), home.path()).unwrap();
    let error = launch.start().unwrap_err().to_string();
    assert!(error.contains("there is no binary"), "{error}");
}
