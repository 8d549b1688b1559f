//! Runs the binary, and looks at what it did.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

/// A command line of the binary, without any variable that could steer it.
pub(crate) fn perihelion(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_perihelion"));
    command
        .args(arguments)
        .env_clear()
        .env("HOME", "/nonexistent");
    command
}

/// Its output, which must be a success.
pub(crate) fn succeed(arguments: &[&str]) -> String {
    let output = perihelion(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The one line of a failure: exit code 1 and `ERROR: …`.
pub(crate) fn error_of(output: &Output) -> String {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    let error = stderr.strip_prefix("ERROR: ").expect(&stderr);
    assert_told_once(error);
    error.trim_end().to_owned()
}

/// No phrase of twenty characters stands in an error twice; of paths and addresses only the words
/// around them count.
fn assert_told_once(error: &str) {
    let words = error.split_whitespace().map(|word| {
        let is_name = word.contains(['/', '@']) || word.len() > 30;
        if is_name { "·" } else { word }
    });
    let text: Vec<char> = words.collect::<Vec<_>>().join(" ").chars().collect();
    for start in 0..text.len().saturating_sub(40) {
        let phrase = &text[start..start + 20];
        let again = text[start + 20..]
            .windows(20)
            .any(|window| window == phrase);
        let phrase: String = phrase.iter().collect();
        assert!(!again, "{phrase:?} stands twice in {error:?}");
    }
}

/// Every file and folder below one, with mode and content.
pub(crate) fn tree(folder: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut left = vec![folder.to_owned()];
    while let Some(path) = left.pop() {
        let Ok(data) = path.symlink_metadata() else {
            continue;
        };
        let content = if data.is_dir() {
            left.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
            Vec::new()
        } else {
            fs::read(&path).unwrap()
        };
        found.insert(path, (data.permissions().mode(), content));
    }
    found
}

/// A home made by `init`, with the built-in application and ports that the system chooses.
pub(crate) struct Home {
    pub(crate) folder: TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        let home = Self::without_application();
        home.edit(
            "proxy_app = \"tcp://127.0.0.1:26658\"",
            "proxy_app = \"kvstore\"",
        );
        home
    }

    /// The same with `proxy_app` as `init` writes it.
    pub(crate) fn without_application() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = Self { folder };
        succeed(&["init", "--home", home.text()]);
        home.edit(
            "laddr = \"tcp://127.0.0.1:26657\"",
            "laddr = \"tcp://127.0.0.1:0\"",
        );
        home.edit(
            "laddr = \"tcp://0.0.0.0:26656\"",
            "laddr = \"tcp://127.0.0.1:0\"",
        );
        home
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn text(&self) -> &str {
        self.path().to_str().unwrap()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub(crate) fn edit(&self, old: &str, new: &str) {
        let file = self.file("config/config.toml");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(old), "{old}");
        fs::write(&file, text.replacen(old, new, 1)).unwrap();
    }

    /// Runs a command that must fail with one line holding each of `parts`, and change nothing.
    pub(crate) fn refuses(&self, arguments: &[&str], parts: &[&str]) {
        self.refuses_by(
            perihelion(&[arguments, &["--home", self.text()]].concat()),
            parts,
        );
    }

    pub(crate) fn refuses_by(&self, mut command: Command, parts: &[&str]) {
        let before = tree(self.path());
        let output = command.output().unwrap();
        let error = error_of(&output);
        for part in parts {
            assert!(
                error.contains(part),
                "{command:?}: no {part:?} in {error:?}"
            );
        }
        assert!(tree(self.path()) == before, "{command:?} changed the home");
    }
}
