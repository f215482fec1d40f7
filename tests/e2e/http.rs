//! What can be asked over HTTP: the Go service's `/health` and metric names, readiness, and `/status` for those who may.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use jackfield::simulator::{Event, Settings, Simulator};
use serde_json::{Value, json};

use crate::harness::{Host, Redis, Setup, free_port, request, wait_for};
use crate::scene::Scene;

fn health(host: &Host) -> (u16, Value) {
    let (code, body) = host.get("/health");
    (code, serde_json::from_str(&body).unwrap())
}

/// Waits until `/health` says that something is wrong; gives what.
#[track_caller]
fn trouble(host: &Host) -> String {
    let (code, body) = wait_for("the host is unhealthy", || {
        // A start's first moments are over when both links have been tried.
        let tried = |body: &Value| {
            !body["data"]["last_error"]
                .to_string()
                .contains("not connected yet")
        };
        Some(health(host)).filter(|(_, body)| body["status"] == "unhealthy" && tried(body))
    });
    assert_eq!((code, &body["data"]["is_healthy"]), (503, &json!(false)));
    body["data"]["last_error"]
        .as_str()
        .expect("the real text")
        .to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_that_of_the_go_service() {
    let scene = Scene::start(|setup| setup).await;
    let (code, head, body) = request(scene.host.http, "GET", "/health", "").unwrap();
    let last_check = serde_json::from_str::<Value>(&body).unwrap()["data"]["last_check"].clone();
    let expected = format!(
        "{{\"status\":\"healthy\",\"data\":{{\"is_healthy\":true,\"last_check\":{last_check},\"last_error\":null,\"redis_recovery_attempts\":0,\"esl_recovery_attempts\":0}}}}"
    );
    assert_eq!(
        (code, body),
        (200, expected),
        "fields, their order and their types"
    );
    let time = last_check.as_str().unwrap();
    assert!(
        time.len() >= 20 && time.ends_with('Z') && time.as_bytes()[10] == b'T',
        "RFC 3339: {time}"
    );
    assert!(
        head.to_lowercase()
            .contains("content-type: application/json"),
        "{head}"
    );
    let (code, head, body) = request(scene.host.http, "HEAD", "/health", "").unwrap();
    assert_eq!(
        (code, body.as_str()),
        (200, ""),
        "HEAD answers without a body"
    );
    assert!(
        head.to_lowercase()
            .contains("content-type: application/json"),
        "{head}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_down_makes_it_unhealthy_and_not_ready_with_the_real_error() {
    let mut scene = Scene::start(|setup| {
        setup
            .env("ESL_RECONNECT_DELAY", "100ms")
            .env("ESL_MAX_RECONNECT_DELAY", "100ms")
    })
    .await;
    scene.redis.kill();
    let refused = trouble(&scene.host);
    assert!(
        refused.starts_with("redis: ") && !refused.contains("esl: "),
        "which link, and why: {refused}"
    );
    assert_eq!(
        request(scene.host.http, "HEAD", "/health", "").unwrap().0,
        503,
        "HEAD says the same"
    );
    assert_eq!(scene.host.get("/readyz").0, 503);
    assert_eq!(
        scene.host.get("/livez"),
        (200, "ok\n".to_owned()),
        "but it lives"
    );
    scene.redis.up();
    scene.host.wait_ready();
    assert_eq!(scene.host.get("/readyz"), (200, "ready\n".to_owned()));
    scene.switch.set_refuse(true);
    scene.switch.cut();
    let closed = wait_for("tries are counted", || {
        Some(health(&scene.host).1["data"].clone())
            .filter(|data| data["esl_recovery_attempts"].as_u64() >= Some(2))
    });
    let error = closed["last_error"].as_str().unwrap();
    assert!(
        error.starts_with("esl: connection closed by FreeSWITCH"),
        "{closed}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_freeswitch_that_is_connected_but_silent_is_unhealthy() {
    let settings = Settings {
        heartbeat: Duration::from_millis(200),
        ..Settings::default()
    };
    let (switch, redis) = (Simulator::start(settings).await.unwrap(), Redis::start());
    let host = Setup::new(switch.addr(), &redis).start();
    host.wait_status(
        "two heartbeats, so that their interval is known",
        |status| status["counts"]["inputs"].as_u64() >= Some(2),
    );
    switch.set_silent(true);
    let error = trouble(&host);
    assert!(error.starts_with("esl: silent for "), "{error}");
    switch.set_silent(false);
    host.wait_ready();
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_have_the_names_and_types_of_the_go_service() {
    let mut scene = Scene::start(|setup| setup).await;
    scene.fire(5);
    scene.settle();
    let text = scene.host.get("/metrics").1;
    let typed = |name: &str, kind: &str| {
        assert!(
            text.contains(&format!("# TYPE {name} {kind}\n")),
            "{name} is a {kind}:\n{text}"
        );
    };
    for (name, value) in [
        ("messages_processed", 5.0),
        ("errors", 0.0),
        ("esl_reconnections", 0.0),
        ("redis_reconnections", 0.0),
    ] {
        typed(&format!("telephony_{name}"), "counter");
        assert_eq!(
            scene.host.metric(&format!("telephony_{name}_total")),
            Some(value),
            "{name}, unlabelled"
        );
    }
    for (name, value) in [
        ("reader_channel_size", 0.0),
        ("writer_channel_size", 0.0),
        ("esl_connections_total", 1.0),
        ("redis_connections_total", 1.0),
    ] {
        typed(&format!("telephony_{name}"), "gauge");
        assert_eq!(
            scene.host.metric(&format!("telephony_{name}")),
            Some(value),
            "{name}, unlabelled"
        );
    }
    for stage in ["reader", "writer", "total"] {
        let name = format!("telephony_{stage}_latency_milliseconds");
        typed(&name, "histogram");
        let prefix = format!("{name}_bucket{{le=\"");
        let bounds: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix(&prefix)?.split('"').next())
            .collect();
        let expected = [
            "1.0", "5.0", "10.0", "25.0", "50.0", "100.0", "250.0", "500.0", "1000.0", "2500.0",
            "5000.0", "+Inf",
        ];
        assert_eq!(bounds, expected, "{name}: the buckets, and no other label");
        assert_eq!(scene.host.metric(&format!("{name}_count")), Some(5.0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_terms_of_the_accounts_are_the_same_in_metrics_and_status() {
    // None of them wants every event: the host asks FreeSWITCH for its calls, and each command makes an API event.
    let dead = "attack = \"dead-letter\"\nevent = \"DTMF\"\nwants = [\"DTMF\"]\n";
    let drop = "[[rule]]\nevent = \"CHANNEL_HANGUP\"\ndrop = \"noise\"\n";
    let derive = "attack = \"derive\"\nevent = \"CHANNEL_ANSWER\"\nwants = [\"CHANNEL_ANSWER\"]\n";
    let mut scene = Scene::start(|setup| {
        setup
            .filter("10-dead", "hostile", dead)
            .filter("20-drop", "route", drop)
            .filter("30-derive", "hostile", derive)
    })
    .await;
    scene.fire(4);
    for name in [
        "DTMF",
        "CHANNEL_HANGUP",
        "DTMF",
        "BACKGROUND_JOB",
        "CHANNEL_HANGUP",
        "DTMF",
    ] {
        // A background job that no API call started is nobody's: the routes drop it.
        scene
            .switch
            .fire(Event::new(name).header("Event-Calling-Function", "bgapi_exec"));
    }
    let counts = scene.settle()["counts"].clone();
    let expected = json!({"inputs": 10, "derived": 4, "received": 14, "delivered": 4, "dropped": 7, "dead_lettered": 3, "lost": 0, "pending": 0});
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&counts[name], value, "{name}: {counts:#}");
    }
    for name in [
        "inputs",
        "derived",
        "received",
        "delivered",
        "dead_lettered",
    ] {
        let metric = scene
            .host
            .metric(&format!("jackfield_{name}_total"))
            .map(|value| value as u64);
        assert_eq!(metric, counts[name].as_u64(), "{name}");
    }
    assert_eq!(scene.host.metric("jackfield_pending"), Some(0.0));
    let dropped = |by: &str, reason: &str| {
        scene.metric(
            "jackfield_dropped_total",
            &format!("by=\"{by}\",reason=\"{reason}\""),
        )
    };
    assert_eq!(
        (dropped("20-drop", "noise"), dropped("routes", "unrouted")),
        (2, 5),
        "of the drops, who and why: {counts:#}"
    );
}

/// An address of this machine that is not loopback.
pub(crate) fn own_address() -> Option<IpAddr> {
    let output = Command::new("hostname").arg("-I").output().ok()?;
    let addresses = String::from_utf8(output.stdout).ok()?;
    addresses
        .split_whitespace()
        .filter_map(|address| address.parse().ok())
        .find(IpAddr::is_ipv4)
}

#[tokio::test(flavor = "multi_thread")]
async fn status_is_for_loopback_or_the_token_and_the_rest_for_anyone() {
    let port = free_port();
    let scene = Scene::start(|setup| {
        setup
            .env("HEALTH_PORT", &port.to_string())
            .env("JACKFIELD_HTTP_TOKEN", "token-1234")
    })
    .await;
    assert_eq!(scene.host.get("/status").0, 200, "loopback needs no token");
    // Where a machine has no other address, the unit test of `admin` stands alone.
    let Some(address) = own_address() else { return };
    let ask = |path: &str, headers: &str| {
        request(SocketAddr::from((address, port)), "GET", path, headers)
            .map(|(code, _, body)| (code, body))
            .unwrap()
    };
    let refused =
        "status is for loopback peers, or for the token of http.token (Authorization: Bearer …)\n";
    for headers in [
        "",
        "Authorization: Bearer token-1235\r\n",
        "Authorization: Bearer \r\n",
        "Authorization: Basic token-1234\r\n",
        "X-Forwarded-For: 127.0.0.1\r\n",
    ] {
        assert_eq!(
            ask("/status", headers),
            (403, refused.to_owned()),
            "with {headers:?}"
        );
    }
    let (code, body) = ask("/status", "Authorization: Bearer token-1234\r\n");
    assert!(
        code == 200 && body.contains("\"counts\""),
        "the token opens it: {code} {body}"
    );
    for path in ["/health", "/livez", "/readyz", "/metrics"] {
        assert_eq!(ask(path, "").0, 200, "{path} answers anyone");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_not_found_and_nothing_is_changed_by_asking() {
    let scene = Scene::start(|setup| setup).await;
    for path in ["/nothing", "/status/", "/health/x", "/../etc/passwd"] {
        assert_eq!(scene.host.get(path).0, 404, "{path}");
    }
    for path in ["/health", "/status", "/metrics"] {
        assert_eq!(
            request(scene.host.http, "POST", path, "Content-Length: 0\r\n")
                .unwrap()
                .0,
            405,
            "POST {path}"
        );
    }
}
