//! A host that does not run for a while: FreeSWITCH's queue overflows, and what can be known of that is told.

use std::time::Duration;

use jackfield::simulator::{Event, Sent};

use super::dice::{rounds, seeds};
use super::esl_cut::{ended, wait_ended, wait_heartbeats};
use super::trial::{Plan, Trial};
use super::verdict::{Missing, Verdict};

/// How many events FreeSWITCH keeps for a listener in these tests.
const QUEUE: usize = 1_000;

async fn start(seed: u64) -> Trial {
    let trial = Plan::new(seed)
        .switch(|switch| switch.max_queue = QUEUE)
        .start()
        .await;
    wait_heartbeats(&trial);
    trial
}

/// Events are made until FreeSWITCH says that it is enough. The tap has time to read all of them.
fn make_until(trial: &Trial, enough: impl Fn(Sent) -> bool) {
    let body = "x".repeat(4_000);
    while !enough(trial.switch.sent()) {
        let mut last = 0;
        for _ in 0..QUEUE / 4 {
            let event = Event::new("CUSTOM").header("Event-Subclass", "trial::burst");
            last = trial.switch.fire(event.body(&body));
            if enough(trial.switch.sent()) {
                break;
            }
        }
        trial.wait_known(last);
    }
}

/// The host stands still meanwhile, and for two silences at least.
async fn stand_still(trial: &Trial, enough: impl Fn(Sent) -> bool) {
    trial.disturb();
    trial.hold_calls();
    trial.host().signal("STOP");
    make_until(trial, enough);
    // The time itself is what this is about.
    tokio::time::sleep(Duration::from_secs(rounds(5, 30))).await;
    trial.host().signal("CONT");
}

fn missing(verdict: &Verdict) -> u64 {
    let found: usize = verdict.found.values().map(Vec::len).sum();
    (verdict.sent.len() - found) as u64
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
            stand_still(&trial, |sent| sent.given_up > round).await;
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
        let dropped = trial.switch.sent().dropped;
        let verdict = trial.verdict(Missing::Garbled(stops as usize * QUEUE));
        assert!(
            verdict.malformed as u64 <= stops,
            "half an event is kept as what it is"
        );
        // What FreeSWITCH dropped, what was in its queue then, and the last of what it was about to write.
        let gone = dropped + stops * (QUEUE as u64 + 50);
        let missing = missing(&verdict);
        assert!(
            missing <= gone,
            "{missing} are missing of {gone} that FreeSWITCH did not send"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_without_a_notice_shows_as_time_in_which_nothing_was_read() {
    let test =
        "faults::esl_stopped::a_loss_without_a_notice_shows_as_time_in_which_nothing_was_read";
    for seed in seeds(test, &[1]) {
        let mut trial = start(seed).await;
        let lost = trial.dice.within(1..450);
        stand_still(&trial, |sent| sent.dropped >= lost).await;
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
        let dropped = trial.switch.sent().dropped;
        let verdict = trial.verdict(Missing::Unheard(QUEUE));
        let missing = missing(&verdict);
        assert!(
            (lost..=dropped).contains(&missing),
            "{missing} are missing; FreeSWITCH dropped {lost}, and {dropped} with the heartbeats after them"
        );
    }
}
