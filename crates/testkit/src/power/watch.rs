//! Has the kernel report the syncs of a process.
#![allow(unsafe_code, reason = "seccomp has no safe way in")]

use std::{
    fs,
    io::{self, IoSlice, IoSliceMut},
    mem::{self, MaybeUninit},
    os::{
        fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::{net::UnixStream, process::CommandExt as _},
    },
    path::PathBuf,
    process::{Child, Command},
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, anyhow};
use rustix::{
    cmsg_space,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
    },
};

use super::{Lost, SyncRecord};

/// Reports `fsync` and `fdatasync`, and lets all else pass.
static FILTER: [libc::sock_filter; 5] = [
    statement(LOAD_WORD, 0),
    libc::sock_filter {
        code: IS_EQUAL,
        jt: 1,
        jf: 0,
        k: libc::SYS_fsync as u32,
    },
    libc::sock_filter {
        code: IS_EQUAL,
        jt: 0,
        jf: 1,
        k: libc::SYS_fdatasync as u32,
    },
    statement(RETURN, libc::SECCOMP_RET_USER_NOTIF),
    statement(RETURN, libc::SECCOMP_RET_ALLOW),
];

const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const IS_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

const fn statement(code: u16, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    }
}

/// Two requests to the kernel: take a report, answer it.
const TAKE: libc::Ioctl = request::<libc::seccomp_notif>(0);
const ANSWER: libc::Ioctl = request::<libc::seccomp_notif_resp>(1);

/// Reads and writes a `T`, of seccomp's requests (`!`).
const fn request<T>(number: u32) -> libc::Ioctl {
    rustix::ioctl::opcode::read_write::<T>(b'!', number as u8) as libc::Ioctl
}

/// Starts processes whose syncs are noted.
#[derive(Debug)]
pub struct SyncWatch {
    record: SyncRecord,
}

/// The syncs of a process are being noted until it ends.
#[derive(Debug)]
pub struct RecordedProcess {
    watcher: JoinHandle<anyhow::Result<SyncRecord>>,
}

impl SyncWatch {
    /// Notes in `record`.
    #[must_use]
    pub fn new(record: SyncRecord) -> Self {
        Self { record }
    }

    /// Starts the process. It waits at its first sync until that can be noted.
    ///
    /// # Errors
    /// When it cannot be started, or the kernel does not report syncs.
    pub fn spawn(self, command: &mut Command) -> anyhow::Result<(Child, RecordedProcess)> {
        let (here, there) = UnixStream::pair()?;
        // SAFETY: `report_syncs` makes system calls alone, and takes no memory and no lock.
        unsafe { command.pre_exec(move || report_syncs(&there)) };
        let mut child = command
            .spawn()
            .context("cannot start it with its syncs reported: that takes Linux 5.5 or newer")?;
        let watcher = receive(&here).and_then(|listener| {
            let watch = move || watch(&listener, self.record);
            let watcher = thread::Builder::new().name("syncs".to_owned());
            Ok(watcher.spawn(watch)?)
        });
        match watcher {
            Ok(watcher) => Ok((child, RecordedProcess { watcher })),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error)
            }
        }
    }
}

impl RecordedProcess {
    /// Waits until the process has ended, and cuts the power; see [`SyncRecord::cut`].
    ///
    /// # Errors
    /// When its syncs could not be noted, or a file cannot be changed.
    pub fn cut(self, keeps_names: bool, share: impl FnMut(u64) -> u64) -> anyhow::Result<Lost> {
        Ok(self.record()?.cut(keeps_names, share)?)
    }

    /// Waits until the process has ended; its files stay as they are.
    ///
    /// # Errors
    /// When its syncs could not be noted.
    pub fn forget(self) -> anyhow::Result<()> {
        Ok(self.record()?.forget()?)
    }

    fn record(self) -> anyhow::Result<SyncRecord> {
        let ended = self.watcher.join();
        ended.map_err(|_| anyhow!("the thread that notes syncs panicked"))?
    }
}

/// From now on this process, and the program that it becomes, reports its syncs. What the reports
/// come from is sent through `there`.
fn report_syncs(there: &UnixStream) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: FILTER.len() as u16,
        filter: FILTER.as_ptr().cast_mut(),
    };
    // SAFETY: the program outlives the call, which only reads it; the rest takes numbers.
    let listener = unsafe {
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 {
            return Err(io::Error::last_os_error());
        }
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    };
    if listener < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has opened it, for nobody else.
    let listener = unsafe { OwnedFd::from_raw_fd(listener as RawFd) };
    let sent = [listener.as_fd()];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&sent)) {
        return Err(io::ErrorKind::StorageFull.into());
    }
    sendmsg(
        there,
        &[IoSlice::new(b"l")],
        &mut control,
        SendFlags::empty(),
    )?;
    Ok(())
}

/// What the reports come from, as the process has sent it before it became the program.
fn receive(here: &UnixStream) -> anyhow::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let (mut byte, flags) = ([0], RecvFlags::CMSG_CLOEXEC);
    recvmsg(here, &mut [IoSliceMut::new(&mut byte)], &mut control, flags)?;
    let mut messages = control.drain();
    let sent = messages.find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut sent) => sent.next(),
        _ => None,
    });
    sent.context("the process did not send what its reports come from")
}

/// Notes each sync before it is done, until the process and those that it started have ended. A sync
/// that is cut short by the end counts as done: it may have been.
fn watch(listener: &OwnedFd, mut record: SyncRecord) -> anyhow::Result<SyncRecord> {
    while wait_for_report(listener)? {
        let Some(report) = take(listener)? else {
            continue;
        };
        // A thread has its process's files; a descriptor is a C int.
        let (thread, descriptor) = (report.pid, report.data.args[0] as i32);
        let open = PathBuf::from(format!("/proc/{thread}/fd/{descriptor}"));
        let is_open = fs::read_link(&open);
        let noted = record.synced(&open);
        let has_ended = !answer(listener, report.id)?;
        match is_open {
            Ok(path) if !has_ended => {
                noted.with_context(|| format!("cannot note a sync of {}", path.display()))?;
            }
            // The sync fails.
            _ => {}
        }
    }
    Ok(record)
}

/// `false` once there is nobody left who could report.
fn wait_for_report(listener: &OwnedFd) -> io::Result<bool> {
    let mut wait = libc::pollfd {
        fd: listener.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    loop {
        // SAFETY: it is one entry, which lives as long as the call.
        if unsafe { libc::poll(&raw mut wait, 1, -1) } >= 0 {
            return Ok(wait.revents & libc::POLLIN != 0);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// `None` when who reported has ended.
fn take(listener: &OwnedFd) -> io::Result<Option<libc::seccomp_notif>> {
    // SAFETY: a report is numbers, and the kernel wants them to be 0.
    let mut report: libc::seccomp_notif = unsafe { mem::zeroed() };
    // SAFETY: the request writes a report of the size that it names.
    let taken = unsafe { libc::ioctl(listener.as_raw_fd(), TAKE, &raw mut report) };
    if taken == 0 {
        return Ok(Some(report));
    }
    unless_ended(io::Error::last_os_error()).map(|()| None)
}

/// Lets the sync go on; `false` when who reported it has ended.
fn answer(listener: &OwnedFd, id: u64) -> io::Result<bool> {
    let mut answer = libc::seccomp_notif_resp {
        id,
        val: 0,
        error: 0,
        flags: libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
    };
    // SAFETY: the request reads an answer of the size that it names.
    let sent = unsafe { libc::ioctl(listener.as_raw_fd(), ANSWER, &raw mut answer) };
    if sent == 0 {
        return Ok(true);
    }
    unless_ended(io::Error::last_os_error()).map(|()| false)
}

/// Who has ended meanwhile, or was interrupted, waits for nothing.
fn unless_ended(error: io::Error) -> io::Result<()> {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::EINTR) => Ok(()),
        _ => Err(error),
    }
}
