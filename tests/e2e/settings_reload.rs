//! Settings change in a running host: on SIGHUP and with the file; each event is routed by one set of them, nothing is lost,
//! repeated or reordered over it, and a file with a mistake changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jackfield::simulator::{Event, Simulator};
use serde_json::{Value, json};

use crate::harness::{DURABLE, Host, Redis, Setup, field, jackfield, place_filter, post, wait_for};
use crate::numbered;
use crate::scene::{Scene, numbered as answer, quiet_switch, versioned};

const FILE: &str = "jackfield.toml";

/// A `[[stream]]` that takes `event`.
fn stream(name: &str, event: &str) -> String {
    format!("[[stream]]\nname = \"freeswitch:{name}\"\nevents = [\"{event}\"]\nmax_len = 0\n")
}

/// Puts a settings file in the place of the one before.
fn write(dir: &Path, text: &str) {
    fs::write(dir.join(".next"), text).unwrap();
    fs::rename(dir.join(".next"), dir.join(FILE)).unwrap();
}

/// A host with this settings file, which no restart writes anew.
async fn host_with(text: &str) -> Scene {
    Scene::start(|setup| {
        write(setup.dir(), text);
        setup
    })
    .await
}

fn reloads(host: &Host) -> u64 {
    host.status()["settings"]["reloads"].as_u64().unwrap()
}

/// Waits until settings were taken after the first `before` times.
#[track_caller]
fn wait_reloaded(host: &Host, before: u64) -> Value {
    host.wait_status("settings are reloaded", |status| {
        status["settings"]["reloads"].as_u64() > Some(before)
    })
}

/// New settings by SIGHUP.
#[track_caller]
fn reload(host: &Host, text: &str) -> Value {
    let before = reloads(host);
    write(host.dir(), text);
    host.signal("HUP");
    wait_reloaded(host, before)
}

/// Waits until FreeSWITCH was told so.
#[track_caller]
fn wait_command(switch: &Simulator, command: &str) {
    wait_for(command, || {
        let commands = switch.commands();
        commands
            .iter()
            .any(|told| told.starts_with(command))
            .then_some(())
    });
}

fn numbers(scene: &Scene, stream: &str) -> Vec<u64> {
    numbered::in_stream(&scene.redis, &format!("freeswitch:{stream}"))
}

fn range(numbers: std::ops::Range<u64>) -> Vec<u64> {
    numbers.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sighup_events_go_to_a_stream_that_was_added_over_the_same_connection() {
    let answers = stream("answers", "CHANNEL_ANSWER");
    let codecs = stream("codecs", "CODEC");
    let mut scene = host_with(&answers).await;
    scene.fire(10);
    scene.switch.fire(Event::new("CODEC"));
    scene.settle();
    assert_eq!(scene.switch.sent().queued, 10, "nobody wants CODEC yet");

    reload(&scene.host, &format!("{answers}{codecs}"));
    wait_command(&scene.switch, "event json CODEC");
    scene.switch.fire(Event::new("CODEC"));
    scene.fire(10);
    wait_for("CODEC and the answers are sent", || {
        (scene.switch.sent().queued == 21).then_some(())
    });
    scene.settle();
    assert_eq!(scene.redis.events("freeswitch:codecs").len(), 1);
    assert_eq!(numbers(&scene, "answers"), range(0..20));

    reload(&scene.host, &codecs);
    wait_command(&scene.switch, "nixevent CHANNEL_ANSWER");
    scene.fire(10);
    scene.switch.fire(Event::new("CODEC"));
    wait_for("CODEC is sent, and what nobody wants is not", || {
        (scene.switch.sent().queued == 22).then_some(())
    });
    let status = scene.settle();
    assert_eq!(scene.redis.events("freeswitch:codecs").len(), 2);
    assert_eq!(numbers(&scene, "answers"), range(0..20), "as it was left");
    assert_eq!(status["links"]["esl"]["connects"], 1, "{status:#}");

    let before = reloads(&scene.host);
    scene.host.signal("HUP");
    wait_reloaded(&scene.host, before);
    assert!(
        scene
            .host
            .metric("jackfield_settings_reloads_total{outcome=\"taken\"}")
            >= Some(3.0),
        "an unchanged file is read as well"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_file_is_taken_however_it_is_made() {
    let mut scene = Scene::start(|setup| {
        let mount = setup.dir().join("mount");
        for version in ["one", "two"] {
            fs::create_dir_all(mount.join(version)).unwrap();
            let text = stream(version, "CHANNEL_ANSWER");
            fs::write(mount.join(version).join(FILE), text).unwrap();
        }
        symlink("one", mount.join("..data")).unwrap();
        symlink(format!("..data/{FILE}"), mount.join(FILE)).unwrap();
        setup.arg("--config").arg("mount/jackfield.toml")
    })
    .await;
    let mount = scene.host.dir().join("mount");
    type Change = fn(&Path);
    let changes: [(&str, Change); 4] = [
        ("one", |_| {}),
        ("two", |mount| {
            symlink("two", mount.join("..tmp")).unwrap();
            fs::rename(mount.join("..tmp"), mount.join("..data")).unwrap();
        }),
        ("three", |mount| {
            let text = stream("three", "CHANNEL_ANSWER");
            fs::write(mount.join("two").join(FILE), text).unwrap();
        }),
        ("four", |mount| {
            write(mount, &stream("four", "CHANNEL_ANSWER"));
        }),
    ];
    for (taken, (name, change)) in (0..).zip(changes) {
        change(&mount);
        let status = scene.host.wait_status(name, |status| {
            status["settings"]["reloads"].as_u64() == Some(taken)
        });
        assert_eq!(status["settings"]["file"], "mount/jackfield.toml");
        scene.fire(10);
    }
    scene.settle();
    for (at, (name, _)) in (0..).zip(changes) {
        assert_eq!(numbers(&scene, name), range(10 * at..10 * at + 10));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_changes_nothing_and_each_of_its_mistakes_is_told() {
    let good = stream("good", "CHANNEL_ANSWER");
    let mut scene = host_with(&good).await;
    let bad = "[esl]\nhots = \"a\"\n[log]\nlevel = \"loud\"\n[[stream]]\nname = \"freeswitch:bad\"\nmax_len = \"few\"\nevents = [\"CHANNEL_ANSWER\"]\n";
    write(scene.host.dir(), bad);
    let refused = |status: &Value| status["settings"]["last_refusal"].is_object();
    let status = scene.host.wait_status("the file is refused", refused);
    let checked = Command::new(jackfield())
        .arg("check")
        .current_dir(scene.host.dir())
        .env_clear()
        .output()
        .unwrap();
    let checked = String::from_utf8(checked.stderr).unwrap();
    let expected: Vec<&str> = checked.lines().collect();
    assert_eq!(expected.len(), 3, "{checked}");
    assert_eq!(
        status["settings"]["last_refusal"]["mistakes"],
        json!(expected),
        "each mistake, as `jackfield check` tells it"
    );
    let log = scene.host.wait_log("those before stay in force");
    for mistake in expected {
        assert!(log.contains(mistake), "{mistake}\n{log}");
    }
    let metric = || {
        let refused = "jackfield_settings_reloads_total{outcome=\"refused\"}";
        scene.host.metric(refused)
    };
    assert_eq!(metric(), Some(1.0), "it is tried once");
    scene.host.signal("HUP");
    wait_for("it is tried again for whoever asks", || {
        (metric() == Some(2.0)).then_some(())
    });
    fs::remove_file(scene.host.dir().join(FILE)).unwrap();
    let status = scene.host.wait_status("a file that is gone", |status| {
        let mistakes = &status["settings"]["last_refusal"]["mistakes"];
        mistakes[0]
            .as_str()
            .is_some_and(|one| one.contains("No such file"))
    });
    assert_eq!(status["settings"]["reloads"], 0, "{status:#}");
    scene.fire(10);
    scene.settle();
    assert_eq!(numbers(&scene, "good"), range(0..10));
    let status = reload(&scene.host, &stream("better", "CHANNEL_ANSWER"));
    let settings = &status["settings"];
    assert!(
        settings["loaded_us"].as_u64() > settings["last_refusal"]["at_us"].as_u64(),
        "{settings:#}"
    );
    scene.fire(1);
    scene.settle();
    assert_eq!(numbers(&scene, "better"), [10]);
}

#[tokio::test(flavor = "multi_thread")]
async fn level_and_format_of_the_log_change() {
    let (answers, codecs) = (stream("a", "CHANNEL_ANSWER"), stream("c", "CODEC"));
    let scene = host_with(&answers).await;
    assert!(!scene.host.log().contains("subscription changes"));
    let log =
        |level: &str, format: &str| format!("[log]\nlevel = \"{level}\"\nformat = \"{format}\"\n");
    reload(
        &scene.host,
        &format!("{}{answers}{codecs}", log("debug", "json")),
    );
    let text = scene.host.wait_log("subscription changes");
    let lines = text.lines().skip_while(|line| !line.starts_with('{'));
    let lines: Vec<Value> = lines
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("JSON: {line}")))
        .collect();
    let is = |level: &str, message: &str| {
        let found = |line: &Value| line["level"] == level && line["message"] == message;
        lines.iter().any(found)
    };
    assert!(is("INFO", "settings reloaded"), "{text}");
    assert!(is("DEBUG", "subscription changes"), "{text}");
    reload(&scene.host, &format!("{}{answers}", log("error", "json")));
    reload(
        &scene.host,
        &format!("{}{answers}{codecs}", log("error", "text")),
    );
    reload(&scene.host, &format!("{}{answers}", log("info", "text")));
    let text = scene
        .host
        .wait_log(" INFO settings reloaded changed=\"stream, log\"");
    let told = text.matches("settings reloaded").count();
    assert_eq!(told, 2, "nothing while only errors were wanted: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_effect_at_the_next_start_is_named_and_keeps_its_value() {
    let answers = stream("a", "CHANNEL_ANSWER");
    let mut scene = host_with(&answers).await;
    let elsewhere = "[redis]\nurl = \"redis://:planted-1@10.0.0.1/3\"\n[esl]\nevents = [\"CODEC\"]\nuser = \"someone\"\n[http]\ntoken = \"planted-2\"\n[journal]\ndir = \"elsewhere\"\n";
    // The environment stands above the file in a reload too: the address of Redis is taken from there.
    let status = reload(&scene.host, &format!("{elsewhere}{answers}"));
    let waiting = [
        "esl.user",
        "journal.dir",
        "redis.url",
        "redis.password",
        "http.token",
    ];
    assert_eq!(status["settings"]["at_start"], json!(waiting), "{status:#}");
    let warned = |key: &str| format!("setting takes effect at the next start setting=\"{key}\"");
    for key in waiting {
        scene.host.wait_log(&warned(key));
    }
    wait_command(&scene.switch, "nixevent CHANNEL_ANSWER");
    scene.switch.fire(Event::new("CODEC"));
    let status = scene.settle();
    assert_eq!(
        status["counts"]["dropped"], 1,
        "FreeSWITCH is asked for what no rule takes: {status:#}"
    );
    assert_eq!(status["links"]["redis"]["connects"], 1, "{status:#}");
    assert!(!scene.host.dir().join("elsewhere").exists());
    for secret in ["planted-1", "planted-2"] {
        let told = format!(
            "{}{status}{}",
            scene.host.log(),
            scene.host.get("/metrics").1
        );
        assert!(!told.contains(secret), "{secret} in {told}");
    }
    let status = reload(&scene.host, &answers);
    assert_eq!(status["settings"]["at_start"], json!([]), "as it started");
    wait_for("it is asked for again", || {
        let commands = scene.switch.commands();
        let mut about = commands.iter().rev();
        let newest = about.find(|told| told.contains("CHANNEL_ANSWER"))?;
        newest.starts_with("event json").then_some(())
    });
    scene.fire(1);
    wait_for("it comes", || {
        (!numbers(&scene, "a").is_empty()).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn under_reload_after_reload_every_event_arrives_once_and_in_order() {
    const STREAMS: u64 = 5;
    let text = |round: u64| {
        let format = ["json", "fields"][usize::from(round % 2 == 1)];
        let other = stream("other", "CODEC");
        let other = [&other, ""][usize::from(round.is_multiple_of(3))];
        let name = format!("s{}", round % STREAMS);
        let answers = stream(&name, "CHANNEL_ANSWER");
        format!("{other}{answers}format = \"{format}\"\n")
    };
    let mut scene = host_with(&text(0)).await;
    let firing = scene.fire_steadily();
    let (started, mut round) = (Instant::now(), 0);
    while round < 1_000 && started.elapsed() < Duration::from_secs(8) {
        round += 1;
        reload(&scene.host, &text(round));
    }
    scene.stop(firing);
    let status = scene.settle();
    println!("{round} reloads, {} events", scene.fired());
    assert!(round >= 20, "only {round} reloads");
    assert_eq!(status["counts"]["delivered"], scene.fired(), "{status:#}");
    assert_eq!(status["links"]["esl"]["connects"], 1, "{status:#}");
    assert_eq!(scene.switch.sent().dropped, 0);
    let (mut all, mut formats) = (Vec::new(), BTreeMap::<bool, u64>::new());
    for stream in 0..STREAMS {
        let entries = scene.redis.entries(&format!("freeswitch:s{stream}"));
        let numbers = entries.iter().map(|fields| {
            let is_json = fields.len() == 1;
            *formats.entry(is_json).or_default() += 1;
            let number = match is_json {
                true => {
                    let event: Value = serde_json::from_str(field(fields, "event")).unwrap();
                    event["Number"].as_str().unwrap().parse::<u64>()
                }
                false => field(fields, "Number").parse(),
            };
            number.unwrap()
        });
        let numbers: Vec<u64> = numbers.collect();
        assert!(numbers.is_sorted(), "s{stream} is in order");
        all.extend(numbers);
    }
    all.sort_unstable();
    assert!(
        all == range(0..scene.fired()),
        "each of {} once, not {} of them",
        scene.fired(),
        all.len()
    );
    assert_eq!(formats.len(), 2, "both formats were in force: {formats:?}");
}

/// A host, without Redis, that has decided a hundred events for a stream of one field a header, which its settings do not have
/// any more, and a hundred for another.
async fn decided_for_a_removed_stream() -> (Arc<Simulator>, Redis, Host) {
    let (switch, mut redis) = (Arc::new(quiet_switch().await), Redis::start_with(&DURABLE));
    let setup = Setup::new(switch.addr(), &redis).env("REDIS_REMOTE_WRITE_TIMEOUT", "300ms");
    let old = stream("old", "CHANNEL_ANSWER");
    write(setup.dir(), &format!("{old}format = \"fields\"\n"));
    let host = setup.start();
    host.wait_ready();
    redis.kill();
    host.wait_redis_away();
    let fire = |numbers: std::ops::Range<u64>| {
        let last = (1 << 40) + numbers.end - 1;
        for number in numbers {
            switch.fire(answer(number));
        }
        host.wait_status("all is decided", |status| {
            status["journal"]["decided"].as_u64() >= Some(last)
        });
    };
    fire(0..100);
    reload(&host, &stream("new", "CHANNEL_ANSWER"));
    fire(100..200);
    (switch, redis, host)
}

/// Both streams have what was decided for them, each in its format.
#[track_caller]
fn check_both(host: &Host, redis: &Redis) {
    let status = host.wait_status("all is delivered", |status| {
        status["counts"]["delivered"] == 200 && status["counts"]["pending"] == 0
    });
    assert_eq!(status["counts"]["balanced"], true, "{status:#}");
    let old = redis.entries("freeswitch:old");
    let old = old.iter().map(|fields| field(fields, "Number").to_owned());
    let expected: Vec<String> = (0..100).map(|number: u64| number.to_string()).collect();
    assert_eq!(old.collect::<Vec<_>>(), expected, "a field for each header");
    numbered::check(redis, "freeswitch:new", 100..200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_decided_for_a_stream_that_was_removed_still_arrives() {
    let (_switch, mut redis, host) = decided_for_a_removed_stream().await;
    redis.up();
    check_both(&host, &redis);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_decided_for_a_stream_that_was_removed_arrives_after_a_kill_too() {
    let (_switch, mut redis, host) = decided_for_a_removed_stream().await;
    let host = host.kill().start();
    host.wait_redis_away();
    redis.up();
    check_both(&host, &redis);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_stream_that_redis_forgot_is_healed_and_not_trimmed() {
    let fields = "format = \"fields\"\n";
    let old = stream("old", "CHANNEL_ANSWER");
    // Trimming by the limits that undescribed streams have would remove what is older than ten minutes.
    let mut scene = host_with(&format!(
        "[redis]\ntrim_interval = \"100ms\"\n{old}{fields}"
    ))
    .await;
    let aged = ["XADD", "freeswitch:old", "1-1", "Number", "aged"];
    scene.redis.ask::<String>(&aged);
    scene.fire(100);
    scene.settle();
    reload(&scene.host, "[redis]\ntrim_interval = \"100ms\"\n");
    scene.redis.ask::<()>(&["FLUSHALL"]);
    scene.redis.ask::<String>(&aged);
    let full = || (scene.redis.ask::<u64>(&["XLEN", "freeswitch:old"]) >= 101).then_some(());
    wait_for("it is healed", full);
    scene.host.wait_settled(100);
    let entries = scene.redis.entries("freeswitch:old");
    let numbers: Vec<&str> = entries.iter().map(|one| field(one, "Number")).collect();
    let expected: Vec<String> = (0..100).map(|number: u64| number.to_string()).collect();
    assert_eq!(numbers[0], "aged");
    assert_eq!(numbers[1..], expected, "each once, a field for each header");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_go_where_the_settings_say_now() {
    let answers = stream("a", "CHANNEL_ANSWER");
    let mut scene = host_with(&answers).await;
    scene.redis.ask::<()>(&["SET", "freeswitch:a", "no stream"]);
    scene.fire(5);
    scene.settle();
    let letters = |stream: &str| scene.redis.entries(stream).len();
    assert_eq!(letters("freeswitch:telephony:dead"), 5);
    let other = "[dead_letter]\nstream = \"freeswitch:other:dead\"\n";
    reload(&scene.host, &format!("{other}{answers}"));
    scene.fire(5);
    let status = scene.settle();
    let letters = |stream: &str| scene.redis.entries(stream).len();
    assert_eq!(letters("freeswitch:other:dead"), 5);
    assert_eq!(letters("freeswitch:telephony:dead"), 5, "as it was left");
    assert_eq!(status["counts"]["dead_lettered"], 10, "{status:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_redis_has_is_not_repeated_where_dead_letters_go_now() {
    let answers = stream("a", "CHANNEL_ANSWER");
    let mut scene = host_with(&answers).await;
    let frame = "Content-Length: 8\nContent-Type: text/event-json\n\nno event";
    scene.switch.write_raw(frame.into()).await;
    scene.fire(3);
    scene.host.wait_settled(4);
    let other = "[dead_letter]\nstream = \"freeswitch:other:dead\"\n";
    reload(&scene.host, &format!("{other}{answers}"));
    // What is retained is sent again, but not to the streams that are there still.
    let cursor = "jackfield:sim1:cursor";
    scene.redis.ask::<()>(&["DEL", cursor, "freeswitch:a"]);
    wait_for("the stream is filled again", || {
        (scene.redis.ask::<u64>(&["XLEN", "freeswitch:a"]) == 3).then_some(())
    });
    scene.host.wait_settled(4);
    assert_eq!(scene.redis.entries("freeswitch:telephony:dead").len(), 1);
    assert_eq!(scene.redis.entries("freeswitch:other:dead").len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_may_be_run_change() {
    let answers = stream("a", "CHANNEL_ANSWER");
    let scene = Scene::start(|setup| {
        write(setup.dir(), &answers);
        setup.env("JACKFIELD_HTTP_TOKEN", "right")
    })
    .await;
    scene.host.wait_status("commands can be run", |status| {
        status["links"]["commands"]["state"] == "ready"
    });
    let token = "Authorization: Bearer right\r\n";
    let status = || post(scene.host.http, "/esl", token, "status").unwrap().0;
    assert_eq!(status(), 403, "none may be run");
    reload(
        &scene.host,
        &format!("{answers}[esl]\nallow = [\"status\"]\n"),
    );
    assert_eq!(status(), 200);
    reload(&scene.host, &answers);
    assert_eq!(status(), 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_latency_and_of_filters_to_come_change() {
    let answers = stream("a", "CHANNEL_ANSWER");
    let lenient = format!("{answers}[limits]\ntotal = \"1h\"\n");
    let mut scene = host_with(&lenient).await;
    let late = |scene: &Scene| {
        let exceeded = "jackfield_latency_exceeded_total{stage=\"total\"}";
        scene.host.metric(exceeded)
    };
    place_filter(
        &scene.host.filters,
        "10-early",
        &scene.build(0),
        &versioned("a"),
    );
    let running = |filter: &Value| filter["state"] == "running";
    scene.host.wait_filter("10-early", running);
    scene.fire(10);
    scene.settle();
    assert_eq!(late(&scene), Some(0.0));
    let strict = format!("{answers}[limits]\ntotal = \"0s\"\n[filters]\nwasi = \"deny\"\n");
    reload(&scene.host, &strict);
    scene.fire(10);
    scene.settle();
    assert_eq!(late(&scene), Some(10.0), "with 0 every event is late");
    // The loader looks at the settings before it looks at the folder.
    place_filter(
        &scene.host.filters,
        "20-late",
        &scene.build(1),
        &versioned("b"),
    );
    let refused = scene
        .host
        .wait_filter("20-late", |filter| filter["last_error"].is_string());
    let why = refused["last_error"].as_str().unwrap();
    assert!(why.contains("wasi = \"deny\""), "{why}");
    scene.host.wait_filter("10-early", running);
    scene.fire(10);
    scene.settle();
    assert_eq!(numbers(&scene, "a"), range(0..30));
}
