//! Redis forgets what it acknowledged, all of it or some keys: what is gone is sent again, once, and what is there is not.

use std::collections::BTreeSet;

use super::dice::{rounds, seeds};
use super::entries::of_stream;
use super::sentinel::Sentinel;
use super::tap::Key;
use super::trial::{EVENTS, JOBS, Plan, Trial};
use super::trouble::impatient;
use super::verdict::Missing;
use crate::harness::{Redis, wait_for};
use crate::proxy::{Condition, Ending, Proxy, Toward};

const CURSOR: &str = "jackfield:sim1:cursor";

#[tokio::test(flavor = "multi_thread")]
async fn a_lagging_replica_that_sentinel_promotes_gets_what_it_missed() {
    let test =
        "faults::redis_forgets::a_lagging_replica_that_sentinel_promotes_gets_what_it_missed";
    for seed in seeds(test, &[1]) {
        let mut trial = Plan::new(seed).setup(impatient).start().await;
        for _ in 0..rounds(1, 3) {
            // The replica and Sentinel reach the master through it; the host does not.
            let link = Proxy::to(trial.redis.port);
            let of = ["--replicaof", "127.0.0.1", &link.port.to_string()];
            let replica = Redis::start_with(&of);
            let sentinel = Sentinel::over(link.port);
            wait_for("the replica follows", || {
                let info: String = replica.ask(&["INFO", "replication"]);
                info.contains("master_link_status:up").then_some(())
            });
            let more = trial.dice.within(50..200);
            trial.wait_delivered(more);
            for toward in [Toward::Server, Toward::Client] {
                link.set(toward, Condition::BlackHole);
            }
            // Acknowledged by a master that nobody follows any more.
            trial.wait_delivered(more);
            sentinel.wait_promoted(replica.port);
            trial.disturb();
            let healed = trial.logged(" WARN ", "healing");
            trial.lane.aim(replica.port);
            trial.lane.end(Ending::Rst);
            let _old_master = std::mem::replace(&mut trial.redis, replica);
            wait_for("what it had missed is sent again", || {
                (trial.logged(" WARN ", "healing") == healed + 1).then_some(())
            });
            trial.host().wait_ready();
            trial.calm();
            trial.wait_delivered(more);
        }
        trial.verdict(Missing::Nothing);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_is_deleted_under_load_is_restored_each_time() {
    let test = "faults::redis_forgets::a_cursor_that_is_deleted_under_load_is_restored_each_time";
    for seed in seeds(test, &[1]) {
        let mut trial = Plan::new(seed).start().await;
        for _ in 0..rounds(30, 300) {
            trial.redis.ask::<()>(&["DEL", CURSOR]);
            let more = trial.dice.within(1..30);
            trial.wait_delivered(more);
        }
        let verdict = trial.verdict(Missing::Nothing);
        let log = &verdict.log;
        assert!(!log.contains("healing"), "nothing was sent again\n{log}");
        assert!(verdict.log.contains("cursor was lost and is restored"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_wiped_at_any_moment_is_filled_again() {
    let test = "faults::redis_forgets::a_redis_that_is_wiped_at_any_moment_is_filled_again";
    for seed in seeds(test, &[1]) {
        let mut trial = Plan::new(seed).setup(impatient).start().await;
        for _ in 0..rounds(6, 20) {
            let more = trial.dice.within(1..150);
            trial.wait_delivered(more);
            trial.disturb();
            // Also while the fate of a batch is unknown.
            let endings = [None, Some(true), Some(false)];
            let ends_first = *trial.dice.pick(&endings);
            if ends_first == Some(true) {
                trial.lane.end(Ending::Rst);
            }
            trial.redis.ask::<()>(&["FLUSHALL"]);
            if ends_first == Some(false) {
                trial.lane.end(Ending::Rst);
            }
            trial.wait_delivered(more);
            trial.calm();
        }
        trial.verdict(Missing::Nothing);
    }
}

/// The events of a stream.
fn events(trial: &Trial, stream: &str) -> BTreeSet<Key> {
    of_stream(&trial.redis, stream).into_iter().collect()
}

fn is_there(trial: &Trial, key: &str) -> bool {
    trial.redis.ask(&["EXISTS", key])
}

/// Redis is short of memory until it has removed something of ours.
fn evict(trial: &mut Trial) {
    let keys = [CURSOR, EVENTS, JOBS];
    let there = |trial: &Trial| keys.map(|key| is_there(trial, key));
    let all = there(trial);
    let before = [EVENTS, JOBS].map(|stream| (stream, events(trial, stream)));
    wait_for("something is evicted", || {
        // One key at a time.
        let info: String = trial.redis.ask(&["INFO", "memory"]);
        let used = info
            .lines()
            .find_map(|line| line.strip_prefix("used_memory:"));
        let less = used.unwrap().parse::<u64>().unwrap() - 1_000;
        trial
            .redis
            .ask::<()>(&["CONFIG", "SET", "maxmemory", &less.to_string()]);
        let left = there(trial);
        trial.redis.ask::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
        (left != all).then_some(())
    });
    let is_cursor_gone = !is_there(trial, CURSOR);
    for (stream, before) in before {
        if is_cursor_gone && !is_there(trial, stream) {
            trial.operator.comes_back(stream);
        } else {
            // As if an operator had deleted it.
            let after = events(trial, stream);
            trial.operator.note_removed(stream, &before - &after);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_redis_evicts_with_the_cursor_comes_back_and_the_rest_is_not_repeated() {
    let test = "faults::redis_forgets::what_redis_evicts_with_the_cursor_comes_back_and_the_rest_is_not_repeated";
    for seed in seeds(test, &[1]) {
        let evicts = ["--maxmemory-policy", "allkeys-random"];
        let mut trial = Plan::new(seed).redis(&evicts).start().await;
        for _ in 0..rounds(12, 60) {
            let more = trial.dice.within(20..100);
            trial.wait_delivered(more);
            trial.disturb();
            // Nothing is written while it happens, so that it can be told what was removed.
            let connection = trial.lane.connections() - 1;
            trial.lane.hold_batches_of(connection);
            trial.lane.wait_held(connection);
            evict(&mut trial);
            trial.lane.let_go(connection);
            trial.host().wait_ready();
            trial.calm();
            trial.wait_delivered(more);
        }
        trial.verdict(Missing::Nothing);
    }
}
