//! The command `bench`.

use std::{collections::BTreeSet, fs, path::Path, process::Stdio, thread, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::binary::{error_of, perihelion, succeed};

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().next().is_none()
}

#[test]
fn bench_tells_each_stage_and_a_speed_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    // Few blocks are made where they are large.
    let shape = ["bench", "--validators", "7", "--tx-bytes", "1000000"];
    for verify in ["pinned", "every"] {
        let further = ["--json", "--verify", verify, "--dir", dir];
        let told = succeed(&[&shape[..], &further].concat());
        let told: Value = serde_json::from_str(&told).unwrap();
        assert_eq!(told["verify"], verify);
        assert_eq!(told["shapes"].as_array().unwrap().len(), 1);
        let shape = &told["shapes"][0];
        assert_eq!(
            (&shape["validators"], &shape["txs"]),
            (&7.into(), &1.into())
        );
        let stages = shape["stages"].as_array().unwrap();
        let names: BTreeSet<&str> = stages
            .iter()
            .map(|stage| {
                assert!(stage["cpu_us"].as_f64().unwrap() >= 0.0, "{stage}");
                stage["name"].as_str().unwrap()
            })
            .collect();
        assert_eq!(names.len(), 16);
        for name in [
            "certify",
            "cut into packets",
            "answer requests",
            "put together",
        ] {
            assert!(names.contains(name), "{name}: {names:?}");
        }
        let predicted = |from: &str| {
            let speed = &shape["prediction"][from];
            assert!(!speed["limit"].as_str().unwrap().is_empty());
            speed["blocks_per_second"].as_f64().unwrap()
        };
        assert!(predicted("from_here") > 0.0);
        assert!(predicted("from_here") <= predicted("from_elsewhere"));
        assert!(is_empty(folder.path()));
    }
}

#[test]
fn bench_names_what_is_wrong_with_its_flags() {
    for (flags, part) in [
        (&["--validators", "0"][..], "--validators must be 1 to 1000"),
        (&["--tx-bytes", "39"], "--tx-bytes must be at least 40"),
        (&["--txs", "many"], "--txs"),
        (&["--shapes", "d"], "--shapes"),
        (&["--shapes", "a", "--txs", "3"], "--shapes"),
        (&["--verify", "none"], "--verify"),
        (
            &["--dir", "/nonexistent/folder"],
            "--dir /nonexistent/folder",
        ),
    ] {
        let output = perihelion(&[&["bench"], flags].concat()).output().unwrap();
        let error = error_of(&output);
        assert!(error.contains(part), "{flags:?}: {error}");
    }
}

#[test]
fn bench_that_is_interrupted_ends_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    let bench = perihelion(&["bench", "--dir", dir])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while is_empty(folder.path()) {
        thread::sleep(Duration::from_millis(5));
    }
    let pid = Pid::from_raw(i32::try_from(bench.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let output = bench.wait_with_output().unwrap();
    assert_eq!(error_of(&output), "stopped before it was done");
    assert!(output.stdout.is_empty());
    assert!(is_empty(folder.path()));
}
