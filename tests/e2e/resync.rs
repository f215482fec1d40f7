//! What the host says of what it did not hear: calls that were lost and found, FreeSWITCH started anew, and links.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jackfield::simulator::{Event, Settings, Simulator};
use serde_json::Value;

use crate::faults::dice::{Dice, rounds, seeds, tell};
use crate::harness::{Host, Redis, Setup, wait_for};

/// Calls and what the host says of them, in one stream and so in one order.
const STREAM: &str = "freeswitch:calls";
const CONFIG: &str = "[[stream]]\nname = \"freeswitch:calls\"\nevents = [\"CHANNEL_CREATE\", \"CHANNEL_DESTROY\", \"JACKFIELD\"]\nmax_len = 0\n";
/// What a user is promised for the calls after a cut.
const PROMISE: Duration = Duration::from_secs(2);

fn setup(switch: &Simulator, redis: &Redis) -> Setup {
    let setup = Setup::new(switch.addr(), redis).config(CONFIG);
    setup
        .env("ESL_RECONNECT_DELAY", "20ms")
        .env("ESL_MAX_RECONNECT_DELAY", "50ms")
}

async fn quiet(heartbeat: Duration) -> Simulator {
    let settings = Settings {
        heartbeat,
        ..Settings::default()
    };
    Simulator::start(settings).await.unwrap()
}

fn uuid(number: u64) -> String {
    format!("{number:08x}-0000-4000-8000-000000000000")
}

fn create(switch: &Simulator, number: u64) {
    let event = Event::new("CHANNEL_CREATE").header("Unique-ID", uuid(number));
    let event = event.header("Channel-Name", format!("sofia/internal/{number}"));
    switch.fire(event.header("Caller-Destination-Number", "1000"));
}

fn destroy(switch: &Simulator, number: u64) {
    switch.fire(Event::new("CHANNEL_DESTROY").header("Unique-ID", uuid(number)));
}

/// A consumer that believes what the stream says.
#[derive(Default)]
struct Consumer {
    after: String,
    alive: BTreeSet<String>,
    /// The host's own events.
    own: Vec<Value>,
}

impl Consumer {
    fn read(&mut self, redis: &Redis) -> &Consumer {
        let after = match self.after.is_empty() {
            true => "-".to_owned(),
            false => format!("({}", self.after),
        };
        let entries: Vec<(String, Vec<(String, String)>)> =
            redis.ask(&["XRANGE", STREAM, &after, "+"]);
        for (id, fields) in entries {
            let event: Value = serde_json::from_str(&fields[0].1).unwrap();
            let (name, uuid) = (&event["Event-Name"], &event["Unique-ID"]);
            let uuid = uuid.as_str().unwrap_or_default().to_owned();
            match (name.as_str().unwrap(), event["Event-Subclass"].as_str()) {
                ("CHANNEL_CREATE", _) | (_, Some("call.found")) => {
                    self.alive.insert(uuid);
                }
                ("CHANNEL_DESTROY", _) | (_, Some("call.lost")) => {
                    self.alive.remove(&uuid);
                }
                _ => {}
            }
            if name == "JACKFIELD" {
                self.own.push(event);
            }
            self.after = id;
        }
        self
    }

    /// That the link for events is up again.
    fn back(&self) -> Vec<&Value> {
        let mut back = self.said("link.reconnected");
        back.retain(|event| event["Link"] == "esl");
        back
    }

    fn said(&self, subclass: &str) -> Vec<&Value> {
        let is_it = |event: &&Value| event["Event-Subclass"] == subclass;
        self.own.iter().filter(is_it).collect()
    }
}

fn numbers(numbers: impl IntoIterator<Item = u64>) -> BTreeSet<String> {
    numbers.into_iter().map(uuid).collect()
}

/// Waits until the consumer believes the very calls that are alive.
#[track_caller]
fn wait_alive(consumer: &mut Consumer, redis: &Redis, alive: &BTreeSet<String>) {
    wait_for("the consumer knows which calls are alive", || {
        (consumer.read(redis).alive == *alive).then_some(())
    });
}

/// Waits until what the events said is old enough to be held against FreeSWITCH, by Redis' clock.
#[track_caller]
fn wait_settled(consumer: &mut Consumer, redis: &Redis) {
    wait_for("what the events said has settled", || {
        let newest = consumer.read(redis).after.split('-').next()?;
        let newest: u64 = newest.parse().ok()?;
        let (seconds, micros): (u64, u64) = redis.ask(&["TIME"]);
        (seconds * 1_000 + micros / 1_000 > newest + 600).then_some(())
    });
}

fn is_up(host: &Host) {
    host.wait_status("the calls were compared", |status| {
        status["links"]["esl"]["state"] == "ready" && status["calls"]["answers"] != 0
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_began_and_ended_unheard_are_told() {
    let (switch, redis) = (quiet(Duration::ZERO).await, Redis::start());
    create(&switch, 0);
    let host = setup(&switch, &redis).start();
    host.wait_ready();
    is_up(&host);
    (1..4).for_each(|number| create(&switch, number));
    let mut consumer = Consumer::default();
    wait_alive(&mut consumer, &redis, &numbers(0..4));
    let found = consumer.said("call.found");
    assert_eq!(found.len(), 1, "the one that was there before: {found:?}");

    wait_settled(&mut consumer, &redis);
    switch.set_refuse(true);
    switch.cut();
    host.wait_status("the loss is noticed", |status| {
        status["links"]["esl"]["losses"] == 1
    });
    destroy(&switch, 2);
    create(&switch, 4);
    switch.set_refuse(false);
    wait_alive(&mut consumer, &redis, &numbers([0, 1, 3, 4]));
    wait_for("the link is said to be back", || {
        (!consumer.read(&redis).back().is_empty()).then_some(())
    });
    let lost = consumer.said("call.lost");
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert_eq!(lost[0]["Channel-Name"], "sofia/internal/2");
    let found = consumer.said("call.found");
    assert_eq!(found[1]["Channel-Name"], "sofia/internal/4");
    assert_eq!(found[1]["Caller-Destination-Number"], "1000");
    let back = consumer.back();
    assert_eq!(back[0]["Link"], "esl");
    assert_eq!(
        (&back[0]["Calls-Lost"], &back[0]["Calls-Found"]),
        (&"1".into(), &"1".into())
    );
    assert_eq!(back[0]["Link-Error"], "connection closed by FreeSWITCH");
    assert!(
        back[0]["Link-Downtime-Ms"]
            .as_str()
            .unwrap()
            .parse::<u64>()
            .unwrap()
            < 10_000
    );
    let status = host.wait_settled(0);
    assert_eq!(status["calls"]["alive"], 4, "{status:#}");
    assert_eq!(status["calls"]["lost"], 1, "{status:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_freeswitch_is_told_and_its_calls_are_gone() {
    let (switch, redis) = (quiet(Duration::ZERO).await, Redis::start());
    let host = setup(&switch, &redis).start();
    host.wait_ready();
    is_up(&host);
    (0..50).for_each(|number| create(&switch, number));
    let mut consumer = Consumer::default();
    wait_alive(&mut consumer, &redis, &numbers(0..50));
    let before = switch.core_uuid();
    wait_settled(&mut consumer, &redis);
    switch.restart();
    wait_alive(&mut consumer, &redis, &BTreeSet::new());
    let restarts = consumer.said("freeswitch.restarted");
    assert_eq!(restarts.len(), 1);
    assert_eq!(restarts[0]["Previous-Core-UUID"], *before);
    assert_eq!(restarts[0]["Core-UUID"], *switch.core_uuid());
    host.wait_status("status says so", |status| {
        status["calls"]["restarts"] == 1 && status["calls"]["core_uuid"] == *switch.core_uuid()
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_ended_while_the_host_was_down_are_told_too() {
    let (switch, redis) = (quiet(Duration::ZERO).await, Redis::start());
    let host = setup(&switch, &redis).start();
    host.wait_ready();
    is_up(&host);
    (0..20).for_each(|number| create(&switch, number));
    let mut consumer = Consumer::default();
    wait_alive(&mut consumer, &redis, &numbers(0..20));
    let setup = host.kill();
    (0..10).for_each(|number| destroy(&switch, number));
    (20..25).for_each(|number| create(&switch, number));
    let host = setup.start();
    wait_alive(&mut consumer, &redis, &numbers(10..25));
    assert_eq!(consumer.said("call.lost").len(), 10, "each once");
    assert_eq!(consumer.said("call.found").len(), 5, "none that was known");
    // The same after a stop.
    let setup = host.stop();
    (10..12).for_each(|number| destroy(&switch, number));
    let host = setup.start();
    wait_alive(&mut consumer, &redis, &numbers(12..25));
    let status = host.status();
    assert_eq!(status["calls"]["followed"], true, "{status:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_known_is_said_to_be_unknown() {
    let settings = Settings {
        heartbeat: Duration::ZERO,
        has_commands: false,
        ..Settings::default()
    };
    let (switch, redis) = (Simulator::start(settings).await.unwrap(), Redis::start());
    let host = setup(&switch, &redis).start();
    host.wait_ready();
    create(&switch, 1);
    let status = host.wait_status("it is said", |status| {
        status["calls"]["unknown"].is_string()
    });
    let why = status["calls"]["unknown"].as_str().unwrap();
    assert!(why.contains("Command not found"), "{why}");
    assert_eq!(status["links"]["esl"]["state"], "ready", "it only informs");
    switch.cut();
    let mut consumer = Consumer::default();
    wait_for("the link is said to be back", || {
        (!consumer.read(&redis).back().is_empty()).then_some(())
    });
    let back = consumer.back();
    assert_eq!(back[0]["Calls"], "unknown");
    assert!(
        back[0]["Calls-Error"]
            .as_str()
            .unwrap()
            .contains("Command not found")
    );
    assert!(
        consumer.said("call.lost").is_empty(),
        "not known to be lost"
    );
}

/// Ten thousand calls, some of which end and some of which begin all the time, and a link that is cut again and again.
#[tokio::test(flavor = "multi_thread")]
async fn after_random_cuts_there_is_no_ghost_and_none_is_missing() {
    const CALLS: u64 = 10_000;
    let test = "resync::after_random_cuts_there_is_no_ghost_and_none_is_missing";
    for seed in seeds(test, &[1]) {
        let mut dice = Dice::new(seed);
        let (switch, redis) = (
            Arc::new(quiet(Duration::from_secs(1)).await),
            Redis::start(),
        );
        (0..CALLS).for_each(|number| create(&switch, number));
        let host = setup(&switch, &redis).start();
        host.wait_ready();
        let stop = Arc::new(AtomicBool::new(false));
        let churn = {
            let (switch, stop) = (Arc::clone(&switch), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut oldest = 0;
                while !stop.load(Ordering::Relaxed) {
                    destroy(&switch, oldest);
                    create(&switch, oldest + CALLS);
                    oldest += 1;
                    std::thread::sleep(Duration::from_millis(2));
                }
                oldest
            })
        };
        for cut in 1..=rounds(10, 100) {
            tokio::time::sleep(dice.millis(0..150)).await;
            switch.cut();
            let noticed = |status: &Value| {
                let link = &status["links"]["esl"];
                link["losses"].as_u64() >= Some(cut) && link["state"] != "waiting"
            };
            host.wait_status("it is back", noticed);
        }
        let ended = Instant::now();
        stop.store(true, Ordering::Relaxed);
        let oldest = churn.join().unwrap();
        let alive = numbers(oldest..oldest + CALLS);
        let mut consumer = Consumer::default();
        wait_alive(&mut consumer, &redis, &alive);
        let took = ended.elapsed();
        tell(&format!("resync: known after {took:?}"));
        assert!(
            took < 5 * PROMISE,
            "2 s are promised of a machine that does nothing else: {took:?}"
        );
        let known = host.wait_status("status knows it", |status| {
            status["calls"]["alive"] == CALLS
        });
        assert_eq!(known["counts"]["balanced"], true);
    }
}
