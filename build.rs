//! Compiles the `.proto` files below `proto/` with protox (no `protoc` needed) and prost-build.

use std::{error::Error, fs, path::Path};

/// Every `.proto` file below `folder`, in a stable order.
fn proto_files(folder: &Path, found: &mut Vec<String>) -> Result<(), Box<dyn Error>> {
    let mut entries: Vec<_> = fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(fs::DirEntry::path);
    for entry in entries {
        let path = entry.path();
        if path.is_dir() {
            proto_files(&path, found)?;
        } else if path
            .extension()
            .is_some_and(|extension| extension == "proto")
        {
            found.push(path.display().to_string());
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut files = Vec::new();
    proto_files(Path::new("proto"), &mut files)?;
    let descriptors = protox::compile(&files, ["proto"])?;
    let mut config = prost_build::Config::new();
    // Zero-copy: a `bytes` field of a decoded message shares the buffer it was decoded from.
    config.bytes(["."]);
    config.include_file("protocol.rs");
    config.compile_fds(descriptors)?;
    Ok(())
}
