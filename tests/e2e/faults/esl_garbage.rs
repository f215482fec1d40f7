//! Bytes on the Event Socket that are not what they should be: found out, counted, left behind by a new connection.

use bytes::Bytes;
use jackfield::simulator::Event;

use super::dice::{Dice, rounds, seeds};
use super::esl_cut::{ended, wait_ended, wait_heartbeats};
use super::trial::{Plan, Trial};
use super::verdict::Missing;
use crate::proxy::{Condition, Toward};

const EVENT: &str = "Content-Type: text/event-json";

/// The bytes come between those of FreeSWITCH, and the connection is given up for garbage.
async fn is_given_up(trial: &Trial, condition: Condition) {
    let before = ended(trial, "garbage");
    trial.disturb();
    trial.esl.set(Toward::Client, condition);
    trial.esl.wait_condition(Toward::Client, &Condition::Clear);
    wait_ended(trial, "garbage", before);
    trial.host().wait_ready();
    trial.calm();
    trial.wait_delivered(200);
}

/// Bytes of no meaning; every other time text, with empty lines and all that a header needs.
fn garbage(dice: &mut Dice) -> Vec<u8> {
    let length = dice.within(1..3_000);
    let text = dice.within(0..2) == 0;
    let words = [
        "\n",
        "\n\n",
        ": ",
        "x",
        "Content-Length: ",
        "7",
        "Content-Type",
        "{\"a\":",
        "\r",
    ];
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < length {
        match text {
            true => bytes.extend_from_slice(dice.pick(&words).as_bytes()),
            false => bytes.extend_from_slice(&dice.next().to_le_bytes()),
        }
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_anywhere_in_the_stream_ends_in_a_new_connection() {
    let test = "faults::esl_garbage::garbage_anywhere_in_the_stream_ends_in_a_new_connection";
    for seed in seeds(test, &[1]) {
        let mut trial = Plan::new(seed).start().await;
        let strikes = rounds(8, 40);
        for _ in 0..strikes {
            let bytes = garbage(&mut trial.dice);
            let condition = match trial.dice.within(0..2) {
                0 => Condition::InsertFrame(bytes),
                _ => Condition::InsertAfter(trial.dice.within(0..100_000), bytes),
            };
            is_given_up(&trial, condition).await;
        }
        trial.verdict(Missing::Garbled(usize::try_from(strikes).unwrap()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_content_length_that_lies_costs_a_connection_and_no_more() {
    let test = "faults::esl_garbage::a_content_length_that_lies_costs_a_connection_and_no_more";
    for seed in seeds(test, &[1]) {
        let trial = Plan::new(seed).start().await;
        let body = "{\"Event-Name\":\"RE_SCHEDULE\"}";
        let lies = [
            "Content-Length: -5\n",
            "Content-Length: many\n",
            "Content-Length: \n",
            "",
            "Content-Length: 5\n",
            "Content-Length: 28\nContent-Length: 29\n",
            "Content-Length: 40\n",
            "Content-Length: 5000\n",
            "Content-Length: 99999999999999999999999\n",
            "Content-Length: 18446744073709551615\n",
            "Content-Length: 9223372036854775807\n",
            "Content-Length: 4000000\n",
        ];
        for lie in lies {
            let frame = format!("{lie}{EVENT}\n\n{body}").into_bytes();
            is_given_up(&trial, Condition::InsertFrame(frame)).await;
        }
        trial.verdict(Missing::Garbled(lies.len()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_that_swallows_the_events_behind_it_is_noticed_like_a_silence() {
    let test = "faults::esl_garbage::a_length_that_swallows_the_events_behind_it_is_noticed_like_a_silence";
    for seed in seeds(test, &[1]) {
        // Slow enough that the first length is not reached before it is noticed.
        let trial = Plan::new(seed).rate(2_000.0).start().await;
        wait_heartbeats(&trial);
        for (round, length) in [16_000_000, 900_000_000].into_iter().enumerate() {
            let frame = format!("Content-Length: {length}\n{EVENT}\n\n{{").into_bytes();
            trial.disturb();
            trial.esl.set(Toward::Client, Condition::InsertFrame(frame));
            wait_ended(&trial, "stuck", round as u64);
            trial.host().wait_ready();
            trial.calm();
            trial.wait_delivered(200);
        }
        let counts = trial.host().status()["counts"].clone();
        assert_eq!(
            counts["lost_by"]["too_large"], 1,
            "what said it was so large: {counts:#}"
        );
        trial.verdict(Missing::Swallowed {
            pieces: 2,
            too_large: 1,
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_100_megabytes_is_lost_by_name_and_its_neighbors_are_not() {
    let test =
        "faults::esl_garbage::an_event_of_100_megabytes_is_lost_by_name_and_its_neighbors_are_not";
    for seed in seeds(test, &[1]) {
        let trial = Plan::new(seed).start().await;
        let huge = Event::new("CUSTOM")
            .header("Event-Subclass", "trial::huge")
            .body(vec![b'x'; 100 << 20]);
        let number = trial.switch.fire(huge);
        trial.host().wait_status("it is counted", |status| {
            status["counts"]["lost_by"]["too_large"] == 1
        });
        trial.wait_delivered(2_000);
        let log = trial.host().wait_log("event too large: it is lost");
        let line = log.lines().find(|line| line.contains("too large")).unwrap();
        for part in [
            "ERROR",
            "event=\"CUSTOM\"",
            "trial::huge",
            &format!("sequence=\"{number}\""),
        ] {
            assert!(line.contains(part), "{part} in {line}");
        }
        let losses = trial.host().status()["links"]["esl"]["losses"].clone();
        assert_eq!(losses, 0, "the connection goes on");
        trial.verdict(Missing::TooLarge(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_just_below_the_limit_arrive_in_bounded_memory() {
    let test = "faults::esl_garbage::events_just_below_the_limit_arrive_in_bounded_memory";
    for seed in seeds(test, &[1]) {
        // Such an event is in memory about ten times on its way, most of it for a moment.
        let trial = Plan::new(seed).memory(256 << 10).start().await;
        for _ in 0..rounds(4, 12) {
            let large = Event::new("CUSTOM")
                .header("Event-Subclass", "trial::large")
                .body(vec![b'x'; 15 << 20]);
            trial.switch.fire(large);
            trial.wait_delivered(1_000);
        }
        trial.verdict(Missing::Nothing);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_in_the_middle_of_a_frame_is_read_as_the_end() {
    let test = "faults::esl_garbage::a_notice_in_the_middle_of_a_frame_is_read_as_the_end";
    for seed in seeds(test, &[1]) {
        let mut trial = Plan::new(seed).start().await;
        let notice = Bytes::from_static(
            b"Content-Type: text/disconnect-notice\nContent-Length: 39\n\nkilled listener because of lost events\n",
        );
        let notices = rounds(8, 40);
        for round in 0..notices {
            let after = trial.dice.within(0..100_000);
            trial.disturb();
            trial
                .esl
                .set(Toward::Client, Condition::LastWords(after, notice.to_vec()));
            trial.esl.wait_condition(Toward::Client, &Condition::Clear);
            wait_ended(&trial, "killed", round);
            trial.host().wait_ready();
            trial.calm();
            trial.wait_delivered(200);
        }
        trial.verdict(Missing::Garbled(usize::try_from(notices).unwrap()));
    }
}
