//! What a filter does wrong is its own loss: stopped by a limit, named, treated by its `on_error`, while every other filter
//! and every other event goes on.

use serde_json::{Value, json};

use crate::harness::{Setup, component, field, place_filter, wait_for};
use crate::scene::{DEAD, EVENTS, Scene, number};

const GOOD: &str = "attack = \"counter\"\n";

fn attack(name: &str, on_error: &str) -> String {
    format!("attack = \"{name}\"\n[jackfield]\non_error = \"{on_error}\"\n")
}

/// Before and behind a good filter, so that both see what the bad one leaves.
fn bad_among_good(setup: Setup, settings: &str) -> Setup {
    let setup = setup.filter("10-good", "hostile", GOOD).filter("20-bad", "hostile", settings);
    setup.filter("30-good", "hostile", GOOD)
}

/// The good filter counts every event of the stream without a gap.
#[track_caller]
fn assert_counted(events: &[Value]) {
    for (event, place) in events.iter().zip(1..) {
        assert_eq!(event["X-Count"], json!(place.to_string()), "the good filter saw every event in order: {event}");
    }
}

fn errors(scene: &Scene, cause: &str) -> u64 {
    scene.metric("jackfield_filter_errors_total", &format!("filter=\"20-bad\",cause=\"{cause}\""))
}

/// The attack fails with this cause and these words at each of three events, which pass on unchanged.
async fn passes_after(name: &str, cause: &str, error: &str) {
    let mut scene = Scene::start(|setup| bad_among_good(setup, &attack(name, "pass"))).await;
    scene.fire(3);
    let events = scene.all_delivered();
    assert_eq!(events.len(), 3, "and nothing else");
    assert_counted(&events);
    assert!(events.iter().all(|event| event.get("X-Big").is_none()), "nothing of a bad answer is applied");
    let bad = scene.host.wait_filter("20-bad", |filter| !filter["last_error"].is_null());
    let said = bad["last_error"].as_str().unwrap();
    assert_eq!(said, error, "what went wrong");
    assert_eq!(errors(&scene, cause), 3, "counted by its cause");
    assert!(scene.host.log().contains("filter failed filter=\"20-bad\""), "and logged: {}", scene.host.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_misses_the_deadline() {
    passes_after("loop", "deadline", "deadline: no answer within 1000 ms").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trap_is_a_trap() {
    passes_after("trap", "trap", "trap: wasm `unreachable` instruction executed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hunger_for_memory_ends_at_the_limit() {
    passes_after("memory", "memory", "memory: over the limit of 16777216 bytes").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deep_recursion_ends_in_a_trap() {
    passes_after("deep-recursion", "trap", "trap: call stack exhausted").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_not_allowed_is_bad_output() {
    let error = "bad output: stream \"not:an:allowed:stream\" is not allowed (filters.streams = [\"freeswitch:*\"])";
    passes_after("bad-stream", "bad_output", error).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_to_nowhere_is_bad_output_and_no_drop() {
    passes_after("route-nothing", "bad_output", "bad output: route([]) names no stream; say drop with a reason instead").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_name_that_no_header_can_have_is_bad_output() {
    let error = "bad output: header name \"\" is empty, over 512 bytes or has control characters";
    passes_after("bad-header", "bad_output", error).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_derived_events_is_bad_output() {
    passes_after("flood-derived", "bad_output", "bad output: 2000 derived events; at most 256 are allowed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn very_long_values_are_bad_output() {
    passes_after("big-strings", "bad_output", "bad output: 2097157 bytes of text of one input; at most 1048576 are allowed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sleeping_traps_instead_of_holding_the_pipeline() {
    passes_after("sleep", "trap", "trap: a filter must not wait (sleep or poll)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_ends_the_call_and_not_the_host() {
    passes_after("exit", "trap", "trap: Exited with i32 exit status 0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handles_of_the_host_cannot_be_hoarded() {
    passes_after("hoard-resources", "trap", "trap: resource table has no free keys").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_call_cannot_make_the_host_work_for_long() {
    passes_after("huge-random", "trap", "trap: requested len 50331648 exceeds limit 65536").await;
}

/// Fires three events at an attack with this `on_error`; gives the scene, settled.
async fn attacked(name: &str, on_error: &str) -> Scene {
    let mut scene = Scene::start(|setup| bad_among_good(setup, &attack(name, on_error))).await;
    scene.fire(3);
    scene.settle();
    assert!(scene.redis.events(EVENTS).is_empty(), "no event gets past the bad filter");
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_drop_events_where_on_error_says_so_with_the_cause_as_reason() {
    for (name, cause) in [("loop", "deadline"), ("trap", "trap"), ("memory", "memory"), ("route-nothing", "bad_output")] {
        let scene = attacked(name, "drop").await;
        let counts = &scene.host.status()["counts"];
        assert_eq!(counts["dropped_by"], json!([{"by": "20-bad", "reason": cause, "events": 3}]), "{name}: counted, not silent");
        assert_eq!(errors(&scene, cause), 3, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_dead_letter_events_where_on_error_says_so_with_the_error_as_reason() {
    for (name, error) in [
        ("loop", "deadline: no answer within 1000 ms"),
        ("trap", "trap: wasm `unreachable` instruction executed"),
        ("memory", "memory: over the limit of 16777216 bytes"),
        ("route-nothing", "bad output: route([]) names no stream; say drop with a reason instead"),
    ] {
        let scene = attacked(name, "dead-letter").await;
        assert_eq!(scene.host.count("dead_lettered"), 3, "{name}");
        for (dead, place) in scene.redis.entries(DEAD).iter().zip(0..) {
            assert_eq!((field(dead, "filter"), field(dead, "reason")), ("20-bad", error), "{name}: who and why");
            let event: Value = serde_json::from_str(field(dead, "event")).unwrap();
            assert_eq!(number(&event), Some(place), "{name}: the event as it came to the bad filter, in order");
            assert_eq!(event["X-Count"], (place + 1).to_string(), "{name}: with what the filter before it did");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_keeps_failing_rests_and_its_on_error_still_decides() {
    let mut scene = Scene::start(|setup| bad_among_good(setup, &attack("trap", "drop"))).await;
    scene.fire(30);
    let counts = scene.settle()["counts"].clone();
    let by = |reason: &str, events: u64| json!({"by": "20-bad", "reason": reason, "events": events});
    assert_eq!(counts["dropped_by"], json!([by("not_running", 20), by("trap", 10)]), "ten tries, then a rest of a second");
    let bad = scene.host.wait_filter("20-bad", |filter| filter["state"] == "failing");
    assert_eq!(bad["last_error"], "trap: wasm `unreachable` instruction executed");
    assert!(scene.host.log().contains("filter keeps failing and rests between tries"));
    place_filter(&scene.host.filters, "20-bad", &component("hostile"), "attack = \"version\"\nversion = \"cured\"\n");
    scene.host.wait_filter("20-bad", |filter| filter["state"] == "running" && filter["last_error"].is_null());
    scene.fire(1);
    scene.settle();
    assert_eq!(scene.newest().unwrap()["X-Version"], "cured", "a new version does not inherit the rest");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_fails_now_and_then_comes_back_with_its_saved_state() {
    // It loses what it counted since, as nothing was saved; it is the next event that finds it working.
    let settings = "attack = \"trap\"\nafter = 2\n";
    let mut scene = Scene::start(|setup| bad_among_good(setup, settings)).await;
    scene.fire(6);
    assert_counted(&scene.all_delivered());
    assert_eq!(errors(&scene, "trap"), 3, "every other event, as each new instance starts to count anew");
    let bad = scene.host.wait_filter("20-bad", |_| true);
    assert_eq!(bad["state"], "running", "it never failed ten times in a row");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_filters_multiply_end_at_a_limit_of_their_input() {
    let mut scene = Scene::start(|setup| {
        let setup = bad_among_good(setup, &attack("multiply", "pass")).filter("25-bad", "hostile", &attack("multiply", "pass"));
        setup.filter("26-bad", "hostile", &attack("multiply", "pass"))
    })
    .await;
    scene.fire(2);
    let status = scene.settle();
    let derived = status["counts"]["derived"].as_u64().unwrap();
    assert!((256..=2 * 1024).contains(&derived), "at most 1,024 of each input: {derived}");
    let numbers: Vec<_> = scene.redis.events(EVENTS).iter().filter_map(number).collect();
    assert_eq!(numbers, [0, 1], "the inputs themselves are not harmed");
    let late = scene.host.wait_filter("26-bad", |filter| !filter["last_error"].is_null());
    assert_eq!(late["last_error"], "bad output: over 1024 derived events of one input");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_output_is_capped_counted_and_no_failure() {
    for (name, caps) in [("flood-log", "filter log"), ("flood-stdout", "filter output")] {
        let mut scene = Scene::start(|setup| bad_among_good(setup, &attack(name, "drop"))).await;
        scene.fire(3);
        assert_counted(&scene.all_delivered());
        let dropped = scene.metric("jackfield_filter_output_dropped_bytes_total", "filter=\"20-bad\"");
        assert!(dropped > 3 * 2_000 * 1_000, "{name}: of 6 MB all but some kilobytes are dropped: {dropped}");
        let log = scene.host.log();
        let logged: usize = log.lines().filter(|line| line.contains(caps)).map(str::len).sum();
        assert!((1_000..3 * 6_000).contains(&logged), "{name}: the log has the first 4 KiB of each call: {logged}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wasi_leads_nowhere() {
    let settings = "attack = \"env\"\n";
    let mut scene = Scene::start(|setup| setup.env("SECRET_OF_THE_HOST", "x").filter("10-env", "hostile", settings)).await;
    scene.fire(1);
    let events = scene.all_delivered();
    assert_eq!(events[0]["X-Escapes"], "none", "no environment, arguments, files, sockets, names");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_cannot_start_is_refused_with_its_reason() {
    for (name, error) in [
        ("loop-in-configure", "deadline: no answer within 100 ms"),
        ("refuse", "settings refused: refused: `attack` is \"refuse\""),
    ] {
        let mut scene = Scene::start(|setup| bad_among_good(setup, &attack(name, "pass"))).await;
        scene.fire(3);
        assert_counted(&scene.all_delivered());
        let bad = scene.host.wait_filter("20-bad", |_| true);
        assert_eq!((&bad["state"], &bad["last_error"]), (&json!("refused"), &json!(error)), "{name}");
        assert_eq!(scene.metric("jackfield_filter_refused_total", "filter=\"20-bad\""), 1, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_cannot_save_gives_way_to_the_next_one_all_the_same() {
    for (name, cause) in [("trap-in-save", "trap"), ("loop-in-save", "deadline")] {
        let mut scene = Scene::start(|setup| bad_among_good(setup, &attack(name, "drop"))).await;
        scene.fire(3);
        scene.settle();
        place_filter(&scene.host.filters, "20-bad", &component("hostile"), "attack = \"version\"\nversion = \"next\"\n");
        wait_for("the next version is live", || (errors(&scene, cause) == 1).then_some(()));
        scene.fire(3);
        let events = scene.all_delivered();
        assert_counted(&events);
        assert_eq!(events[5]["X-Version"], "next", "{name}: the new version runs");
        assert!(scene.host.log().contains("filter could not save its state"), "{name}: and the loss is in the log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_fails_in_tick_does_not_keep_events_waiting() {
    for (name, cause) in [("trap-in-tick", "trap"), ("loop-in-tick", "deadline")] {
        let settings = format!("attack = \"{name}\"\ntick_ms = 1\n[jackfield]\ndeadline = \"10ms\"\n");
        let mut scene = Scene::start(|setup| bad_among_good(setup, &settings)).await;
        scene.host.wait_filter("20-bad", |filter| filter["state"] == "failing");
        assert!(errors(&scene, cause) >= 10, "{name}: counted by its cause");
        let fired = std::time::Instant::now();
        scene.fire(50);
        assert_counted(&scene.all_delivered());
        assert!(fired.elapsed().as_millis() < 900, "{name}: events do not wait for its rest to end: {:?}", fired.elapsed());
    }
}
