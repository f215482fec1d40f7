//! Consumers that fall behind: the host says how near they are to losing entries to trimming, and when they are well again.

use jackfield::simulator::Event;

use crate::harness::{Host, wait_for};
use crate::scene::{EVENTS, Scene};

const JOBS: &str = "freeswitch:telephony:background-jobs";
const LOW: &str = "consumers are about to lose entries to trimming";
const WELL: &str = "consumers have caught up";
const GROUP: &str = "dashboards";

/// A stream of about a hundred entries, whose consumers are looked at ten times a second.
async fn scene() -> Scene {
    Scene::start(|setup| {
        setup
            .env("EVENTS_MAX_LEN", "100")
            .env("TRIM_INTERVAL", "100ms")
    })
    .await
}

fn reserve(host: &Host, stream: &str) -> Option<f64> {
    host.metric(&format!(
        "jackfield_consumer_reserve_ratio{{stream=\"{stream}\"}}"
    ))
}

/// Waits until the reserve of the events stream is in this range.
#[track_caller]
fn wait_reserve(scene: &Scene, range: std::ops::RangeInclusive<f64>) {
    wait_for(&format!("a reserve of {range:?}"), || {
        reserve(&scene.host, EVENTS).filter(|reserve| range.contains(reserve))
    });
}

/// Reads and acknowledges all that the group was not given.
fn catch_up(scene: &Scene) -> usize {
    type Entries = Vec<(String, Vec<(String, String)>)>;
    let read = ["XREADGROUP", "GROUP", GROUP, "one", "STREAMS", EVENTS, ">"];
    let read: Vec<(String, Entries)> = scene.redis.ask(&read);
    let ids = read
        .iter()
        .flat_map(|(_, entries)| entries)
        .map(|(id, _)| id);
    let mut acknowledge = vec!["XACK", EVENTS, GROUP];
    acknowledge.extend(ids.map(String::as_str));
    scene.redis.ask(&acknowledge)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_lags_is_an_alarm_once_until_it_has_caught_up() {
    let mut scene = scene().await;
    scene.fire(10);
    scene.settle();
    scene
        .redis
        .ask::<()>(&["XGROUP", "CREATE", EVENTS, GROUP, "0"]);
    assert_eq!(catch_up(&scene), 10);
    wait_reserve(&scene, 1.0..=1.0);
    scene.fire(40);
    scene.settle();
    wait_reserve(&scene, 0.5..=0.7);
    assert!(!scene.host.log().contains(LOW), "there is time yet");
    scene.fire(45);
    scene.settle();
    wait_reserve(&scene, 0.1..=0.2);
    let log = scene.host.wait_log(LOW);
    let line = log.lines().find(|line| line.contains(LOW)).unwrap();
    for part in [
        "ERROR",
        &format!("stream=\"{EVENTS}\""),
        &format!("group=\"{GROUP}\""),
        "unread=8",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    scene.fire(100);
    scene.settle();
    wait_reserve(&scene, 0.0..=0.0);
    assert!(catch_up(&scene) > 0, "it reads what is left");
    wait_reserve(&scene, 1.0..=1.0);
    let log = scene.host.wait_log(WELL);
    assert_eq!(log.matches(LOW).count(), 1, "said once: {log}");
    assert_eq!(log.matches(WELL).count(), 1, "said once: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_groups_has_no_reserve() {
    let mut scene = scene().await;
    scene.fire(1);
    scene.switch.fire(Event::new("DTMF"));
    scene.settle();
    for stream in [EVENTS, JOBS] {
        assert_eq!(scene.redis.ask::<u64>(&["XLEN", stream]), 1, "{stream}");
    }
    scene
        .redis
        .ask::<()>(&["XGROUP", "CREATE", EVENTS, GROUP, "0"]);
    wait_for("the streams were looked at", || {
        reserve(&scene.host, EVENTS)
    });
    assert_eq!(reserve(&scene.host, JOBS), None, "it has no group");
    scene.redis.ask::<()>(&["XGROUP", "DESTROY", EVENTS, GROUP]);
    wait_for("a group that is gone leaves no sample", || {
        reserve(&scene.host, EVENTS).is_none().then_some(())
    });
}
