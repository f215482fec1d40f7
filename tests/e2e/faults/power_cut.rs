//! The power goes: what the journal had written and not forced to the disk is gone, or half there. What is in Redis stays, nothing
//! is repeated, and what was forced to the disk is delivered.

use serde_json::Value;

use super::dice::{rounds, seeds};
use super::interposer::{Point, Strike};
use super::power::Cut;
use super::trial::{Plan, Trial};
use super::verdict::Missing;
use crate::harness::jackfield;

/// What is in Redis was on the disk before.
#[track_caller]
fn check_ahead(trial: &Trial) {
    let mut list = std::process::Command::new(jackfield());
    list.args(["journal", "ls", "--json"])
        .arg(trial.left().journal());
    let listed: Value = serde_json::from_slice(&list.output().unwrap().stdout).unwrap();
    let cursor: String = trial.redis.ask(&["GET", "jackfield:sim1:cursor"]);
    let (journal, lsn) = cursor.split_once(':').unwrap();
    let lsn: u64 = lsn.trim_end_matches("+1").parse().unwrap();
    assert_eq!(listed["id"], journal, "it is this journal's");
    let decided = listed["newest_decision"].as_u64();
    assert!(
        decided >= Some(lsn),
        "Redis has {lsn}, the journal only {decided:?}"
    );
}

/// Cuts under load; Redis, on a machine of its own, goes on.
async fn cuts(test: &str, sync: &'static str) {
    for seed in seeds(test, &[1, 2]) {
        let plan = Plan::new(seed).journal(16 << 20).with_power_cuts();
        let mut trial = plan
            .setup(move |setup| {
                let setup = setup
                    .env("JACKFIELD_JOURNAL_SYNC", sync)
                    .env("JACKFIELD_JOURNAL_RETAIN", "1s");
                setup.filter("10-count", "hostile", "attack = \"counter\"\n")
            })
            .start()
            .await;
        // A slow disk, so that there is something to be taken back.
        let slow = Strike::Hang(30);
        trial
            .interposer
            .strike(7, Point::SegmentSync, 0, u64::MAX, slow);
        let (cuts, mut taken_back) = (rounds(6, 100), Cut::default());
        for _ in 0..cuts {
            trial.disturb();
            std::thread::sleep(trial.dice.millis(0..400));
            let cut = trial.cut_power();
            taken_back.writes += cut.writes;
            taken_back.names += cut.names;
            if sync == "batch" {
                check_ahead(&trial);
            }
            trial.start_again();
            trial.host().wait_ready();
            trial.calm();
            trial.wait_delivered(100);
        }
        assert!(
            taken_back.writes > 0,
            "something was not on the disk yet: {taken_back:?}"
        );
        // What is taken back may lie between writes that stayed.
        trial.verdict(Missing::Unheard((cuts + taken_back.writes) as usize));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn power_cuts_with_sync_interval_repeat_nothing() {
    cuts(
        "faults::power_cut::power_cuts_with_sync_interval_repeat_nothing",
        "interval",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn power_cuts_with_sync_batch_repeat_nothing() {
    cuts(
        "faults::power_cut::power_cuts_with_sync_batch_repeat_nothing",
        "batch",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn power_cuts_with_sync_never_repeat_nothing() {
    cuts(
        "faults::power_cut::power_cuts_with_sync_never_repeat_nothing",
        "never",
    )
    .await;
}
