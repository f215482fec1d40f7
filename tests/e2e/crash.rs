//! kill -9 of the host, and its restart: everything that was journaled is in Redis exactly once, in order, with its first decision.

use std::sync::Arc;

use jackfield::simulator::{Settings, Simulator};
use serde_json::Value;

use crate::harness::{DURABLE, Host, Redis, Setup, wait_for};
use crate::numbered::{self, Firing, STREAM};
use crate::proxy::{self, Proxy};
use crate::scene::versioned;

async fn switch() -> Arc<Simulator> {
    // A command of the host's own would be an API event, which a filter that wants every event would count.
    let settings = Settings {
        has_commands: false,
        ..Settings::default()
    };
    Arc::new(Simulator::start(settings).await.unwrap())
}

fn setup(switch: &Simulator, redis: &Redis) -> Setup {
    let setup = Setup::new(switch.addr(), redis).env("REDIS_REMOTE_WRITE_TIMEOUT", "300ms");
    let setup = setup
        .env("EVENTS_MAX_LEN", "0")
        .env("ESL_RECONNECT_DELAY", "50ms");
    setup.env("JACKFIELD_FILTERS_DEADLINE", "1s")
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_kills_under_load_lose_and_repeat_nothing_that_was_journaled() {
    let (switch, redis) = (switch().await, Redis::start());
    let mut setup = setup(&switch, &redis);
    let firing = Firing::start(&switch);
    for round in 0..10 {
        let host = setup.start();
        host.wait_ready();
        numbered::wait_growth(&redis, 40 + 97 * (round % 4));
        setup = host.kill();
    }
    let host = setup.start();
    host.wait_ready();
    numbered::wait_growth(&redis, 100);
    firing.stop().await;
    let status = host.wait_settled(0);
    assert_eq!(status["counts"]["lost"], 0, "{status:#}");
    let journaled = numbered::in_journal(&host.stop());
    numbered::check(&redis, STREAM, journaled.iter().copied());
    let gaps = journaled.windows(2).filter(|pair| pair[1] != pair[0] + 1);
    assert!(
        gaps.count() <= 10,
        "only what FreeSWITCH sent while nobody listened is missing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_survives_the_death_of_the_host_while_redis_is_away() {
    let (switch, mut redis) = (switch().await, Redis::start_with(&DURABLE));
    let host = setup(&switch, &redis).start();
    host.wait_ready();
    numbered::fire(&switch, 0..100);
    host.wait_settled(100);
    redis.kill();
    host.wait_redis_away();
    // More than memory holds: some are decided, most are only in the journal.
    numbered::fire(&switch, 100..5_000);
    host.wait_status("all is in the journal", |status| {
        status["journal"]["last"].as_u64() >= Some((1 << 40) + 4_999)
    });
    let host = host.kill().start();
    host.wait_redis_away();
    numbered::fire(&switch, 5_000..5_100);
    redis.up();
    let status = host.wait_status("all is delivered", |status| {
        let counts = &status["counts"];
        counts["delivered"] == 5_000 && counts["pending"] == 0
    });
    assert_eq!(status["counts"]["balanced"], true, "{status:#}");
    assert!(
        status["counts"]["replayed"].as_u64() > Some(0),
        "decided before the crash: {status:#}"
    );
    numbered::check(&redis, STREAM, 0..5_100);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_stays_what_it_was_decided_to_be() {
    let (switch, mut redis) = (switch().await, Redis::start_with(&DURABLE));
    let rule = |stream: &str| format!("[[rule]]\nevent = \"CUSTOM\"\nstreams = [\"{stream}\"]\n");
    let host = setup(&switch, &redis)
        .filter("10-route", "route", &rule("freeswitch:before"))
        .start();
    host.wait_ready();
    redis.kill();
    host.wait_redis_away();
    numbered::fire(&switch, 0..100);
    host.wait_status("all is decided", |status| {
        let journal = &status["journal"];
        status["counts"]["inputs"] == 100 && journal["decided"].as_u64() >= Some((1 << 40) + 99)
    });
    let setup = host.kill();
    let settings = setup.filters().join("10-route.toml");
    std::fs::write(settings, rule("freeswitch:after")).unwrap();
    let host = setup.start();
    host.wait_redis_away();
    numbered::fire(&switch, 100..200);
    redis.up();
    host.wait_status("all is delivered", |status| {
        status["counts"]["delivered"] == 200
    });
    numbered::check(&redis, "freeswitch:before", 0..100);
    numbered::check(&redis, "freeswitch:after", 100..200);
}

/// A host behind a proxy, after its first ten events. It waits long for a reply: its end is the test's matter.
async fn behind_proxy() -> (Arc<Simulator>, Redis, Proxy, Host) {
    let (switch, redis) = (switch().await, Redis::start());
    let setup = setup(&switch, &redis).env("JACKFIELD_REDIS_TIMEOUT", "30s");
    let (proxy, host) = proxy::start_behind(setup, &switch, &redis);
    (switch, redis, proxy, host)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_killed_between_exec_and_its_reply_repeats_nothing() {
    let (switch, redis, proxy, host) = behind_proxy().await;
    proxy.hold_batches();
    numbered::fire(&switch, 10..20);
    proxy.wait_held(0);
    proxy.hold_replies(true);
    proxy.let_go(0);
    wait_for("Redis has executed it", || {
        (redis.ask::<u64>(&["XLEN", STREAM]) > 10).then_some(())
    });
    let setup = host.kill();
    proxy.hold_replies(false);
    let next = proxy.connections();
    let host = setup.start();
    proxy.let_go(next);
    host.wait_ready();
    numbered::fire(&switch, 20..30);
    wait_for("all have arrived", || {
        (redis.ask::<u64>(&["XLEN", STREAM]) >= 30).then_some(())
    });
    host.wait_settled(0);
    numbered::check(&redis, STREAM, 0..30);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_a_killed_host_that_arrives_late_does_nothing() {
    let (switch, redis, proxy, host) = behind_proxy().await;
    proxy.hold_batches();
    numbered::fire(&switch, 10..20);
    proxy.wait_held(0);
    let setup = host.kill();
    let before = proxy.connections();
    let host = setup.start();
    proxy.let_go(before);
    host.wait_ready();
    wait_for("they are delivered", || {
        (redis.ask::<u64>(&["XLEN", STREAM]) >= 20).then_some(())
    });
    proxy.let_go(0);
    proxy.wait_over(0);
    host.wait_settled(0);
    numbered::check(&redis, STREAM, 0..20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_counts_every_journaled_event_once_whatever_kills_the_host() {
    let (switch, redis) = (switch().await, Redis::start());
    let mut setup = setup(&switch, &redis).filter("10-count", "hostile", "attack = \"counter\"\n");
    let firing = Firing::start(&switch);
    for _ in 0..3 {
        let host = setup.start();
        host.wait_ready();
        numbered::wait_growth(&redis, 200);
        setup = host.kill();
    }
    let host = setup.start();
    host.wait_ready();
    numbered::wait_growth(&redis, 100);
    // A good end saves the state; what comes after it goes on from there.
    let host = host.stop().start();
    host.wait_ready();
    numbered::wait_growth(&redis, 100);
    firing.stop().await;
    host.wait_settled(0);
    check_counts(&redis, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_filter_knows_every_event_once_where_one_of_them_was_another_just_before_the_kill() {
    let (switch, redis) = (switch().await, Redis::start());
    let count = |comment: u64| format!("attack = \"counter\"\n# {comment}\n");
    let mut setup = setup(&switch, &redis)
        .filter("05-derive", "hostile", "attack = \"derive\"\n")
        .filter("10-version", "hostile", &versioned("0"))
        .filter("20-count", "hostile", &count(0));
    let firing = Firing::start(&switch);
    for round in 1..=4 {
        let host = setup.start();
        host.wait_ready();
        numbered::wait_growth(&redis, 100);
        // The counter's neighbour, or the counter itself.
        let (file, text) = match round % 2 {
            1 => ("10-version", versioned(&round.to_string())),
            _ => ("20-count", count(round)),
        };
        let since = |filter: &Value| filter["since_us"].as_u64().unwrap();
        let before = since(&host.wait_filter(file, |_| true));
        std::fs::write(host.filters.join(format!("{file}.toml")), text).unwrap();
        host.wait_filter(file, |filter| since(filter) != before);
        numbered::wait_growth(&redis, 10 * round);
        setup = host.kill();
    }
    let host = setup.start();
    host.wait_ready();
    numbered::wait_growth(&redis, 100);
    firing.stop().await;
    host.wait_settled(0);
    // With each event it sees one that the first filter derives, which goes nowhere.
    check_counts(&redis, 2);
}

/// The counter was called so many times for each event, whatever it has forgotten in between.
fn check_counts(redis: &Redis, calls: usize) {
    let counts: Vec<u64> = redis
        .events(STREAM)
        .iter()
        .map(|event| event["X-Count"].as_str().unwrap().parse().unwrap())
        .collect();
    let expected: Vec<u64> = (1..).step_by(calls).take(counts.len()).collect();
    let at = counts
        .iter()
        .zip(&expected)
        .position(|(is, should)| is != should);
    assert!(
        counts == expected,
        "from place {at:?} on: {:?}",
        at.map(|at| &counts[at..counts.len().min(at + 5)])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_while_redis_is_away_is_quick_and_loses_nothing() {
    let (switch, mut redis) = (switch().await, Redis::start_with(&DURABLE));
    let host = setup(&switch, &redis).start();
    host.wait_ready();
    redis.kill();
    host.wait_redis_away();
    numbered::fire(&switch, 0..2_000);
    let status = host.wait_status("all is received", |status| {
        status["counts"]["inputs"] == 2_000
    });
    assert_eq!(status["counts"]["balanced"], true, "{status:#}");
    let setup = host.stop();
    redis.up();
    let host = setup.start();
    host.wait_status("all is delivered", |status| {
        status["counts"]["delivered"] == 2_000
    });
    numbered::check(&redis, STREAM, 0..2_000);
}
