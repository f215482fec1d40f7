//! The journal's disk: full, read-only, failing, hanging. FreeSWITCH is read all the same, and nothing is lost while Redis is there.

use std::time::{Duration, Instant};

use super::dice::{rounds, seeds};
use super::interposer::{EIO, ENOSPC, EROFS, Point, Strike};
use super::trial::{JOBS, Plan, Trial};
use super::verdict::Missing;
use crate::proxy::{Condition, Ending, Toward};

const FOR_LONG: u64 = u64::MAX;

fn plan(seed: u64, sync: &'static str) -> Plan {
    Plan::new(seed)
        .journal(16 << 20)
        .interposed()
        .setup(move |setup| {
            setup
                .env("JACKFIELD_JOURNAL_SYNC", sync)
                .env("JACKFIELD_JOURNAL_RETAIN", "1s")
        })
}

/// These calls fail until the disk is well again, once and again: events go on through memory, readiness names the
/// trouble, and journaling resumes by itself.
async fn takes_nothing(test: &str, strikes: &[(Point, Strike)]) {
    for seed in seeds(test, &[1]) {
        let mut trial = plan(seed, "interval").start().await;
        for _ in 0..rounds(2, 10) {
            trial.disturb();
            for (place, (point, strike)) in strikes.iter().enumerate() {
                trial
                    .interposer
                    .strike(place as u64, *point, 0, FOR_LONG, *strike);
            }
            trial.host().wait_status("the trouble is named", |status| {
                let trouble = status["journal"]["trouble"].as_str();
                trouble.is_some_and(|trouble| trouble.starts_with("cannot be written: "))
            });
            trial.wait_delivered(500);
            let (code, why) = trial.host().get("/readyz");
            assert!(
                code == 503 && why.contains("journal: cannot be written"),
                "{code} {why}"
            );
            for place in 0..strikes.len() {
                trial.interposer.relax(place as u64);
            }
            trial.host().wait_ready();
            trial.calm();
            let pause = trial.dice.within(100..400);
            trial.wait_delivered(pause);
        }
        let verdict = trial.verdict(Missing::Nothing);
        assert!(
            verdict.log.contains("events are journaled again"),
            "{}",
            verdict.log
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_costs_nothing() {
    let full = [
        (Point::SegmentCreate, Strike::Fail(ENOSPC)),
        (Point::SegmentWrite, Strike::FillWithin(300)),
    ];
    takes_nothing("faults::disk::a_disk_that_is_full_costs_nothing", &full).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_became_read_only_costs_nothing() {
    let read_only = [
        (Point::SegmentCreate, Strike::Fail(EROFS)),
        (Point::SegmentWrite, Strike::Fail(EROFS)),
        (Point::SegmentRemove, Strike::Fail(EROFS)),
        (Point::SegmentTruncate, Strike::Fail(EROFS)),
        (Point::SegmentSync, Strike::Fail(EROFS)),
    ];
    takes_nothing(
        "faults::disk::a_disk_that_became_read_only_costs_nothing",
        &read_only,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_to_read_and_to_write_costs_nothing() {
    let broken = [
        (Point::SegmentCreate, Strike::Fail(EIO)),
        (Point::SegmentWrite, Strike::Fail(EIO)),
        (Point::SegmentRead, Strike::Fail(EIO)),
    ];
    takes_nothing(
        "faults::disk::a_disk_that_fails_to_read_and_to_write_costs_nothing",
        &broken,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_that_fail_now_and_then_cost_nothing() {
    for seed in seeds(
        "faults::disk::writes_that_fail_now_and_then_cost_nothing",
        &[1],
    ) {
        let mut trial = plan(seed, "interval").start().await;
        // One that fails is tried again in a new segment: nobody notices.
        for _ in 0..rounds(20, 300) {
            let (skip, part) = (trial.dice.within(0..20), trial.dice.within(0..1_000));
            let error = *trial
                .dice
                .pick(&[Strike::Fail(EIO), Strike::FillWithin(part)]);
            trial
                .interposer
                .strike(0, Point::SegmentWrite, skip, 1, error);
            trial.interposer.wait_struck(0);
        }
        trial.kill();
        trial.start_again();
        trial.host().wait_ready();
        trial.verdict(Missing::Unheard(1));
    }
}

/// A force to the disk that fails is counted, never repeated on the same file, and writing goes on in another.
async fn fails_to_sync(test: &str, sync: &'static str) {
    for seed in seeds(test, &[1]) {
        let mut trial = plan(seed, sync).start().await;
        let fails = rounds(3, 30);
        for _ in 0..fails {
            let skip = trial.dice.within(0..10);
            trial
                .interposer
                .strike(0, Point::SegmentSync, skip, 1, Strike::Fail(EIO));
            trial.interposer.wait_struck(0);
            trial.wait_delivered(100);
        }
        assert_eq!(
            trial.host().metric("jackfield_journal_poisoned"),
            Some(fails as f64),
            "each is counted"
        );
        trial.kill();
        trial.start_again();
        trial.verdict(Missing::Unheard(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_force_to_the_disk_that_fails_is_counted_and_costs_nothing() {
    let test = "faults::disk::a_force_to_the_disk_that_fails_is_counted_and_costs_nothing";
    fails_to_sync(test, "interval").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_force_to_the_disk_that_fails_before_a_batch_is_counted_and_costs_nothing() {
    let test =
        "faults::disk::a_force_to_the_disk_that_fails_before_a_batch_is_counted_and_costs_nothing";
    fails_to_sync(test, "batch").await;
}

/// The host reads all that FreeSWITCH sends while this call hangs, and nothing is lost.
async fn hangs(test: &str, sync: &'static str, point: Point, goes_on: bool) {
    for seed in seeds(test, &[1]) {
        // What comes meanwhile must have room in the journal.
        let mut trial = plan(seed, sync).journal(128 << 20).start().await;
        for _ in 0..rounds(1, 10) {
            trial.disturb();
            let skip = trial.dice.within(0..10);
            trial
                .interposer
                .strike(0, point, skip, 1, Strike::Hang(5_000));
            trial.interposer.wait_struck(0);
            let struck = Instant::now();
            let before = trial.host().count("inputs");
            trial
                .host()
                .wait_status("what FreeSWITCH sends is read", |status| {
                    status["counts"]["inputs"].as_u64() > Some(before + 1_000)
                });
            if goes_on {
                trial.wait_delivered(1_000);
            }
            let time = struck.elapsed();
            assert!(
                time < Duration::from_secs(5),
                "while it hangs, not after {time:?}"
            );
            trial.wait_delivered(1_000);
            trial.calm();
        }
        assert_eq!(
            trial.switch.sent().dropped,
            0,
            "FreeSWITCH never had to drop anything"
        );
        let verdict = trial.verdict(Missing::Nothing);
        assert!(!verdict.found[JOBS].is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_force_to_the_disk_that_hangs_stops_nothing() {
    let test = "faults::disk::a_force_to_the_disk_that_hangs_stops_nothing";
    hangs(test, "interval", Point::SegmentSync, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_force_to_the_disk_that_hangs_before_a_batch_delays_redis_alone() {
    let test = "faults::disk::a_force_to_the_disk_that_hangs_before_a_batch_delays_redis_alone";
    hangs(test, "batch", Point::SegmentSync, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_hangs_stops_no_reading_of_freeswitch() {
    let test = "faults::disk::a_write_that_hangs_stops_no_reading_of_freeswitch";
    hangs(test, "interval", Point::SegmentWrite, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_of_the_backlog_that_hangs_stops_no_reading_of_freeswitch() {
    let test = "faults::disk::a_read_of_the_backlog_that_hangs_stops_no_reading_of_freeswitch";
    for seed in seeds(test, &[1]) {
        let trial = Plan::new(seed).interposed().start().await;
        let trial = behind(trial);
        trial
            .interposer
            .strike(0, Point::SegmentRead, 1, 1, Strike::Hang(5_000));
        trial.lane.clear();
        trial.interposer.wait_struck(0);
        let before = trial.host().count("inputs");
        trial
            .host()
            .wait_status("what FreeSWITCH sends is read", |status| {
                status["counts"]["inputs"].as_u64() > Some(before + 1_000)
            });
        assert_eq!(
            trial.switch.sent().dropped,
            0,
            "FreeSWITCH never had to drop anything"
        );
        trial.verdict(Missing::Nothing);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_decided_while_the_disk_took_nothing_survives_the_host_once_it_takes_it_again() {
    let test = "faults::disk::what_was_decided_while_the_disk_took_nothing_survives_the_host_once_it_takes_it_again";
    for seed in seeds(test, &[1]) {
        // Slow enough that events are decided all the while: what waits for Redis has room.
        let mut trial = plan(seed, "interval").rate(1_000.0).start().await;
        let rounds = rounds(2, 20);
        for _ in 0..rounds {
            trial.disturb();
            trial.lane.set(Toward::Server, Condition::BlackHole);
            trial.lane.end(Ending::Rst);
            trial.host().wait_redis_away();
            trial
                .interposer
                .strike(0, Point::SegmentWrite, 0, FOR_LONG, Strike::Fail(ENOSPC));
            trial.interposer.wait_struck(0);
            let some = trial.dice.within(50..300);
            trial.wait_sent(some as usize);
            trial.interposer.relax(0);
            trial
                .host()
                .wait_status("the disk takes everything", |status| {
                    let journal = &status["journal"];
                    journal["trouble"].is_null() && journal["decided"] == journal["last"]
                });
            trial.kill();
            trial.lane.clear();
            trial.start_again();
            trial.host().wait_ready();
            trial.calm();
            trial.wait_delivered(100);
            let again = trial.host().log().contains("decisions are gone");
            assert!(!again, "no filter runs again for what was decided");
        }
        // One piece each: what was sent between two lives.
        trial.verdict(Missing::Unheard(rounds as usize));
    }
}

/// Redis is away until more waits than memory holds, so that it has to be read from the journal.
fn behind(trial: Trial) -> Trial {
    trial.disturb();
    trial.lane.set(Toward::Server, Condition::BlackHole);
    trial.lane.end(Ending::Rst);
    trial.host().wait_status("it is far behind", |status| {
        status["counts"]["pending"].as_u64() > Some(8_000)
    });
    trial
}
