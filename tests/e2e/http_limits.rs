//! HTTP to clients that mean no good: they cost nobody anything, and what shows call data is not for pages of a browser.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use crate::harness::{DEADLINE, post, request, wait_for};
use crate::scene::Scene;

/// More than there are places for.
const HALF_OPEN: usize = 700;

#[tokio::test(flavor = "multi_thread")]
async fn half_open_clients_by_the_hundred_delay_nobody_and_are_cut_off() {
    let mut scene = Scene::start(|setup| setup).await;
    let half_open: Vec<TcpStream> = (0..HALF_OPEN)
        .map(|_| {
            let mut stream = TcpStream::connect(scene.host.http).unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            stream.write_all(b"GET /status HTTP/1.1\r\nHo").unwrap();
            stream
        })
        .collect();
    // The newest may just have been accepted, and the ones that make room for them not be closed yet.
    wait_for("there are not places for all", || {
        let open = std::fs::read_dir(format!("/proc/{}/fd", scene.host.pid()));
        (open.unwrap().count() < HALF_OPEN).then_some(())
    });
    for _ in 0..20 {
        scene.fire(10);
        let asked = Instant::now();
        assert_eq!(scene.host.get("/readyz").0, 200);
        assert!(
            asked.elapsed().as_secs() < 5,
            "answered after {:?}",
            asked.elapsed()
        );
    }
    scene.settle();
    scene.all_delivered();
    for mut stream in half_open {
        // An end or a reset, and not the time limit of this test.
        let ended = stream.read_to_end(&mut Vec::new());
        let is_end = ended.as_ref().map_or_else(
            |error| error.kind() == std::io::ErrorKind::ConnectionReset,
            |count| *count == 0,
        );
        assert!(is_end, "{ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_in_a_browser_on_this_machine_sees_no_call_data() {
    let scene = Scene::start(|setup| setup.env("JACKFIELD_HTTP_TOKEN", "token-1234")).await;
    let ask = |headers: &str| {
        let mut stream = TcpStream::connect(scene.host.http).unwrap();
        write!(
            stream,
            "GET /status HTTP/1.1\r\n{headers}Connection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let rebound = "Host: evil.example:9876\r\n";
    assert!(
        ask(rebound).starts_with("HTTP/1.1 403 "),
        "a name that was made to lead here"
    );
    let with_token = format!("{rebound}Authorization: Bearer token-1234\r\n");
    assert!(
        ask(&with_token).starts_with("HTTP/1.1 200 "),
        "the token opens any name"
    );
    let cross = "Host: localhost:9876\r\nOrigin: http://evil.example\r\n";
    let answer = ask(cross).to_ascii_lowercase();
    assert!(
        !answer.contains("access-control-"),
        "no other page may read it: {answer}"
    );
    let proxied = "Host: localhost:9876\r\nX-Forwarded-For: 192.0.2.7\r\n";
    assert!(
        ask(proxied).starts_with("HTTP/1.1 403 "),
        "a proxy is not its client"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_send_a_body_need_not_be_listened_to() {
    let scene = Scene::start(|setup| setup.env("JACKFIELD_HTTP_TOKEN", "token-1234")).await;
    let mut stream = TcpStream::connect(scene.host.http).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    // The head alone: an answer that waited for the body would not come.
    let head = "POST /dead/replay HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000000\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut start = [0; 13];
    stream.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 403 ");
    let right = "Authorization: Bearer token-1234\r\n";
    let huge = "x".repeat((64 << 20) + 1);
    // Refused before all of it was read, so the rest may not be taken.
    if let Ok((code, _)) = post(scene.host.http, "/dead/replay", right, &huge) {
        assert_eq!(code, 413);
    }
    let huge_head = format!("X-Large: {}\r\n", "x".repeat(100 << 10));
    if let Ok((code, ..)) = request(scene.host.http, "GET", "/livez", &huge_head) {
        assert_eq!(code, 431);
    }
    assert_eq!(scene.host.get("/livez").0, 200, "and it goes on");
}
