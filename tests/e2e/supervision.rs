//! Links under supervision: their health with its terms, what is said of them as events, and what an operator may do by hand.

use std::fs;
use std::process::Command;
use std::time::Duration;

use jackfield::simulator::{Settings, Simulator};
use serde_json::{Value, json};

use crate::faults::resident_kib;
use crate::harness::{Host, Redis, Setup, jackfield, post, wait_for};
use crate::scene::Scene;

const STREAM: &str = "freeswitch:jackfield";
const CONFIG: &str = "[router]\nname = \"fs1\"\n[http]\ntoken = \"let-me\"\n[[stream]]\nname = \"freeswitch:telephony:events\"\nevents = [\"CHANNEL_ANSWER\"]\nmax_len = 0\n[[stream]]\nname = \"freeswitch:jackfield\"\nevents = [\"JACKFIELD link.state_changed\", \"JACKFIELD link.reconnected\", \"JACKFIELD links.restored\", \"JACKFIELD link.alarm\"]\nmax_len = 0\n";
const TOKEN: &str = "Authorization: Bearer let-me\r\n";

fn soon(setup: Setup) -> Setup {
    setup
        .env("ESL_RECONNECT_DELAY", "20ms")
        .env("ESL_MAX_RECONNECT_DELAY", "50ms")
}

/// What was said, as `subclass link state`.
fn said(scene: &Scene) -> Vec<String> {
    let events = scene.redis.events(STREAM);
    let line = |event: &Value| {
        let words = ["Event-Subclass", "Link", "Link-State"]
            .map(|name| event[name].as_str().unwrap_or_default());
        words.join(" ").trim().to_owned()
    };
    events.iter().map(line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_to_a_link_is_an_event_for_those_who_list_it() {
    let mut scene = Scene::start(|setup| soon(setup).config(CONFIG)).await;
    scene.fire(10);
    scene
        .host
        .wait_status("both links to FreeSWITCH are up", |status| {
            let links = &status["links"];
            links["esl"]["state"] == "ready" && links["commands"]["state"] == "ready"
        });
    scene.switch.set_refuse(true);
    scene.switch.cut();
    scene.host.wait_status("the loss is noticed", |status| {
        status["links"]["esl"]["losses"] == 1
            && status["links"]["esl"]["attempts"].as_u64() > Some(1)
    });
    scene.switch.set_refuse(false);
    wait_for("all is said", || {
        let said = said(&scene);
        let has = |line: &str| said.iter().any(|one| one == line);
        let all = [
            "link.state_changed esl resyncing",
            "link.state_changed esl ready",
            "link.state_changed esl waiting",
            "link.state_changed esl connecting",
            "link.state_changed esl authenticating",
            "link.state_changed commands waiting",
            "link.reconnected esl",
            "link.reconnected commands",
            "links.restored",
        ];
        all.into_iter().all(has).then_some(())
    });
    let events = scene.redis.events(STREAM);
    let lost = events
        .iter()
        .find(|event| event["Link"] == "esl" && event["Link-State"] == "waiting")
        .unwrap();
    assert_eq!(lost["Event-Name"], "JACKFIELD");
    assert_eq!(lost["Link-Previous-State"], "ready");
    assert_eq!(lost["Link-Error-Kind"], "connection_lost");
    assert_eq!(lost["Link-Error"], "connection closed by FreeSWITCH");
    assert_eq!(lost["Link-Health"], "30", "not up, and lost once");
    let restored = said(&scene)
        .iter()
        .filter(|line| *line == "links.restored")
        .count();
    assert_eq!(restored, 1);
    let status = scene
        .host
        .wait_status("settled", |status| status["counts"]["pending"] == 0);
    assert_eq!(
        status["counts"]["balanced"], true,
        "the host's own events are in the accounts: {status:#}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_cannot_be_made_raises_an_alarm() {
    let mut scene = Scene::start(|setup| {
        soon(setup)
            .config(CONFIG)
            .env("JACKFIELD_ESL_ALARM_AFTER", "3")
    })
    .await;
    scene.redis.kill();
    scene
        .host
        .wait_status("the alarm's number of tries", |status| {
            status["links"]["redis"]["attempts"].as_u64() >= Some(3)
        });
    let log = scene.host.wait_log("link still down");
    assert!(log.contains("link=\"redis\""), "{log}");
    let status = scene.host.status();
    assert_eq!(status["links"]["redis"]["error_kind"], "reconnect_failed");
    assert_eq!(status["health"]["level"], "red");
    assert_eq!(status["health"]["link"], "redis");
    scene.redis.up();
    wait_for("the alarm is in the stream", || {
        said(&scene)
            .iter()
            .any(|line| line == "link.alarm redis")
            .then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_sees_what_the_host_says_as_any_other_event() {
    let settings =
        "attack = \"version\"\nversion = \"seen\"\nwants = [\"JACKFIELD links.restored\"]\n";
    let scene = Scene::start(|setup| {
        soon(setup)
            .config(CONFIG)
            .filter("10-see", "hostile", settings)
    })
    .await;
    scene.switch.cut();
    let restored = wait_for("the links are restored", || {
        let events = scene.redis.events(STREAM);
        events
            .into_iter()
            .find(|event| event["Event-Subclass"] == "links.restored")
    });
    assert_eq!(restored["X-Version"], "seen");
    let events = scene.redis.events(STREAM);
    let others = events
        .iter()
        .filter(|event| event["X-Version"].is_string())
        .count();
    assert_eq!(others, 1, "the other subclasses are not what it wants");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_who_does_not_list_them_gets_the_hosts_own_events() {
    let mut scene = Scene::start(soon).await;
    scene.fire(10);
    scene.settle();
    scene.switch.cut();
    scene.host.wait_status("it is back", |status| {
        status["links"]["esl"]["losses"] == 1 && status["links"]["esl"]["state"] == "ready"
    });
    scene.fire(10);
    let status = scene
        .host
        .wait_status("all came", |status| status["counts"]["delivered"] == 20);
    assert_eq!(status["counts"]["received"], 20, "{status:#}");
    assert_eq!(status["links"]["esl"]["health"]["minus"]["losses"], 10);
    assert_eq!(status["links"]["esl"]["health"]["value"], 90);
    assert_eq!(status["health"]["value"], 90);
    assert_eq!(status["health"]["level"], "green");
}

fn reconnect(host: &Host, query: &str) -> (u16, Value) {
    let (code, body) = post(host.http, &format!("/reconnect{query}"), TOKEN, "").unwrap();
    (
        code,
        serde_json::from_str(&body).unwrap_or(Value::String(body)),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_has_a_connection_made_anew() {
    let mut scene = Scene::start(|setup| setup.config(CONFIG)).await;
    scene.fire(10);
    scene.settle();
    for (link, losses) in [("esl", 1), ("redis", 1), ("commands", 1)] {
        let (code, links) = reconnect(&scene.host, &format!("?link={link}"));
        assert_eq!(code, 200, "{links:#}");
        assert_eq!(links[link]["losses"], losses, "{links:#}");
        assert_eq!(
            links[link]["last_loss"]["error"],
            "a new connection was asked for"
        );
    }
    let (code, all) = reconnect(&scene.host, "");
    assert_eq!((code, all.as_object().unwrap().len()), (200, 3));
    assert_eq!(all["redis"]["losses"], 2);
    let (code, why) = reconnect(&scene.host, "?link=sip");
    assert_eq!(
        (code, why),
        (400, json!("link=sip: allowed is esl, commands, redis\n"))
    );
    for path in ["/reconnect", "/refresh"] {
        let (code, why) = post(scene.host.http, path, "", "").unwrap();
        assert_eq!(code, 403);
        assert!(why.contains("needs the token of http.token"), "{why}");
    }
    // FreeSWITCH's side is subscribed to again before it is ready.
    scene.fire(10);
    wait_for("all is delivered", || {
        (scene.redis.events(crate::scene::EVENTS).len() == 20).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cli_reconnects_and_refreshes() {
    let settings = Settings {
        heartbeat: Duration::ZERO,
        ..Settings::default()
    };
    let (switch, redis) = (Simulator::start(settings).await.unwrap(), Redis::start());
    let followed = CONFIG.replace("CHANNEL_ANSWER\"", "CHANNEL_CREATE\", \"CHANNEL_DESTROY\"");
    let host = Setup::new(switch.addr(), &redis).config(&followed).start();
    host.wait_ready();
    let cli = |args: &[&str]| {
        let output = Command::new(jackfield())
            .args(args)
            .current_dir(host.dir())
            .env("JACKFIELD_HTTP_LISTEN", host.http.to_string())
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    let (code, out, err) = cli(&["reconnect", "redis"]);
    assert_eq!((code, out.as_str()), (Some(0), "redis ready\n"), "{err}");
    let (code, out, err) = cli(&["refresh"]);
    assert!(
        code == Some(0) && out.starts_with("calls alive: 0\n"),
        "{out}{err}"
    );
    let (code, out, _) = cli(&["refresh", "--json"]);
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &answer["calls"]["followed"]),
        (Some(0), &json!(true))
    );
    assert_eq!(answer["settings"], json!({"now": [], "at_start": []}));
    let (code, _, err) = cli(&["reconnect", "sip"]);
    assert_eq!(code, Some(2), "{err}");
}

/// What a host holds: threads, open files, memory in KiB.
fn held(host: &Host) -> (usize, usize, u64) {
    let count = |what: &str| {
        let entries = fs::read_dir(format!("/proc/{}/{what}", host.pid())).unwrap();
        entries.count()
    };
    (
        count("task"),
        count("fd"),
        resident_kib(host.pid()).unwrap(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_reconnects_leak_nothing() {
    let mut scene = Scene::start(|setup| setup.config(CONFIG)).await;
    let many = |count: u64| {
        for _ in 0..count {
            let (code, links) = reconnect(&scene.host, "");
            assert_eq!(code, 200, "{links:#}");
        }
    };
    many(100);
    let before = held(&scene.host);
    many(900);
    let after = wait_for("closed sockets are gone", || {
        let after = held(&scene.host);
        (after.1 <= before.1 + 2).then_some(after)
    });
    assert!(after.0 <= before.0 + 2, "threads: {before:?} {after:?}");
    assert!(
        after.2 < before.2 + (16 << 10),
        "memory: {before:?} {after:?}"
    );
    wait_for("the switch has no more connections than before", || {
        (scene.switch.connections() == 2).then_some(())
    });
    scene.fire(100);
    wait_for("events still come", || {
        (scene.redis.events(crate::scene::EVENTS).len() == 100).then_some(())
    });
}
