//! The command line: exit codes, exact words, and a stop that loses nothing.

use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::harness::{Setup, free_port, wait_for};
use crate::scene::{EVENTS, Scene, number};

/// A stop may take this long, and a little for a loaded machine.
const STOPPED: Duration = Duration::from_millis(10_500);

/// The variables of Telephony Event Sync with its own defaults.
const GO_DEFAULTS: &str = "ESL_HOST=127.0.0.1 ESL_PORT=8021 ESL_PASSWORD=ClueCon ESL_RECONNECT_DELAY=3s ESL_MAX_RECONNECT_DELAY=10s \
    ESL_HEALTH_CHECK_TIMEOUT=3s REDIS_REMOTE_ADDR=127.0.0.1:6379 REDIS_REMOTE_PASSWORD= REDIS_REMOTE_DB=2 REDIS_REMOTE_POOL_SIZE=50 \
    REDIS_REMOTE_MIN_IDLE_CONNS=10 REDIS_REMOTE_MAX_RETRIES=3 REDIS_REMOTE_DIAL_TIMEOUT=3s REDIS_REMOTE_WRITE_TIMEOUT=3s \
    REDIS_REMOTE_POOL_TIMEOUT=5s STREAM_EVENTS=freeswitch:telephony:events STREAM_JOBS=freeswitch:telephony:background-jobs \
    EVENTS_MAX_LEN=10000 JOBS_MAX_LEN=10000 EVENTS_EXPIRE_TIME=10m JOBS_EXPIRE_TIME=1m TRIM_INTERVAL=10s READER_WORKERS=4 \
    READER_PROCESSING_WORKERS=3 READER_MAX_LATENCY=300ms READER_BLOCK_TIME=10ms WRITER_WORKERS=10 WRITER_BATCH_SIZE=20 \
    WRITER_PIPELINE_TIMEOUT=25ms WRITER_MAX_LATENCY=300ms TOTAL_MAX_LATENCY=500ms BUFFER_SIZE=50000 WRITER_MAX_RETRIES=3 \
    WRITER_RETRY_QUEUE_SIZE=10000 WRITER_RETRY_PAUSE_AFTER=100ms WRITER_RETRY_TTL=5s \
    EVENTS_TO_PUBLISH=BACKGROUND_JOB,CHANNEL_EXECUTE,CHANNEL_EXECUTE_COMPLETE,DTMF,DETECTED_SPEECH \
    EVENTS_TO_PUSH=CHANNEL_ANSWER,CHANNEL_HANGUP,DTMF,CUSTOM HEALTH_CHECK_INTERVAL=5s HEALTH_MAX_RETRIES=100 HEALTH_PORT=9876 \
    METRICS_PRINT_INTERVAL=5s METRICS_UPDATE_INTERVAL=1s LOG_LEVEL=info LOG_BUFFER_SIZE=1000";

#[track_caller]
fn assert_refused(setup: Setup, lines: &[&str]) {
    let (code, out, log) = setup.run();
    assert_eq!(
        (code, out.as_str()),
        (2, ""),
        "wrong configuration ends with 2: {log}"
    );
    assert_eq!(
        log.lines().collect::<Vec<_>>(),
        lines,
        "each mistake is a line, and nothing else is said"
    );
}

#[test]
fn all_mistakes_of_file_variables_and_flags_come_in_one_go() {
    let setup = Setup::default()
        .config("[esl]\nport = 0\nhots = \"x\"\n\n[[stream]]\nname = \"a\"\nevents = [\"dtmf\"]\n\n[unknown]\nkey = 1\n")
        .env("BUFFER_SIZE", "many")
        .env("JACKFIELD_LOG_LEVEL", "loud")
        .env("JACKFIELD_ESL_PASWORD", "secret")
        .env("JACKFIELD_HTTP_TOKEN_FILE", "/no/such")
        .arg("--set")
        .arg("redis.timeout=0")
        .arg("--set")
        .arg("esl.prot=1");
    assert_refused(
        setup,
        &[
            "jackfield.toml: [[stream]] 1: events = \"dtmf\": allowed is event names in capitals such as CHANNEL_ANSWER or CUSTOM sofia::register, and not ALL",
            "jackfield.toml: esl.port = 0: allowed is a port from 1 to 65535",
            "flag redis.timeout = \"0\": allowed is a duration above zero such as 300ms, 5s or 1h30m",
            "BUFFER_SIZE = \"many\": allowed is a whole number from 1 to 10000000",
            "JACKFIELD_HTTP_TOKEN_FILE = ***: cannot be read: No such file or directory (os error 2)",
            "JACKFIELD_LOG_LEVEL = \"loud\": allowed is error, warn, info, debug or trace",
            "jackfield.toml: esl.hots: unknown key; did you mean esl.host?",
            "jackfield.toml: unknown: unknown key",
            "flag esl.prot: unknown key; did you mean esl.port?",
            "JACKFIELD_ESL_PASWORD: unknown variable; did you mean JACKFIELD_ESL_PASSWORD?",
        ],
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_its_reason() {
    let missing = Setup::default().arg("--config").arg("no/such.toml");
    assert_refused(
        missing,
        &["no/such.toml: cannot be read: No such file or directory (os error 2)"],
    );
    let folder = Setup::default();
    fs::create_dir(folder.filters().with_file_name("jackfield.toml")).unwrap();
    assert_refused(
        folder,
        &["jackfield.toml: cannot be read: Is a directory (os error 21)"],
    );
    let torn = Setup::default().config("[esl\nport = 1\n");
    assert_refused(
        torn,
        &["jackfield.toml: line 1, column 5: unclosed table, expected `]`"],
    );
}

#[test]
fn wrong_usage_ends_with_2_and_says_what_is_right() {
    for (args, part) in [
        (
            &["run", "--set", "esl.host"][..],
            "--set: allowed is KEY=VALUE, such as esl.host=127.0.0.1",
        ),
        (&["rum"], "unrecognized subcommand 'rum'"),
        (&[], "Usage: jackfield <COMMAND>"),
        (
            &["demo", "--events", "many"],
            "invalid value 'many' for '--events <N>'",
        ),
    ] {
        let (code, _, log) = Setup::default().instead(args).run();
        assert!(code == 2 && log.contains(part), "{args:?}: {code} {log}");
    }
}

#[test]
fn every_command_explains_itself_with_an_example() {
    for command in [
        "run",
        "check",
        "health",
        "demo",
        "simulate",
        "journal",
        "dead",
        "filter",
        "why",
        "tail",
        "esl",
        "reconnect",
        "refresh",
        "status",
    ] {
        let (code, out, _) = Setup::default().instead(&[command, "--help"]).run();
        assert_eq!(code, 0);
        assert!(
            out.contains("Example") && out.contains(&format!("  jackfield {command}")),
            "{command}: {out}"
        );
    }
    let (code, out, _) = Setup::default().instead(&["--help"]).run();
    assert!(
        code == 0
            && out.contains(
                "Exit codes: 0 done, 1 failed, 2 wrong configuration or usage, 3 another host"
            ),
        "{out}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_in_the_working_folder_is_picked_up() {
    let scene = Scene::start(|setup| setup.config("[router]\nname = \"from-the-file\"\n")).await;
    assert_eq!(scene.host.status()["router"], "from-the-file");
}

#[test]
fn the_go_services_variables_start_a_host_and_those_without_meaning_are_named_once() {
    let variables = GO_DEFAULTS
        .split_whitespace()
        .map(|pair| pair.split_once('=').unwrap());
    let setup = variables.fold(Setup::default(), |setup, (name, value)| match name {
        // 9876 may be somebody else's on this machine.
        "HEALTH_PORT" => setup.env(name, &free_port().to_string()),
        _ => setup.env(name, value),
    });
    let host = setup.start();
    let log = host.log();
    for (variable, why) in [
        (
            "READER_WORKERS",
            "one thread reads the event socket, so that events keep their order",
        ),
        (
            "WRITER_RETRY_TTL",
            "transport faults never drop events here, whatever the retry variables say",
        ),
        (
            "REDIS_REMOTE_POOL_SIZE",
            "one connection to Redis writes everything, in order, with one batch in flight",
        ),
    ] {
        let line =
            format!("variable accepted without effect variable=\"{variable}\" why=\"{why}\"");
        assert_eq!(
            log.matches(&line).count(),
            1,
            "{variable} is named once: {log}"
        );
    }
    assert_eq!(
        log.matches("variable accepted without effect").count(),
        19,
        "{log}"
    );
    assert!(
        matches!(host.get("/health").0, 200 | 503),
        "it listens, whatever there is on this machine"
    );
}

#[test]
fn check_says_what_a_start_would_find() {
    let setup = || Setup::default().filter("10-version", "hostile", "attack = \"version\"\n");
    let (code, out, log) = setup()
        .env("WRITER_WORKERS", "10")
        .instead(&["check"])
        .run();
    assert_eq!((code, log.as_str()), (0, ""), "{out}");
    let expected = "WRITER_WORKERS: one connection to Redis writes everything, in order, with one batch in flight\n\
        stream freeswitch:telephony:background-jobs\nstream freeswitch:telephony:events\n\
        filter filters.d/10-version.wasm: ok\nconfiguration ok, 1 filters, 0 refused\n";
    assert_eq!(out, expected);
    let broken = setup().filter("20-refused", "hostile", "attack = \"refuse\"\n");
    let (code, out, _) = broken.instead(&["check"]).run();
    assert_eq!(code, 2, "a filter that cannot run is wrong configuration");
    let line = "filter filters.d/20-refused.wasm: settings refused: refused: `attack` is \"refuse\"\nconfiguration ok, 2 filters, 1 refused\n";
    assert!(out.ends_with(line), "{out}");
}

#[test]
fn check_answers_programs_in_json() {
    let setup = Setup::default()
        .filter("10-version", "hostile", "attack = \"version\"\n")
        .filter("20-refused", "hostile", "attack = \"refuse\"\n");
    let (code, out, _) = setup
        .env("READER_WORKERS", "4")
        .instead(&["check", "--json"])
        .run();
    let expected = serde_json::json!({
        "ok": false,
        "streams": ["freeswitch:telephony:background-jobs", "freeswitch:telephony:events"],
        "filters": [
            {"file": "10-version", "ok": true, "error": null},
            {"file": "20-refused", "ok": false, "error": "settings refused: refused: `attack` is \"refuse\""},
        ],
        "notes": [{"variable": "READER_WORKERS", "why": "one thread reads the event socket, so that events keep their order"}],
    });
    assert_eq!(
        (
            code,
            serde_json::from_str::<serde_json::Value>(&out).unwrap()
        ),
        (2, expected)
    );
    let (code, out, log) = Setup::default()
        .env("ESL_PORT", "x")
        .instead(&["check", "--json"])
        .run();
    assert_eq!(
        (code, out.as_str(), log.as_str()),
        (
            2,
            "",
            "ESL_PORT = \"x\": allowed is a port from 1 to 65535\n"
        )
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_an_exit_code() {
    let port = free_port().to_string();
    let ask = || {
        Setup::default()
            .env("HEALTH_PORT", &port)
            .instead(&["health"])
            .run()
    };
    let (code, _, log) = ask();
    let nobody = format!(
        "jackfield: no answer from http://127.0.0.1:{port}/health: io: Connection refused (os error 111)\n"
    );
    assert_eq!((code, log), (1, nobody), "nothing listens");
    let mut scene = Scene::start(|setup| setup.env("HEALTH_PORT", &port)).await;
    let (code, out, _) = ask();
    assert!(
        code == 0 && out.starts_with("{\"status\":\"healthy\""),
        "{code} {out}"
    );
    scene.redis.kill();
    wait_for("it is not ready", || {
        (scene.host.get("/readyz").0 == 503).then_some(())
    });
    let (code, out, _) = ask();
    assert!(
        code == 1 && out.starts_with("{\"status\":\"unhealthy\""),
        "{code} {out}"
    );
}

#[test]
fn an_address_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (code, _, log) = Setup::default()
        .env("JACKFIELD_HTTP_LISTEN", &address.to_string())
        .run();
    assert_eq!(code, 1, "{log}");
    assert_eq!(
        log,
        format!(
            "jackfield: cannot listen on {address} (http.listen): Address already in use (os error 98)\n"
        )
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_under_load_ends_the_host_with_everything_written() {
    for signal in ["TERM", "INT"] {
        let mut scene = Scene::start(|setup| setup).await;
        let firing = scene.fire_steadily();
        scene.host.wait_status("events flow", |status| {
            status["counts"]["delivered"].as_u64() >= Some(50)
        });
        let asked = Instant::now();
        scene.host.signal(signal);
        let ended = scene.host.wait_end();
        assert_eq!(ended.code(), Some(0), "SIG{signal}: {}", scene.host.log());
        assert!(
            asked.elapsed() < STOPPED,
            "SIG{signal}: {:?}",
            asked.elapsed()
        );
        scene.stop(firing);
        let numbers: Vec<u64> = scene
            .redis
            .events(EVENTS)
            .iter()
            .filter_map(number)
            .collect();
        let received = numbers.len() as u64;
        assert_eq!(
            numbers,
            (0..received).collect::<Vec<_>>(),
            "SIG{signal}: all up to the stop, in order"
        );
        let line = format!(
            "stopped received={received} delivered={received} dropped=0 dead_lettered=0 lost=0"
        );
        scene.host.wait_log(&line);
    }
}

/// A host that holds 100 events which it cannot write.
async fn stuck() -> Scene {
    let mut scene = Scene::start(|setup| setup).await;
    scene.redis.kill();
    scene.fire(100);
    scene.host.wait_status("the events are there", |status| {
        status["counts"]["inputs"] == 100
    });
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_without_redis_ends_in_time_and_says_what_stays_in_the_journal() {
    let mut scene = stuck().await;
    let asked = Instant::now();
    let ended = scene.host.terminate();
    assert!(
        asked.elapsed() < STOPPED,
        "within ten seconds, not {:?}",
        asked.elapsed()
    );
    assert_eq!(ended.code(), Some(0), "nothing is lost");
    let log = scene
        .host
        .wait_log("not drained: the rest stays in the journal pending=100");
    assert!(
        log.contains(
            "stopped received=100 delivered=0 dropped=0 dead_lettered=0 lost=0 pending=100"
        ),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_leaves_at_once() {
    let mut scene = stuck().await;
    scene.host.signal("TERM");
    scene.host.wait_log("INFO stopping");
    let asked = Instant::now();
    // A signal that comes before the second handler is there is seen by the first one.
    let ended = wait_for("it ends", || {
        scene.host.signal("INT");
        scene.host.ended()
    });
    assert!(
        asked.elapsed() < Duration::from_secs(2),
        "at once, not {:?}",
        asked.elapsed()
    );
    assert_eq!(ended.code(), Some(1), "{}", scene.host.log());
    scene.host.wait_log("second signal: leaving at once");
}
