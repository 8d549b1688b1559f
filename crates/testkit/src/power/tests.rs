use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use super::*;

/// A shell that writes below `tree` and then kills itself.
fn run(folder: &Path, script: &str) -> RecordedProcess {
    let tree = folder.join("tree");
    let record = SyncRecord::begin(&tree, &folder.join("kept")).unwrap();
    let mut shell = Command::new("sh");
    let script = format!("set -e; {script}; kill -9 $$");
    shell.current_dir(&tree).arg("-c").arg(script);
    let (mut child, process) = SyncWatch::new(record)
        .spawn(shell.stdin(Stdio::null()))
        .unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), None, "the script failed");
    process
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("tree/old")).unwrap();
    fs::write(folder.path().join("tree/old/file"), "was there").unwrap();
    folder
}

fn content(folder: &Path, file: &str) -> Option<String> {
    fs::read_to_string(folder.join("tree").join(file)).ok()
}

const SYNCED: &str = "printf synced > a; sync a; sync .";

#[test]
fn what_was_appended_after_a_sync_is_lost() {
    for (kept, left) in [(0, "synced"), (3, "synced an")] {
        let folder = folder();
        let process = run(
            folder.path(),
            &format!("{SYNCED}; printf ' and more' >> a; printf changed >> old/file"),
        );
        let lost = process.cut(false, |_| kept).unwrap();
        assert_eq!(lost.files, 2);
        assert_eq!(lost.bytes, 9 + 7 - 2 * kept);
        assert_eq!(lost.names, 0);
        assert_eq!(content(folder.path(), "a").as_deref(), Some(left));
        let old = content(folder.path(), "old/file").unwrap();
        assert!(old.starts_with("was there"), "{old}");
        assert!(!folder.path().join("kept").exists());
    }
}

#[test]
fn a_name_lasts_once_its_folder_is_synced() {
    let script = "printf b > b; sync b; mkdir new; printf c > new/c; sync new/c; sync new";
    for (keeps_names, expected) in [(false, None), (true, Some("b"))] {
        let folder = folder();
        let process = run(folder.path(), script);
        let lost = process.cut(keeps_names, |_| 0).unwrap();
        assert_eq!(lost.names, if keeps_names { 0 } else { 2 });
        assert_eq!(lost.bytes, 0);
        assert_eq!(content(folder.path(), "b").as_deref(), expected);
        let inner = content(folder.path(), "new/c");
        assert_eq!(inner.is_some(), keeps_names);
    }
    let folder = folder();
    let process = run(folder.path(), &format!("{script}; sync ."));
    process.cut(false, |_| 0).unwrap();
    assert_eq!(content(folder.path(), "b").as_deref(), Some("b"));
    assert_eq!(content(folder.path(), "new/c").as_deref(), Some("c"));
}

/// A file that is there by name and was never synced is empty.
#[test]
fn a_file_that_was_never_synced_is_empty() {
    let folder = folder();
    let process = run(folder.path(), "printf b > b; sync .");
    assert_eq!(process.cut(false, |_| 0).unwrap().bytes, 1);
    assert_eq!(content(folder.path(), "b").as_deref(), Some(""));
}

#[test]
fn what_was_replaced_or_removed_without_a_sync_comes_back() {
    let script = "printf new > n; sync n; mv n old/file; rm -f a";
    for (keeps_names, file, a) in [(false, "was there", Some("synced")), (true, "new", None)] {
        let folder = folder();
        let process = run(folder.path(), &format!("{SYNCED}; {script}"));
        process.cut(keeps_names, |_| 0).unwrap();
        assert_eq!(content(folder.path(), "old/file").as_deref(), Some(file));
        assert_eq!(content(folder.path(), "a").as_deref(), a);
    }
}

#[test]
fn nothing_is_lost_of_what_is_forgotten() {
    let folder = folder();
    run(folder.path(), "printf b > b").forget().unwrap();
    assert_eq!(content(folder.path(), "b").as_deref(), Some("b"));
    assert!(!folder.path().join("kept").exists());
}
