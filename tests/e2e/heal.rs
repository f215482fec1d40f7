//! Redis comes back with less than it acknowledged: its streams become complete again, in order, without repeats.

use std::sync::Arc;

use jackfield::simulator::{Settings, Simulator};
use serde_json::Value;

use crate::harness::{Host, Redis, Setup, wait_for};
use crate::numbered::{self, Firing, STREAM};

const CURSOR: &str = "jackfield:sim1:cursor";

async fn switch() -> Arc<Simulator> {
    Arc::new(Simulator::start(Settings::default()).await.unwrap())
}

fn setup(switch: &Simulator, redis: &Redis) -> Setup {
    Setup::new(switch.addr(), redis)
        .env("REDIS_REMOTE_WRITE_TIMEOUT", "300ms")
        .env("EVENTS_MAX_LEN", "0")
        .env("ESL_RECONNECT_DELAY", "50ms")
}

/// A ready host that has brought so many events to Redis.
async fn host_with(events: u64) -> (Arc<Simulator>, Redis, Host) {
    let (switch, redis) = (switch().await, Redis::start());
    let host = setup(&switch, &redis).start();
    host.wait_ready();
    numbered::fire(&switch, 0..events);
    host.wait_settled(events);
    (switch, redis, host)
}

/// Waits until all numbers up to `count` are in the stream in order, and the accounts balance without a loss.
#[track_caller]
fn wait_complete(host: &Host, redis: &Redis, count: u64) -> Value {
    wait_for("the stream is complete", || {
        (redis.ask::<u64>(&["XLEN", STREAM]) >= count).then_some(())
    });
    let status = host.wait_settled(0);
    numbered::check(redis, STREAM, 0..count);
    let counts = &status["counts"];
    assert_eq!(
        (&counts["lost"], &counts["balanced"]),
        (&0.into(), &true.into()),
        "{status:#}"
    );
    status
}

fn healed(host: &Host) -> u64 {
    host.metric("jackfield_healed_total").unwrap() as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn what_redis_forgot_is_sent_again_and_counted_as_healed_only() {
    let (switch, mut redis, host) = host_with(200).await;
    redis.ask::<()>(&["SAVE"]);
    numbered::fire(&switch, 200..500);
    host.wait_settled(500);
    redis.kill();
    redis.up();
    assert_eq!(
        redis.ask::<u64>(&["XLEN", STREAM]),
        200,
        "it came back with less"
    );
    numbered::fire(&switch, 500..600);
    let status = wait_complete(&host, &redis, 600);
    assert_eq!(status["counts"]["delivered"], 600, "each once: {status:#}");
    assert_eq!(healed(&host), 300, "what was sent again");
    host.wait_log("healing: Redis came back with less");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_goes_back_again_and_again_under_load_is_healed_each_time() {
    let (switch, mut redis) = (switch().await, Redis::start());
    let host = setup(&switch, &redis).start();
    host.wait_ready();
    let firing = Firing::start(&switch);
    for round in 1..=3 {
        let grown = |count: u64| move |redis: &Redis| redis.ask::<u64>(&["XLEN", STREAM]) > count;
        wait_for("events arrive", || grown(300 * round)(&redis).then_some(()));
        redis.ask::<()>(&["SAVE"]);
        let saved: u64 = redis.ask(&["XLEN", STREAM]);
        wait_for("more arrive", || grown(saved + 150)(&redis).then_some(()));
        redis.kill();
        redis.up();
    }
    let count = firing.stop().await;
    wait_complete(&host, &redis, count);
    assert!(healed(&host) >= 3 * 150, "{}", healed(&host));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lagging_replica_that_is_promoted_is_healed() {
    let (switch, redis, host) = host_with(200).await;
    let lagging = Redis::start();
    let of = |other: &Redis| {
        [
            "REPLICAOF".to_owned(),
            "127.0.0.1".to_owned(),
            other.port.to_string(),
        ]
    };
    let words = of(&redis);
    lagging.ask::<()>(&words.each_ref().map(String::as_str));
    wait_for("the replica has it all", || {
        (lagging.ask::<u64>(&["XLEN", STREAM]) == 200).then_some(())
    });
    lagging.ask::<()>(&["REPLICAOF", "NO", "ONE"]);
    numbered::fire(&switch, 200..500);
    host.wait_settled(500);
    // What the replica holds takes the place of the master's, at the same address.
    let words = of(&lagging);
    redis.ask::<()>(&words.each_ref().map(String::as_str));
    wait_for("it has what the replica had", || {
        (redis.ask::<u64>(&["XLEN", STREAM]) == 200).then_some(())
    });
    numbered::fire(&switch, 500..600);
    redis.ask::<()>(&["REPLICAOF", "NO", "ONE"]);
    let status = wait_complete(&host, &redis, 600);
    assert_eq!(status["counts"]["delivered"], 600, "each once: {status:#}");
    assert_eq!(healed(&host), 300, "what the replica had missed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_redis_is_filled_again() {
    let (switch, redis) = (switch().await, Redis::start());
    let host = setup(&switch, &redis).start();
    host.wait_ready();
    let firing = Firing::start(&switch);
    for wiped in 1..=2 {
        wait_for("events arrive", || {
            (redis.ask::<u64>(&["XLEN", STREAM]) > 400 * wiped).then_some(())
        });
        redis.ask::<()>(&["FLUSHALL"]);
    }
    let count = firing.stop().await;
    wait_complete(&host, &redis, count);
    assert!(healed(&host) > 400, "{}", healed(&host));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_was_wiped_while_the_host_was_away_is_filled_again() {
    let (switch, redis, host) = host_with(300).await;
    let setup = host.stop();
    redis.ask::<()>(&["FLUSHALL"]);
    let host = setup.start();
    host.wait_ready();
    numbered::fire(&switch, 300..350);
    wait_complete(&host, &redis, 350);
    assert_eq!(healed(&host), 300, "of the run before");
    assert_eq!(host.count("delivered"), 50, "in this run");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_is_merely_gone_is_restored_and_nothing_is_sent_again() {
    let (switch, redis, host) = host_with(100).await;
    redis.ask::<()>(&["DEL", CURSOR]);
    numbered::fire(&switch, 100..200);
    wait_complete(&host, &redis, 200);
    let setup = host.stop();
    redis.ask::<()>(&["DEL", CURSOR]);
    let host = setup.start();
    host.wait_ready();
    numbered::fire(&switch, 200..300);
    wait_complete(&host, &redis, 300);
    assert_eq!(healed(&host), 0, "nothing was sent again");
    assert_eq!(host.metric("jackfield_cursors_restored_total"), Some(1.0));
    host.wait_log("cursor was lost and is restored");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_an_operator_deletes_stays_deleted() {
    let (switch, redis, host) = host_with(100).await;
    redis.ask::<()>(&["DEL", STREAM]);
    numbered::fire(&switch, 100..150);
    host.wait_settled(150);
    numbered::check(&redis, STREAM, 100..150);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_journal_does_not_have_any_more_is_reported_and_the_rest_is_sent() {
    let (switch, redis) = (switch().await, Redis::start());
    let host = setup(&switch, &redis)
        .config("[journal]\nmax_size = \"16MiB\"\nretain = \"1ms\"\n")
        .start();
    host.wait_ready();
    let long = "x".repeat(16 << 10);
    for number in 0..1_000 {
        switch.fire(numbered::event(number).header("Long", &*long));
    }
    host.wait_settled(1_000);
    let kept = |host: &Host| host.status()["journal"]["bytes"].as_u64().unwrap();
    wait_for("old segments are deleted", || {
        (kept(&host) < 8 << 20).then_some(())
    });
    redis.ask::<()>(&["FLUSHALL"]);
    numbered::fire(&switch, 1_000..1_010);
    host.wait_log("Redis lost what the journal no longer has");
    wait_for("the rest is there", || {
        (numbered::in_stream(&redis, STREAM).last() == Some(&1_009)).then_some(())
    });
    let there = numbered::in_stream(&redis, STREAM);
    let first = there[0];
    assert!(first > 0, "some are gone for good");
    numbered::check(&redis, STREAM, first..1_010);
    let unhealable = host.metric("jackfield_unhealable_total").unwrap() as u64;
    assert!(unhealable >= first, "{unhealable} of at least {first}");
}
