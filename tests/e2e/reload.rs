//! A filter goes live by a file that is dropped: within two seconds, without an event lost, repeated or out of order.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{component, field, place_filter, wait_for};
use crate::scene::{DEAD, LIVE, Scene, runs, versioned};

#[tokio::test(flavor = "multi_thread")]
async fn state_goes_from_version_to_version_without_a_gap() {
    let mut scene =
        Scene::start(|setup| setup.filter("10-version", "hostile", "attack = \"counter\"\n")).await;
    let builds = [scene.build(0), scene.build(1)];
    let digest = |filter: &serde_json::Value| filter["digest"].as_str().unwrap().to_owned();
    let firing = scene.fire_steadily();
    for swapped in 0..10 {
        let before = digest(&scene.host.wait_filter("10-version", |_| true));
        place_filter(&scene.host.filters, "10-version", &builds[swapped % 2], "");
        scene
            .host
            .wait_filter("10-version", |filter| digest(filter) != before);
    }
    scene.stop(firing);
    for (event, place) in scene.all_delivered().iter().zip(1..) {
        assert_eq!(
            event["X-Count"],
            place.to_string(),
            "what the old version counted, the new one goes on from"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_are_added_changed_and_removed_by_their_files() {
    let mut scene =
        Scene::start(|setup| setup.filter("50-old", "hostile", &versioned("old"))).await;
    let firing = scene.fire_steadily();
    let newest = |version: &str| {
        let changed = Instant::now();
        let shown =
            |event: &serde_json::Value| event["X-Version"].as_str().unwrap_or("none") == version;
        wait_for(&format!("{version} is live"), || {
            scene.newest().filter(shown)
        });
        assert!(
            changed.elapsed() < LIVE,
            "{version} was live only after {:?}",
            changed.elapsed()
        );
    };
    let filters = &scene.host.filters;
    newest("old");
    place_filter(
        filters,
        "90-new",
        &component("hostile"),
        &versioned("added"),
    );
    newest("added");
    fs::write(filters.join("90-new.toml"), versioned("other settings")).unwrap();
    newest("other settings");
    fs::remove_file(filters.join("90-new.wasm")).unwrap();
    newest("old");
    fs::remove_file(filters.join("50-old.wasm")).unwrap();
    newest("none");
    assert_eq!(
        scene.host.status()["filters"],
        json!([]),
        "no filter is left"
    );
    scene.stop(firing);
    let events = scene.all_delivered();
    assert_eq!(
        runs(&events, "X-Version"),
        ["old", "added", "other settings", "old", "none"],
        "each change between two events"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_leaves_the_running_version_in_place_and_says_why() {
    let mut scene =
        Scene::start(|setup| setup.filter("10-version", "hostile", &versioned("good"))).await;
    let whole = fs::read(component("hostile")).unwrap();
    for (refused, (what, bytes, why)) in [
        (
            "not wasm",
            &b"this is no component"[..],
            "is not WebAssembly: it starts with \"this is \", not with \"\\x00asm\"",
        ),
        (
            "truncated",
            &whole[..whole.len() / 2],
            "is damaged or no valid component: ",
        ),
        (
            "a core module",
            b"\0asm\x01\0\0\0",
            "is a core module that does not say which component it is; build it for wasm32-wasip2",
        ),
        (
            "another world",
            b"\0asm\x0d\0\x01\0",
            "is no filter: it exports nothing, not jackfield:filter/handler@0.1.0; ",
        ),
        (
            "empty",
            b"",
            "is empty; a filter is a WebAssembly component",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let broken = scene.host.dir().join("broken");
        fs::write(&broken, bytes).unwrap();
        place_filter(&scene.host.filters, "10-version", &broken, "");
        let metric = || scene.metric("jackfield_filter_refused_total", "filter=\"10-version\"");
        wait_for(&format!("{what} is refused"), || {
            (metric() == refused as u64 + 1).then_some(())
        });
        let filter = scene.host.wait_filter("10-version", |filter| {
            let error = filter["last_error"].as_str().unwrap_or_default();
            error.starts_with(why)
        });
        assert_eq!(
            filter["state"], "running",
            "{what}: the version before it runs"
        );
        scene
            .host
            .wait_log("filter refused; the running version stays");
        scene.fire(1);
    }
    assert_eq!(
        runs(&scene.all_delivered(), "X-Version"),
        ["good"],
        "all events went through the running version"
    );
    place_filter(
        &scene.host.filters,
        "10-version",
        &component("hostile"),
        &versioned("fixed"),
    );
    scene
        .host
        .wait_filter("10-version", |filter| filter["last_error"].is_null());
    scene.fire(1);
    assert_eq!(
        runs(&scene.all_delivered(), "X-Version"),
        ["good", "fixed"],
        "a fixed file goes live"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_settings_leave_the_running_version_in_place_and_say_what_is_wrong() {
    let mut scene =
        Scene::start(|setup| setup.filter("10-version", "hostile", &versioned("good"))).await;
    let settings = scene.host.filters.join("10-version.toml");
    for (text, why) in [
        (
            "attack = \"refuse\"",
            "settings refused: refused: `attack` is \"refuse\"",
        ),
        (
            "attack = \"version\"\nafter = \"soon\"",
            "settings refused: settings: `after`: invalid type: string \"soon\", expected u64",
        ),
        (
            "version = \"x\"",
            "settings refused: settings: missing field `attack`",
        ),
        (
            "attack = \"version\"\n[jackfield]\ndeadline = \"soon\"\nwasy = \"deny\"",
            "jackfield.deadline = \"soon\": allowed is a duration above zero such as 300ms, 5s or 1h30m; jackfield.wasy: unknown key; did you mean jackfield.wasi?",
        ),
        (
            "attack =",
            "line 1, column 9: string values must be quoted, expected literal string",
        ),
        (
            "attack = \"version\"\n[jackfield]\nwasi = \"deny\"",
            "imports wasi:",
        ),
    ] {
        fs::write(&settings, text).unwrap();
        let filter = scene.host.wait_filter("10-version", |filter| {
            filter["last_error"]
                .as_str()
                .is_some_and(|error| error.starts_with(why))
        });
        assert_eq!(filter["state"], "running", "{why}");
        scene.fire(1);
    }
    assert_eq!(
        runs(&scene.all_delivered(), "X-Version"),
        ["good"],
        "all events went through the running version"
    );
    assert_eq!(
        scene.metric("jackfield_filter_refused_total", "filter=\"10-version\""),
        6,
        "each was refused once"
    );
    fs::write(&settings, versioned("fixed")).unwrap();
    scene
        .host
        .wait_filter("10-version", |filter| filter["last_error"].is_null());
    scene.fire(1);
    assert_eq!(
        runs(&scene.all_delivered(), "X-Version"),
        ["good", "fixed"],
        "right settings go live"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_arrives_in_pieces_is_not_read_half() {
    let mut scene =
        Scene::start(|setup| setup.filter("10-version", "hostile", &versioned("old"))).await;
    fs::write(scene.host.filters.join("20-slow.toml"), versioned("new")).unwrap();
    let whole = fs::read(component("hostile")).unwrap();
    let mut file = fs::File::create(scene.host.filters.join("20-slow.wasm")).unwrap();
    for piece in whole.chunks(whole.len() / 40) {
        std::io::Write::write_all(&mut file, piece).unwrap();
        // As over a network: the pieces themselves are what this is about.
        std::thread::sleep(Duration::from_millis(10));
    }
    scene
        .host
        .wait_filter("20-slow", |filter| filter["state"] == "running");
    scene.fire(1);
    assert_eq!(runs(&scene.all_delivered(), "X-Version"), ["new"]);
    assert_eq!(
        scene.metric("jackfield_filter_refused_total", "filter=\"20-slow\""),
        0,
        "it was left alone while it came"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swapped_symlink_as_of_a_configmap_is_a_new_version() {
    let mut scene = Scene::start(|setup| setup).await;
    let filters = scene.host.filters.clone();
    fs::create_dir_all(&filters).unwrap();
    let publish = |version_: &str| {
        place_filter(
            &filters.join(format!("..{version_}")),
            "10-version",
            &component("hostile"),
            &versioned(version_),
        );
        symlink(format!("..{version_}"), filters.join("..data_tmp")).unwrap();
        fs::rename(filters.join("..data_tmp"), filters.join("..data")).unwrap();
    };
    publish("first");
    for file in ["10-version.wasm", "10-version.toml"] {
        symlink(format!("..data/{file}"), filters.join(file)).unwrap();
    }
    let firing = scene.fire_steadily();
    for (place, version) in ["first", "second", "third"].into_iter().enumerate() {
        if place > 0 {
            publish(version);
        }
        let published = Instant::now();
        wait_for(&format!("{version} is live"), || {
            scene.newest().filter(|event| event["X-Version"] == version)
        });
        assert!(
            published.elapsed() < LIVE,
            "{version} was live only after {:?}",
            published.elapsed()
        );
    }
    scene.stop(firing);
    assert_eq!(
        runs(&scene.all_delivered(), "X-Version"),
        ["none", "first", "second", "third"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_broken_at_the_start_is_treated_by_its_on_error() {
    let broken_with = |on_error: &'static str| {
        Scene::start(move |setup| {
            let broken = setup.filters().with_file_name("broken");
            fs::write(&broken, "no component").unwrap();
            place_filter(
                &setup.filters(),
                "10-broken",
                &broken,
                &format!("[jackfield]\non_error = \"{on_error}\"\n"),
            );
            setup
        })
    };
    let mut passing = broken_with("pass").await;
    passing.fire(2);
    passing.all_delivered();
    let filter = passing
        .host
        .wait_filter("10-broken", |filter| filter["state"] == "refused");
    let error = filter["last_error"].as_str().unwrap();
    assert!(error.starts_with("is not WebAssembly: "), "{error}");

    let mut dead = broken_with("dead-letter").await;
    dead.fire(2);
    assert_eq!(dead.settle()["counts"]["dead_lettered"], 2);
    for letter in dead.redis.entries(DEAD) {
        assert_eq!(
            (field(&letter, "filter"), field(&letter, "reason")),
            ("10-broken", format!("not running: {error}").as_str())
        );
    }

    let mut dropping = broken_with("drop").await;
    dropping.fire(2);
    let dropped = json!([{"by": "10-broken", "reason": "not_running", "events": 2}]);
    assert_eq!(
        dropping.settle()["counts"]["dropped_by"],
        dropped,
        "never in silence"
    );
}
