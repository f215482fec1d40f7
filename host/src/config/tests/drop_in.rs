//! The Go service's variables: its defaults are ours, and each has the effect that the table gives it.

use std::time::Duration;

use super::{Situation, defaults, route};
use crate::config::drop_in::{DROP_INS, Effect};
use crate::config::types::{EventsWanted, Level};

#[test]
fn without_settings_the_streams_and_rules_are_those_of_the_go_service() {
    let config = defaults();

    let streams: Vec<_> = config
        .streams
        .iter()
        .map(|s| (s.name.as_str(), s.max_len, s.expire))
        .collect();
    let (minute, ten_minutes) = (Duration::from_secs(60), Duration::from_secs(600));
    assert_eq!(
        streams,
        [
            ("freeswitch:telephony:background-jobs", 10_000, Some(minute)),
            ("freeswitch:telephony:events", 10_000, Some(ten_minutes)),
        ]
    );
    let published = [
        "CHANNEL_EXECUTE",
        "CHANNEL_EXECUTE_COMPLETE",
        "DTMF",
        "DETECTED_SPEECH",
    ];
    let pushed = ["CHANNEL_ANSWER", "CHANNEL_HANGUP", "DTMF", "CUSTOM"];
    assert_eq!(
        config.routes,
        [
            route(
                0,
                &["BACKGROUND_JOB"],
                &[("Event-Calling-Function", "api_exec")]
            ),
            route(0, &published, &[]),
            route(1, &pushed, &[]),
        ]
    );
    assert_eq!(config.esl.events, EventsWanted::Auto);
    assert_eq!(config.esl.password.expose(), "ClueCon");
    assert!(
        config.notes.is_empty(),
        "nothing is set, so nothing is noted"
    );
}

/// The variables with the Go service's own defaults, as issue 2 lists them.
const GO_DEFAULTS: &str = "ESL_HOST=127.0.0.1 ESL_PORT=8021 ESL_PASSWORD=ClueCon ESL_RECONNECT_DELAY=3s \
    ESL_MAX_RECONNECT_DELAY=10s ESL_HEALTH_CHECK_TIMEOUT=3s REDIS_REMOTE_ADDR=127.0.0.1:6379 REDIS_REMOTE_PASSWORD= \
    REDIS_REMOTE_DB=2 REDIS_REMOTE_POOL_SIZE=50 REDIS_REMOTE_MIN_IDLE_CONNS=10 REDIS_REMOTE_MAX_RETRIES=3 \
    REDIS_REMOTE_DIAL_TIMEOUT=3s REDIS_REMOTE_WRITE_TIMEOUT=3s REDIS_REMOTE_POOL_TIMEOUT=5s \
    STREAM_EVENTS=freeswitch:telephony:events STREAM_JOBS=freeswitch:telephony:background-jobs EVENTS_MAX_LEN=10000 \
    JOBS_MAX_LEN=10000 EVENTS_EXPIRE_TIME=10m JOBS_EXPIRE_TIME=1m TRIM_INTERVAL=10s READER_WORKERS=4 \
    READER_PROCESSING_WORKERS=3 READER_MAX_LATENCY=300ms READER_BLOCK_TIME=10ms WRITER_WORKERS=10 WRITER_BATCH_SIZE=20 \
    WRITER_PIPELINE_TIMEOUT=25ms WRITER_MAX_LATENCY=300ms TOTAL_MAX_LATENCY=500ms BUFFER_SIZE=50000 \
    WRITER_MAX_RETRIES=3 WRITER_RETRY_QUEUE_SIZE=10000 WRITER_RETRY_PAUSE_AFTER=100ms WRITER_RETRY_TTL=5s \
    EVENTS_TO_PUBLISH=BACKGROUND_JOB,CHANNEL_EXECUTE,CHANNEL_EXECUTE_COMPLETE,DTMF,DETECTED_SPEECH \
    EVENTS_TO_PUSH=CHANNEL_ANSWER,CHANNEL_HANGUP,DTMF,CUSTOM HEALTH_CHECK_INTERVAL=5s HEALTH_MAX_RETRIES=100 \
    HEALTH_PORT=9876 METRICS_PRINT_INTERVAL=5s METRICS_UPDATE_INTERVAL=1s LOG_LEVEL=info LOG_BUFFER_SIZE=1000";

pub(super) fn go_defaults() -> impl Iterator<Item = (&'static str, &'static str)> {
    GO_DEFAULTS
        .split_whitespace()
        .map(|pair| pair.split_once('=').unwrap())
}

#[test]
fn the_go_services_defaults_are_ours() {
    let mut situation = Situation::default();
    for (name, value) in go_defaults() {
        situation = situation.and_variable(name, value);
    }
    let mut config = situation.config();

    assert_eq!(
        config.http.listen.to_string(),
        "0.0.0.0:9876",
        "HEALTH_PORT means all addresses"
    );
    config.http.listen = defaults().http.listen;
    config.notes.clear();
    assert_eq!(config, defaults());
}

#[test]
fn every_variable_of_the_go_service_is_in_the_table_once_and_in_its_order() {
    let ours: Vec<_> = DROP_INS.iter().map(|drop_in| drop_in.name).collect();
    let theirs: Vec<_> = go_defaults().map(|(name, _)| name).collect();
    assert_eq!(ours, theirs);
}

#[test]
fn every_variable_of_the_go_service_has_its_effect() {
    for drop_in in DROP_INS {
        let value = match drop_in.name {
            "ESL_HOST" => "fs.example",
            "REDIS_REMOTE_ADDR" => "redis.example:7000",
            "EVENTS_TO_PUBLISH" | "EVENTS_TO_PUSH" => "PRESENCE_IN",
            "LOG_LEVEL" => "WARNING",
            "ESL_RECONNECT_DELAY" | "ESL_MAX_RECONNECT_DELAY" | "TRIM_INTERVAL" => "7s",
            name if name.contains("TIME") || name.contains("LATENCY") => "7s",
            _ => "7",
        };
        let mut config = Situation::variable(drop_in.name, value).config();
        let notes = std::mem::take(&mut config.notes);
        let has_effect = config != defaults();
        match drop_in.effect {
            Effect::Nothing(why) => {
                assert!(!has_effect, "{} changes something", drop_in.name);
                let noted: Vec<_> = notes.iter().map(|note| (note.variable, note.why)).collect();
                assert_eq!(noted, [(drop_in.name, why)]);
            }
            _ => {
                assert!(has_effect, "{} changes nothing", drop_in.name);
                assert!(notes.is_empty(), "{} is noted: {notes:?}", drop_in.name);
            }
        }
    }
}

#[test]
fn variables_without_effect_are_not_even_checked() {
    let config = Situation::variable("WRITER_RETRY_TTL", "for ever").config();
    assert_eq!(
        config.notes[0].why,
        "transport faults never drop events here, whatever the retry variables say"
    );
}

#[test]
fn an_empty_variable_is_not_set() {
    let config = Situation::variable("ESL_PORT", "")
        .and_variable("JACKFIELD_LOG_LEVEL", "")
        .and_variable("WRITER_WORKERS", "")
        .config();
    assert_eq!(config, defaults());
}

#[test]
fn levels_have_the_go_services_names_in_any_case() {
    for (text, level) in [
        ("WARN", Level::Warn),
        ("warning", Level::Warn),
        ("Error", Level::Error),
        ("DEBUG", Level::Debug),
        ("trace", Level::Trace),
    ] {
        assert_eq!(
            Situation::variable("LOG_LEVEL", text).config().log.level,
            level
        );
    }
}
