//! Being told to stop, at a bad moment and more than once: it is quick, it is clean, and nothing is lost.

use std::time::{Duration, Instant};

use super::dice::{rounds, seeds};
use super::trial::Plan;
use super::verdict::Missing;
use crate::proxy::{Condition, Ending, Toward};

/// Half of what a container runtime waits before it kills.
const QUICK: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_while_redis_is_down_is_quick_and_loses_nothing() {
    let test = "faults::signals::a_stop_while_redis_is_down_is_quick_and_loses_nothing";
    stops_without_redis(test, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_while_redis_is_down_leaves_at_once_and_loses_nothing() {
    let test =
        "faults::signals::a_second_signal_while_redis_is_down_leaves_at_once_and_loses_nothing";
    stops_without_redis(test, 2).await;
}

async fn stops_without_redis(test: &str, signals: u64) {
    for seed in seeds(test, &[1]) {
        let mut trial = Plan::new(seed).start().await;
        let stops = rounds(2, 20);
        for _ in 0..stops {
            trial.disturb();
            trial.lane.set(Toward::Server, Condition::BlackHole);
            trial.lane.end(Ending::Rst);
            trial.host().wait_redis_away();
            trial.wait_sent(500);
            let told = Instant::now();
            if signals == 1 {
                trial.stop();
            } else {
                trial.host().signal("TERM");
                std::thread::sleep(trial.dice.millis(0..200));
                trial.host().signal("TERM");
                trial.wait_left(1);
            }
            assert!(told.elapsed() < QUICK, "a stop takes {:?}", told.elapsed());
            trial.lane.clear();
            trial.start_again();
            trial.host().wait_ready();
            trial.calm();
            trial.wait_delivered(500);
        }
        trial.verdict(Missing::Unheard(stops as usize));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stops_under_load_leave_nothing_behind() {
    for seed in seeds(
        "faults::signals::stops_under_load_leave_nothing_behind",
        &[1],
    ) {
        let mut trial = Plan::new(seed).start().await;
        let stops = rounds(5, 50);
        for _ in 0..stops {
            std::thread::sleep(trial.dice.millis(0..300));
            let told = Instant::now();
            trial.stop();
            assert!(told.elapsed() < QUICK, "a stop takes {:?}", told.elapsed());
            trial.start_again();
            trial.host().wait_ready();
        }
        trial.wait_delivered(100);
        trial.verdict(Missing::Unheard(stops as usize));
    }
}
