//! A candidate in `shadow/` sees live events beside its namesake and changes nothing; what it would do otherwise is told.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::harness::{component, place_filter};
use crate::scene::{Scene, runs};

fn version(name: &str) -> String {
    format!("attack = \"version\"\nversion = \"{name}\"\n")
}

fn shadows(scene: &Scene) -> PathBuf {
    let folder = scene.host.filters.join("shadow");
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// The shadow's status once it is so.
#[track_caller]
fn shadow(scene: &Scene, file: &str, done: impl Fn(&Value) -> bool) -> Value {
    let filter = scene.host.wait_filter(file, |filter| {
        !filter["shadow"].is_null() && done(&filter["shadow"])
    });
    filter["shadow"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_is_compared_with_its_namesake_and_promoted_by_moving_its_files() {
    let mut scene =
        Scene::start(|setup| setup.filter("10-version", "hostile", &version("old"))).await;
    let folder = shadows(&scene);
    place_filter(
        &folder,
        "10-version",
        &component("hostile"),
        &version("new"),
    );
    shadow(&scene, "10-version", |shadow| shadow["version"] == "0.1.0");
    scene.fire(100);
    let seen = shadow(&scene, "10-version", |shadow| {
        shadow["differs"].as_u64().unwrap() + shadow["skipped"].as_u64().unwrap() == 100
    });
    assert_eq!((&seen["same"], &seen["failed"]), (&json!(0), &json!(0)));
    let sample = seen["samples"].as_array().unwrap().last().unwrap();
    assert_eq!(sample["difference"], "headers differ: X-Version");
    assert_eq!(sample["event"], "CHANNEL_ANSWER");
    assert!(sample["lsn"].is_u64(), "for `jackfield why`");
    let before = scene.host.wait_filter("10-version", |_| true)["since_us"].clone();
    for extension in ["toml", "wasm"] {
        let file = format!("10-version.{extension}");
        fs::rename(folder.join(&file), scene.host.filters.join(&file)).unwrap();
    }
    // The shadow may go a moment before the settings that were moved have settled.
    scene.host.wait_filter("10-version", |filter| {
        filter["shadow"].is_null() && filter["since_us"] != before
    });
    scene.fire(10);
    let events = scene.all_delivered();
    assert_eq!(
        runs(&events, "X-Version"),
        ["old", "new"],
        "the shadow changed nothing before it was promoted"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_that_does_the_same_shows_no_difference() {
    let mut scene =
        Scene::start(|setup| setup.filter("10-version", "hostile", &version("same"))).await;
    place_filter(
        &shadows(&scene),
        "10-version",
        &component("hostile"),
        &version("same"),
    );
    shadow(&scene, "10-version", |_| true);
    scene.fire(50);
    let seen = shadow(&scene, "10-version", |shadow| {
        shadow["same"].as_u64().unwrap() + shadow["skipped"].as_u64().unwrap() == 50
    });
    assert_eq!(seen["differs"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_without_a_namesake_is_compared_with_what_passes_there() {
    let mut scene = Scene::start(|setup| {
        setup
            .filter("10-first", "hostile", &version("first"))
            .filter("30-last", "hostile", &version("last"))
    })
    .await;
    place_filter(
        &shadows(&scene),
        "20-between",
        &component("hostile"),
        "attack = \"dead-letter\"\n",
    );
    shadow(&scene, "20-between", |_| true);
    scene.fire(20);
    let seen = shadow(&scene, "20-between", |shadow| {
        shadow["differs"].as_u64().unwrap() + shadow["skipped"].as_u64().unwrap() == 20
    });
    assert_eq!(
        seen["samples"][0]["difference"],
        "pass became dead-letter (told to)"
    );
    assert_eq!(scene.all_delivered().len(), 20, "and all are delivered");
    let absent = scene.host.wait_filter("20-between", |_| true);
    assert_eq!(absent["state"], "absent");
    place_filter(
        &scene.host.filters,
        "10-first",
        &component("hostile"),
        &version("other"),
    );
    scene
        .host
        .wait_filter("10-first", |filter| filter["attempts"][1].is_object());
    scene.fire(5);
    // It goes on beside another chain.
    shadow(&scene, "20-between", |shadow| {
        shadow["differs"].as_u64().unwrap() + shadow["skipped"].as_u64().unwrap() == 25
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_that_is_too_slow_skips_and_holds_nobody_up() {
    let mut scene =
        Scene::start(|setup| setup.filter("10-good", "hostile", "attack = \"counter\"\n")).await;
    let slow = "attack = \"slow\"\nwork = 200_000_000\n";
    place_filter(&shadows(&scene), "10-good", &component("hostile"), slow);
    shadow(&scene, "10-good", |_| true);
    scene.fire(2_000);
    let events = scene.all_delivered();
    assert_eq!(events.last().unwrap()["X-Count"], "2000");
    // It took its time, alone.
    let seen = shadow(&scene, "10-good", |shadow| {
        shadow["skipped"].as_u64().unwrap() > 1_000
    });
    let skipped = seen["skipped"].as_u64().unwrap();
    let counted = scene.metric(
        "jackfield_filter_shadow_total",
        "filter=\"10-good\",outcome=\"skipped\"",
    );
    assert!(counted >= skipped, "and the metric says so: {counted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_shadow_does_wrong_is_its_own_affair() {
    let mut scene =
        Scene::start(|setup| setup.filter("10-good", "hostile", "attack = \"counter\"\n")).await;
    let folder = shadows(&scene);
    for (attack, error) in [
        ("trap", "trap: wasm `unreachable` instruction executed"),
        ("loop", "deadline: no answer within 20 ms"),
        (
            "route-nothing",
            "bad output: route([]) names no stream; say drop with a reason instead",
        ),
    ] {
        let settings = format!("attack = \"{attack}\"\n[jackfield]\ndeadline = \"20ms\"\n");
        place_filter(&folder, "10-good", &component("hostile"), &settings);
        shadow(&scene, "10-good", |shadow| shadow["last_error"].is_null());
        scene.fire(5);
        shadow(&scene, "10-good", |shadow| shadow["last_error"] == error);
    }
    fs::write(folder.join("10-good.wasm"), b"no component").unwrap();
    shadow(&scene, "10-good", |shadow| {
        let error = shadow["last_error"].as_str().unwrap_or_default();
        error.starts_with("is not WebAssembly")
    });
    let events = scene.all_delivered();
    assert_eq!(events.last().unwrap()["X-Count"], "15");
    let good = scene.host.wait_filter("10-good", |_| true);
    assert_eq!(good["last_error"], json!(null), "the filter itself is well");
}
