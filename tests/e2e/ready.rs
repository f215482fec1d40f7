//! The filter `ready` from end to end: a call's events, `READY` once, and a handler that takes it from its stream.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jackfield::simulator::{Event, Simulator};
use serde_json::{Value, json};

use crate::harness::{Host, Redis, Setup, component, field, place_filter, wait_for};
use crate::scene::quiet_switch;

const STREAM: &str = "freeswitch:ready";
const FILTER: &str = "10-ready";
const NEEDS: [&str; 3] = ["answered", "conference", "crm"];

const ROUTES: &str = "[[stream]]\nname = \"freeswitch:ready\"\nevents = [\"READY\", \"READY_TIMEOUT\"]\nmax_len = 0\n";

fn settings(timeout: &str) -> String {
    format!(
        r#"
timeout = "{timeout}"
link = ["CHANNEL_BRIDGE"]
[[need]]
name = "answered"
event = "CHANNEL_ANSWER"
[[need]]
name = "conference"
event = "CUSTOM conference::maintenance"
header = "Action"
value = "add-member"
[[need]]
name = "crm"
event = "CUSTOM app::loaded"
"#
    )
}

fn setup(switch: &Simulator, redis: &Redis, timeout: &str) -> Setup {
    let setup = Setup::new(switch.addr(), redis).config(ROUTES);
    let setup = setup
        .env("JACKFIELD_FILTERS_DEADLINE", "1s")
        .env("ESL_RECONNECT_DELAY", "50ms");
    setup.filter(FILTER, "ready", &settings(timeout))
}

/// The call's start, or what meets the need of this name.
fn part(name: &str, call: &str) -> Event {
    let custom = |subclass: &str| Event::new("CUSTOM").header("Event-Subclass", subclass);
    let event = match name {
        "start" => Event::new("CHANNEL_CREATE"),
        "answered" => Event::new("CHANNEL_ANSWER"),
        "conference" => custom("conference::maintenance").header("Action", "add-member"),
        "crm" => custom("app::loaded"),
        _ => unreachable!("{name} is no part of a call"),
    };
    event.header("Unique-ID", call)
}

/// What was said of each call.
fn said(redis: &Redis) -> BTreeMap<String, Vec<String>> {
    let mut said: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for event in redis.events(STREAM) {
        let of = |name: &str| event[name].as_str().unwrap().to_owned();
        said.entry(of("Unique-ID"))
            .or_default()
            .push(of("Event-Name"));
    }
    said
}

/// A consumer in a group, which takes so many events and says when each came.
fn handler(redis: &Redis, count: usize) -> JoinHandle<Vec<(Value, Instant)>> {
    let _: String = redis.ask(&["XGROUP", "CREATE", STREAM, "handlers", "0", "MKSTREAM"]);
    let mut connection = redis.connection();
    std::thread::spawn(move || {
        type Entry = (String, Vec<(String, String)>);
        let mut taken = Vec::new();
        while taken.len() < count {
            let read: Option<Vec<(String, Vec<Entry>)>> = redis::cmd("XREADGROUP")
                .arg(&["GROUP", "handlers", "one", "COUNT", "100", "BLOCK", "10000"])
                .arg(&["STREAMS", STREAM, ">"])
                .query(&mut connection)
                .unwrap();
            let now = Instant::now();
            let (_, entries) = read.expect("an event within ten seconds").remove(0);
            for (id, fields) in entries {
                taken.push((serde_json::from_str(field(&fields, "event")).unwrap(), now));
                let acknowledged = redis::cmd("XACK")
                    .arg(&[STREAM, "handlers", &id])
                    .query(&mut connection);
                assert_eq!(acknowledged, Ok(1));
            }
        }
        taken
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_has_ready_soon_after_the_last_need() {
    const CALLS: usize = 400;
    let (switch, redis) = (quiet_switch().await, Redis::start());
    let host = setup(&switch, &redis, "60s").start();
    host.wait_ready();
    let handler = handler(&redis, CALLS);
    let mut last_need = BTreeMap::new();
    for number in 0..CALLS {
        let call = format!("call-{number}");
        let mut parts = ["start", NEEDS[0], NEEDS[1], NEEDS[2]];
        parts.rotate_left(number % 4);
        for name in parts {
            // Not a wait for anything: the load is some hundred calls a second, as from a FreeSWITCH.
            std::thread::sleep(Duration::from_millis(1));
            last_need.insert(call.clone(), Instant::now());
            switch.fire(part(name, &call));
        }
    }
    let taken = handler.join().unwrap();
    let mut latencies = Vec::new();
    for (event, came) in &taken {
        let call = event["Unique-ID"].as_str().unwrap();
        assert_eq!(event["Event-Name"], "READY", "{event:#}");
        let fired = last_need.remove(call).expect("once for each call");
        latencies.push(came.duration_since(fired));
    }
    latencies.sort();
    let (p50, p99) = (latencies[CALLS / 2], latencies[CALLS * 99 / 100]);
    println!(
        "READY after the last need, at its handler: p50 {p50:.1?}, p99 {p99:.1?} ({CALLS} calls)"
    );
    assert!(
        p50 < Duration::from_secs(1),
        "half of them within a second, not {p50:?}"
    );
    let (event, _) = &taken[0];
    assert_eq!(event["Ready-Needs"], "answered,conference,crm");
    assert_eq!(event["Ready-Phase"], "ready");
    for need in NEEDS {
        let took = event[format!("Ready-Took-Ms-{need}")].as_str().unwrap();
        assert!(
            took.parse::<u64>().is_ok_and(|took| took < 10_000),
            "{event:#}"
        );
    }
    host.wait_settled(switch.sent().queued);
    assert_eq!(said(&redis).len(), CALLS);
}

/// The filter as a file of its own: a section that nothing reads changes its digest.
fn build(folder: &Path, number: u8) -> PathBuf {
    let mut bytes = fs::read(component("ready")).unwrap();
    bytes.extend([0, 3, 1, b'b', number]);
    let path = folder.join(format!("build-{number}.wasm"));
    fs::write(&path, bytes).unwrap();
    path
}

fn swap(host: &Host, number: u8) {
    let digest = |filter: &Value| filter["digest"].as_str().unwrap().to_owned();
    let before = digest(&host.wait_filter(FILTER, |_| true));
    place_filter(&host.filters, FILTER, &build(host.dir(), number), "");
    host.wait_filter(FILTER, |filter| digest(filter) != before);
}

/// Everything is fired before and after each interruption, because what is on the wire at a kill is lost: each call hears of each
/// of its parts up to seven times.
#[tokio::test(flavor = "multi_thread")]
async fn swaps_and_kills_in_the_middle_give_each_call_one_ready() {
    const CALLS: usize = 200;
    let (switch, redis) = (quiet_switch().await, Redis::start());
    let calls: Vec<String> = (0..CALLS).map(|number| format!("call-{number}")).collect();
    let fire = |names: &[&str], calls: &[String]| {
        for name in names {
            for call in calls {
                switch.fire(part(name, call));
            }
        }
    };
    let (early, late) = calls.split_at(CALLS / 2);
    let mut setup = setup(&switch, &redis, "10m");
    for round in 0..3 {
        let host = setup.start();
        host.wait_ready();
        fire(&["crm", "start"], &calls);
        fire(&["answered"], early);
        swap(&host, round);
        fire(&["conference", "answered"], early);
        wait_for("the early calls are ready", || {
            (said(&redis).len() >= early.len()).then_some(())
        });
        fire(&["answered"], late);
        setup = host.kill();
    }
    let host = setup.start();
    host.wait_ready();
    fire(&["conference", "answered", "crm", "start"], &calls);
    wait_for("all calls are ready", || {
        (said(&redis).len() == CALLS).then_some(())
    });
    swap(&host, 3);
    fire(&["start", "answered", "conference", "crm"], &calls);
    host.wait_settled(8 * CALLS as u64);
    let twice: Vec<_> = said(&redis)
        .into_iter()
        .filter(|(_, said)| *said != ["READY"])
        .collect();
    assert!(twice.is_empty(), "one READY for each call, not {twice:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_call_lacks_is_told_after_its_time() {
    let (switch, redis) = (quiet_switch().await, Redis::start());
    let host = setup(&switch, &redis, "300ms").start();
    host.wait_ready();
    switch.fire(part("start", "a"));
    switch.fire(part("crm", "a"));
    let bridge = Event::new("CHANNEL_BRIDGE").header("Unique-ID", "b");
    switch.fire(bridge.header("Other-Leg-Unique-ID", "a"));
    switch.fire(part("answered", "b"));
    let told = wait_for("it is told", || redis.events(STREAM).into_iter().next());
    let header = |name: &str| told[name].as_str().unwrap_or_default().to_owned();
    assert_eq!(header("Event-Name"), "READY_TIMEOUT");
    assert_eq!(
        (header("Unique-ID"), header("Ready-Ids")),
        ("a".into(), "a,b".into()),
        "{told:#}"
    );
    assert_eq!(
        (header("Ready-Reason"), header("Ready-Missing")),
        ("timeout".into(), "conference".into())
    );
    switch.fire(part("conference", "b"));
    host.wait_settled(switch.sent().queued);
    assert_eq!(
        said(&redis),
        BTreeMap::from([("a".to_owned(), vec!["READY_TIMEOUT".to_owned()])])
    );
    let counter = |name: &str| {
        let labels = format!("{{filter=\"{FILTER}\",counter=\"{name}\"}}");
        host.metric(&format!("jackfield_filter_custom_total{labels}"))
    };
    assert_eq!(
        (counter("timeout"), counter("joined"), counter("ready")),
        (Some(1.0), None, None)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_of_another_filter_is_none_of_its_own() {
    let (switch, redis) = (quiet_switch().await, Redis::start());
    let setup = Setup::new(switch.addr(), &redis).config(ROUTES);
    let setup = setup.env("JACKFIELD_FILTERS_DEADLINE", "1s");
    // It wants every event, so FreeSWITCH need not be asked for more before the next version gets its own.
    let host = setup
        .filter(FILTER, "hostile", "attack = \"counter\"\n")
        .start();
    host.wait_ready();
    switch.fire(part("start", "a"));
    host.wait_settled(1);
    place_filter(&host.filters, FILTER, &component("ready"), &settings("60s"));
    host.wait_filter(FILTER, |filter| filter["name"] == "ready");
    host.wait_log("the saved state is damaged or of another version: calls start anew");
    for name in ["start", "answered", "conference", "crm"] {
        switch.fire(part(name, "b"));
    }
    wait_for("it works", || {
        (redis.events(STREAM).len() == 1).then_some(())
    });
    assert_eq!(host.status()["counts"]["balanced"], json!(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_calls_as_it_holds_fit_and_are_handed_over() {
    const CALLS: usize = 10_000;
    let (switch, redis) = (quiet_switch().await, Redis::start());
    let host = setup(&switch, &redis, "10m").start();
    host.wait_ready();
    let id = |number: usize, leg: &str| format!("{number:08}-5d99-4a6b-b8a3-{leg}c0ffee31999");
    for number in 0..CALLS + 100 {
        let a = id(number, "a");
        switch.fire(part("start", &a).header("Other-Leg-Unique-ID", id(number, "b")));
        switch.fire(part("start", &id(number, "b")));
        switch.fire(part("crm", &id(number, "b")));
        switch.fire(part("answered", &a));
    }
    host.wait_settled(4 * (CALLS as u64 + 100));
    swap(&host, 0);
    // The need of a call that gave way makes a new one, to which the next one gives way.
    let (evicted, kept) = (id(99, "a"), id(101, "a"));
    switch.fire(part("conference", &evicted));
    switch.fire(part("conference", &kept));
    wait_for("the oldest is ready", || {
        (said(&redis).get(&kept)? == &["READY"]).then_some(())
    });
    let said = said(&redis);
    assert_eq!(said[&evicted], ["READY_TIMEOUT"]);
    assert_eq!(said.len(), 100 + 1 + 1);
    let filter = host.wait_filter(FILTER, |_| true);
    assert_eq!(
        filter["last_error"],
        json!(null),
        "in its memory, and in time"
    );
}
