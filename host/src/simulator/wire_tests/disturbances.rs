//! What comes by itself, and what goes wrong on purpose: heartbeats, loads, full queues, cuts, restarts, silence.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::super::{Event, Load, Settings};
use super::{Client, DEADLINE, replies, start, talk};

#[tokio::test]
async fn heartbeats_come_and_can_be_filtered_away() {
    let simulator = start(Settings {
        heartbeat: Duration::from_millis(5),
        ..Settings::default()
    })
    .await;
    let mut client = Client::subscribed(&simulator, "plain HEARTBEAT RE_SCHEDULE").await;
    client
        .until("\nEvent-Info: System%20Ready\nUp-Time: ")
        .await;
    client.until("\nTask-Desc: heartbeat\n").await;
    client.send("filter Event-Name CUSTOM\n\n").await;
    client
        .until("+OK filter added. [Event-Name]=[CUSTOM]\n\n")
        .await;
    client.send("exit\n\n").await;
    client.until("+OK bye\n\n").await;
    simulator.stop().await;
}

#[tokio::test]
async fn a_full_queue_drops_and_then_gives_the_listener_up_in_the_middle_of_a_frame() {
    let simulator = start(Settings {
        max_queue: 10,
        ..Settings::default()
    })
    .await;
    let client = Client::subscribed(&simulator, "plain CUSTOM test::x").await;
    let big = "x".repeat(1_000_000);
    for _ in 0..600 {
        simulator.fire(
            Event::new("CUSTOM")
                .header("Event-Subclass", "test::x")
                .body(&big),
        );
        // The connection's task gets its turn, and writes until the client would have to read.
        tokio::task::yield_now().await;
    }
    let sent = simulator.sent();
    assert_eq!((sent.dropped, sent.given_up), (501, 1), "{sent:?}");
    let end = "Content-Type: text/disconnect-notice\nContent-Length: 39\n\nkilled listener because of lost events\n";
    let rest = client.rest().await;
    let before = rest.strip_suffix(end).expect("the notice comes last");
    let whole = before.matches("test%3A%3Ax").count() * big.len();
    assert!(
        before.matches('x').count() < whole,
        "in the middle of the frame that was not read"
    );
    simulator.stop().await;
}

#[tokio::test]
async fn numbers_come_out_of_order_and_with_gaps_as_told_and_each_once() {
    let simulator = start(Settings {
        heartbeat: Duration::ZERO,
        disorder: 1_000,
        gap_every: 3,
        ..Settings::default()
    })
    .await;
    let client = Client::subscribed(&simulator, "plain ALL").await;
    let load = Load {
        events: Some(2_000),
        rate: 1e6,
        calls_at_once: 100,
    };
    simulator.place_calls(load).await;
    let (all, ()) = tokio::join!(client.rest(), simulator.shut_down_notice());
    let numbers = all
        .lines()
        .filter_map(|line| line.strip_prefix("Event-Sequence: "));
    let mut numbers: Vec<u64> = numbers.map(|number| number.parse().unwrap()).collect();
    let falls = numbers.windows(2).filter(|pair| pair[1] < pair[0]).count();
    assert!(falls > 500, "{falls} of {} are behind", numbers.len());
    numbers.sort_unstable();
    let gaps = numbers.windows(2).filter(|pair| pair[1] > pair[0] + 1);
    assert!(gaps.count() > 300, "with numbers that never appear");
    numbers.dedup();
    assert!(numbers.len() >= 1_900, "each once: {}", numbers.len());
    simulator.stop().await;
}

#[tokio::test]
async fn an_unpaced_load_waits_instead_of_dropping() {
    let simulator = start(Settings {
        max_queue: 5,
        ..Settings::default()
    })
    .await;
    let client = Client::subscribed(&simulator, "json ALL").await;
    let load = Load {
        rate: 0.0,
        events: Some(2_000),
        calls_at_once: 50,
    };
    let (fired, text) = tokio::join!(
        async {
            let fired = simulator.place_calls(load).await;
            simulator.shut_down_notice().await;
            fired
        },
        client.rest()
    );
    assert_eq!(fired, 2_000);
    assert_eq!(simulator.sent().dropped, 0);
    assert_eq!(text.matches("Content-Type: text/event-json").count(), 2_000);
    assert!(text.ends_with("\n\nThe system is being shut down.\n"));
    simulator.stop().await;
}

#[tokio::test]
async fn a_paced_load_keeps_its_rate_and_needs_no_listener() {
    let simulator = start(Settings::default()).await;
    let started = std::time::Instant::now();
    let load = Load {
        rate: 20_000.0,
        events: Some(2_000),
        calls_at_once: 5_000,
    };
    assert_eq!(simulator.place_calls(load).await, 2_000);
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(95), "too fast: {took:?}");
    assert_eq!(
        (simulator.sent().fired, simulator.sent().queued),
        (2_000, 0)
    );
    simulator.stop().await;
}

#[tokio::test]
async fn noevents_sets_a_waiting_load_free() {
    let simulator = start(Settings::default()).await;
    let mut client = Client::subscribed(&simulator, "plain ALL").await;
    // Half a command holds the events back, so the queue fills and the load waits.
    client.send("noev").await;
    let load = Load {
        rate: 0.0,
        events: Some(20_000),
        calls_at_once: 10,
    };
    let finish = async {
        while simulator.sent().queued < 1_000 {
            tokio::task::yield_now().await;
        }
        client.send("ents\n\n").await;
    };
    let both = async { tokio::join!(simulator.place_calls(load), finish).0 };
    assert_eq!(timeout(DEADLINE, both).await.expect("no stall"), 20_000);
    simulator.stop().await;
}

#[tokio::test]
async fn a_restart_changes_the_identity_and_cuts() {
    let simulator = start(Settings::default()).await;
    let client = Client::subscribed(&simulator, "plain ALL").await;
    let (core_uuid, sequence) = (simulator.core_uuid(), simulator.fire(Event::new("NAT")));
    simulator
        .write_raw(Bytes::from_static(b"Content-Length: 9\n\ncut"))
        .await;
    simulator.restart();
    let text = client.rest().await;
    assert!(
        text.ends_with("Content-Length: 9\n\ncut"),
        "no notice: {text}"
    );
    assert_ne!(simulator.core_uuid(), core_uuid);
    assert_eq!(
        simulator.fire(Event::new("NAT")),
        sequence,
        "numbers start again"
    );
    simulator.stop().await;
}

#[tokio::test]
async fn while_refusing_connections_end_at_once() {
    let simulator = start(Settings::default()).await;
    simulator.set_refuse(true);
    assert_eq!(talk(&simulator, "").await, "");
    simulator.set_refuse(false);
    assert_eq!(
        replies(&simulator, &["noevents"]).await,
        ["-ERR not listening for events"]
    );
    simulator.stop().await;
}

#[tokio::test]
async fn while_silent_only_commands_are_answered() {
    let simulator = start(Settings {
        heartbeat: Duration::from_millis(1),
        ..Settings::default()
    })
    .await;
    simulator.set_silent(true);
    let mut client = Client::subscribed(&simulator, "plain ALL").await;
    simulator.fire(Event::new("NAT"));
    client.send("api switchname\n\nexit\n\n").await;
    let text = client.rest().await;
    assert!(
        text.contains("sim1") && !text.contains("Event-Name"),
        "{text}"
    );
    simulator.stop().await;
}
