//! A host that does not run for a while: FreeSWITCH's queue overflows, and what can be known of that is told.

use std::time::Duration;

use jackfield::simulator::Event;

use super::dice::{rounds, seeds};
use super::esl_cut::{ended, wait_ended};
use super::trial::{Missing, Plan, Trial};

/// How many events FreeSWITCH keeps for a listener in these tests.
const QUEUE: usize = 1_000;

async fn start(seed: u64) -> Trial {
    let trial = Plan::new(seed)
        .switch(|switch| switch.max_queue = QUEUE)
        .start()
        .await;
    // Long enough for three heartbeats, which are a second apart: the host knows what a silence is.
    trial.wait_sent(3_000);
    trial
}

/// Events are made until so many more are lost at a listener that does not read. The tap has time to read all of them.
fn overflow(trial: &Trial, lost: u64) {
    let until = trial.switch.sent().dropped + lost;
    let body = "x".repeat(4_000);
    loop {
        let mut last = 0;
        for _ in 0..QUEUE / 4 {
            let event = Event::new("CUSTOM").header("Event-Subclass", "trial::burst");
            last = trial.switch.fire(event.body(&body));
            if trial.switch.sent().dropped >= until {
                break;
            }
        }
        trial.wait_known(last);
        if trial.switch.sent().dropped >= until {
            return;
        }
    }
}

/// The host stands still while so many events are lost, and for three silences at least.
async fn stand_still(trial: &Trial, lost: u64) {
    trial.disturb();
    trial.hold_calls();
    trial.host().signal("STOP");
    overflow(trial, lost);
    // The time itself is what this is about.
    tokio::time::sleep(Duration::from_secs(rounds(5, 30))).await;
    trial.host().signal("CONT");
}

fn stalled(trial: &Trial) -> f64 {
    let metric = "jackfield_esl_stalled_seconds_total";
    trial.host().metric(metric).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_freeswitch_gave_up_says_so_and_goes_on() {
    let test = "faults::esl_stopped::a_host_that_freeswitch_gave_up_says_so_and_goes_on";
    for seed in seeds(test, &[1]) {
        let mut trial = start(seed).await;
        let stops = rounds(1, 3);
        for round in 0..stops {
            stand_still(&trial, 501).await;
            wait_ended(&trial, "killed", round);
            trial.host().wait_ready();
            trial.go_on();
            trial.calm();
            trial.wait_delivered(500);
        }
        trial
            .host()
            .wait_log("ERROR FreeSWITCH gave this listener up");
        let loss = trial.host().status()["links"]["esl"]["last_loss"].clone();
        let killed = "disconnected by FreeSWITCH: killed listener because of lost events";
        assert_eq!(loss["error"], killed, "{loss:#}");
        assert!(loss["down_us"].is_u64(), "{loss:#}");
        let metric = "jackfield_esl_ended_total{cause=\"killed\"}";
        assert_eq!(trial.host().metric(metric), Some(stops as f64));
        assert!(stalled(&trial) > 3.0, "{}", stalled(&trial));
        assert_eq!(
            ended(&trial, "silent"),
            0,
            "it was not FreeSWITCH that was silent"
        );
        trial.verdict(Missing::Garbled(usize::try_from(stops).unwrap()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_without_a_notice_shows_as_time_in_which_nothing_was_read() {
    let test =
        "faults::esl_stopped::a_loss_without_a_notice_shows_as_time_in_which_nothing_was_read";
    for seed in seeds(test, &[1]) {
        let mut trial = start(seed).await;
        let lost = trial.dice.within(1..450);
        stand_still(&trial, lost).await;
        trial
            .host()
            .wait_log("nothing was read: the host was stopped or starved");
        trial.host().wait_ready();
        trial.go_on();
        trial.calm();
        trial.wait_delivered(500);
        assert!(stalled(&trial) > 3.0, "{}", stalled(&trial));
        let status = trial.host().status();
        let esl = &status["links"]["esl"];
        assert_eq!(
            (&esl["losses"], &esl["ended"]),
            (&0.into(), &serde_json::json!({})),
            "what waited was read, and the connection is the same"
        );
        trial.verdict(Missing::Unheard(1));
    }
}
