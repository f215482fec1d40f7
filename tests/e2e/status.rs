//! What a running host says of itself: alarms that name stage and cause, what stages do with their time, `jackfield status`, and
//! `GET /why` and `GET /dead` beside the commands of these names.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use jackfield::simulator::{Event, Simulator};
use serde_json::{Value, json};

use crate::harness::{Host, Redis, Setup, field, jackfield, post, request, wait_for};
use crate::numbered::{self, STREAM};
use crate::scene::{DEAD, EVENTS, Scene, quiet_switch};
use crate::why::{filters, why_json};

const TOKEN: &str = "token-1234";

/// The alarms of a stage, as level, name and cause.
fn alarms(status: &Value, stage: &str) -> Vec<(String, Option<String>, String)> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let alarms = status["alarms"].as_array().unwrap().iter();
    let alarms = alarms.filter(|alarm| alarm["stage"] == stage);
    let parts = |alarm: &Value| {
        (
            text(&alarm["level"]).unwrap(),
            text(&alarm["name"]),
            text(&alarm["cause"]).unwrap(),
        )
    };
    alarms.map(parts).collect()
}

/// Waits for an alarm whose cause has this text in it.
#[track_caller]
fn wait_alarm(host: &Host, stage: &str, cause: &str) -> Value {
    let what = format!("an alarm of {stage}: {cause}");
    host.wait_status(&what, |status| {
        let mut causes = alarms(status, stage).into_iter();
        causes.any(|(_, _, said)| said.contains(cause))
    })
}

#[track_caller]
fn wait_no_alarm(host: &Host, stage: &str) {
    let what = format!("the end of the alarms of {stage}");
    host.wait_status(&what, |status| alarms(status, stage).is_empty());
}

/// What is shown of a stream; null while it was not looked at.
fn stream<'a>(status: &'a Value, name: &str) -> &'a Value {
    let mut streams = status["streams"].as_array().unwrap().iter();
    streams
        .find(|one| one["name"] == name)
        .unwrap_or(&Value::Null)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_names_stage_and_cause_is_counted_and_ends_with_what_it_is_about() {
    let mut scene = Scene::start(|setup| {
        let trap = "attack = \"trap\"\nwants = [\"DTMF\"]\n";
        setup.filter("10-trap", "hostile", trap)
    })
    .await;
    wait_no_alarm(&scene.host, "redis");
    wait_no_alarm(&scene.host, "esl");
    scene.redis.shut_down();
    let status = wait_alarm(&scene.host, "redis", "no connection to 127.0.0.1:");
    let (level, name, cause) = alarms(&status, "redis").remove(0);
    assert_eq!((level.as_str(), name), ("error", None));
    assert!(
        cause.contains("efused") || cause.contains("closed") || cause.contains("broken"),
        "{cause}"
    );
    assert!(
        scene
            .host
            .metric("jackfield_alarms{stage=\"redis\",level=\"error\"}")
            >= Some(1.0)
    );
    scene.fire(3);
    let status = scene.host.wait_status("an event that waits", |status| {
        status["lane"]["oldest_us"].is_u64() && status["lane"]["waiting"] == 3
    });
    assert_eq!(status["counts"]["pending"], 3, "{status:#}");
    let oldest = || scene.host.metric("jackfield_oldest_pending_seconds");
    wait_for("the oldest event to age", || {
        (oldest() > Some(1.0)).then_some(())
    });
    scene.redis.up();
    scene.settle();
    wait_no_alarm(&scene.host, "redis");
    wait_for("nothing to wait", || (oldest() == Some(0.0)).then_some(()));
    assert_eq!(
        scene
            .host
            .metric("jackfield_alarms{stage=\"redis\",level=\"error\"}"),
        None
    );

    for _ in 0..12 {
        scene.switch.fire(Event::new("DTMF"));
    }
    let status = wait_alarm(&scene.host, "filter", "quarantined: ");
    let (level, name, _) = alarms(&status, "filter").remove(0);
    assert_eq!(
        (level.as_str(), name.as_deref()),
        ("error", Some("10-trap"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_are_refused_and_letters_are_alarms_of_their_own() {
    let (switch, redis) = (quiet_switch().await, Redis::start());
    redis.ask::<()>(&["SET", STREAM, "somebody else's"]);
    let host = Setup::new(switch.addr(), &redis)
        .config("[log]\nlevel = \"info\"\n")
        .start();
    host.wait_ready();
    numbered::fire(&switch, 0..2);
    let status = wait_alarm(&host, "dead_letters", "2 events were dead-lettered");
    let (_, name, cause) = alarms(&status, "dead_letters").remove(0);
    assert_eq!(name.as_deref(), Some(DEAD));
    assert!(
        cause.contains("by redis") && cause.contains("WRONGTYPE"),
        "{cause}"
    );
    assert_eq!(status["dead_letters"]["last"]["by"], "redis", "{status:#}");
    host.wait_status("the length of the dead-letter stream", |status| {
        status["dead_letters"]["length"] == 2
    });
    std::fs::write(
        host.dir().join("jackfield.toml"),
        "[log]\nlevel = \"loud\"\n",
    )
    .unwrap();
    let status = wait_alarm(&host, "settings", "the old ones stay in force");
    assert!(alarms(&status, "settings")[0].2.contains("loud"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_moment_of_a_stage_is_busy_starved_or_blocked() {
    let mut scene = Scene::start(|setup| setup).await;
    let spent =
        |status: &Value, stage: &str, what: &str| status["stages"][stage][what].as_u64().unwrap();
    scene.fire(200);
    let status = scene.settle();
    for stage in ["intake", "pipeline", "writer"] {
        assert_eq!(
            status["stages"][stage]["events"], 200,
            "{stage}: {status:#}"
        );
        let sum: u64 = ["busy_us", "starved_us", "blocked_us"]
            .iter()
            .map(|what| spent(&status, stage, what))
            .sum();
        let uptime_us = status["uptime_s"].as_u64().unwrap() * 1_000_000;
        assert!(
            sum >= uptime_us.saturating_sub(2_000_000) && sum <= uptime_us + 4_000_000,
            "{stage}: {sum} of {uptime_us}"
        );
        assert!(spent(&status, stage, "busy_us") > 0, "{stage}: {status:#}");
    }
    scene.redis.shut_down();
    scene.host.wait_redis_away();
    // More than the queue to the writer holds.
    scene.fire(2_000);
    let blocked = |stage: &str| {
        let before = spent(&scene.host.status(), stage, "blocked_us");
        let what = format!("{stage} to be blocked");
        scene.host.wait_status(&what, |status| {
            spent(status, stage, "blocked_us") > before + 200_000
        });
    };
    blocked("writer");
    blocked("pipeline");
    let status = scene.host.status();
    assert_eq!(spent(&status, "intake", "blocked_us"), 0);
    assert_eq!(status["stages"]["intake"]["events"], 2_200);
    assert!(
        status["journal"]["undelivered_bytes"].as_u64() > Some(0),
        "{status:#}"
    );
    scene.redis.up();
    let status = scene.settle();
    scene.host.wait_status("the stream's length", |status| {
        stream(status, EVENTS)["length"] == 2_200
    });
    assert_eq!(stream(&status, EVENTS)["entries"], 2_200, "{status:#}");
    scene
        .host
        .wait_status("nothing to be undelivered", |status| {
            status["journal"]["undelivered_bytes"] == 0
        });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_group_that_is_about_to_lose_entries_is_an_alarm() {
    let (switch, redis) = (quiet_switch().await, Redis::start());
    let host = Setup::new(switch.addr(), &redis)
        .env("EVENTS_MAX_LEN", "100")
        .start();
    host.wait_ready();
    redis.ask::<()>(&["XGROUP", "CREATE", EVENTS, "slow", "0", "MKSTREAM"]);
    numbered::fire(&switch, 0..95);
    let status = wait_alarm(
        &host,
        "streams",
        "consumer group slow is about to lose entries",
    );
    assert_eq!(alarms(&status, "streams")[0].1.as_deref(), Some(EVENTS));
    let reserve = &stream(&status, EVENTS)["reserve"];
    assert_eq!(
        (&reserve["group"], &reserve["unread"]),
        (&json!("slow"), &json!(95))
    );
}

/// `jackfield` with these words beside the host.
fn command(host: &Host, words: &[&str]) -> Command {
    let mut command = Command::new(jackfield());
    command
        .args(words)
        .current_dir(host.dir())
        .env_clear()
        .env("JACKFIELD_HTTP_LISTEN", host.http.to_string());
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_shown_on_one_screen_once_or_again_and_again() {
    let redact = "mask = [\"Caller-ANI\"]\nkeep = 2\n";
    let mut scene = Scene::start(|setup| setup.filter("10-redact", "redact", redact)).await;
    scene.fire(10);
    scene.settle();
    let output = command(&scene.host, &["status"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    for part in [
        "  ready  health 100 green",
        "\nSTAGE ",
        "\n10-redact ",
        "\nredis  ",
        &format!("\n{EVENTS} "),
        "ACCOUNTS  received 10 = delivered 10 + dropped 0 + dead-lettered 0 + lost 0 + pending 0, balanced\n",
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    let output = command(&scene.host, &["status", "--json"])
        .output()
        .unwrap();
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(status["counts"], scene.host.status()["counts"]);

    let mut watch = command(&scene.host, &["status", "--watch", "100ms"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let screens = lines
        .map(Result::unwrap)
        .filter(|line| line.starts_with("jackfield "));
    assert_eq!(screens.take(3).count(), 3, "it goes on");
    watch.kill().unwrap();
    watch.wait().unwrap();

    let gone = command(&scene.host, &["status"])
        .env("JACKFIELD_HTTP_LISTEN", "127.0.0.1:1")
        .output()
        .unwrap();
    assert_eq!(gone.status.code(), Some(1));
    let wrong = command(&scene.host, &["status", "--watch", "1ms"])
        .output()
        .unwrap();
    assert_eq!(wrong.status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn why_over_http_answers_as_the_command_does() {
    let mut scene = Scene::start(filters).await;
    scene.fire(3);
    scene.settle();
    let journal = scene.host.journal();
    let last = scene.host.status()["journal"]["last"].to_string();
    let (code, body) = scene.host.get(&format!("/why?event={last}"));
    assert_eq!(code, 200, "{body}");
    let told: Vec<Value> = serde_json::from_str(&body).unwrap();
    assert_eq!(told.len(), 1, "{told:#?}");
    assert_eq!(told, why_json(&[&last], &journal));
    let (code, body) = scene.host.get("/why?event=no-such-call");
    assert_eq!((code, body.as_str()), (200, "[]"));
    let (code, mistakes) = scene.host.get("/why?limit=many");
    assert_eq!(code, 400);
    assert_eq!(
        mistakes,
        "limit: \"many\": allowed is a number from 1 to 1000\n"
    );
    for path in ["/why?event=1", "/dead"] {
        let forwarded = "X-Forwarded-For: 192.0.2.1\r\n";
        let (code, _, why) = request(scene.host.http, "GET", path, forwarded).unwrap();
        assert_eq!(code, 403, "who asks may be anywhere: {why}");
    }
}

/// A host whose filter dead-letters so many events.
async fn host_with_letters(events: u64) -> (Simulator, Redis, Host) {
    let (switch, redis) = (quiet_switch().await, Redis::start());
    let host = Setup::new(switch.addr(), &redis)
        .env("JACKFIELD_HTTP_TOKEN", TOKEN)
        .filter("10-dead", "hostile", "attack = \"dead-letter\"\n")
        .start();
    host.wait_ready();
    numbered::fire(&switch, 0..events);
    host.wait_settled(events);
    (switch, redis, host)
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_listed_over_http_and_one_is_replayed_where_it_lies() {
    let (_switch, redis, host) = host_with_letters(3).await;
    let list = || -> Value { serde_json::from_str(&host.get("/dead?limit=2").1).unwrap() };
    let listed = list();
    assert_eq!(
        (&listed["total"], &listed["errors"]),
        (&json!(3), &json!([]))
    );
    let letters = listed["letters"].as_array().unwrap().clone();
    assert_eq!(letters.len(), 2, "the newest ones: {listed:#}");
    assert_eq!(letters[0]["filter"], "10-dead", "{listed:#}");
    let authorization = format!("Authorization: Bearer {TOKEN}\r\n");
    let replay = |id: &str| {
        let body = json!({ "id": id }).to_string();
        post(host.http, "/dead/replay", &authorization, &body).unwrap()
    };
    std::fs::remove_file(host.filters.join("10-dead.wasm")).unwrap();
    host.wait_status("the filter to be gone", |status| {
        status["filters"] == json!([])
    });
    let id = letters[1]["id"].as_str().unwrap();
    let (code, answer) = replay(id);
    assert_eq!(code, 200, "{answer}");
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert!(
        answer["lsn"].is_u64() && answer["not_removed"].is_null(),
        "{answer}"
    );
    host.wait_settled(4);
    let entries = redis.entries(STREAM);
    assert_eq!(entries.len(), 1, "it is delivered now");
    let event: Value = serde_json::from_str(field(&entries[0], "event")).unwrap();
    assert_eq!(event["Number"], "2");
    assert_eq!(list()["total"], 2, "and no letter any more");
    for (id, code, words) in [
        (id, 404, "there is no such dead letter\n"),
        ("yesterday's", 400, "expected the id of a stream entry"),
    ] {
        let answer = replay(id);
        assert_eq!(answer.0, code, "{answer:?}");
        assert!(answer.1.contains(words), "{answer:?}");
    }
    host.wait_status("the length to be asked again", |status| {
        status["dead_letters"]["length"] == 2
    });
}
