//! Clocks that jump by an hour, forth and back: order, accounts and delivery do not depend on the time of day.

use super::dice::{rounds, seeds};
use super::trial::{Plan, Trial};
use super::verdict::Missing;

const HOUR: i64 = 3_600;

#[derive(Clone, Copy)]
enum Whose {
    Host,
    Redis,
}

impl Whose {
    fn jump(self, trial: &Trial, seconds: i64) {
        match self {
            Whose::Host => trial.interposer.move_clock(seconds),
            Whose::Redis => trial.redis_interposer.move_clock(seconds),
        }
    }
}

/// Entries expire by Redis' own clock, after longer than it jumps; the owner key, which lasts for seconds, goes.
fn plan(seed: u64) -> Plan {
    Plan::new(seed).interposed().setup(|setup| {
        let setup = setup
            .env("EVENTS_EXPIRE_TIME", "3h")
            .env("JOBS_EXPIRE_TIME", "3h")
            .env("TRIM_INTERVAL", "200ms");
        setup.filter("10-count", "hostile", "attack = \"counter\"\n")
    })
}

async fn jumps(test: &str, whose: Whose) {
    for seed in seeds(test, &[1]) {
        let mut trial = plan(seed).start().await;
        for _ in 0..rounds(1, 10) {
            for hours in [1, 0, -1, 0] {
                whose.jump(&trial, hours * HOUR);
                let some = trial.dice.within(100..400);
                trial.wait_delivered(some);
            }
            // Over a restart, too.
            whose.jump(&trial, -HOUR);
            trial.kill();
            trial.start_again();
            trial.wait_delivered(100);
            whose.jump(&trial, HOUR);
            trial.kill();
            trial.start_again();
            trial.wait_delivered(100);
        }
        trial.verdict(Missing::Unheard(2 * rounds(1, 10) as usize));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_of_the_host_that_jumps_an_hour_changes_nothing() {
    jumps(
        "faults::clock::a_clock_of_the_host_that_jumps_an_hour_changes_nothing",
        Whose::Host,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_of_redis_that_jumps_an_hour_changes_nothing() {
    jumps(
        "faults::clock::a_clock_of_redis_that_jumps_an_hour_changes_nothing",
        Whose::Redis,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clocks_are_really_moved() {
    let trial = plan(1).start().await;
    let redis_time = || {
        let (seconds, _): (i64, i64) = trial.redis.ask(&["TIME"]);
        seconds
    };
    let host_time = || {
        let health: serde_json::Value =
            serde_json::from_str(&trial.host().get("/health").1).unwrap();
        health["data"]["last_check"].as_str().unwrap().to_owned()
    };
    let (redis, host) = (redis_time(), host_time());
    trial.redis_interposer.move_clock(HOUR);
    trial.interposer.move_clock(26 * HOUR);
    assert!(redis_time() - redis >= HOUR, "Redis lives an hour later");
    assert_ne!(
        host_time()[..10],
        host[..10],
        "the host lives on another day"
    );
    trial.verdict(Missing::Nothing);
}
