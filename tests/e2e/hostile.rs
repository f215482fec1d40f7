//! What a filter does wrong is its own loss: stopped by a limit, named, treated by its `on_error`, while every other filter
//! and every other event goes on.

use jackfield::simulator::Event;
use serde_json::{Value, json};

use crate::harness::{Setup, component, field, place_filter, wait_for};
use crate::scene::{DEAD, EVENTS, Scene, number, runs};

pub const GOOD: &str = "attack = \"counter\"\n";

fn attack(name: &str, on_error: &str) -> String {
    format!("attack = \"{name}\"\n[jackfield]\non_error = \"{on_error}\"\n")
}

/// Before and behind a good filter, so that both see what the bad one leaves.
fn bad_among_good(setup: Setup, settings: &str) -> Setup {
    let setup = setup
        .filter("10-good", "hostile", GOOD)
        .filter("20-bad", "hostile", settings);
    setup.filter("90-good", "hostile", GOOD)
}

/// The good filter counts every event of the stream without a gap.
#[track_caller]
pub fn assert_counted(events: &[Value]) {
    for (event, place) in events.iter().zip(1..) {
        assert_eq!(
            event["X-Count"],
            json!(place.to_string()),
            "the good filter saw every event in order: {event}"
        );
    }
}

fn errors(scene: &Scene, file: &str, cause: &str) -> u64 {
    scene.metric(
        "jackfield_filter_errors_total",
        &format!("filter=\"{file}\",cause=\"{cause}\""),
    )
}

/// What a call can do wrong, the cause that is counted, and what is said of it.
const ATTACKS: [(&str, &str, &str); 20] = [
    ("loop", "deadline", "deadline: no answer within 50 ms"),
    (
        "trap",
        "trap",
        "trap: wasm `unreachable` instruction executed",
    ),
    (
        "memory",
        "memory",
        "memory: over the limit of 16777216 bytes",
    ),
    ("deep-recursion", "trap", "trap: call stack exhausted"),
    (
        "sleep",
        "trap",
        "trap: a filter must not wait (sleep or poll)",
    ),
    ("exit", "trap", "trap: Exited with i32 exit status 0"),
    (
        "hoard-resources",
        "trap",
        "trap: resource table has no free keys",
    ),
    (
        "huge-random",
        "trap",
        "trap: requested len 50331648 exceeds limit 65536",
    ),
    (
        "bad-stream",
        "bad_output",
        "bad output: stream \"not:an:allowed:stream\" is not allowed (filters.streams = [\"freeswitch:*\"])",
    ),
    (
        "route-nothing",
        "bad_output",
        "bad output: route([]) names no stream; say drop with a reason instead",
    ),
    (
        "bad-header",
        "bad_output",
        "bad output: header name \"\" is empty, over 512 bytes or has control characters",
    ),
    (
        "flood-derived",
        "bad_output",
        "bad output: 2000 derived events; at most 256 are allowed",
    ),
    (
        "big-strings",
        "bad_output",
        "bad output: over 1048576 bytes of text of one input",
    ),
    (
        "huge-value",
        "bad_output",
        "bad output: over 1048576 bytes of text of one input",
    ),
    (
        "stream-line-breaks",
        "bad_output",
        "bad output: stream name \"freeswitch:a\\r\\n*1\\r\\n$8\\r\\nSHUTDOWN\" is empty, too long or has control characters",
    ),
    (
        "many-streams",
        "bad_output",
        "bad output: 2000 streams for one event; at most 16 are allowed",
    ),
    (
        "header-nul",
        "bad_output",
        "bad output: header name \"X-\\0\" is empty, over 512 bytes or has control characters",
    ),
    (
        "derived-line-breaks",
        "bad_output",
        "bad output: event name \"HOSTILE\\n\\nexit\" is empty, over 512 bytes or has control characters",
    ),
    (
        "flood-edits",
        "bad_output",
        "bad output: 2000 edits; at most 1024 are allowed",
    ),
    (
        "long-reason",
        "bad_output",
        "bad output: a reason of 1000 bytes; 1 to 128 are allowed",
    ),
];

/// The attacks of the table, one filter each, on events of one name if `on` says so; a loop ends after 50 ms.
fn all_attacks(setup: Setup, on_error: &str, on: impl Fn(usize) -> Option<String>) -> Setup {
    let setup = setup
        .filter("10-good", "hostile", GOOD)
        .filter("90-good", "hostile", GOOD);
    ATTACKS
        .iter()
        .enumerate()
        .fold(setup, |setup, (place, (name, ..))| {
            let event = on(place)
                .map(|event| format!("event = \"{event}\"\n"))
                .unwrap_or_default();
            let limit = match *name {
                "loop" => "deadline = \"50ms\"\n",
                // It must not be the memory or the time that ends it.
                "huge-value" => "memory = \"256MiB\"\ndeadline = \"10s\"\n",
                _ => "",
            };
            setup.filter(
                &format!("20-{name}"),
                "hostile",
                &format!("{event}{}{limit}", attack(name, on_error)),
            )
        })
}

/// A name that FreeSWITCH has, for the attack at this place.
fn event_of(place: usize) -> String {
    const NAMES: [&str; 20] = [
        "CHANNEL_CREATE",
        "CHANNEL_DESTROY",
        "CHANNEL_STATE",
        "CHANNEL_ANSWER",
        "CHANNEL_HANGUP",
        "CHANNEL_BRIDGE",
        "CHANNEL_UNBRIDGE",
        "CHANNEL_PROGRESS",
        "CHANNEL_PARK",
        "CHANNEL_HOLD",
        "CHANNEL_UNHOLD",
        "CODEC",
        "DTMF",
        "CHANNEL_EXECUTE",
        "CHANNEL_EXECUTE_COMPLETE",
        "CHANNEL_ORIGINATE",
        "CHANNEL_OUTGOING",
        "CHANNEL_PROGRESS_MEDIA",
        "CHANNEL_UNPARK",
        "CHANNEL_UUID",
    ];
    NAMES[place].to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_attack_is_stopped_by_its_own_limit_and_named_while_events_pass() {
    let mut scene = Scene::start(|setup| all_attacks(setup, "pass", |_| None)).await;
    scene.fire(3);
    let events = scene.all_delivered();
    assert_eq!(events.len(), 3, "and nothing else");
    assert_counted(&events);
    assert!(
        events.iter().all(|event| event.get("X-Big").is_none()),
        "nothing of a bad answer is applied"
    );
    for (name, cause, error) in ATTACKS {
        let file = format!("20-{name}");
        let bad = scene
            .host
            .wait_filter(&file, |filter| !filter["last_error"].is_null());
        assert_eq!(bad["last_error"], error, "{name}: what went wrong");
        assert_eq!(
            errors(&scene, &file, cause),
            3,
            "{name}: counted by its cause"
        );
        scene
            .host
            .wait_log(&format!("filter failed filter=\"{file}\""));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_drop_events_where_on_error_says_so_with_the_cause_as_reason() {
    let scene =
        Scene::start(|setup| all_attacks(setup, "drop", |place| Some(event_of(place)))).await;
    let attacks = || ATTACKS.iter().enumerate();
    for (place, _) in attacks() {
        scene.switch.fire(Event::new(event_of(place)));
    }
    let counts = &scene.settle()["counts"];
    let by = |(name, cause): (&str, &str)| json!({"by": format!("20-{name}"), "reason": cause, "events": 1});
    let mut expected: Vec<_> = ATTACKS
        .iter()
        .map(|(name, cause, _)| (*name, *cause))
        .collect();
    expected.sort_unstable();
    assert_eq!(
        counts["dropped_by"],
        expected.into_iter().map(by).collect::<Value>(),
        "counted, not silent"
    );
    assert_eq!(
        (&counts["delivered"], &counts["dropped"]),
        (&json!(0), &json!(ATTACKS.len())),
        "each event by one filter"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_dead_letter_events_where_on_error_says_so_with_the_error_as_reason() {
    let scene =
        Scene::start(|setup| all_attacks(setup, "dead-letter", |place| Some(event_of(place))))
            .await;
    for place in 0..ATTACKS.len() {
        scene.switch.fire(Event::new(event_of(place)));
    }
    scene.settle();
    assert_eq!(scene.host.count("dead_lettered"), ATTACKS.len() as u64);
    let dead = scene.redis.entries(DEAD);
    for (place, ((name, _, error), dead)) in ATTACKS.iter().zip(&dead).enumerate() {
        assert_eq!(
            (field(dead, "filter"), field(dead, "reason")),
            (format!("20-{name}").as_str(), *error),
            "who and why"
        );
        let event: Value = serde_json::from_str(field(dead, "event")).unwrap();
        assert_eq!(
            event["Event-Name"],
            event_of(place),
            "{name}: the event itself, in order"
        );
        assert_eq!(
            event["X-Count"],
            (place + 1).to_string(),
            "{name}: with what the filter before it did"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_keeps_failing_rests_and_its_on_error_still_decides() {
    // A version that was good once is not taken back: it rests.
    let settings = "attack = \"trap\"\nevent = \"DTMF\"\n[jackfield]\non_error = \"drop\"\nprobation = \"0s\"\n";
    let mut scene = Scene::start(|setup| bad_among_good(setup, settings)).await;
    scene.fire(1);
    scene
        .host
        .wait_filter("20-bad", |filter| filter["probation"] == false);
    for _ in 0..30 {
        scene.switch.fire(Event::new("DTMF"));
    }
    let counts = scene.settle()["counts"].clone();
    let by =
        |reason: &str, events: u64| json!({"by": "20-bad", "reason": reason, "events": events});
    assert_eq!(
        counts["dropped_by"],
        json!([by("not_running", 20), by("trap", 10)]),
        "ten tries, then a rest of a second"
    );
    let bad = scene
        .host
        .wait_filter("20-bad", |filter| filter["state"] == "failing");
    assert_eq!(
        bad["last_error"],
        "trap: wasm `unreachable` instruction executed"
    );
    scene
        .host
        .wait_log("filter keeps failing and rests between tries");
    place_filter(
        &scene.host.filters,
        "20-bad",
        &component("hostile"),
        "attack = \"version\"\nversion = \"cured\"\n",
    );
    scene.host.wait_filter("20-bad", |filter| {
        filter["state"] == "running" && filter["last_error"].is_null()
    });
    scene.fire(1);
    scene.settle();
    assert_eq!(
        scene.newest().unwrap()["X-Version"],
        "cured",
        "a new version does not inherit the rest"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_fails_now_and_then_comes_back_with_its_saved_state() {
    // It loses what it counted since, as nothing was saved; it is the next event that finds it working.
    let settings = "attack = \"trap\"\nafter = 2\n";
    let mut scene = Scene::start(|setup| bad_among_good(setup, settings)).await;
    scene.fire(6);
    assert_counted(&scene.all_delivered());
    assert_eq!(
        errors(&scene, "20-bad", "trap"),
        3,
        "every other event, as each new instance starts to count anew"
    );
    let bad = scene.host.wait_filter("20-bad", |_| true);
    assert_eq!(
        bad["state"], "running",
        "it never failed ten times in a row"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_filters_multiply_end_at_a_limit_of_their_input() {
    let mut scene = Scene::start(|setup| {
        let setup = bad_among_good(setup, &attack("multiply", "pass")).filter(
            "25-bad",
            "hostile",
            &attack("multiply", "pass"),
        );
        setup.filter("26-bad", "hostile", &attack("multiply", "pass"))
    })
    .await;
    scene.fire(2);
    let status = scene.settle();
    let derived = status["counts"]["derived"].as_u64().unwrap();
    assert!(
        (256..=2 * 1024).contains(&derived),
        "at most 1,024 of each input: {derived}"
    );
    let numbers: Vec<_> = scene
        .redis
        .events(EVENTS)
        .iter()
        .filter_map(number)
        .collect();
    assert_eq!(numbers, [0, 1], "the inputs themselves are not harmed");
    let late = scene
        .host
        .wait_filter("26-bad", |filter| !filter["last_error"].is_null());
    let error = late["last_error"].as_str().unwrap();
    assert!(
        error.ends_with("bad output: over 1024 derived events of one input"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_output_is_capped_counted_and_no_failure() {
    let mut scene = Scene::start(|setup| {
        let setup = bad_among_good(setup, &attack("flood-log", "drop"))
            .filter("30-bad", "hostile", &attack("flood-stdout", "drop"))
            .filter("40-bad", "hostile", &attack("flood-counters", "drop"));
        setup.filter("50-odd", "hostile", &attack("odd-value", "drop"))
    })
    .await;
    scene.fire(3);
    let events = scene.all_delivered();
    assert_counted(&events);
    for event in events {
        assert_eq!(
            event["X-Odd"], "a\r\n\r\nb\0c\u{1b}[2J\u{202e}",
            "a value is text, whatever is in it"
        );
    }
    let metrics = scene.host.get("/metrics").1;
    let counters = metrics
        .lines()
        .filter(|line| line.starts_with("jackfield_filter_custom_total{filter=\"40-bad\""));
    assert_eq!(counters.count(), 32, "the number of names is capped");
    for file in ["20-bad", "30-bad"] {
        let filter = format!("filter=\"{file}\"");
        let dropped = scene.metric("jackfield_filter_output_dropped_bytes_total", &filter);
        assert!(
            dropped > 3 * 2_000 * 1_000,
            "{file}: of 6 MB all but some kilobytes are dropped: {dropped}"
        );
        let logged = || {
            let log = scene.host.log();
            let lines = log.lines().filter(|line| line.contains(&filter));
            lines.map(str::len).sum::<usize>()
        };
        wait_for("the log has the first 4 KiB of each call", || {
            (logged() >= 3 * 4_000).then_some(())
        });
        assert!(logged() < 3 * 6_000, "{file}: and no more: {}", logged());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wasi_leads_nowhere() {
    let settings = "attack = \"env\"\n";
    let mut scene = Scene::start(|setup| {
        setup
            .env("SECRET_OF_THE_HOST", "x")
            .filter("10-env", "hostile", settings)
    })
    .await;
    scene.fire(1);
    let events = scene.all_delivered();
    assert_eq!(
        events[0]["X-Escapes"], "none",
        "no environment, arguments, files, sockets, names"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_cannot_start_is_refused_with_its_reason() {
    let mut scene = Scene::start(|setup| {
        let setup = bad_among_good(setup, &attack("loop-in-configure", "pass"));
        let setup = setup.filter("30-bad", "hostile", &attack("refuse", "pass"));
        setup.filter("40-bad", "hostile", &attack("trap-in-configure", "pass"))
    })
    .await;
    scene.fire(3);
    assert_counted(&scene.all_delivered());
    for (file, error) in [
        ("20-bad", "deadline: no answer within 100 ms"),
        (
            "30-bad",
            "settings refused: refused: `attack` is \"refuse\"",
        ),
        ("40-bad", "trap: wasm `unreachable` instruction executed"),
    ] {
        let bad = scene.host.wait_filter(file, |_| true);
        assert_eq!(
            (&bad["state"], &bad["last_error"]),
            (&json!("refused"), &json!(error)),
            "{file}"
        );
        assert_eq!(
            scene.metric(
                "jackfield_filter_refused_total",
                &format!("filter=\"{file}\"")
            ),
            1,
            "{file}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_cannot_save_gives_way_to_the_next_one_all_the_same() {
    let mut scene = Scene::start(|setup| {
        let setup = bad_among_good(setup, &attack("trap-in-save", "drop"));
        setup.filter("30-bad", "hostile", &attack("loop-in-save", "drop"))
    })
    .await;
    scene.fire(3);
    scene.settle();
    for (file, cause) in [("20-bad", "trap"), ("30-bad", "deadline")] {
        place_filter(
            &scene.host.filters,
            file,
            &component("hostile"),
            "attack = \"version\"\nversion = \"next\"\n",
        );
        let live = format!("filter live filter=\"{file}\"");
        wait_for("the next version is live", || {
            (scene.host.log().matches(&live).count() == 2).then_some(())
        });
        assert!(errors(&scene, file, cause) > 0, "{file} could not save");
    }
    scene.fire(3);
    let events = scene.all_delivered();
    assert_counted(&events);
    assert_eq!(
        runs(&events, "X-Version"),
        ["none", "next"],
        "the new versions run"
    );
    for file in ["20-bad", "30-bad"] {
        scene.host.wait_log(&format!(
            "filter could not save its state filter=\"{file}\""
        ));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_fails_in_tick_does_not_keep_events_waiting() {
    for (name, cause) in [("trap-in-tick", "trap"), ("loop-in-tick", "deadline")] {
        let settings = format!(
            "attack = \"{name}\"\ntick_ms = 1\n[jackfield]\ndeadline = \"10ms\"\nprobation = \"0s\"\n"
        );
        let mut scene = Scene::start(|setup| bad_among_good(setup, &settings)).await;
        wait_for("it failed ten times, by its cause", || {
            (errors(&scene, "20-bad", cause) >= 10).then_some(())
        });
        let fired = std::time::Instant::now();
        scene.fire(50);
        assert_counted(&scene.all_delivered());
        assert!(
            fired.elapsed().as_millis() < 900,
            "{name}: events do not wait for its rest to end: {:?}",
            fired.elapsed()
        );
        scene.host.wait_filter("20-bad", |filter| {
            filter["last_error"]
                .as_str()
                .is_some_and(|error| error.starts_with(cause))
        });
    }
}
