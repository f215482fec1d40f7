//! The control file: 64-bit words that a test writes and this library reads while the process runs.

use std::ffi::CStr;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use crate::layout::{self, Point, WORDS};

/// Bytes of the control file.
const SIZE: usize = 8 * WORDS as usize;

/// What a rule does to a call.
#[derive(Clone, Copy)]
pub(crate) enum Action {
    /// It fails with this error number.
    Fail(i32),
    /// It takes so many milliseconds longer.
    Hang(u64),
    /// The process is killed instead of it.
    KillBefore,
    /// The process is killed when the kernel has done it.
    KillAfter,
    /// So many thousandths of its bytes are written, then the process is killed.
    KillWithin(usize),
    /// So many thousandths of its bytes are written, then it fails for want of space.
    FillWithin(usize),
}

static CONTROL: AtomicPtr<AtomicU64> = AtomicPtr::new(null_mut());

/// The words, if there is a control file; found once.
fn words() -> Option<&'static [AtomicU64]> {
    let mut control = CONTROL.load(Ordering::Acquire);
    if control.is_null() {
        control = map()?;
        CONTROL.store(control, Ordering::Release);
    }
    // SAFETY: the mapping has this size, is never undone, and atomics may be shared with the process that writes them.
    Some(unsafe { std::slice::from_raw_parts(control, WORDS as usize) })
}

fn map() -> Option<*mut AtomicU64> {
    let path = variable(c"INTERPOSER_CONTROL")?;
    // SAFETY: plain system calls with a string that ends in NUL; a failure is seen in what they return.
    unsafe {
        let file = libc::syscall(
            libc::SYS_openat,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::O_RDWR | libc::O_CLOEXEC,
        );
        let file = i32::try_from(file).ok().filter(|file| *file >= 0)?;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let mapped = libc::mmap(null_mut(), SIZE, access, libc::MAP_SHARED, file, 0);
        libc::syscall(libc::SYS_close, file);
        (mapped != libc::MAP_FAILED).then_some(mapped.cast())
    }
}

/// A variable of the environment, which nobody changes.
pub(crate) fn variable(name: &CStr) -> Option<&'static CStr> {
    // SAFETY: the environment of these processes is never changed, so the string stays.
    unsafe {
        let value = libc::getenv(name.as_ptr());
        (!value.is_null()).then(|| CStr::from_ptr(value))
    }
}

/// By how much the wall clock is moved, in microseconds.
pub(crate) fn clock_offset_us() -> i64 {
    words().map_or(0, |words| {
        words[layout::CLOCK_OFFSET_US as usize]
            .load(Ordering::Relaxed)
            .cast_signed()
    })
}

/// The port that connections to Redis go to.
pub(crate) fn redis_port() -> u64 {
    words().map_or(0, |words| {
        words[layout::REDIS_PORT as usize].load(Ordering::Relaxed)
    })
}

/// What is to happen to the call that is being made at this point.
pub(crate) fn action(point: Point) -> Option<Action> {
    let rules = words()?.get(8..)?.chunks_exact(8);
    let mut due =
        rules.filter(|rule| rule[layout::POINT as usize].load(Ordering::Acquire) == point as u64);
    due.find_map(|rule| {
        if take_one(&rule[layout::SKIP as usize]) || !take_one(&rule[layout::TIMES as usize]) {
            return None;
        }
        rule[layout::HITS as usize].fetch_add(1, Ordering::AcqRel);
        let argument = rule[layout::ARGUMENT as usize].load(Ordering::Relaxed);
        Some(
            match rule[layout::ACTION as usize].load(Ordering::Relaxed) {
                layout::FAIL => Action::Fail(i32::try_from(argument).unwrap_or(libc::EIO)),
                layout::HANG => Action::Hang(argument),
                layout::KILL_BEFORE => Action::KillBefore,
                layout::KILL_AFTER => Action::KillAfter,
                layout::KILL_WITHIN => Action::KillWithin(usize::try_from(argument).unwrap_or(0)),
                layout::FILL_WITHIN => Action::FillWithin(usize::try_from(argument).unwrap_or(0)),
                _ => return None,
            },
        )
    })
}

/// Counts down; false if it was at zero.
fn take_one(count: &AtomicU64) -> bool {
    let less = |count: u64| count.checked_sub(1);
    count
        .fetch_update(Ordering::AcqRel, Ordering::Acquire, less)
        .is_ok()
}

/// `kill -9` of ourselves.
pub(crate) fn die() -> ! {
    // SAFETY: plain system calls; the first does not return.
    unsafe {
        libc::syscall(libc::SYS_kill, libc::getpid(), libc::SIGKILL);
        loop {
            libc::syscall(libc::SYS_pause);
        }
    }
}

pub(crate) fn hang(milliseconds: u64) {
    let time = libc::timespec {
        tv_sec: i64::try_from(milliseconds / 1_000).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(milliseconds % 1_000 * 1_000_000).unwrap_or(0),
    };
    // SAFETY: a plain system call; `time` outlives it.
    unsafe {
        libc::syscall(
            libc::SYS_clock_nanosleep,
            libc::CLOCK_MONOTONIC,
            0,
            &raw const time,
            null_mut::<libc::timespec>(),
        );
    }
}
