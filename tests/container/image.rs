//! What the image is, how it reports on itself, and how it ends.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::engine::{Container, DATA, IMAGE, Volume, docker, switch};
use crate::harness::{Redis, wait_for};
use crate::numbered::{self, STREAM};

/// What the image may take, in bytes.
const LARGEST: u64 = 60_000_000;

#[test]
fn it_is_small_and_runs_as_nobody_in_particular() {
    let text = docker(&["image", "inspect", "--format", "{{json .}}", IMAGE]);
    let image: Value = serde_json::from_str(&text).unwrap();
    let size = image["Size"].as_u64().unwrap();
    eprintln!("the image has {:.1} MB", size as f64 / 1e6);
    assert!(size < LARGEST, "{size} bytes");
    let config = &image["Config"];
    let uid = config["User"].as_str().unwrap().split(':').next().unwrap();
    assert!(
        uid.parse::<u32>().unwrap() > 0,
        "a number, and not root: {uid}"
    );
    for (field, first) in [("Entrypoint", "/usr/local/bin/jackfield"), ("Cmd", "run")] {
        assert_eq!(
            config[field][0], first,
            "{field} needs no shell: {config:#}"
        );
    }
    assert_eq!(
        config["Healthcheck"]["Test"].as_array().unwrap()[..],
        ["CMD", "/usr/local/bin/jackfield", "health"],
        "nor does the health check"
    );
    assert!(config["Volumes"][DATA].is_object(), "{config:#}");
    let variables = config["Env"].as_array().unwrap();
    assert!(variables.iter().any(|set| set == "HEALTH_PORT=9876"));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_becomes_healthy_and_ends_at_sigterm_with_everything_written() {
    let (switch, redis, volume) = (switch().await, Redis::start(), Volume::new());
    let host = Container::start(&switch, &redis, &[&volume.mount()]);
    host.wait_ready();
    // The engine asks every ten seconds.
    wait_for("the engine finds it healthy", || {
        (host.state()["Health"]["Status"] == "healthy").then_some(())
    });
    numbered::fire(&switch, 0..20_000);
    let asked = Instant::now();
    assert_eq!(host.stop(), 0, "{}", host.log());
    assert!(asked.elapsed() < Duration::from_secs(10));
    let journaled = in_journal(&volume);
    assert!(!journaled.is_empty());
    numbered::check(&redis, STREAM, journaled);
}

/// The numbers in the journal of a volume whose container has ended, as the image's own command tells.
pub(crate) fn in_journal(volume: &Volume) -> Vec<u64> {
    let mount = volume.mount();
    let lines = docker(&[
        "run",
        "--rm",
        "--network=none",
        "--read-only",
        &mount,
        IMAGE,
        "journal",
        "export",
        "--json",
    ]);
    let records = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let number = |record: Value| record["event"]["Number"].as_str()?.parse().ok();
    records.filter_map(number).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_sees_no_redis_finds_it_unhealthy_and_alive() {
    let (switch, mut redis) = (switch().await, Redis::start());
    let often = ["--health-interval=1s", "--health-retries=2"];
    let host = Container::start(&switch, &redis, &often);
    wait_for("it is healthy", || {
        (host.state()["Health"]["Status"] == "healthy").then_some(())
    });
    redis.kill();
    let state = wait_for("it is not", || {
        let state = host.state();
        (state["Health"]["Status"] == "unhealthy").then_some(state)
    });
    assert_eq!(state["Running"], true, "it waits for Redis: {state:#}");
    redis.up();
    wait_for("it is healthy again", || {
        (host.state()["Health"]["Status"] == "healthy").then_some(())
    });
}

/// The binary is static, and a C library without shared objects looks names up in its own way.
#[tokio::test(flavor = "multi_thread")]
async fn it_looks_names_up_in_the_dns() {
    let server = "127.0.0.77";
    let socket =
        UdpSocket::bind((server, 53)).expect("port 53 of 127.0.0.77 is free, and we may have it");
    std::thread::spawn(move || answer_names(&socket));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("resolv.conf");
    std::fs::write(&file, format!("nameserver {server}\n")).unwrap();
    let mount = format!("--volume={}:/etc/resolv.conf:ro", file.display());
    let (switch, redis) = (switch().await, Redis::start());
    let address = format!(
        "--env=REDIS_REMOTE_ADDR=redis.jackfield.test:{}",
        redis.port
    );
    let host = Container::start(
        &switch,
        &redis,
        &[&mount, &address, "--env=ESL_HOST=switch.jackfield.test"],
    );
    host.wait_ready();
    numbered::fire(&switch, 0..10);
    host.wait_settled(10);
    numbered::check(&redis, STREAM, 0..10);
}

/// Every name has the IPv4 address 127.0.0.1 and no other.
fn answer_names(socket: &UdpSocket) {
    const ADDRESS_OF_V4: [u8; 2] = [0, 1];
    let mut question = [0; 512];
    while let Ok((length, client)) = socket.recv_from(&mut question) {
        // One question of name, type and class follows the head of 12 bytes; a name ends with a zero.
        let name_end = 12
            + question[12..length]
                .iter()
                .position(|byte| *byte == 0)
                .unwrap()
            + 1;
        let found = question[name_end..name_end + 2] == ADDRESS_OF_V4;
        let mut answer = question[..name_end + 4].to_vec();
        answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(found), 0, 0, 0, 0]);
        if found {
            // The name of the question, type and class of it, a minute, four bytes.
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
        }
        socket.send_to(&answer, client).unwrap();
    }
}
