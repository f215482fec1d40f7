//! The filters that ship: what the real host adds to their golden cases, and that settings, settings files and pages agree.

use std::collections::BTreeSet;
use std::fs;

use bytes::Bytes;
use jackfield::event::{self, Format};
use jackfield::simulator::Event;
use jackfield_sdk::{Filter, testing};
use serde_json::{Value, json};

use crate::harness::{FILTERS, Setup, component, place_filter, root};
use crate::native;
use crate::scene::{EVENTS, Scene, numbered};

#[tokio::test(flavor = "multi_thread")]
async fn dedup_lets_no_repeat_through_over_a_reload_and_a_restart() {
    let settings = |window: &str| {
        format!("by = [\"Number\"]\nwindow = \"{window}\"\n[jackfield]\nfuse = false\n")
    };
    let mut scene = Scene::start(|setup| setup.filter("10-dedup", "dedup", &settings("1h"))).await;
    let repeat = |scene: &Scene| {
        for number in 0..scene.fired() {
            scene.switch.fire(numbered(number));
        }
    };
    scene.fire(100);
    repeat(&scene);
    let before = scene.host.wait_filter("10-dedup", |_| true);
    let firing = scene.fire_steadily();
    place_filter(
        &scene.host.filters,
        "10-dedup",
        &component("dedup"),
        &settings("2h"),
    );
    scene.host.wait_filter("10-dedup", |filter| {
        filter["since_us"] != before["since_us"]
    });
    scene.stop(firing);
    repeat(&scene);
    scene.all_delivered();

    let sent = scene.switch.sent().queued;
    let mut scene = scene.restart(Setup::start);
    repeat(&scene);
    scene.fire(100);
    let status = scene.host.wait_settled(scene.switch.sent().queued - sent);
    assert_eq!(
        status["counts"]["dropped_by"],
        json!([{"by": "10-dedup", "reason": "duplicate", "events": scene.fired() - 100}]),
        "everything from before the restart is known"
    );
    let numbers = scene.redis.events(EVENTS).len() as u64;
    assert_eq!(numbers, scene.fired(), "each number once");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rate_limit_drops_is_in_the_accounts() {
    let settings = "by = [\"Tenant\"]\nrate = 5\nper = \"1h\"\n";
    let scene = Scene::start(|setup| setup.filter("10-rate-limit", "rate-limit", settings)).await;
    for number in 0..30 {
        let tenant = if number % 3 == 0 { "a" } else { "b" };
        scene.switch.fire(numbered(number).header("Tenant", tenant));
    }
    let counts = &scene.settle()["counts"];
    assert_eq!(
        counts["dropped_by"],
        json!([{"by": "10-rate-limit", "reason": "rate limit", "events": 20}]),
        "five of each tenant pass"
    );
    assert_eq!(scene.redis.events(EVENTS).len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_calls_record_reaches_its_stream_and_routes_read_the_normalized_name() {
    let streams = "[[stream]]\nname = \"freeswitch:ended\"\nevents = [\"CHANNEL_HANGUP_COMPLETE\"]\nwhen = { \"X-Event\" = \"call.ended\" }\n";
    let scene = Scene::start(|setup| {
        let setup = setup
            .config(streams)
            .filter("10-normalize", "normalize", "");
        setup.filter("20-call-record", "call-record", "")
    })
    .await;
    let leg = |name: &str, id: &str| Event::new(name).header("Unique-ID", id);
    let second = |name: &str| {
        let event = leg(name, "second").header("Other-Type", "originator");
        event.header("Other-Leg-Unique-ID", "first")
    };
    let end = |event: Event, cause: &str| {
        event
            .header("Answer-State", "hangup")
            .header("Hangup-Cause", cause)
    };
    scene.switch.fire(leg("CHANNEL_CREATE", "first"));
    scene.switch.fire(second("CHANNEL_OUTGOING"));
    scene.switch.fire(second("CHANNEL_CREATE"));
    scene.switch.fire(end(
        leg("CHANNEL_HANGUP_COMPLETE", "first"),
        "NORMAL_CLEARING",
    ));
    scene
        .switch
        .fire(end(second("CHANNEL_HANGUP_COMPLETE"), "CALL_REJECTED"));
    let counts = &scene.settle()["counts"];
    assert_eq!(
        (&counts["inputs"], &counts["derived"]),
        (&json!(5), &json!(1))
    );
    let records = scene.redis.events("freeswitch:calls");
    let expected = json!([{
        "Event-Name": "CALL_RECORD", "Unique-ID": "first", "Hangup-Cause": "NORMAL_CLEARING", "Legs": "2",
        "Other-Leg-Unique-ID": "second", "Other-Leg-Hangup-Cause": "CALL_REJECTED",
    }]);
    assert_eq!(Value::from(records), expected);
    let ended = scene.redis.events("freeswitch:ended");
    let subjects: Vec<&Value> = ended.iter().map(|event| &event["X-Subject"]).collect();
    assert_eq!(subjects, [&json!("first"), &json!("second")]);
}

#[test]
fn a_full_state_fits_the_limits_that_a_filter_has_by_default() {
    // Settings, events that are all new to it, and the bytes of a full state.
    fill("dedup", "window = \"24h\"\n", 70_000, 1 + 65_536 * 24);
    fill(
        "rate-limit",
        "by = [\"Event-Sequence\"]\nper = \"24h\"\n",
        15_000,
        1 + 10_000 * 24,
    );
    fill("call-record", "", 15_000, 1_000_000);
}

fn fill(name: &str, settings: &str, events: u32, at_least: usize) {
    // Time for a machine that is busy; `save` keeps its own deadline.
    let (mut chain, engine) = native::chain(name, settings, native::config());
    let _ticking = engine.ticking();
    let mut decided = Vec::new();
    for number in 0..events {
        let id = format!("6fedf11d-0a31-422f-9395-{number:012}");
        let event = json!({"Event-Name": "CHANNEL_CREATE", "Core-UUID": "core", "Event-Sequence": number.to_string(), "Unique-ID": id});
        let event = event::Event::parse(Format::Json, Bytes::from(event.to_string())).unwrap();
        chain.handle(event, 0, 1, &mut decided);
        let failure = decided
            .drain(..)
            .find_map(|decided| decided.steps.into_iter().find_map(|step| step.failure));
        assert!(failure.is_none(), "{name}, event {number}: {failure:?}");
    }
    chain.save(1);
    let state = chain.kept().remove(0).state;
    let state = state.unwrap_or_else(|| panic!("{name} saves its state in time"));
    assert!(
        state.len() >= at_least,
        "{name} saves {} bytes",
        state.len()
    );
}

#[test]
fn every_list_names_every_filter() {
    let manifests = fs::read_dir(root().join("filters"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let crates: BTreeSet<String> = manifests
        .filter(|path| path.join("Cargo.toml").is_file())
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        crates,
        FILTERS.map(str::to_owned).into(),
        "harness::FILTERS"
    );
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let line = format!("FILTERS := {}\n", FILTERS.join(" "));
    assert!(makefile.contains(&line), "the Makefile has {line}");
    let index = page("README");
    for name in FILTERS {
        assert!(
            index.contains(&format!("\n| [{name}]({name}.md) |")),
            "docs/filters/README.md has {name}"
        );
    }
}

#[test]
fn settings_files_and_pages_name_the_settings_that_there_are() {
    check::<call_record::CallRecord>("call-record", None);
    check::<dedup::Dedup>("dedup", None);
    check::<enrich::Enrich>("enrich", None);
    check::<normalize::Normalize>("normalize", None);
    check::<project::Project>("project", None);
    check::<rate_limit::RateLimit>("rate-limit", None);
    check::<redact::Redact>("redact", None);
    check::<route::Route>("route", Some("rule"));
    check::<sample::Sample>("sample", None);
    check::<validate::Validate>("validate", Some("rule"));
}

/// `rules`: the name of the table of which there may be many.
fn check<F: Filter>(name: &str, rules: Option<&str>) {
    let file = fs::read_to_string(root().join(format!("filters/{name}/{name}.toml"))).unwrap();
    if let Err(error) = testing::filter::<F>(&file) {
        panic!("{name}.toml: {error}");
    }
    let mut settings = known::<F>("no_such_setting = 1");
    if let Some(rules) = rules {
        assert!(settings.remove(rules));
        let of_rules = known::<F>(&format!("[[{rules}]]\nno_such_setting = 1"));
        settings.extend(of_rules.iter().map(|setting| format!("{rules}.{setting}")));
    }

    let in_page: BTreeSet<String> = page(name)
        .lines()
        .skip_while(|line| !line.starts_with("| setting |"))
        .skip(2)
        .map_while(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(setting, _)| setting.to_owned())
        .collect();
    assert_eq!(in_page, settings, "the table in docs/filters/{name}.md");
    for setting in settings {
        let key = setting.rsplit('.').next().unwrap();
        let is_shown = |line: &str| {
            let line = line.trim_start_matches(['#', ' ', '[']);
            let after = line.strip_prefix(key).unwrap_or_default();
            after.starts_with([' ', '.', ']'])
        };
        assert!(file.lines().any(is_shown), "{name}.toml shows `{setting}`");
    }
}

/// What the filter says it knows when it is given something else.
fn known<F: Filter>(settings: &str) -> BTreeSet<String> {
    let error = testing::filter::<F>(settings).err().unwrap();
    let (_, known) = error
        .split_once(", expected ")
        .unwrap_or_else(|| panic!("{error}"));
    known
        .split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join(format!("docs/filters/{name}.md"))).unwrap()
}
