//! The README's first filter works as it is written: from an empty folder outside this repository to live in a running host.

use std::fs;
use std::process::Command;

use jackfield::simulator::{Event, Settings, Simulator};

use crate::harness::{Redis, Setup, cargo_command, place_filter, root, wait_for};

/// The first code block of a language after `heading`.
fn block(readme: &str, heading: &str, language: &str) -> String {
    let section = &readme[readme.find(heading).expect("the heading is there")..];
    let fence = format!("```{language}\n");
    let start = section.find(&fence).expect("the block is there") + fence.len();
    let end = section[start..].find("```").expect("the block ends");
    section[start..start + end].to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_filter_goes_from_an_empty_folder_to_a_running_host() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let manifest = block(&readme, "## A first filter", "toml");
    let sdk = root().join("guest-sdk").display().to_string();
    fs::write(
        dir.path().join("Cargo.toml"),
        manifest.replace("../jackfield/guest-sdk", &sdk),
    )
    .unwrap();
    fs::create_dir(dir.path().join("src")).unwrap();
    fs::write(
        dir.path().join("src/lib.rs"),
        block(&readme, "## A first filter", "rust"),
    )
    .unwrap();
    // The same dependencies as here, so that nothing is fetched that was not there.
    fs::copy(root().join("Cargo.lock"), dir.path().join("Cargo.lock")).unwrap();
    let target = root().join("target/readme");
    for args in [
        ["test", "--quiet"].as_slice(),
        &["build", "--quiet", "--release", "--target", "wasm32-wasip2"],
    ] {
        let ran = Command::new(cargo_command())
            .args(args)
            .current_dir(dir.path())
            .env("CARGO_TARGET_DIR", &target)
            .output();
        let ran = ran.unwrap();
        assert!(
            ran.status.success(),
            "cargo {args:?}:\n{}",
            String::from_utf8_lossy(&ran.stderr)
        );
    }

    let (switch, redis) = (
        Simulator::start(Settings::default()).await.unwrap(),
        Redis::start(),
    );
    let host = Setup::new(switch.addr(), &redis).start();
    host.wait_ready();
    let component = target.join("wasm32-wasip2/release/tag.wasm");
    place_filter(&host.filters, "40-tag", &component, "site = 'berlin'");
    host.wait_filter("40-tag", |filter| filter["state"] == "running");
    for number in ["100", "999"] {
        switch.fire(Event::new("CHANNEL_ANSWER").header("Caller-Destination-Number", number));
    }
    let events = wait_for("the tagged call is in Redis", || {
        Some(redis.events("freeswitch:telephony:events")).filter(|events| !events.is_empty())
    });
    assert_eq!(events[0]["X-Site"], "berlin");
    let status = host.wait_settled(2);
    assert_eq!(
        status["counts"]["dropped_by"][0]["reason"], "test call",
        "{status:#}"
    );
}
