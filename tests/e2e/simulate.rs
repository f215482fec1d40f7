//! `jackfield simulate`: a FreeSWITCH for those who have none, as a process of its own.

use std::process::{Command, Stdio};

use crate::harness::{Redis, Setup, free_port, jackfield, signal, wait_for};
use crate::numbered::STREAM;

#[test]
fn its_calls_reach_redis_and_a_signal_ends_it_well() {
    let (redis, address) = (Redis::start(), format!("127.0.0.1:{}", free_port()));
    let mut switch = Command::new(jackfield())
        .args([
            "simulate",
            "--listen",
            &address,
            "--password",
            "secret",
            "--rate",
            "500",
        ])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let setup = Setup::new(address.parse().unwrap(), &redis).env("ESL_PASSWORD", "secret");
    let host = setup.env("ESL_RECONNECT_DELAY", "50ms").start();
    host.wait_ready();
    wait_for("calls are answered", || {
        let events = redis.events(STREAM);
        let answered = events
            .iter()
            .filter(|event| event["Event-Name"] == "CHANNEL_ANSWER");
        (answered.count() > 10).then_some(())
    });
    signal(switch.id(), "TERM");
    assert!(switch.wait().unwrap().success(), "it ends well");
    host.wait_status("the host notices", |status| {
        status["links"]["esl"]["state"] != "ready"
    });
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, _, log) = Setup::default()
        .instead(&["simulate", "--listen", &address])
        .run();
    assert_eq!(code, 1);
    assert_eq!(
        log,
        format!("jackfield: cannot listen on {address}: Address already in use (os error 98)\n")
    );
}
