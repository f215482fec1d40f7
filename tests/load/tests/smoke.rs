//! The program is alive: what the generator sends on a schedule arrives through the relay, once each, with a time for each. No speed is
//! asserted.

use std::path::Path;

use load::prepared::CHANNEL_ANSWER;
use load::stand::Stand;
use load::steady::{Load, load};
use load::subject::{Built, Subject};

fn built() -> Built {
    Built::beside(Path::new(env!("CARGO_BIN_EXE_relay")))
}

#[test]
fn every_event_of_a_schedule_arrives_with_its_time() {
    let few = Load {
        per_second: 2_000,
        seconds: 2,
    };
    let (shown, ()) = load(&built(), &Subject::Relay, few, |_, _| ());
    assert!(shown.in_order, "one connection keeps the order");
    // The first second is for getting going.
    assert_eq!(
        shown.events.len(),
        2_000,
        "an event of the second second each"
    );
    let dues: Vec<u64> = shown.events.iter().map(|&(due, _)| due).collect();
    let gaps: Vec<u64> = dues.windows(2).map(|two| two[1] - two[0]).collect();
    assert!(
        gaps.iter().all(|&gap| gap == 500),
        "on schedule, whatever happened: {gaps:?}"
    );
    assert_eq!(shown.latencies().len(), 2_000, "each has a latency");
    assert!(
        !shown.hiccups.is_empty() && shown.late.len() == 4_000,
        "the meters ran"
    );
    assert!(shown.cpu_us > 0.0, "the relay worked");
}

#[test]
fn what_is_sent_at_once_arrives_too() {
    let mut stand = Stand::up(&built(), &Subject::Relay, CHANNEL_ANSWER, 0);
    let before = stand.added();
    stand.switch.send_at_once(5_000).unwrap();
    stand.wait_for(before + 5_000);
}
