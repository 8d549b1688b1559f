//! How the C library keeps memory for Rust and for RocksDB.

/// Buffers of at least this many bytes are given back to the system when they are freed. glibc
/// raises its own bound to 32 MiB once such a buffer was freed; then large blocks leave holes that
/// are never given back. Smaller, and ordinary blocks would cost system calls.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MMAP_BYTES: i32 = 1 << 20;

/// Free bytes at the end of a heap that stay there. More is idle memory; with less the system finds
/// and clears the same pages again and again.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const TRIM_BYTES: i32 = 8 << 20;

/// Sets how memory is kept; `false` where the C library refused. To be called before threads start.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code, reason = "the C library has no other way in")]
pub fn tune() -> bool {
    // SAFETY: mallopt takes two numbers and touches nothing but the allocator's own settings.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_BYTES) == 1
            && libc::mallopt(libc::M_TRIM_THRESHOLD, TRIM_BYTES) == 1
    }
}

/// Only glibc needs it.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn tune() -> bool {
    true
}

/// Ends the process with what was printed, and without what the C library runs at an end: RocksDB
/// takes its globals apart there, under threads that still use them, and aborts.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code, reason = "the C library has no other way out")]
pub fn leave(code: u8) -> ! {
    flush();
    // SAFETY: it returns to nobody; nothing of this process is run or read afterwards.
    unsafe { libc::_exit(i32::from(code)) }
}

/// Only where the C library is known.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn leave(code: u8) -> ! {
    flush();
    std::process::exit(i32::from(code))
}

fn flush() {
    use std::io::Write as _;
    // Where nobody reads it, nothing can be done.
    let _ = std::io::stdout().flush();
    let _ = std::io::stderr().flush();
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_settings_are_taken() {
        assert!(super::tune());
    }
}
