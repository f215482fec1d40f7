//! Redis dies, hangs, and comes back with all, some or nothing of what it had: its streams end up complete.

use std::fs::{self, OpenOptions};
use std::path::PathBuf;

use super::dice::{rounds, seeds};
use super::trial::{Plan, Trial};
use super::trouble::impatient;
use super::verdict::Missing;
use crate::harness::{DURABLE, Redis, wait_for};

/// Arguments of a redis-server that forces its log to the disk once a second.
const EVERY_SECOND: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "everysec"];

/// The file that the log of commands grows in.
fn log_of(redis: &Redis) -> PathBuf {
    let folder = fs::read_dir(redis.dir().join("appendonlydir")).unwrap();
    let mut files = folder.map(|file| file.unwrap().path());
    let grows = files.find(|path| path.to_string_lossy().ends_with(".incr.aof"));
    grows.expect("redis-server keeps a log")
}

/// Makes the log anew: a transaction that was cut off stays in it as a beginning without an end, and Redis 7.0 would execute it at its
/// next start (valkey-io/valkey#4342).
#[track_caller]
fn rewrite_log(redis: &Redis) {
    redis.ask::<()>(&["BGREWRITEAOF"]);
    wait_for("the log is rewritten", || {
        let info: String = redis.ask(&["INFO", "persistence"]);
        let is_over = info.contains("aof_rewrite_in_progress:0\r\n")
            && info.contains("aof_rewrite_scheduled:0\r\n");
        is_over.then_some(())
    });
}

/// How often the streams were made complete again.
fn heals(trial: &Trial) -> usize {
    trial.logged(" WARN ", "healing: Redis came back with less")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_second_of_a_killed_redis_is_written_again() {
    let test = "faults::redis_gone::the_last_second_of_a_killed_redis_is_written_again";
    for seed in seeds(test, &[1]) {
        let mut trial = Plan::new(seed)
            .setup(impatient)
            .redis(&EVERY_SECOND)
            .start()
            .await;
        for _ in 0..rounds(3, 8) {
            let safe = fs::metadata(log_of(&trial.redis)).unwrap().len();
            let second = trial.dice.within(100..500);
            trial.wait_delivered(second);
            trial.disturb();
            trial.redis.kill();
            // The kernel would keep what the process wrote; a dying machine does not.
            let log = OpenOptions::new().write(true).open(log_of(&trial.redis));
            let (log, written) = (log.unwrap(), fs::metadata(log_of(&trial.redis)).unwrap());
            // What came last may not have been acknowledged, so more than that goes. A slow disk may have got nothing at all.
            let most = safe + written.len().saturating_sub(safe) / 2;
            log.set_len(trial.dice.within(safe..most + 1)).unwrap();
            let before = heals(&trial);
            trial.redis.up();
            wait_for("what it forgot is sent again", || {
                (heals(&trial) == before + 1).then_some(())
            });
            trial.host().wait_ready();
            trial.calm();
            rewrite_log(&trial.redis);
            trial.wait_delivered(second);
        }
        trial.verdict(Missing::Nothing);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_killed_while_its_replies_are_on_their_way_has_everything_once() {
    let test =
        "faults::redis_gone::a_redis_killed_while_its_replies_are_on_their_way_has_everything_once";
    for seed in seeds(test, &[1]) {
        let mut trial = Plan::new(seed)
            .setup(impatient)
            .redis(&DURABLE)
            .start()
            .await;
        for _ in 0..rounds(4, 10) {
            trial.disturb();
            trial.lane.hold_replies(true);
            let more = trial.dice.within(1..300);
            trial.wait_sent(usize::try_from(more).unwrap());
            trial.redis.kill();
            trial.lane.hold_replies(false);
            trial.redis.up();
            trial.host().wait_ready();
            trial.calm();
            trial.wait_delivered(200);
        }
        let verdict = trial.verdict(Missing::Nothing);
        assert!(
            !verdict.log.contains("healing"),
            "Redis had kept what it acknowledged"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_comes_back_empty_is_filled_again() {
    let test = "faults::redis_gone::a_redis_that_comes_back_empty_is_filled_again";
    for seed in seeds(test, &[1]) {
        let mut trial = Plan::new(seed).setup(impatient).start().await;
        for _ in 0..rounds(2, 4) {
            let more = trial.dice.within(100..700);
            trial.wait_delivered(more);
            trial.disturb();
            trial.redis.kill();
            trial.redis.up();
            trial.host().wait_ready();
            trial.calm();
            trial.wait_delivered(more);
        }
        trial.verdict(Missing::Nothing);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_hangs_past_the_timeout_has_everything_once() {
    let test = "faults::redis_gone::a_redis_that_hangs_past_the_timeout_has_everything_once";
    for seed in seeds(test, &[1]) {
        let mut trial = Plan::new(seed).setup(impatient).start().await;
        for _ in 0..rounds(3, 10) {
            trial.disturb();
            let said = trial.said("no reply within 300 ms");
            trial.redis.signal("STOP");
            let more = usize::try_from(trial.dice.within(1..400)).unwrap();
            trial.wait_in_trouble("redis: no reply within 300 ms", more);
            trial.redis.signal("CONT");
            trial.host().wait_ready();
            trial.calm();
            trial.check_said_once("no reply within 300 ms", said);
            trial.wait_delivered(200);
        }
        trial.verdict(Missing::Nothing);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_loading_its_data_is_waited_for() {
    let test = "faults::redis_gone::a_redis_that_is_loading_its_data_is_waited_for";
    for seed in seeds(test, &[1]) {
        // So slow that it takes seconds, and looks at its clients all the while.
        let slowly = [
            "--key-load-delay",
            "500",
            "--loading-process-events-interval-bytes",
            "1024",
        ];
        let mut trial = Plan::new(seed)
            .setup(impatient)
            .redis(&slowly)
            .start()
            .await;
        let fill = "for n = 1, 6000 do redis.call('SET', 'filler:' .. n, 'x') end";
        trial.redis.ask::<()>(&["EVAL", fill, "0"]);
        for _ in 0..rounds(2, 4) {
            trial.disturb();
            trial.redis.ask::<()>(&["SAVE"]);
            trial.redis.kill();
            trial.redis.spawn();
            let said = trial.said("LOADING");
            trial.wait_in_trouble("LOADING", 200);
            trial.check_said_once("LOADING", said);
            trial.redis.wait_up();
            trial.host().wait_ready();
            trial.calm();
            trial.wait_delivered(200);
        }
        trial.verdict(Missing::Nothing);
    }
}
