//! As many events as a FreeSWITCH can make: the Event Socket is read at all times, so FreeSWITCH drops none, whatever the rest of the
//! host waits for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jackfield::simulator::Event;

use super::dice::{rounds, seeds, tell};
use super::trial::{Plan, Trial};
use super::verdict::Missing;
use super::watch::Peak;
use crate::proxy::{Condition, Toward};

/// What a FreeSWITCH of two cores makes at most, of small events in JSON.
const RATE: u64 = 30_000;

fn plan(seed: u64) -> Plan {
    Plan::new(seed).journal(rounds(512, 2_048) << 20)
}

/// Small events at that rate for so long; says what was reached on this machine.
async fn flood(trial: &Trial, time: Duration) {
    trial.hold_calls();
    let switch = Arc::clone(&trial.switch);
    let fire = move || {
        let (started, mut fired) = (Instant::now(), 0);
        while started.elapsed() < time {
            let due = u64::try_from(started.elapsed().as_micros()).unwrap() * RATE / 1_000_000;
            while fired < due && started.elapsed() < time {
                let event = Event::new("CUSTOM").header("Event-Subclass", "trial::flood");
                switch.fire(event.header("Number", fired.to_string()));
                fired += 1;
            }
            // Others need the processor, too.
            std::thread::sleep(Duration::from_millis(1));
        }
        fired
    };
    let fired = tokio::task::spawn_blocking(fire).await.unwrap();
    let rate = fired as f64 / time.as_secs_f64();
    tell(&format!("flood: {rate:.0} events a second"));
}

fn time() -> Duration {
    Duration::from_secs(rounds(3, 10))
}

/// Nothing was dropped by FreeSWITCH, and all of it arrives.
fn check(trial: Trial) -> Peak {
    let sent = trial.switch.sent();
    assert_eq!(sent.dropped, 0, "FreeSWITCH drops nothing: {sent:?}");
    let verdict = trial.verdict(Missing::Nothing);
    let peak = verdict.peak;
    tell(&format!("flood: {peak:?}"));
    peak
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_read_as_fast_as_it_comes() {
    let test = "faults::esl_flood::a_flood_is_read_as_fast_as_it_comes";
    for seed in seeds(test, &[1]) {
        let trial = plan(seed).start().await;
        flood(&trial, time()).await;
        check(trial);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_read_while_redis_hangs() {
    let test = "faults::esl_flood::a_flood_is_read_while_redis_hangs";
    for seed in seeds(test, &[1]) {
        let trial = plan(seed).start().await;
        trial.disturb();
        trial.lane.set(Toward::Server, Condition::BlackHole);
        trial.lane.set(Toward::Client, Condition::BlackHole);
        flood(&trial, time()).await;
        trial.lane.clear();
        trial.host().wait_ready();
        trial.calm();
        check(trial);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_read_while_a_filter_is_slow() {
    let test = "faults::esl_flood::a_flood_is_read_while_a_filter_is_slow";
    for seed in seeds(test, &[1]) {
        // Its first events take it some milliseconds each, the others nothing: thousands come meanwhile, on any machine.
        let settings = "attack = \"slow\"\nwork = 3_000_000\nuntil = 600\nwants = [\"CUSTOM\"]\n[jackfield]\ndeadline = \"1s\"\n";
        let trial = plan(seed)
            .setup(move |setup| setup.filter("10-slow", "hostile", settings))
            .start()
            .await;
        flood(&trial, time()).await;
        let pending = check(trial).pending;
        assert!(pending > 1_000, "the filter is what is slow: {pending}");
    }
}
