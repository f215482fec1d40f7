//! The link to FreeSWITCH is cut, half open or slow: no half event, nothing twice, in order, and it comes back.

use std::time::Duration;

use super::dice::{rounds, seeds};
use super::trial::{Plan, Trial};
use super::verdict::Missing;
use crate::proxy::{Condition, Ending, Toward};

/// A fault lasts from the first to the second of these; then nothing is wrong any more.
fn over(trial: &Trial) {
    trial.esl.clear();
    trial.host().wait_ready();
    trial.calm();
    trial.wait_delivered(200);
}

/// How often the link was lost.
fn losses(trial: &Trial) -> u64 {
    trial.host().status()["links"]["esl"]["losses"]
        .as_u64()
        .unwrap()
}

/// Waits until the host knows how far apart heartbeats are, which come every second, and so what a silence is.
pub(super) fn wait_heartbeats(trial: &Trial) {
    let heard = |status: &serde_json::Value| status["uptime_s"].as_u64() > Some(3);
    trial.host().wait_status("three heartbeats", heard);
}

/// How often a connection, or a try, ended for this cause.
pub(super) fn ended(trial: &Trial, cause: &str) -> u64 {
    trial.host().status()["links"]["esl"]["ended"][cause]
        .as_u64()
        .unwrap_or(0)
}

#[track_caller]
pub(super) fn wait_ended(trial: &Trial, cause: &str, more_than: u64) {
    let of = |status: &serde_json::Value| status["links"]["esl"]["ended"][cause].as_u64();
    trial
        .host()
        .wait_status(cause, |status| of(status) > Some(more_than));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_cut_at_any_byte_leaves_no_half_event_and_repeats_none() {
    let test =
        "faults::esl_cut::a_connection_cut_at_any_byte_leaves_no_half_event_and_repeats_none";
    for seed in seeds(test, &[1]) {
        let mut trial = Plan::new(seed).start().await;
        let cuts = rounds(6, 30);
        for cut in 1..=cuts {
            let after = trial.dice.within(1..600_000);
            let ending = *trial.dice.pick(&[Ending::Fin, Ending::Rst]);
            trial.disturb();
            trial
                .esl
                .set(Toward::Client, Condition::EndAfter(after, ending));
            trial.esl.wait_condition(Toward::Client, &Condition::Clear);
            trial.host().wait_status("the loss is noticed", |status| {
                status["links"]["esl"]["losses"] == cut
            });
            over(&trial);
        }
        let down = trial
            .host()
            .metric("jackfield_link_down_seconds_total{link=\"esl\"}");
        assert!(
            down > Some(0.0),
            "the time of the outages is told: {down:?}"
        );
        let pieces = usize::try_from(cuts).unwrap();
        let verdict = trial.verdict(Missing::Unheard(pieces));
        let loss = &verdict.status["links"]["esl"]["last_loss"];
        assert!(
            loss["error"].is_string() && loss["down_us"].is_u64(),
            "{loss}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_cut_at_any_byte_is_tried_again() {
    let test = "faults::esl_cut::a_login_cut_at_any_byte_is_tried_again";
    for seed in seeds(test, &[1]) {
        let mut trial = Plan::new(seed).start().await;
        let outages = rounds(2, 6);
        for _ in 0..outages {
            trial.disturb();
            // The greeting, the replies to login and subscription, and the first events are in these bytes.
            trial
                .esl
                .set(Toward::Client, Condition::EndAfter(0, Ending::Fin));
            trial.esl.wait_condition(Toward::Client, &Condition::Clear);
            for _ in 0..rounds(4, 10) {
                let after = trial.dice.within(0..1_500);
                let ending = *trial.dice.pick(&[Ending::Fin, Ending::Rst]);
                trial
                    .esl
                    .set(Toward::Client, Condition::EndAfter(after, ending));
                trial.esl.wait_condition(Toward::Client, &Condition::Clear);
            }
            over(&trial);
        }
        // A cut after the subscription brings events before it: each try may leave a piece of its own.
        let pieces = outages * (rounds(4, 10) + 1);
        trial.verdict(Missing::Unheard(usize::try_from(pieces).unwrap()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_dead_toward_us_is_noticed_by_its_missing_heartbeats() {
    let test =
        "faults::esl_cut::a_link_that_is_dead_toward_us_is_noticed_by_its_missing_heartbeats";
    for seed in seeds(test, &[1]) {
        let trial = Plan::new(seed).start().await;
        for _ in 0..rounds(1, 5) {
            wait_heartbeats(&trial);
            let silent = ended(&trial, "silent");
            trial.disturb();
            let dead = std::time::Instant::now();
            trial.esl.set(Toward::Client, Condition::BlackHole);
            wait_ended(&trial, "silent", silent);
            let noticed = dead.elapsed();
            assert!(
                noticed < Duration::from_secs(5),
                "after two and a half heartbeats, not {noticed:?}"
            );
            over(&trial);
        }
        trial.verdict(Missing::Unheard(usize::try_from(rounds(1, 5)).unwrap()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_dead_toward_freeswitch_loses_nothing_until_something_is_asked() {
    let test = "faults::esl_cut::a_link_that_is_dead_toward_freeswitch_loses_nothing_until_something_is_asked";
    for seed in seeds(test, &[1]) {
        let trial = Plan::new(seed).start().await;
        trial.esl.set(Toward::Server, Condition::BlackHole);
        trial.wait_delivered(2_000);
        assert_eq!(losses(&trial), 0, "events come all the same");
        trial.disturb();
        let filters = trial.host().filters.clone();
        let wants = "attack = \"version\"\nversion = \"1\"\nwants = [\"CODEC\"]\n";
        crate::harness::place_filter(
            &filters,
            "10-wants",
            &crate::harness::component("hostile"),
            wants,
        );
        wait_ended(&trial, "late", 0);
        over(&trial);
        let asked = crate::numbered::asked(&trial.switch);
        let commands = asked.last().unwrap();
        assert_eq!(
            commands.last().map(String::as_str),
            Some("event json ALL"),
            "it subscribed anew"
        );
        assert!(
            commands.contains(&"filter Event-Name CODEC".to_owned()),
            "to what the filter wants, too: {commands:?}"
        );
        trial.verdict(Missing::Unheard(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_takes_its_time_succeeds_and_one_that_takes_too_long_is_tried_again() {
    let test = "faults::esl_cut::a_login_that_takes_its_time_succeeds_and_one_that_takes_too_long_is_tried_again";
    for seed in seeds(test, &[1]) {
        let mut trial = Plan::new(seed)
            .setup(|setup| setup.env("JACKFIELD_ESL_TIMEOUT", "1500ms"))
            .start()
            .await;
        let conditions = [
            // The greeting in single bytes, which would take seven seconds.
            Condition::Slow(4),
            Condition::BlackHole,
            // The greeting, and no reply to the login.
            Condition::HoleAfter(28),
            // And no reply to the subscription.
            Condition::HoleAfter(28 + 60),
        ];
        for condition in &conditions {
            let late = ended(&trial, "late");
            trial.disturb();
            trial
                .esl
                .set(Toward::Client, Condition::EndAfter(0, Ending::Fin));
            trial.esl.wait_condition(Toward::Client, &Condition::Clear);
            trial.esl.set(Toward::Client, condition.clone());
            wait_ended(&trial, "late", late);
            over(&trial);
        }
        let late = ended(&trial, "late");
        trial.disturb();
        trial
            .esl
            .set(Toward::Client, Condition::EndAfter(0, Ending::Fin));
        trial.esl.wait_condition(Toward::Client, &Condition::Clear);
        let millis = trial.dice.within(20..60);
        trial
            .esl
            .set(Toward::Client, Condition::Delay(millis..millis + 200));
        trial.host().wait_ready();
        assert_eq!(ended(&trial, "late"), late, "slow is not too late");
        over(&trial);
        // What is heard between two tries of one outage makes it two.
        trial.verdict(Missing::Unheard(3 * (conditions.len() + 1)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_freeswitch_that_was_killed_under_load_is_another_one_when_it_is_back() {
    let test =
        "faults::esl_cut::a_freeswitch_that_was_killed_under_load_is_another_one_when_it_is_back";
    for seed in seeds(test, &[1]) {
        let mut trial = Plan::new(seed).start().await;
        let lives = rounds(3, 10);
        for _ in 0..lives {
            let after = trial.dice.within(1..300_000);
            trial.disturb();
            trial.switch.set_refuse(true);
            trial
                .esl
                .set(Toward::Client, Condition::EndAfter(after, Ending::Fin));
            trial.esl.wait_condition(Toward::Client, &Condition::Clear);
            // What the tap has not heard when FreeSWITCH dies nobody could ever tell.
            trial.hold_calls();
            let core = trial.switch.core_uuid();
            trial.switch.restart();
            assert_ne!(trial.switch.core_uuid(), core);
            trial.esl.set(Toward::Client, Condition::BlackHole);
            trial.switch.set_refuse(false);
            trial.tap_again().await;
            trial.esl.clear();
            trial.go_on();
            over(&trial);
        }
        let verdict = trial.verdict(Missing::Unheard(usize::try_from(lives).unwrap()));
        let lives_seen: std::collections::BTreeSet<_> =
            verdict.sent.iter().map(|sent| &sent.key.core).collect();
        assert_eq!(
            lives_seen.len() as u64,
            lives + 1,
            "each life is told from the others"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_order_is_that_of_the_wire_whatever_the_numbers_say() {
    let test = "faults::esl_cut::the_order_is_that_of_the_wire_whatever_the_numbers_say";
    for seed in seeds(test, &[1]) {
        let trial = Plan::new(seed)
            .switch(|switch| (switch.disorder, switch.gap_every) = (1_200, 3))
            .start()
            .await;
        trial.wait_delivered(rounds(3_000, 30_000));
        let verdict = trial.verdict(Missing::Nothing);
        let numbers = verdict.sent.iter().map(|sent| sent.key.sequence);
        let mut highest = 0;
        let late = numbers.map(|number| {
            highest = highest.max(number);
            highest - number
        });
        let worst = late.max();
        assert!(
            worst > Some(2_000),
            "the numbers were far from in order: {worst:?}"
        );
    }
}
