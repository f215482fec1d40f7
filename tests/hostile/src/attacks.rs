//! The attacks that are more than a line. Each says which limit of the host it goes against.

use std::hint::black_box;
use std::net::TcpStream;
use std::time::Duration;

use jackfield_sdk::{Derived, Event};

const MIB: usize = 1 << 20;
/// Far more than a sensible filter makes for one event, yet done within the usual deadline: another limit must stop it.
const FLOOD: usize = 2_000;

/// The deadline.
pub(crate) fn spin() -> ! {
    loop {
        black_box(());
    }
}

/// The deadline is far; the pipeline waits.
pub(crate) fn work(rounds: u64) {
    for round in 0..rounds {
        black_box(round);
    }
}

/// A trap, with a message to standard error before it.
#[expect(clippy::panic, reason = "the attack")]
pub(crate) fn trap() -> ! {
    panic!("hostile: told to trap")
}

/// The memory limit: allocation fails, and with it the call. The memory is not touched, so that the deadline is not first.
pub(crate) fn exhaust_memory() -> ! {
    let mut hoard = Vec::new();
    loop {
        hoard.push(Vec::<u8>::with_capacity(MIB));
        black_box(&hoard);
    }
}

/// The stack: a trap, whichever of the guest's own stack and the engine's ends first.
pub(crate) fn exhaust_stack() {
    black_box(descend(black_box(u64::MAX)));
}

fn descend(depth: u64) -> u64 {
    match depth {
        0 => 0,
        depth => black_box(descend(black_box(depth - 1))) + 1,
    }
}

/// The check of output: names that no header can have.
pub(crate) fn set_bad_headers(event: &mut Event) {
    event.set("", "no name");
    event.set(
        "X-Bad\r\nX-Injected: yes\r\n\r\n",
        "line breaks and a colon in the name",
    );
}

/// The limit on edits.
pub(crate) fn flood_edits(event: &mut Event) {
    for number in 0..FLOOD {
        event.set(format!("X-{number}"), "x");
    }
}

/// The limit on the streams of one event, each of which may be named.
pub(crate) fn many_streams() -> Vec<String> {
    (0..FLOOD)
        .map(|number| format!("freeswitch:{number}"))
        .collect()
}

/// The limit on the names of counters: each is a label of a metric.
pub(crate) fn flood_counters() {
    for number in 0..FLOOD {
        jackfield_sdk::count(&format!("counter\n{{}}\" {number}"), 1);
    }
}

/// The limit on derived events.
pub(crate) fn flood_derived(event: &mut Event) {
    for number in 0..FLOOD {
        event.emit(Derived::new("HOSTILE_FLOOD").header("X-Number", number.to_string()));
    }
}

/// The limit on what one input becomes: no call is over its own limit, but each derived event brings as many again.
pub(crate) fn multiply(event: &mut Event) {
    for number in 0..256 {
        event.emit(Derived::new("HOSTILE_MANY").header("X-Number", number.to_string()));
    }
}

/// The limit on output and on host memory caused by a call.
pub(crate) fn set_big_strings(event: &mut Event) {
    event.set("X-Big", "x".repeat(MIB));
    event.set_body("y".repeat(MIB));
}

/// The rule that waiting traps: the deadline alone does not end a wait in the host.
pub(crate) fn sleep() {
    std::thread::sleep(Duration::from_secs(3600));
}

/// The cap on log lines and their size.
pub(crate) fn flood_log() {
    let line = "x".repeat(1024);
    for number in 0..FLOOD {
        jackfield_sdk::info!("{number} {line}");
    }
}

/// The cap on standard output, which is no reason to trap.
#[expect(clippy::print_stdout, reason = "the attack")]
pub(crate) fn flood_stdout() {
    let line = "x".repeat(1024);
    for number in 0..FLOOD {
        println!("{number} {line}");
    }
}

/// The limit on what the host holds for an instance: handles that are never given back.
pub(crate) fn hoard_resources() {
    for _ in 0..100_000 {
        std::mem::forget(wasi::wasi::clocks::monotonic_clock::subscribe_duration(0));
    }
}

/// The limit on one call of the host, which no deadline interrupts.
pub(crate) fn ask_for_huge_random() {
    black_box(wasi::wasi::random::random::get_random_bytes(48 << 20));
}

/// WASI where the standard library does not lead to it.
mod wasi {
    #![allow(
        clippy::all,
        clippy::pedantic,
        clippy::restriction,
        unsafe_code,
        unreachable_pub,
        missing_docs,
        reason = "generated"
    )]
    wit_bindgen::generate!({
        inline: r"
            package hostile:attacks;
            world attacks {
                import wasi:clocks/monotonic-clock@0.2.0;
                import wasi:random/random@0.2.0;
            }
            package wasi:io@0.2.0 {
                interface poll {
                    resource pollable { ready: func() -> bool; block: func(); }
                    poll: func(in: list<borrow<pollable>>) -> list<u32>;
                }
            }
            package wasi:clocks@0.2.0 {
                interface monotonic-clock {
                    use wasi:io/poll@0.2.0.{pollable};
                    type instant = u64;
                    type duration = u64;
                    now: func() -> instant;
                    resolution: func() -> duration;
                    subscribe-instant: func(when: instant) -> pollable;
                    subscribe-duration: func(when: duration) -> pollable;
                }
            }
            package wasi:random@0.2.0 {
                interface random {
                    get-random-bytes: func(len: u64) -> list<u8>;
                    get-random-u64: func() -> u64;
                }
            }
        ",
        generate_all,
    });
}

/// The lock on WASI: environment, arguments, files, sockets. `X-Escapes` names what was reached, or says `none`.
pub(crate) fn look_for_a_way_out(event: &mut Event) {
    let tries = [
        ("environment", std::env::vars_os().next().is_some()),
        ("arguments", std::env::args_os().next().is_some()),
        (
            "read-folder",
            std::fs::read_dir("/").is_ok() || std::fs::read_dir(".").is_ok(),
        ),
        ("read-file", std::fs::read("/etc/passwd").is_ok()),
        (
            "write-file",
            std::fs::write("/tmp/hostile-was-here", "x").is_ok(),
        ),
        ("socket", TcpStream::connect("127.0.0.1:6379").is_ok()),
        ("name-lookup", TcpStream::connect("localhost:6379").is_ok()),
    ];
    let reached: Vec<&str> = tries
        .iter()
        .filter(|(_, reached)| *reached)
        .map(|(what, _)| *what)
        .collect();
    let report = if reached.is_empty() {
        "none".to_owned()
    } else {
        reached.join(",")
    };
    jackfield_sdk::info!("ways out: {report}");
    event.set("X-Escapes", report);
}
