//! Filters that trap, loop and eat memory, and versions that come and are refused, while everything else fails, too: each event is treated
//! as its filter's `on_error` says, and a filter that counts has counted each event once.

use std::fs;

use serde_json::{Value, json};

use super::dice::{rounds, seeds};
use super::interposer::{ENOSPC, Point, Strike};
use super::trial::{DEAD, EVENTS, JOBS, Plan, Trial};
use super::verdict::{Missing, Verdict};
use crate::harness::{DURABLE, Setup, component, place_filter, wait_for};
use crate::proxy::{Condition, Ending, Toward};

const COUNTER: &str = "10-count";
/// The filter that fails on each of these drops it.
const DROPPED: &str = "CHANNEL_EXECUTE_COMPLETE";

/// A version of a filter that counts: every event that ends in a stream, or as a dead letter, and is known by its name alone.
fn counter(version: u64) -> String {
    let wants = r#"["CHANNEL_ANSWER", "CHANNEL_EXECUTE", "CHANNEL_HANGUP", "CUSTOM", "DTMF", "DETECTED_SPEECH"]"#;
    format!("attack = \"counter\"\nversion = \"{version}\"\nwants = {wants}\n")
}

/// It is never taken out, so that it hurts to the end.
fn attack(name: &str, event: &str, on_error: &str) -> String {
    format!(
        "attack = \"{name}\"\nwants = [\"{event}\"]\n[jackfield]\ndeadline = \"20ms\"\non_error = \"{on_error}\"\nprobation = \"0s\"\n"
    )
}

fn filters(setup: Setup) -> Setup {
    setup
        .filter(COUNTER, "hostile", &counter(0))
        .filter("20-drop", "hostile", &attack("trap", DROPPED, "drop"))
        // Every third one, as each new instance counts anew.
        .filter(
            "30-dead",
            "hostile",
            &format!(
                "after = 3\n{}",
                attack("memory", "CHANNEL_EXECUTE", "dead-letter")
            ),
        )
        .filter(
            "40-loop",
            "hostile",
            &attack("loop", "CHANNEL_ANSWER", "pass"),
        )
        .filter(
            "50-trap",
            "hostile",
            &attack("deep-recursion", "CHANNEL_HANGUP", "pass"),
        )
}

fn plan(seed: u64) -> Plan {
    Plan::new(seed).setup(filters).dropped(DROPPED)
}

/// How often the log says this of the counter.
fn said(trial: &Trial, what: &str) -> usize {
    let file = format!("filter=\"{COUNTER}\"");
    let log = trial.host().log();
    log.lines()
        .filter(|line| line.contains(what) && line.contains(&file))
        .count()
}

#[track_caller]
fn wait_said(trial: &Trial, what: &str, more_than: usize) {
    wait_for(what, || (said(trial, what) > more_than).then_some(()));
}

const LIVE: &str = "filter live";
const REFUSED: &str = "filter refused; the running version stays";

/// A good version goes live.
#[track_caller]
fn reload(trial: &Trial, version: u64) {
    let live = said(trial, LIVE);
    let folder = &trial.host().filters;
    place_filter(folder, COUNTER, &component("hostile"), &counter(version));
    wait_said(trial, LIVE, live);
}

/// A broken one does not.
#[track_caller]
fn reload_broken(trial: &mut Trial) {
    let refused = said(trial, REFUSED);
    let kind = trial.dice.within(0..3);
    let folder = &trial.host().filters;
    let file = |end: &str| folder.join(format!("{COUNTER}.{end}"));
    match kind {
        0 => fs::write(file("toml"), "attack = \"refuse\"\n").unwrap(),
        1 => fs::write(file("toml"), "attack = \"loop-in-configure\"\n").unwrap(),
        _ => fs::write(file("wasm"), "no component").unwrap(),
    }
    wait_said(trial, REFUSED, refused);
}

/// A fault and its end, with versions good and broken in the middle of it, again and again.
async fn through(mut trial: Trial, begin: impl Fn(&mut Trial), end: impl Fn(&mut Trial)) -> Trial {
    for round in 0..rounds(3, 10) {
        trial.disturb();
        begin(&mut trial);
        reload(&trial, 2 * round + 1);
        reload_broken(&mut trial);
        if trial.dice.within(0..2) == 0 {
            reload(&trial, 2 * round + 2);
        }
        end(&mut trial);
        trial.host().wait_ready();
        trial.calm();
        trial.wait_delivered(200);
    }
    trial
}

/// What the verdict cannot know: what the filters did.
fn check(verdict: &Verdict) {
    let dropped = verdict.status["counts"]["dropped_by"].as_array().unwrap();
    assert!(
        dropped.iter().any(|by| by["by"] == "20-drop"),
        "it is in the accounts who dropped: {dropped:?}"
    );
    assert!(
        verdict.status["counts"]["dead_lettered"].as_u64() > Some(0),
        "and what is kept: {:#}",
        verdict.status
    );
    let mut counts: Vec<u64> = Vec::new();
    for stream in [EVENTS, JOBS, DEAD] {
        let events = verdict.redis.events(stream);
        let counted = events
            .iter()
            .filter(|event| event["Event-Name"] != "BACKGROUND_JOB");
        let of_stream: Vec<u64> = counted.map(count).collect();
        assert!(of_stream.is_sorted(), "{stream}: counted in order");
        counts.extend(of_stream);
    }
    assert!(counts.len() > 100, "only {} were counted", counts.len());
    counts.sort_unstable();
    let expected = 1..=counts.len() as u64;
    let wrong = counts
        .iter()
        .zip(expected)
        .find(|(is, should)| **is != *should);
    assert_eq!(
        wrong, None,
        "each event is counted once (what is, what should be)"
    );
}

fn count(event: &Value) -> u64 {
    let count = event["X-Count"].as_str();
    let count = count.unwrap_or_else(|| panic!("not counted: {event}"));
    count.parse().unwrap()
}

fn pieces() -> usize {
    usize::try_from(rounds(3, 10)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_host_is_killed() {
    for seed in seeds("faults::filters_hurt::while_the_host_is_killed", &[1]) {
        let mut trial = plan(seed).start().await;
        for round in 0..rounds(3, 10) {
            reload_broken(&mut trial);
            let folder = &trial.host().filters;
            place_filter(folder, COUNTER, &component("hostile"), &counter(round + 1));
            // Before, while, or after it goes live.
            let later = trial.dice.within(0..150);
            trial.wait_sent(usize::try_from(later).unwrap());
            trial.disturb();
            trial.kill();
            trial.start_again();
            trial.host().wait_ready();
            trial.calm();
            trial.wait_delivered(200);
        }
        check(&trial.verdict(Missing::Unheard(pieces())));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_is_killed() {
    for seed in seeds("faults::filters_hurt::while_redis_is_killed", &[1]) {
        let trial = plan(seed).redis(&DURABLE).start().await;
        let trial = through(trial, |trial| trial.redis.kill(), |trial| trial.redis.up()).await;
        check(&trial.verdict(Missing::Nothing));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_hangs() {
    for seed in seeds("faults::filters_hurt::while_redis_hangs", &[1]) {
        let begin = |trial: &mut Trial| {
            trial.lane.set(Toward::Server, Condition::BlackHole);
            trial.lane.set(Toward::Client, Condition::BlackHole);
        };
        let trial = through(plan(seed).start().await, begin, |trial| trial.lane.clear()).await;
        check(&trial.verdict(Missing::Nothing));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_event_socket_is_cut() {
    for seed in seeds("faults::filters_hurt::while_the_event_socket_is_cut", &[1]) {
        let begin = |trial: &mut Trial| {
            let after = trial.dice.within(1..100_000);
            trial.switch.set_refuse(true);
            trial
                .esl
                .set(Toward::Client, Condition::EndAfter(after, Ending::Rst));
            trial.esl.wait_condition(Toward::Client, &Condition::Clear);
        };
        let end = |trial: &mut Trial| trial.switch.set_refuse(false);
        let trial = through(plan(seed).start().await, begin, end).await;
        check(&trial.verdict(Missing::Unheard(pieces())));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_disk_is_full() {
    for seed in seeds("faults::filters_hurt::while_the_disk_is_full", &[1]) {
        let begin = |trial: &mut Trial| {
            let skip = trial.dice.within(0..20);
            let full = Strike::Fail(ENOSPC);
            trial
                .interposer
                .strike(0, Point::SegmentWrite, skip, u64::MAX, full);
            trial
                .interposer
                .strike(1, Point::StateWrite, 0, u64::MAX, full);
            trial.interposer.wait_struck(0);
        };
        let end = |trial: &mut Trial| {
            trial.interposer.relax(0);
            trial.interposer.relax(1);
        };
        let trial = through(plan(seed).interposed().start().await, begin, end).await;
        let verdict = trial.verdict(Missing::Nothing);
        check(&verdict);
        assert_eq!(verdict.status["counts"]["lost"], json!(0));
    }
}
