//! The tests that the documents name exist.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// What stands between backticks and names a function in a module.
fn named(text: &str) -> BTreeSet<String> {
    let is_path = |word: &&str| {
        let parts: Vec<&str> = word.split("::").collect();
        let plain = |part: &&str| {
            part.starts_with(|first: char| first.is_ascii_lowercase())
                && part
                    .chars()
                    .all(|it| it.is_ascii_alphanumeric() || it == '_')
        };
        parts.len() > 1 && parts.iter().all(plain)
    };
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter(is_path).map(str::to_owned).collect()
}

/// The Rust files below `folder`, each by its path from `root`.
fn sources(root: &Path, folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(root, &path, found);
        } else if path.extension().is_some_and(|it| it == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path.strip_prefix(root).unwrap().to_owned(), text));
        }
    }
}

/// Whether a file of the module or the folder `module` of `krate` has the function.
fn exists(sources: &[(PathBuf, String)], krate: Option<&str>, module: &str, test: &str) -> bool {
    let (tests, krate) = match krate {
        Some("sim") => (Some("it"), Some("testkit")),
        Some("cluster") => (Some("cluster"), Some("testkit")),
        Some("interop") => (Some("interop"), Some("testkit")),
        other => (None, other),
    };
    let function = format!("fn {test}(");
    sources.iter().any(|(path, text)| {
        let parts: Vec<&str> = path.iter().map(|part| part.to_str().unwrap()).collect();
        let of_crate = krate.is_none_or(|krate| parts[0].replace('-', "_") == krate);
        let of_tests = tests.is_none_or(|tests| parts.contains(&tests));
        let of_module = path.file_stem().unwrap() == module || parts.contains(&module);
        of_crate && of_tests && of_module && text.contains(&function)
    })
}

#[test]
fn the_documents_name_tests_that_exist() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let mut all = Vec::new();
    let crates = root.join("crates");
    sources(&crates, &crates, &mut all);
    for (document, least) in [("docs/attacks.md", 100), ("docs/pinning.md", 30)] {
        let text = fs::read_to_string(root.join(document)).unwrap();
        let named = named(&text);
        assert!(named.len() >= least, "{document}: {}", named.len());
        let missing: Vec<&String> = named
            .iter()
            .filter(|path| {
                let parts: Vec<&str> = path.split("::").collect();
                let (test, module) = (parts[parts.len() - 1], parts[parts.len() - 2]);
                let krate = parts.len().checked_sub(3).map(|index| parts[index]);
                !exists(&all, krate, module, test)
            })
            .collect();
        assert!(missing.is_empty(), "{document} names {missing:#?}");
    }
}
