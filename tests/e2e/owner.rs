//! One router name, one host: a second one gives way, and a host that lost its volume takes over from itself.

use std::time::{Duration, Instant};

use jackfield::simulator::{Settings, Simulator};

use crate::harness::{Redis, Setup, wait_for};
use crate::numbered::{self, STREAM};

const CURSOR: &str = "jackfield:one:cursor";
const OWNER: &str = "jackfield:one:owner";

async fn switch() -> Simulator {
    Simulator::start(Settings::default()).await.unwrap()
}

fn setup(switch: &Simulator, redis: &Redis) -> Setup {
    Setup::new(switch.addr(), redis)
        .env("JACKFIELD_ROUTER_NAME", "one")
        .env("EVENTS_MAX_LEN", "0")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_host_of_the_same_name_leaves_with_exit_3_and_hurts_nobody() {
    let (switch, redis) = (switch().await, Redis::start());
    let first = setup(&switch, &redis).start();
    first.wait_ready();
    numbered::fire(&switch, 0..10);
    first.wait_settled(10);
    let owner: String = redis.ask(&["GET", OWNER]);
    let mut second = setup(&switch, &redis).start();
    wait_for("the second one says who holds the name", || {
        let (code, why) = second.get("/readyz");
        (code == 503 && why.contains("router name \"one\" is held by")).then_some(())
    });
    numbered::fire(&switch, 10..20);
    let asked = Instant::now();
    let ended = loop {
        if let Some(ended) = second.ended() {
            break ended;
        }
        assert!(
            asked.elapsed() < Duration::from_secs(60),
            "it waits for 30 s\n{}",
            second.log()
        );
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(ended.code(), Some(3), "{}", second.log());
    second.wait_log("router name \"one\" is held by");
    numbered::fire(&switch, 20..30);
    first.wait_settled(30);
    numbered::check(&redis, STREAM, 0..30);
    assert_eq!(
        redis.ask::<String>(&["GET", OWNER]),
        owner,
        "still the first"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_lost_its_volume_takes_over_when_its_owner_key_has_expired() {
    let (switch, redis) = (switch().await, Redis::start());
    let lost = setup(&switch, &redis).start();
    lost.wait_ready();
    numbered::fire(&switch, 0..10);
    lost.wait_settled(10);
    drop(lost.kill());
    let host = setup(&switch, &redis).start();
    host.wait_status("FreeSWITCH is there", |status| {
        status["links"]["esl"]["state"] == "ready"
    });
    numbered::fire(&switch, 10..20);
    host.wait_ready();
    host.wait_settled(10);
    numbered::check(&redis, STREAM, 0..20);
    assert_eq!(host.metric("jackfield_adopted_total"), Some(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_stops_gives_its_name_back() {
    let (switch, redis) = (switch().await, Redis::start());
    let first = setup(&switch, &redis).start();
    first.wait_ready();
    numbered::fire(&switch, 0..10);
    first.wait_settled(10);
    drop(first.stop());
    assert!(!redis.ask::<bool>(&["EXISTS", OWNER]), "nobody's");
    let second = setup(&switch, &redis).start();
    second.wait_ready();
    numbered::fire(&switch, 10..20);
    second.wait_settled(10);
    numbered::check(&redis, STREAM, 0..20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_cursor_is_taken_leaves_with_exit_3() {
    let (switch, redis) = (switch().await, Redis::start());
    let mut host = setup(&switch, &redis).start();
    host.wait_ready();
    numbered::fire(&switch, 0..10);
    host.wait_settled(10);
    redis.ask::<()>(&["SET", CURSOR, "0123456789abcdef0123456789abcdef:7"]);
    numbered::fire(&switch, 10..20);
    assert_eq!(host.wait_end().code(), Some(3), "{}", host.log());
    numbered::check(&redis, STREAM, 0..10);
    let cursor: String = redis.ask(&["GET", CURSOR]);
    assert_eq!(
        cursor, "0123456789abcdef0123456789abcdef:7",
        "it is left alone"
    );
}
