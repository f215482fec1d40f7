//! After a version has gone live it is watched: what does badly is taken back for the last good version, and never an event is
//! lost over it.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::harness::{Setup, component, field, place_filter, post, request, wait_for};
use crate::scene::{DEAD, EVENTS, Scene, number};

/// A version that counts events, and is good after a moment.
const COUNTER: &str = "attack = \"counter\"\n[jackfield]\nprobation = \"50ms\"\n";

fn version(name: &str, own: &str) -> String {
    format!("attack = \"version\"\nversion = \"{name}\"\n[jackfield]\n{own}")
}

/// One filter, `10-one`, with these settings.
async fn scene(settings: &str) -> Scene {
    let settings = settings.to_owned();
    Scene::start(|setup| setup.filter("10-one", "hostile", &settings)).await
}

fn change(scene: &Scene, settings: &str) {
    place_filter(
        &scene.host.filters,
        "10-one",
        &component("hostile"),
        settings,
    );
}

/// The filter's status once it is so.
#[track_caller]
fn one(scene: &Scene, done: impl Fn(&Value) -> bool) -> Value {
    scene.host.wait_filter("10-one", done)
}

fn error(filter: &Value) -> String {
    filter["last_error"].as_str().unwrap_or_default().to_owned()
}

/// Fires events until the version has proved good.
#[track_caller]
fn prove_good(scene: &mut Scene, events: u64) {
    scene.fire(events);
    scene.settle();
    one(scene, |filter| filter["probation"] == false);
}

fn taken_back(scene: &Scene, cause: &str) -> u64 {
    scene.metric(
        "jackfield_filter_taken_back_total",
        &format!("filter=\"10-one\",cause=\"{cause}\""),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_keeps_failing_is_rolled_back_with_the_state_and_not_tried_again() {
    let mut scene = scene(COUNTER).await;
    prove_good(&mut scene, 50);
    // Each instance works for some events and then fails: too late for a rehearsal on fifty.
    let bad = "attack = \"trap\"\nafter = 80\n";
    change(&scene, bad);
    one(&scene, |filter| filter["probation"] == true);
    scene.fire(900);
    let back = one(&scene, |filter| error(filter).starts_with("rolled back: "));
    assert!(
        error(&back).contains(" calls failed: trap: wasm `unreachable`"),
        "why: {back:#}"
    );
    assert_eq!(back["state"], "running");
    assert_eq!(back["probation"], false, "what is back was good before");
    assert_eq!(taken_back(&scene, "errors"), 1);
    scene.fire(10);
    let events = scene.all_delivered();
    let counted = events.iter().filter_map(|event| event["X-Count"].as_str());
    let expected = (1..).map(|count: u64| count.to_string());
    let (counted, expected): (Vec<_>, Vec<_>) = counted.zip(expected).unzip();
    assert!(counted.len() > 60, "the good version works again");
    assert_eq!(counted, expected, "it goes on from what it had handed over");
    change(&scene, "attack = \"counter\"\n");
    one(&scene, |filter| filter["last_error"].is_null());
    change(&scene, bad);
    let refused = one(&scene, |filter| {
        error(filter).starts_with("not tried again: ")
    });
    assert_eq!(refused["state"], "running", "the running version stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_fails_on_past_events_never_goes_live() {
    let mut scene = scene(&version("good", "")).await;
    scene.fire(150);
    scene.settle();
    for (settings, why) in [
        (
            "attack = \"trap\"\nafter = 7\n",
            "rehearsal on past events: trap: wasm `unreachable` instruction executed (event ",
        ),
        (
            "attack = \"loop\"\n[jackfield]\ndeadline = \"5ms\"\n",
            "rehearsal on past events: 20 of 20 calls took longer than the deadline",
        ),
        (
            "attack = \"bad-stream\"\n",
            "rehearsal on past events: bad output: stream \"not:an:allowed:stream\"",
        ),
        (
            "attack = \"dead-letter\"\n",
            "rehearsal on past events: it drops 100 % of the events, the version before dropped 0 %",
        ),
    ] {
        change(&scene, settings);
        let refused = one(&scene, |filter| error(filter).starts_with(why));
        assert_eq!(refused["state"], "running", "{why}");
        let attempt = refused["attempts"].as_array().unwrap().last().unwrap();
        let gates = attempt["gates"].as_array().unwrap();
        assert_eq!(gates.last().unwrap()["gate"], "rehearsal", "{attempt:#}");
        assert_eq!(attempt["refusal"], refused["last_error"]);
    }
    scene.fire(1);
    assert_eq!(scene.all_delivered().last().unwrap()["X-Version"], "good");
    change(
        &scene,
        "attack = \"dead-letter\"\n[jackfield]\nfuse = false\n",
    );
    one(&scene, |filter| filter["last_error"].is_null());
    scene.fire(1);
    scene.settle();
    assert_eq!(scene.host.count("dead_lettered"), 1, "it was asked to");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fuse_takes_back_a_version_that_begins_to_drop() {
    let mut scene = scene(COUNTER).await;
    prove_good(&mut scene, 150);
    change(&scene, "attack = \"dead-letter\"\nafter = 550\n");
    one(&scene, |filter| filter["probation"] == true);
    scene.fire(1_200);
    let back = one(&scene, |filter| error(filter).starts_with("rolled back: "));
    assert!(
        error(&back).contains("% of the events, the version before dropped 0 %"),
        "why: {back:#}"
    );
    assert_eq!(taken_back(&scene, "fuse"), 1);
    scene.settle();
    let dead = scene.host.count("dead_lettered");
    assert!(
        (600..=700).contains(&dead),
        "it dropped from the 550th event on until the fuse blew at the 1,000th since: {dead}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_version_that_keeps_failing_is_quarantined_also_over_a_restart() {
    let settings =
        "attack = \"trap\"\n[jackfield]\non_trap = \"drop\"\non_load = \"dead-letter\"\n";
    let mut scene = scene(settings).await;
    scene.fire(10);
    let out = one(&scene, |filter| filter["state"] == "quarantined");
    assert_eq!(
        error(&out),
        "quarantined: 10 of 10 calls failed: trap: wasm `unreachable` instruction executed"
    );
    scene.fire(5);
    scene.settle();
    let counts = scene.host.status()["counts"].clone();
    assert_eq!(
        (&counts["dropped"], &counts["dead_lettered"]),
        (&json!(10), &json!(5)),
        "by the policy of its cause, then by that of what is not there"
    );
    let mut scene = restart(scene).await;
    let refused = one(&scene, |filter| filter["state"] == "refused");
    assert!(
        error(&refused).starts_with("not tried again: 10 of 10 calls failed"),
        "{refused:#}"
    );
    change(&scene, &version("cured", ""));
    one(&scene, |filter| filter["state"] == "running");
    scene.fire(1);
    wait_for("the cured version marks an event", || {
        scene.newest().filter(|event| event["X-Version"] == "cured")
    });
}

/// The same host once more, on the same journal.
async fn restart(scene: Scene) -> Scene {
    scene.restart(Setup::start)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_good_version_runs_after_a_restart_in_place_of_one_that_is_refused() {
    let mut scene = scene(&version("good", "probation = \"50ms\"\n")).await;
    prove_good(&mut scene, 20);
    let filters = scene.host.filters.clone();
    let mut scene = scene.restart(|setup| {
        std::fs::write(filters.join("10-one.wasm"), b"no component").unwrap();
        setup.start()
    });
    let good = one(&scene, |filter| filter["state"] == "running");
    assert!(error(&good).starts_with("is not WebAssembly"), "{good:#}");
    assert_eq!(good["probation"], false, "it was good");
    scene.fire(1);
    // Its copy and its settings were kept.
    wait_for("the good version marks the next event", || {
        let newest = scene.newest().filter(|event| number(event) == Some(20));
        newest.filter(|event| event["X-Version"] == "good")
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_was_good_does_not_get_around_what_the_host_forbids_now() {
    let mut scene = scene(&version("good", "probation = \"50ms\"\n")).await;
    prove_good(&mut scene, 20);
    let scene = scene.restart(|setup| setup.env("JACKFIELD_FILTERS_WASI", "deny").start());
    let refused = one(&scene, |filter| filter["state"] == "refused");
    assert!(
        error(&refused).contains("wasi = \"deny\" forbids WASI"),
        "{refused:#}"
    );
}

fn roll_back(scene: &Scene, file: &str, headers: &str) -> (u16, String) {
    post(
        scene.host.http,
        &format!("/filters/{file}/rollback"),
        headers,
        "",
    )
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_rolls_a_filter_back_with_the_token() {
    let first = version("first", "probation = \"50ms\"\n");
    let mut scene = Scene::start(|setup| {
        let setup = setup.env("JACKFIELD_HTTP_TOKEN", "let-me-in");
        setup.filter("10-one", "hostile", &first)
    })
    .await;
    prove_good(&mut scene, 20);
    let token = "Authorization: Bearer let-me-in\r\n";
    assert_eq!(
        roll_back(&scene, "10-one", ""),
        (
            403,
            "rolling back needs the token of http.token (Authorization: Bearer …)\n".to_owned()
        )
    );
    assert_eq!(
        roll_back(&scene, "20-two", token),
        (404, "no filter \"20-two\" in the chain\n".to_owned())
    );
    assert_eq!(
        roll_back(&scene, "10-one", token),
        (
            409,
            "filter \"10-one\" has no earlier good version\n".to_owned()
        )
    );
    change(&scene, &version("second", ""));
    scene.fire(1);
    wait_for("the second version handles events", || {
        scene.fire(1);
        scene
            .newest()
            .filter(|event| event["X-Version"] == "second")
    });
    let (code, answer) = roll_back(&scene, "10-one", token);
    assert_eq!(code, 200, "{answer}");
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let back = one(&scene, |filter| error(filter) == "rolled back: by request");
    assert_eq!(answer["to"], back["digest"], "it says which one runs now");
    scene.fire(1);
    assert_eq!(scene.all_delivered().last().unwrap()["X-Version"], "first");
    assert_eq!(taken_back(&scene, "request"), 1);
    let (code, _, _) = request(scene.host.http, "GET", "/filters/10-one/rollback", token).unwrap();
    assert_eq!(code, 405, "it changes something, so it is a POST");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_treated_by_the_policy_of_its_cause() {
    let names = ["CHANNEL_ANSWER", "CHANNEL_HANGUP", "DTMF", "CUSTOM"];
    let attacks = ["trap", "loop", "memory", "bad-header"];
    let causes = ["trap", "deadline", "memory", "bad_output"];
    let mut scene = Scene::start(|setup| {
        let all = names.iter().zip(attacks).zip(causes);
        all.fold(setup, |setup, ((name, attack), cause)| {
            let settings = format!(
                "attack = \"{attack}\"\nevent = \"{name}\"\n[jackfield]\ndeadline = \"50ms\"\non_error = \"drop\"\non_{cause} = \"dead-letter\"\n"
            );
            setup.filter(&format!("20-{attack}"), "hostile", &settings)
        })
    })
    .await;
    scene.fire(0);
    for name in names {
        scene.switch.fire(jackfield::simulator::Event::new(name));
    }
    scene.settle();
    let dead = scene.redis.entries(DEAD);
    let by: Vec<&str> = dead.iter().map(|entry| field(entry, "filter")).collect();
    assert_eq!(by, attacks.map(|attack| format!("20-{attack}")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_good_version_handles_the_very_event_on_which_the_new_one_fails() {
    let mut scene = scene(COUNTER).await;
    prove_good(&mut scene, 20);
    let bad = "attack = \"trap\"\nafter = 40\n[jackfield]\non_trap = \"last-good\"\n";
    change(&scene, bad);
    one(&scene, |filter| filter["probation"] == true);
    scene.fire(40);
    let events = scene.all_delivered();
    let unseen = events.iter().filter(|event| event["X-Count"].is_null());
    let numbers: Vec<_> = unseen.filter_map(number).collect();
    assert_eq!(
        numbers,
        (20..39).collect::<Vec<u64>>(),
        "the new version marks nothing; the event that it failed on and all later ones are counted"
    );
    let back = one(&scene, |_| true);
    assert!(error(&back).starts_with("rolled back: trap"), "{back:#}");
    assert_eq!(taken_back(&scene, "trap"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_the_last_good_version_knows_the_event_on_which_it_took_over() {
    let mut scene = scene(COUNTER).await;
    prove_good(&mut scene, 20);
    change(
        &scene,
        "attack = \"trap\"\nafter = 30\n[jackfield]\non_trap = \"last-good\"\n",
    );
    one(&scene, |filter| filter["probation"] == true);
    scene.fire(10);
    scene.settle();
    let back = one(&scene, |filter| error(filter).starts_with("rolled back"));
    let state = scene.host.journal().join("filters.state");
    wait_for("its state is stored", || {
        let stored = state.metadata().ok()?.modified().ok()?;
        let since = Duration::from_micros(back["since_us"].as_u64()?);
        // A file's time is that of the kernel's last tick.
        (stored + Duration::from_millis(10) > UNIX_EPOCH + since).then_some(())
    });
    let mut scene = scene.restart_killed(Setup::start);
    scene.fire(10);
    scene.host.wait_settled(10);
    let events = scene.redis.events(EVENTS);
    let counts: Vec<u64> = events
        .iter()
        .filter_map(|event| event["X-Count"].as_str()?.parse().ok())
        .collect();
    assert!(
        counts.len() > 30 && counts.is_sorted_by(|one, next| one < next),
        "what it has counted it does not count again: {counts:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_eats_the_time_while_the_backlog_grows_is_suspended() {
    let mut scene = Scene::start(|setup| {
        let slow = "attack = \"slow\"\nwork = 20_000_000\n";
        setup.filter("10-one", "hostile", slow).filter(
            "90-good",
            "hostile",
            "attack = \"counter\"\n",
        )
    })
    .await;
    let firing = scene.fire_steadily();
    let out = one(&scene, |filter| filter["state"] == "suspended");
    scene.stop(firing);
    assert_eq!(
        error(&out),
        "suspended: it took over half of the time while the backlog grew"
    );
    assert_eq!(taken_back(&scene, "load"), 1);
    let events = scene.all_delivered();
    for (event, place) in events.iter().zip(1..) {
        assert_eq!(
            event["X-Count"],
            json!(place.to_string()),
            "the filter behind it saw every event"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_breaks_its_golden_cases_is_refused() {
    let scene = scene(&version("good", "")).await;
    let case = json!({
        "settings": {"attack": "version", "version": "x"},
        "steps": [{"event": {"Event-Name": "DTMF"}, "expect": {"verdict": "pass", "edits": [{"set": {"name": "X-Version", "value": "y"}}]}}]
    });
    let case = jackfield::filter::golden::Case::parse(&case.to_string()).unwrap();
    let cases = jackfield::filter::golden::Cases::new([("marks".to_owned(), case)]).unwrap();
    let whole = std::fs::read(component("hostile")).unwrap();
    let broken = scene.host.dir().join("broken.wasm");
    std::fs::write(&broken, cases.embed(&whole).unwrap()).unwrap();
    place_filter(&scene.host.filters, "10-one", &broken, &version("next", ""));
    let refused = one(&scene, |filter| {
        error(filter).starts_with("golden case marks: step 1: ")
    });
    assert_eq!(refused["state"], "running");
    let admission = scene.metric(
        "jackfield_filter_admission_total",
        "filter=\"10-one\",gate=\"golden\",outcome=\"refused\"",
    );
    assert_eq!(admission, 1, "each gate is counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn compiled_code_and_copies_are_kept_where_only_the_host_writes() {
    let scene = scene(&version("good", "")).await;
    let own = scene.host.journal().join("filters");
    let mode = |path: &Path| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    assert_eq!(mode(&own), 0o700);
    let files: Vec<_> = std::fs::read_dir(&own).unwrap().flatten().collect();
    assert!(files.len() >= 2, "a copy and its code");
    for file in files {
        assert_eq!(mode(&file.path()), 0o600, "{}", file.path().display());
    }
    let scene = restart(scene).await;
    let again = one(&scene, |filter| filter["state"] == "running");
    let gates = again["attempts"][0]["gates"].as_array().unwrap();
    let compile = gates.iter().find(|gate| gate["gate"] == "compile").unwrap();
    assert_eq!(compile["found"], "cached", "{compile}");
    assert_eq!(scene.redis.events(EVENTS).len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_filter_says_while_it_is_only_tried_is_not_in_the_log() {
    let mut scene = scene(&version("good", "")).await;
    scene.fire(50);
    scene.settle();
    change(&scene, "attack = \"log-and-count\"\n");
    let live = one(&scene, |filter| filter["attempts"][1].is_object());
    let gates = live["attempts"][1]["gates"].as_array().unwrap();
    let rehearsal = gates.iter().find(|gate| gate["gate"] == "rehearsal");
    assert_eq!(
        rehearsal.unwrap()["found"],
        "50 events, 50 of 50 handled otherwise than before"
    );
    assert!(!scene.host.log().contains("filter log"), "not one of fifty");
    scene.fire(1);
    scene.settle();
    scene.host.wait_log("filter log");
}
