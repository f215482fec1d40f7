//! Files that are no filters, or no good ones: each is refused with a sentence that helps its author, while the filters beside it
//! go on with every event.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::forged::{self, Forged, Manifest, contract};
use crate::harness::{self, Host, Redis, Setup, component, wait_for};
use crate::hostile::{GOOD, assert_counted};
use crate::scene::{Scene, quiet_switch};

const LOOP: &str = "(loop $again (br $again)) (unreachable)";
const TRAP: &str = "(unreachable)";

/// A file's name, its bytes, and why it is refused.
type Refused<'a> = (&'a str, Vec<u8>, &'a str);

/// What an attack makes of a manifest.
type Change = fn(&mut Manifest);

/// Between two good filters.
fn among_good(setup: Setup) -> Setup {
    let setup = setup.filter("10-good", "hostile", GOOD);
    setup.filter("90-good", "hostile", GOOD)
}

/// Drops the files while events come, and waits until each is refused for its own reason.
async fn refuse_under_load(files: &[Refused<'_>]) {
    let mut scene = Scene::start(among_good).await;
    let firing = scene.fire_steadily();
    for (name, bytes, _) in files {
        fs::write(scene.host.filters.join(format!("{name}.wasm")), bytes).unwrap();
    }
    let mut wrong = Vec::new();
    for (name, _, why) in files {
        let filter = scene
            .host
            .wait_filter(name, |filter| !filter["last_error"].is_null());
        if filter["last_error"] != *why {
            wrong.push(format!("{name}: {}", filter["last_error"]));
        }
        let refused = format!("filter=\"{name}\"");
        let refused = scene.metric("jackfield_filter_refused_total", &refused);
        assert_eq!(refused, 1, "{name} is tried once");
    }
    assert!(
        wrong.is_empty(),
        "other reasons than expected:\n{}",
        wrong.join("\n")
    );
    scene.stop(firing);
    assert_counted(&scene.all_delivered());
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_no_filters_say_what_they_are() {
    let program = "package wasi:cli@0.2.6; interface run { run: func() -> result; } world program { export run; }";
    let run = r#"(module (func (export "wasi:cli/run@0.2.6#run") (result i32) (i32.const 0)))"#;
    let version = |version| {
        Forged {
            version,
            ..Forged::default()
        }
        .bytes()
    };
    let with_import = |import: &str, more: &str, fields: &str| {
        Forged {
            wit: contract().replace("world filter {", &format!("world filter {{ {import}")) + more,
            fields: fields.to_owned(),
            ..Forged::default()
        }
        .bytes()
    };
    let files: Vec<Refused> = vec![
        (
            "20-empty",
            Vec::new(),
            "is empty; a filter is a WebAssembly component",
        ),
        (
            "20-script",
            b"#!/bin/sh\nreboot\n".to_vec(),
            "is not WebAssembly: it starts with \"#!/bin/s\", not with \"\\x00asm\"",
        ),
        (
            "20-core",
            b"\0asm\x01\0\0\0".to_vec(),
            "is a core module that does not say which component it is; build it for wasm32-wasip2",
        ),
        (
            "20-core-forged",
            b"\0asm\x01\0\0\0\0\x12\x0ecomponent-type\xff\xff\xff".to_vec(),
            "is damaged or no valid component: the core module cannot be made a component (build it for wasm32-wasip2): decoding custom section component-type: unexpected end-of-file (at offset 0x0)",
        ),
        (
            "20-world",
            b"\0asm\x0d\0\x01\0".to_vec(),
            "is no filter: it exports nothing, not jackfield:filter/handler@0.1.0; is `jackfield_sdk::export!` missing, or is it a program?",
        ),
        (
            "20-program",
            forged::of_world(run, program, "program"),
            "is no filter: it exports wasi:cli/run@0.2.6, not jackfield:filter/handler@0.1.0; is `jackfield_sdk::export!` missing, or is it a program?",
        ),
        (
            "20-newer",
            version("0.2.0"),
            "is built for contract jackfield:filter@0.2.0; this host speaks 0.1.0: rebuild it with the jackfield-sdk and wit/ of this host, or run a host that speaks 0.2.0",
        ),
        (
            "20-patched",
            version("0.1.1"),
            "is built for contract jackfield:filter@0.1.1; this host speaks 0.1.0: rebuild it with the jackfield-sdk and wit/ of this host, or run a host that speaks 0.1.1",
        ),
        (
            "20-import",
            with_import(
                "import team:db/query;",
                "package team:db { interface query { ask: func(); } }",
                r#"(import "team:db/query" "ask" (func))"#,
            ),
            "imports team:db/query, which this host does not offer; it offers jackfield:filter@0.1.0 and WASI 0.2's cli, clocks, filesystem, io, random, sockets",
        ),
        (
            "20-other-import",
            Forged {
                wit: contract().replace("by: u64", "by: u32"),
                fields:
                    r#"(import "jackfield:filter/host@0.1.0" "count" (func (param i32 i32 i32)))"#
                        .to_owned(),
                ..Forged::default()
            }
            .bytes(),
            "does not fit contract jackfield:filter@0.1.0: component imports instance `jackfield:filter/host@0.1.0`, but a matching implementation was not found in the linker: instance export `count` has the wrong type: type mismatch with parameters: expected `u64` found `u32`",
        ),
        (
            "20-other-export",
            Forged {
                wit: contract().replace("save: func() -> list<u8>", "save: func() -> u32"),
                ..Forged::default()
            }
            .bytes(),
            "trap: expected `list` found `u32`",
        ),
    ];
    refuse_under_load(&files).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_is_cut_anywhere_is_damaged() {
    let whole = fs::read(component("hostile")).unwrap();
    let mut scene = Scene::start(among_good).await;
    let firing = scene.fire_steadily();
    let cuts = [9, 10, 11, 100, 1_000]
        .into_iter()
        .chain((1..=45).map(|cut| cut * whole.len() / 46))
        .chain([whole.len() - 1]);
    let cuts: Vec<usize> = cuts.collect();
    let name = |cut: &usize| format!("20-cut-{cut:06}");
    for cut in &cuts {
        let path = scene.host.filters.join(format!("{}.wasm", name(cut)));
        fs::write(path, &whole[..*cut]).unwrap();
    }
    for cut in &cuts {
        let filter = scene
            .host
            .wait_filter(&name(cut), |filter| !filter["last_error"].is_null());
        let error = filter["last_error"].as_str().unwrap();
        assert!(
            error.starts_with("is damaged or no valid component: "),
            "{cut}: {error}"
        );
    }
    scene.stop(firing);
    assert_counted(&scene.all_delivered());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_cannot_come_up_is_refused_by_the_limit_that_it_meets() {
    let fields = |fields: &str| {
        Forged {
            fields: fields.to_owned(),
            ..Forged::default()
        }
        .bytes()
    };
    let configure = |configure| {
        Forged {
            configure,
            ..Forged::default()
        }
        .bytes()
    };
    let realloc = |realloc: &str| {
        Forged {
            realloc: realloc.to_owned(),
            ..Forged::default()
        }
        .bytes()
    };
    let deep = Forged {
        configure: "(call $deep)",
        ..Forged::default()
    };
    let table = "(table $table 1 funcref)".to_owned();
    let error = format!(
        "settings refused: {}…",
        "x".repeat(512 - "settings refused: ".len())
    );
    let files: Vec<Refused> = vec![
        ("20-start-loop", fields(&format!("(func $start {LOOP}) (start $start)")), "deadline: no answer within 100 ms"),
        ("20-start-trap", fields("(func $start unreachable) (start $start)"), "trap: wasm `unreachable` instruction executed"),
        ("20-start-deep", fields("(func $start call $start) (start $start)"), "trap: call stack exhausted"),
        ("20-configure-loop", configure(LOOP), "deadline: no answer within 100 ms"),
        ("20-configure-trap", configure(TRAP), "trap: wasm `unreachable` instruction executed"),
        ("20-configure-deep", Forged { fields: "(func $deep (result i32) call $deep)".to_owned(), ..deep }.bytes(), "trap: call stack exhausted"),
        ("20-realloc-loop", realloc(LOOP), "deadline: no answer within 100 ms"),
        ("20-realloc-trap", realloc(TRAP), "trap: wasm `unreachable` instruction executed"),
        ("20-realloc-outside", realloc("(i32.const -16)"), "trap: realloc return: beyond end of memory"),
        ("20-memory", Forged { memory: 1_000, ..Forged::default() }.bytes(), "memory: over the limit of 16777216 bytes"),
        ("20-memory-grows", configure("(drop (memory.grow (i32.const 60000))) (unreachable)"), "memory: over the limit of 16777216 bytes"),
        ("20-table", fields("(table 200000 funcref)"), "memory: over the limit of 16777216 bytes"),
        ("20-table-grows", Forged { fields: table, configure: "(drop (table.grow $table (ref.null func) (i32.const 1000000))) (unreachable)", ..Forged::default() }.bytes(), "memory: over the limit of 16777216 bytes"),
        ("20-memories", fields(&"(memory 1)".repeat(5)), "trap: resource limit exceeded: memory count too high at 6"),
        ("20-tables", fields(&"(table 1 funcref)".repeat(40)), "trap: resource limit exceeded: table count too high at 40"),
        ("20-answer-outside", configure("(i32.const -4)"), "trap: pointer out of bounds of memory"),
        ("20-answer-crooked", configure("(i32.const 65537)"), "trap: return pointer not aligned"),
        ("20-answer-variant", configure("(i32.store8 (i32.const 65536) (i32.const 7)) (i32.const 65536)"), "trap: invalid expected discriminant"),
        ("20-answer-text", configure("(i32.store8 (i32.load (i32.const 65540)) (i32.const 255)) (i32.const 65536)"), "trap: invalid utf-8 sequence of 1 bytes from index 0"),
        ("20-answer-endless", configure("(i32.store (i32.const 65544) (i32.const -1)) (i32.const 65536)"), "trap: string pointer/length out of bounds of memory"),
        ("20-answer-multiplied", configure(MULTIPLIED), "trap: too much data is being copied between the host and the guest: fuel allocated for hostcalls has been exhausted"),
        ("20-error-endless", configure(ENDLESS_ERROR), &error),
    ];
    refuse_under_load(&files).await;
}

/// An error's text of two megabytes.
const ENDLESS_ERROR: &str = "(memory.fill (i32.const 131072) (i32.const 120) (i32.const 2000000))
    (i32.store8 (i32.const 65536) (i32.const 1))
    (i32.store (i32.const 65540) (i32.const 131072))
    (i32.store (i32.const 65544) (i32.const 2000000))
    (i32.const 65536)";

/// A list of 300,000 names that are all the same 100,000 bytes.
const MULTIPLIED: &str = "(local $i i32)
    (loop $fill
        (i32.store (i32.add (i32.const 1048576) (i32.mul (local.get $i) (i32.const 8))) (i32.const 3500000))
        (i32.store (i32.add (i32.const 1048580) (i32.mul (local.get $i) (i32.const 8))) (i32.const 100000))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $fill (i32.lt_u (local.get $i) (i32.const 300000))))
    (i32.store (i32.const 65556) (i32.const 1048576))
    (i32.store (i32.const 65560) (i32.const 300000))
    (i32.const 65536)";

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_manifest_is_refused_with_what_is_wrong_in_it() {
    let named = |name: &str, version: &str| {
        format!(
            "manifest: name {name:?} or version {version:?} is empty, over 128 bytes or has control characters"
        )
    };
    let event = |event: &str| {
        format!(
            "manifest: event {event:?}; allowed are an Event-Name in capitals, `CUSTOM <subclass>` and `JACKFIELD <subclass>`, up to 128 bytes"
        )
    };
    let many = "manifest: over 1024 events or headers";
    let cases: Vec<(&str, Change, String)> = vec![
        ("20-nameless", |it| it.name.clear(), named("", "1")),
        (
            "20-long",
            |it| it.name = "x".repeat(1 << 20),
            named(&"x".repeat(64), "1"),
        ),
        (
            "20-control",
            |it| it.name = "a\r\n\u{1b}[2J".to_owned(),
            named("a\r\n\u{1b}[2J", "1"),
        ),
        (
            "20-no-version",
            |it| it.version.clear(),
            named("forged", ""),
        ),
        (
            "20-many-events",
            |it| it.events = vec!["CODEC".to_owned(); 5_000],
            many.to_owned(),
        ),
        (
            "20-many-headers",
            |it| it.headers = vec!["X".to_owned(); 5_000],
            many.to_owned(),
        ),
        (
            "20-all",
            |it| it.events = vec!["ALL".to_owned()],
            event("ALL"),
        ),
        (
            "20-lower",
            |it| it.events = vec!["codec".to_owned()],
            event("codec"),
        ),
        (
            "20-injected",
            |it| it.events = vec!["CODEC\n\nexit".to_owned()],
            event("CODEC\n\nexit"),
        ),
        (
            "20-subclass",
            |it| it.events = vec!["CUSTOM a b".to_owned()],
            event("CUSTOM a b"),
        ),
        (
            "20-long-event",
            |it| it.events = vec!["X".repeat(1 << 20)],
            event(&"X".repeat(64)),
        ),
        (
            "20-no-header",
            |it| it.headers = vec![String::new()],
            "manifest: a header's name is empty".to_owned(),
        ),
    ];
    let files = cases.iter().map(|(name, change, why)| {
        let mut forged = Forged::default();
        change(&mut forged.manifest);
        (*name, forged.bytes(), why.as_str())
    });
    refuse_under_load(&files.collect::<Vec<_>>()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_is_slow_or_asks_for_a_tick_always_or_never_is_odd_but_works() {
    let mut scene = Scene::start(|setup| {
        among_good(setup).filter(
            "20-slow",
            "hostile",
            "attack = \"slow\"\nwork = 1_000_000\n",
        )
    })
    .await;
    for (name, tick_ms) in [("30-always", 1), ("30-never", u32::MAX)] {
        let manifest = Manifest {
            tick_ms,
            ..Manifest::default()
        };
        let forged = Forged {
            manifest,
            ..Forged::default()
        };
        let path = scene.host.filters.join(format!("{name}.wasm"));
        fs::write(path, forged.bytes()).unwrap();
        scene
            .host
            .wait_filter(name, |filter| filter["state"] == "running");
    }
    scene.fire(1_000);
    assert_counted(&scene.all_delivered());
    for name in ["20-slow", "30-always", "30-never"] {
        let filter = scene.host.wait_filter(name, |_| true);
        assert!(filter["last_error"].is_null(), "{filter:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_too_large_is_not_read() {
    let mut scene = Scene::start(among_good).await;
    let enormous = scene.host.filters.join("20-enormous.wasm");
    File::create(&enormous)
        .unwrap()
        .set_len((64 << 20) + 1)
        .unwrap();
    let why = "cannot be read: filters.d/20-enormous.wasm has 67108865 bytes; at most 67108864 are allowed";
    scene
        .host
        .wait_filter("20-enormous", |filter| filter["last_error"] == why);
    scene.fire(3);
    assert_counted(&scene.all_delivered());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_takes_no_more_of_the_compiler_than_it_may() {
    // A million additions in one function take over a gigabyte.
    let additions = [
        &b"\x01\x01\x7f\x20\0"[..],
        &b"\x20\0\x28\x02\0\x6a".repeat(1_100_000),
        b"\x0b",
    ]
    .concat();
    let bomb = forged::of_body(&additions);
    refuse_under_load(&[(
        "20-bomb",
        bomb,
        "needed more memory to compile than 1073741824 bytes",
    )])
    .await;
}

/// Blocks within blocks: the time to compile them grows with the square of their number. These take minutes.
fn endless() -> Vec<u8> {
    const BLOCKS: usize = 300_000;
    let enter = b"\x02\x40".repeat(BLOCKS);
    let leave = b"\x20\0\x0d\0\x0b".repeat(BLOCKS);
    forged::of_body(&[b"\x01\x01\x7f", &*enter, &leave, b"\x20\0\x0b"].concat())
}

/// The compiler that comes after the one which had only what nothing else wanted.
fn wait_second_compiler(host: &Host) -> u32 {
    wait_for("the second compiler", || {
        harness::compiler(host.pid(), |command| !command.contains("--idle"))
    })
}

/// The class in which the kernel schedules a process: the 41st field of its status.
fn scheduled(process: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field may have spaces, and ends with the last parenthesis.
    let (_, from_third) = stat.rsplit_once(')')?;
    from_third.split_whitespace().nth(38).map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_compiles_for_ever_keeps_neither_events_nor_a_stop_waiting() {
    const SCHED_IDLE: &str = "5";
    let mut scene = Scene::start(among_good).await;
    let bomb = scene.host.filters.join("20-bomb.wasm");
    // What the kernel does after a minute of processor time, and what a fault of the compiler would be.
    for (signal, why) in [
        ("XCPU", "took longer to compile than 60 s"),
        ("ABRT", "crashed the compiler: signal: 6 (SIGABRT)"),
    ] {
        let mut bytes = endless();
        // A digest of its own.
        bytes.extend([0, 3, 1, b'b', signal.as_bytes()[0]]);
        fs::write(&bomb, bytes).unwrap();
        wait_for("a compiler behind the threads that move events", || {
            let first = harness::compiler(scene.host.pid(), |_| true)?;
            scheduled(first).filter(|class| class == SCHED_IDLE)
        });
        let compiler = wait_second_compiler(&scene.host);
        scene.fire(100);
        scene.all_delivered();
        harness::signal(compiler, signal);
        scene
            .host
            .wait_filter("20-bomb", |filter| filter["last_error"] == why);
    }
    fs::write(&bomb, endless()).unwrap();
    // What an init system does to all processes of a host that stops says nothing of the file: it is tried again.
    harness::signal(wait_second_compiler(&scene.host), "TERM");
    scene.host.wait_filter("20-bomb", |filter| {
        filter["last_error"] == "cannot be compiled: the compiler was ended: signal: 15 (SIGTERM)"
    });
    fs::write(&bomb, endless()).unwrap();
    let compiler = scene.host.wait_compiler();
    scene.fire(100);
    assert_counted(&scene.all_delivered());
    let stopped = Instant::now();
    scene.host.stop();
    assert!(
        stopped.elapsed() < Duration::from_secs(5),
        "a stop does not wait for a compiler"
    );
    assert!(
        !Path::new(&format!("/proc/{compiler}")).exists(),
        "which ends with its host"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_compiles_while_it_starts_is_stopped_at_once() {
    let (switch, redis) = (quiet_switch().await, Redis::start());
    let setup = Setup::new(switch.addr(), &redis);
    fs::create_dir_all(setup.filters()).unwrap();
    fs::write(setup.filters().join("20-bomb.wasm"), endless()).unwrap();
    let mut host = setup.command().spawn().unwrap();
    harness::wait_compiler(host.id());
    harness::signal(host.id(), "TERM");
    let ended = wait_for("the host ends", || host.try_wait().unwrap());
    assert_eq!(ended.code(), Some(0), "nothing came, so nothing is lost");
}

/// `body` once `configure` was called, which arms it.
fn armed(body: &str) -> String {
    format!("(if (global.get $armed) (then {body}))")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_no_compiler_makes_fails_its_call_and_no_other() {
    let deadline = "[jackfield]\ndeadline = \"50ms\"\n";
    let global = "(global $armed (mut i32) (i32.const 0))";
    let arming = "(global.set $armed (i32.const 1)) (i32.const 65536)";
    let (endless, outside) = (armed(LOOP), armed("(return (i32.const -16))"));
    let realloc = |body: &str| Forged {
        fields: global.to_owned(),
        configure: arming,
        realloc: format!("{body} (i32.const 8192)"),
        ..Forged::default()
    };
    let handle = |handle| Forged {
        handle,
        ..Forged::default()
    };
    let afterwards = r#"(func (export "cabi_post_jackfield:filter/handler@0.1.0#handle") (param i32) (loop $again (br $again)))"#;
    let attacks = [
        (
            "20-realloc-loop",
            realloc(&endless),
            "deadline",
            "deadline: no answer within 50 ms",
        ),
        (
            "20-realloc-outside",
            realloc(&outside),
            "trap",
            "trap: realloc return: beyond end of memory",
        ),
        (
            "20-post-loop",
            Forged {
                fields: afterwards.to_owned(),
                ..Forged::default()
            },
            "deadline",
            "deadline: no answer within 50 ms",
        ),
        (
            "20-outside",
            handle("(i32.const -4)"),
            "trap",
            "trap: pointer out of bounds of memory",
        ),
        (
            "20-crooked",
            handle("(i32.const 65537)"),
            "trap",
            "trap: return pointer not aligned",
        ),
        (
            "20-variant",
            handle("(i32.store8 (i32.const 2048) (i32.const 9)) (i32.const 2048)"),
            "trap",
            "trap: unexpected discriminant: 9",
        ),
        (
            "20-reason",
            handle(
                "(i32.store8 (i32.const 2048) (i32.const 1)) (i32.store (i32.const 2052) (i32.const -1)) (i32.store (i32.const 2056) (i32.const -1)) (i32.const 2048)",
            ),
            "trap",
            "trap: string pointer/length out of bounds of memory",
        ),
        (
            "20-edits",
            handle(
                "(i32.store (i32.const 2060) (i32.const 4096)) (i32.store (i32.const 2064) (i32.const 268435455)) (i32.const 2048)",
            ),
            "trap",
            "trap: list pointer/length out of bounds of memory",
        ),
        (
            "20-multiplied",
            handle(MULTIPLIED_EDITS),
            "trap",
            "trap: too much data is being copied between the host and the guest: fuel allocated for hostcalls has been exhausted",
        ),
    ];
    let mut scene = Scene::start(|setup| {
        let setup = among_good(setup);
        for (name, forged, ..) in &attacks {
            fs::write(setup.filters().join(format!("{name}.wasm")), forged.bytes()).unwrap();
            fs::write(setup.filters().join(format!("{name}.toml")), deadline).unwrap();
        }
        setup
    })
    .await;
    scene.fire(3);
    assert_counted(&scene.all_delivered());
    let mut wrong = Vec::new();
    for (name, _, cause, error) in attacks {
        let filter = scene
            .host
            .wait_filter(name, |filter| !filter["last_error"].is_null());
        if filter["last_error"] != error {
            wrong.push(format!("{name}: {}", filter["last_error"]));
        }
        let errors = scene.metric(
            "jackfield_filter_errors_total",
            &format!("filter=\"{name}\",cause=\"{cause}\""),
        );
        assert_eq!(errors, 3, "{name}: counted by its cause");
    }
    assert!(
        wrong.is_empty(),
        "other errors than expected:\n{}",
        wrong.join("\n")
    );
}

/// A thousand times the same header of a megabyte.
const MULTIPLIED_EDITS: &str = "(local $at i32)
    (local.set $at (i32.const 1048576))
    (loop $fill
        (i32.store offset=4 (local.get $at) (i32.const 2097152))
        (i32.store offset=8 (local.get $at) (i32.const 100))
        (i32.store offset=12 (local.get $at) (i32.const 2097152))
        (i32.store offset=16 (local.get $at) (i32.const 1000000))
        (local.set $at (i32.add (local.get $at) (i32.const 20)))
        (br_if $fill (i32.lt_u (local.get $at) (i32.const 1068576))))
    (i32.store (i32.const 2060) (i32.const 1048576))
    (i32.store (i32.const 2064) (i32.const 1000))
    (i32.const 2048)";
