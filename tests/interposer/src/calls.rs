//! The functions of the C library that are replaced. Each asks for a rule, does what the kernel does, and keeps the record.
//!
//! SAFETY of all of them: their arguments are those of the C functions, whose callers promise what the kernel needs; they are
//! passed on as they came, or a shorter length with them.

use std::ffi::{CStr, c_char, c_int, c_long, c_void};

use libc::{iovec, mode_t, off_t, size_t, sockaddr, socklen_t, ssize_t, timespec, timeval};

use crate::control::{self, Action, action};
use crate::layout::{self, Point};
use crate::point::{self, Class};
use crate::undo;

/// What a call returns that fails with this error number.
fn failed(error: c_int) -> c_int {
    // SAFETY: the address is this thread's own.
    unsafe { *libc::__errno_location() = error };
    -1
}

/// What the kernel returned, where C has an `int`.
fn int(returned: c_long) -> c_int {
    c_int::try_from(returned).unwrap_or(-1)
}

/// Lets a rule decide about a call that has no bytes to be cut: what it returns.
fn ruled(point: Option<Point>, call: impl FnOnce() -> c_int) -> c_int {
    match point.and_then(action) {
        Some(Action::Fail(error)) => return failed(error),
        Some(Action::Hang(milliseconds)) => control::hang(milliseconds),
        Some(Action::KillBefore) => control::die(),
        Some(Action::KillAfter | Action::KillWithin(_)) => {
            call();
            control::die();
        }
        Some(Action::FillWithin(_)) => return failed(libc::ENOSPC),
        None => {}
    }
    call()
}

/// The same for one that writes `length` bytes; `call` is given how many of them.
fn ruled_write(point: Option<Point>, length: usize, call: impl Fn(usize) -> ssize_t) -> ssize_t {
    let part = |permille: usize| length * permille.min(1_000) / 1_000;
    match point.and_then(action) {
        Some(Action::Fail(error)) => return failed(error) as ssize_t,
        Some(Action::Hang(milliseconds)) => control::hang(milliseconds),
        Some(Action::KillBefore) => control::die(),
        Some(Action::KillAfter) => {
            call(length);
            control::die();
        }
        Some(Action::KillWithin(permille)) => {
            call(part(permille));
            control::die();
        }
        Some(Action::FillWithin(permille)) => {
            call(part(permille));
            return failed(libc::ENOSPC) as ssize_t;
        }
        None => {}
    }
    call(length)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    let class = point::of_path(unsafe { CStr::from_ptr(path) });
    let is_new = flags & libc::O_CREAT != 0;
    let created = match class {
        Class::Segment(number) if is_new => Some(number),
        _ => None,
    };
    let opened = ruled(created.map(|_| Point::SegmentCreate), || {
        int(unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, flags, mode) })
    });
    if opened >= 0 {
        point::set(opened, class);
        if let Some(number) = created {
            undo::note(layout::CREATED, number, 0, &[]);
        }
    }
    opened
}

#[unsafe(no_mangle)]
unsafe extern "C" fn close(descriptor: c_int) -> c_int {
    point::set(descriptor, Class::Other);
    int(unsafe { libc::syscall(libc::SYS_close, descriptor) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite64(
    descriptor: c_int,
    bytes: *const c_void,
    length: size_t,
    at: off_t,
) -> ssize_t {
    let class = point::class(descriptor);
    let is_segment = matches!(class, Class::Segment(_));
    ruled_write(
        is_segment.then_some(Point::SegmentWrite),
        length,
        |length| {
            if let Class::Segment(number) = class
                && undo::is_kept()
            {
                let before = undo::before(descriptor, at, length);
                undo::note(layout::WRITTEN, number, at.cast_unsigned(), &before);
            }
            unsafe { libc::syscall(libc::SYS_pwrite64, descriptor, bytes, length, at) as ssize_t }
        },
    )
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pread64(
    descriptor: c_int,
    into: *mut c_void,
    length: size_t,
    at: off_t,
) -> ssize_t {
    let is_segment = matches!(point::class(descriptor), Class::Segment(_));
    if let Some(action) = is_segment.then(|| action(Point::SegmentRead)).flatten() {
        match action {
            Action::Fail(error) => return failed(error) as ssize_t,
            Action::Hang(milliseconds) => control::hang(milliseconds),
            _ => control::die(),
        }
    }
    unsafe { libc::syscall(libc::SYS_pread64, descriptor, into, length, at) as ssize_t }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdatasync(descriptor: c_int) -> c_int {
    sync(libc::SYS_fdatasync, descriptor)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fsync(descriptor: c_int) -> c_int {
    sync(libc::SYS_fsync, descriptor)
}

fn sync(call: c_long, descriptor: c_int) -> c_int {
    let class = point::class(descriptor);
    let (point, number, begins, done) = match class {
        Class::Segment(number) => (
            Point::SegmentSync,
            number,
            layout::SYNC_BEGAN,
            layout::SYNCED,
        ),
        Class::Other if is_folder(descriptor) => (
            Point::FolderSync,
            0,
            layout::FOLDER_SYNC_BEGAN,
            layout::FOLDER_SYNCED,
        ),
        _ => return kernel_sync(call, descriptor),
    };
    ruled(Some(point), || {
        let id = undo::next_sync();
        undo::note(begins, number, id, &[]);
        let synced = kernel_sync(call, descriptor);
        if synced == 0 {
            undo::note(done, number, id, &[]);
        }
        synced
    })
}

fn kernel_sync(call: c_long, descriptor: c_int) -> c_int {
    int(unsafe { libc::syscall(call, descriptor) })
}

fn is_folder(descriptor: c_int) -> bool {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
    unsafe {
        libc::fstat(descriptor, stat.as_mut_ptr()) == 0
            && stat.assume_init().st_mode & libc::S_IFMT == libc::S_IFDIR
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn ftruncate64(descriptor: c_int, length: off_t) -> c_int {
    let class = point::class(descriptor);
    let is_segment = matches!(class, Class::Segment(_));
    ruled(is_segment.then_some(Point::SegmentTruncate), || {
        if let Class::Segment(number) = class
            && undo::is_kept()
        {
            // More than any segment of a test has.
            let before = undo::before(descriptor, length, 64 << 20);
            undo::note(layout::TRUNCATED, number, length.cast_unsigned(), &before);
        }
        int(unsafe { libc::syscall(libc::SYS_ftruncate, descriptor, length) })
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    let name = unsafe { CStr::from_ptr(path) };
    let class = point::of_path(name);
    let is_segment = matches!(class, Class::Segment(_));
    ruled(is_segment.then_some(Point::SegmentRemove), || {
        if let Class::Segment(number) = class
            && undo::is_kept()
        {
            undo::keep(name, number);
            undo::note(layout::REMOVED, number, 0, &[]);
        }
        int(unsafe { libc::syscall(libc::SYS_unlinkat, libc::AT_FDCWD, path, 0) })
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    let is_state = point::of_path(unsafe { CStr::from_ptr(to) }) == Class::State;
    ruled(is_state.then_some(Point::StateRename), || {
        int(unsafe {
            libc::syscall(
                libc::SYS_renameat2,
                libc::AT_FDCWD,
                from,
                libc::AT_FDCWD,
                to,
                0,
            )
        })
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn connect(socket: c_int, address: *const sockaddr, length: socklen_t) -> c_int {
    let port = match c_int::from(unsafe { (*address).sa_family }) {
        libc::AF_INET => u16::from_be(unsafe { (*address.cast::<libc::sockaddr_in>()).sin_port }),
        libc::AF_INET6 => {
            u16::from_be(unsafe { (*address.cast::<libc::sockaddr_in6>()).sin6_port })
        }
        _ => 0,
    };
    if port != 0 && u64::from(port) == control::redis_port() {
        point::set(socket, Class::Redis { asked: false });
    }
    int(unsafe { libc::syscall(libc::SYS_connect, socket, address, length) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn send(
    socket: c_int,
    bytes: *const c_void,
    length: size_t,
    flags: c_int,
) -> ssize_t {
    let piece = iovec {
        iov_base: bytes.cast_mut(),
        iov_len: length,
    };
    say(socket, &[piece], |length| unsafe {
        libc::syscall(
            libc::SYS_sendto,
            socket,
            bytes,
            length,
            flags,
            std::ptr::null::<sockaddr>(),
            0,
        ) as ssize_t
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn write(descriptor: c_int, bytes: *const c_void, length: size_t) -> ssize_t {
    let piece = iovec {
        iov_base: bytes.cast_mut(),
        iov_len: length,
    };
    let call = |length: usize| unsafe {
        libc::syscall(libc::SYS_write, descriptor, bytes, length) as ssize_t
    };
    match point::class(descriptor) {
        Class::Redis { .. } => say(descriptor, &[piece], call),
        Class::State => ruled_write(Some(Point::StateWrite), length, call),
        _ => call(length),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn writev(descriptor: c_int, pieces: *const iovec, count: c_int) -> ssize_t {
    let all = unsafe { std::slice::from_raw_parts(pieces, usize::try_from(count).unwrap_or(0)) };
    let length: usize = all.iter().map(|piece| piece.iov_len).sum();
    say(descriptor, all, |most| unsafe {
        if most == length {
            return libc::syscall(libc::SYS_writev, descriptor, pieces, count) as ssize_t;
        }
        // A part: as much of the first piece as there is.
        let part = all.first().map_or(0, |first| most.min(first.iov_len));
        let first = all
            .first()
            .map_or(std::ptr::null_mut(), |first| first.iov_base);
        libc::syscall(libc::SYS_write, descriptor, first, part) as ssize_t
    })
}

/// Something is said on a connection that may be one to Redis.
fn say(socket: c_int, pieces: &[iovec], call: impl Fn(usize) -> ssize_t) -> ssize_t {
    let length = pieces.iter().map(|piece| piece.iov_len).sum();
    let Class::Redis { .. } = point::class(socket) else {
        return call(length);
    };
    let is_batch = contain(pieces, b"EXEC\r\n") && contain(pieces, b":cursor\r\n");
    let said = ruled_write(is_batch.then_some(Point::BatchSend), length, call);
    if is_batch && said > 0 {
        point::set(socket, Class::Redis { asked: true });
    }
    said
}

fn contain(pieces: &[iovec], text: &[u8]) -> bool {
    pieces
        .iter()
        .filter(|piece| piece.iov_len >= text.len())
        .any(|piece| {
            let bytes =
                unsafe { std::slice::from_raw_parts(piece.iov_base.cast::<u8>(), piece.iov_len) };
            bytes.windows(text.len()).any(|window| window == text)
        })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn recv(
    socket: c_int,
    into: *mut c_void,
    length: size_t,
    flags: c_int,
) -> ssize_t {
    hear(socket, || unsafe {
        let (address, size) = (
            std::ptr::null_mut::<sockaddr>(),
            std::ptr::null_mut::<socklen_t>(),
        );
        libc::syscall(
            libc::SYS_recvfrom,
            socket,
            into,
            length,
            flags,
            address,
            size,
        ) as ssize_t
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn read(descriptor: c_int, into: *mut c_void, length: size_t) -> ssize_t {
    hear(descriptor, || unsafe {
        libc::syscall(libc::SYS_read, descriptor, into, length) as ssize_t
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn readv(descriptor: c_int, pieces: *const iovec, count: c_int) -> ssize_t {
    hear(descriptor, || unsafe {
        libc::syscall(libc::SYS_readv, descriptor, pieces, count) as ssize_t
    })
}

/// Something may have come from Redis. A rule strikes when it has: the process has not looked at it yet.
fn hear(descriptor: c_int, call: impl FnOnce() -> ssize_t) -> ssize_t {
    let Class::Redis { asked } = point::class(descriptor) else {
        return call();
    };
    let heard = call();
    if heard <= 0 {
        return heard;
    }
    match asked.then(|| action(Point::BatchReply)).flatten() {
        Some(Action::Fail(error)) => return failed(error) as ssize_t,
        Some(Action::Hang(milliseconds)) => control::hang(milliseconds),
        Some(_) => control::die(),
        None => {}
    }
    if asked {
        point::set(descriptor, Class::Redis { asked: false });
    }
    heard
}

#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, into: *mut timespec) -> c_int {
    let read = int(unsafe { libc::syscall(libc::SYS_clock_gettime, clock, into) });
    if read == 0 && matches!(clock, libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE) {
        let time = unsafe { &mut *into };
        let micros = time.tv_nsec / 1_000 + control::clock_offset_us();
        time.tv_sec += micros.div_euclid(1_000_000);
        time.tv_nsec = micros.rem_euclid(1_000_000) * 1_000 + time.tv_nsec % 1_000;
    }
    read
}

#[unsafe(no_mangle)]
unsafe extern "C" fn gettimeofday(into: *mut timeval, _zone: *mut c_void) -> c_int {
    let mut time = timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let read = unsafe { clock_gettime(libc::CLOCK_REALTIME, &raw mut time) };
    if read == 0 && !into.is_null() {
        unsafe {
            *into = timeval {
                tv_sec: time.tv_sec,
                tv_usec: time.tv_nsec / 1_000,
            }
        };
    }
    read
}

#[unsafe(no_mangle)]
unsafe extern "C" fn time(into: *mut libc::time_t) -> libc::time_t {
    let mut time = timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    unsafe {
        clock_gettime(libc::CLOCK_REALTIME, &raw mut time);
        if !into.is_null() {
            *into = time.tv_sec;
        }
    }
    time.tv_sec
}
