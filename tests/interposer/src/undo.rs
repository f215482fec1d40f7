//! What a power cut could take back: a record of everything that was done to the journal's files, and of what was forced to the
//! disk. After the process is gone, the test takes back what was not forced, as far as its dice say.
//!
//! The log is `log` in the folder that `INTERPOSER_UNDO` names; removed segments are kept beside it. `tests/e2e/faults/power.rs` reads it.

use std::ffi::{CStr, c_int, c_long};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use crate::control::variable;

const UNOPENED: i32 = -1;
const ABSENT: i32 = -2;

static LOG: AtomicI32 = AtomicI32::new(UNOPENED);
static SYNCS: AtomicU64 = AtomicU64::new(0);

/// The log's descriptor, if there is to be a log.
fn log() -> Option<c_int> {
    let mut log = LOG.load(Ordering::Acquire);
    if log == UNOPENED {
        log = open();
        LOG.store(log, Ordering::Release);
    }
    (log >= 0).then_some(log)
}

fn open() -> c_int {
    let Some(folder) = variable(c"INTERPOSER_UNDO") else {
        return ABSENT;
    };
    let Some(path) = Path::of(folder, b"/log") else {
        return ABSENT;
    };
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND | libc::O_CLOEXEC;
    // SAFETY: a plain system call with a string that ends in NUL.
    let log = unsafe {
        libc::syscall(
            libc::SYS_openat,
            libc::AT_FDCWD,
            path.as_ptr(),
            flags,
            0o600,
        )
    };
    c_int::try_from(log)
        .ok()
        .filter(|log| *log >= 0)
        .unwrap_or(ABSENT)
}

pub(crate) fn is_kept() -> bool {
    log().is_some()
}

/// Appends an entry, in one call, so that entries of two threads do not mix.
pub(crate) fn note(what: u64, segment: u64, at: u64, bytes: &[u8]) {
    let Some(log) = log() else {
        return;
    };
    let head = [what, segment, at, bytes.len() as u64];
    let pieces = [
        libc::iovec {
            iov_base: head.as_ptr().cast_mut().cast(),
            iov_len: size_of_val(&head),
        },
        libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        },
    ];
    // SAFETY: both pieces outlive the call, which only reads them.
    unsafe { libc::syscall(libc::SYS_writev, log, pieces.as_ptr(), pieces.len()) };
}

/// What stands in the file from `at` on, before something is written there.
pub(crate) fn before(descriptor: c_int, at: i64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0_u8; length];
    // SAFETY: the buffer has this length.
    let read: c_long = unsafe {
        libc::syscall(
            libc::SYS_pread64,
            descriptor,
            bytes.as_mut_ptr(),
            length,
            at,
        )
    };
    bytes.truncate(usize::try_from(read).unwrap_or(0));
    bytes
}

/// A number for a force that begins: no process before has given it.
pub(crate) fn next_sync() -> u64 {
    // SAFETY: a plain system call.
    let process = u64::from(unsafe { libc::getpid() }.unsigned_abs());
    process << 32 | SYNCS.fetch_add(1, Ordering::Relaxed)
}

/// Keeps a segment that is about to be removed.
pub(crate) fn keep(path: &CStr, segment: u64) {
    let Some(folder) = variable(c"INTERPOSER_UNDO") else {
        return;
    };
    let mut name = *b"/0000000000000000.removed";
    for (place, digit) in name[1..17].iter_mut().enumerate() {
        let value = segment >> (60 - 4 * place) & 0xf;
        *digit = b"0123456789abcdef"[usize::try_from(value).unwrap_or(0)];
    }
    if let Some(kept) = Path::of(folder, &name) {
        // SAFETY: a plain system call with strings that end in NUL.
        unsafe {
            libc::syscall(
                libc::SYS_linkat,
                libc::AT_FDCWD,
                path.as_ptr(),
                libc::AT_FDCWD,
                kept.as_ptr(),
                0,
            );
        }
    }
}

/// A path that was put together.
struct Path([u8; 512]);

impl Path {
    fn of(folder: &CStr, name: &[u8]) -> Option<Path> {
        let (folder, mut path) = (folder.to_bytes(), [0; 512]);
        // The last byte stays zero.
        let end = folder.len() + name.len();
        path.get_mut(..511)?
            .get_mut(..folder.len())?
            .copy_from_slice(folder);
        path.get_mut(..511)?
            .get_mut(folder.len()..end)?
            .copy_from_slice(name);
        Some(Path(path))
    }

    fn as_ptr(&self) -> *const libc::c_char {
        self.0.as_ptr().cast()
    }
}
