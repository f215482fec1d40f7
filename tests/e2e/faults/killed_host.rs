//! kill -9 of the host: everything that was journaled is in Redis exactly once, in order, wherever it was hit.

use super::dice::{rounds, seeds};
use super::interposer::{Point, Strike};
use super::trial::{Plan, Trial};
use super::verdict::Missing;

/// Small, so that segments are made and removed all the time.
const SMALL: u64 = 16 << 20;

/// A plan whose journal rolls often, and whose filter keeps state.
fn plan(seed: u64) -> Plan {
    let short = ("JACKFIELD_JOURNAL_RETAIN", "1s");
    Plan::new(seed)
        .journal(SMALL)
        .interposed()
        .setup(move |setup| {
            let setup = setup.env(short.0, short.1);
            setup.filter("10-count", "hostile", "attack = \"counter\"\n")
        })
}

/// A host that dies at this point and is started again goes on as if nothing had happened.
async fn dies_at(test: &str, point: Point, strike: Strike) {
    for seed in seeds(test, &[1]) {
        let mut trial = plan(seed).start().await;
        for _ in 0..rounds(2, 5) {
            let skip = trial.dice.within(0..3);
            trial.disturb();
            trial.interposer.strike(0, point, skip, 1, strike);
            trial.wait_killed();
            trial.start_again();
            goes_on(&trial);
        }
        trial.verdict(Missing::Unheard(10));
    }
}

fn goes_on(trial: &Trial) {
    trial.host().wait_ready();
    trial.calm();
    trial.wait_delivered(200);
}

macro_rules! deaths {
    ($($name:ident: $point:expr, $strike:expr;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                dies_at(concat!("faults::killed_host::", stringify!($name)), $point, $strike).await;
            }
        )*
    };
}

deaths! {
    a_death_before_an_append: Point::SegmentWrite, Strike::KillBefore;
    a_death_in_the_middle_of_an_append: Point::SegmentWrite, Strike::KillWithin(500);
    a_death_after_an_append: Point::SegmentWrite, Strike::KillAfter;
    a_death_before_a_force_to_the_disk: Point::SegmentSync, Strike::KillBefore;
    a_death_in_mid_roll_before_the_segment_is_made: Point::SegmentCreate, Strike::KillBefore;
    a_death_in_mid_roll_after_the_segment_is_made: Point::SegmentCreate, Strike::KillAfter;
    a_death_before_a_folder_is_forced_to_the_disk: Point::FolderSync, Strike::KillBefore;
    a_death_before_a_segment_is_removed: Point::SegmentRemove, Strike::KillBefore;
    a_death_after_a_segment_is_removed: Point::SegmentRemove, Strike::KillAfter;
    a_death_between_decision_and_send: Point::BatchSend, Strike::KillBefore;
    a_death_in_the_middle_of_a_send: Point::BatchSend, Strike::KillWithin(500);
    a_death_after_a_send: Point::BatchSend, Strike::KillAfter;
    a_death_between_exec_and_its_reply: Point::BatchReply, Strike::KillBefore;
}

#[tokio::test(flavor = "multi_thread")]
async fn deaths_at_random() {
    for seed in seeds("faults::killed_host::deaths_at_random", &[1]) {
        let mut trial = plan(seed).start().await;
        let kills = rounds(8, 100);
        for _ in 0..kills {
            trial.disturb();
            std::thread::sleep(trial.dice.millis(0..400));
            trial.kill();
            trial.start_again();
            trial.calm();
        }
        goes_on(&trial);
        trial.verdict(Missing::Unheard(kills as usize));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deaths_during_recovery() {
    for seed in seeds("faults::killed_host::deaths_during_recovery", &[1]) {
        let mut trial = plan(seed).start().await;
        let mut deaths = 0;
        for _ in 0..rounds(2, 10) {
            trial.disturb();
            trial.kill();
            for point in [
                Point::SegmentRead,
                Point::SegmentTruncate,
                Point::SegmentSync,
                Point::SegmentCreate,
                Point::SegmentWrite,
                Point::FolderSync,
                Point::SegmentRemove,
                Point::StateWrite,
                Point::StateRename,
            ] {
                let skip = trial.dice.within(0..2);
                let strike = *trial.dice.pick(&[Strike::KillBefore, Strike::KillAfter]);
                trial.interposer.strike(0, point, skip, 1, strike);
                if trial.lives_again() {
                    trial.interposer.relax(0);
                    trial.kill();
                } else {
                    deaths += 1;
                }
            }
            trial.start_again();
            goes_on(&trial);
        }
        assert!(deaths > 5, "it was hit in its recovery: {deaths} times");
        trial.verdict(Missing::Unheard(50));
    }
}
