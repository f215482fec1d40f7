//! The exact words of each mistake.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use super::Situation;
use crate::config::{Sources, load};

/// Each text of a file, and its one mistake.
fn check_file(cases: &[(&str, &str)]) {
    for (text, line) in cases {
        let expected = format!("jackfield.toml: {line}");
        assert_eq!(Situation::file(text).mistakes(), [expected], "for {text}");
    }
}

#[test]
fn a_wrong_value_for_the_connections_says_what_is_allowed() {
    check_file(&[
        (
            "esl.port = 70000",
            "esl.port = 70000: allowed is a port from 1 to 65535",
        ),
        (
            "esl.port = true",
            "esl.port = true: allowed is a port from 1 to 65535",
        ),
        (
            "esl.host = \"fs:8021\"",
            "esl.host = \"fs:8021\": allowed is a host name or an address, without a port",
        ),
        (
            "esl.host = [\"a\"]",
            "esl.host = [\"a\"]: allowed is a host name or an address, without a port",
        ),
        (
            "esl.password = \"a\\nb\"",
            "esl.password = ***: allowed is a password without line breaks",
        ),
        (
            "esl.password = [\"secret\"]",
            "esl.password = ***: allowed is a password without line breaks",
        ),
        (
            "esl.user = \"a:b\"",
            "esl.user = \"a:b\": allowed is a user name without colons and line breaks",
        ),
        (
            "esl.format = \"xml\"",
            "esl.format = \"xml\": allowed is json or plain",
        ),
        (
            "esl.alarm_after = 0",
            "esl.alarm_after = 0: allowed is a whole number of at least 1",
        ),
        (
            "esl.timeout = 5",
            "esl.timeout = 5: allowed is a duration above zero such as 300ms, 5s or 1h30m",
        ),
        (
            "esl.events = [\"auto\", \"DTMF\"]",
            "esl.events = [\"auto\", \"DTMF\"]: allowed is auto, or event names in capitals such as CHANNEL_ANSWER or CUSTOM sofia::register, and not ALL",
        ),
        (
            "esl.allow = [\"status\", \"*\"]",
            "esl.allow = \"*\": allowed is names of API commands such as status or uuid_kill, and not *",
        ),
        (
            "esl.backoff = { initial = \"5s\", max = \"1s\" }",
            "esl.backoff.max = \"1s\": allowed is no less than jackfield.toml: esl.backoff.initial, which is \"5s\"",
        ),
        (
            "redis.url = \"redis://:secret@host:x\"",
            "redis.url = \"redis://***@host:x\": allowed is redis://host:6379/2, or rediss:// for TLS, with user:password@ before the host if there is a password",
        ),
    ]);
}

#[test]
fn a_wrong_value_for_the_rest_says_what_is_allowed() {
    check_file(&[
        (
            "router.name = \"a b\"",
            "router.name = \"a b\": allowed is a name without spaces and control characters",
        ),
        (
            "filters.memory = \"16MB\"",
            "filters.memory = \"16MB\": allowed is a size from 64KiB to 4GiB such as 16MiB",
        ),
        (
            "filters.on_error = \"stop\"",
            "filters.on_error = \"stop\": allowed is pass, drop, dead-letter or last-good",
        ),
        (
            "filters.wasi = \"all\"",
            "filters.wasi = \"all\": allowed is locked or deny",
        ),
        (
            "filters.streams = [\"a\", \"*b\"]",
            "filters.streams = \"*b\": allowed is stream names, each with at most one * and that at its end",
        ),
        (
            "http.listen = \"9876\"",
            "http.listen = \"9876\": allowed is an address and a port such as 127.0.0.1:9876 or [::1]:9876",
        ),
        (
            "http.token = \"a b\"",
            "http.token = ***: allowed is visible ASCII characters without spaces",
        ),
        (
            "buffer.events = 0",
            "buffer.events = 0: allowed is a whole number from 1 to 10000000",
        ),
        (
            "journal.max_size = \"15MiB\"",
            "journal.max_size = \"15MiB\": allowed is a size of at least 16MiB such as 4GiB",
        ),
        (
            "journal.retain = \"0\"",
            "journal.retain = \"0\": allowed is a duration above zero such as 300ms, 5s or 1h30m",
        ),
        (
            "journal.sync = \"always\"",
            "journal.sync = \"always\": allowed is interval, batch or never",
        ),
        ("journal = \"data\"", "journal = ***: allowed is a table"),
        (
            "log.level = \"loud\"",
            "log.level = \"loud\": allowed is error, warn, info, debug or trace",
        ),
        (
            "dead_letter.stream = \"freeswitch:telephony:events\"",
            "dead_letter.stream = \"freeswitch:telephony:events\": allowed is a stream that no other setting names",
        ),
    ]);
}

#[test]
fn a_key_that_does_not_exist_is_named_with_the_one_that_was_meant() {
    check_file(&[
        ("esl = 5", "esl = ***: allowed is a table"),
        (
            "esl.hots = 1",
            "esl.hots: unknown key; did you mean esl.host?",
        ),
        ("esl.deny = []", "esl.deny: unknown key"),
        ("gateway.port = 1", "gateway: unknown key"),
        (
            "log.trim_interval = 1",
            "log.trim_interval: unknown key; did you mean redis.trim_interval?",
        ),
        (
            "redis = \"redis://:secret@host\"",
            "redis = ***: allowed is a table",
        ),
        (
            "\"esl.port\" = 1",
            "\"esl.port\": unknown key; did you mean esl.port?",
        ),
        ("when = {}", "when: unknown key"),
    ]);
}

#[test]
fn a_wrong_stream_table_is_named_by_its_number() {
    check_file(&[
        ("stream = 5", "stream = 5: allowed is [[stream]] tables"),
        (
            "stream = [{}]",
            "[[stream]] 1: name: missing; allowed is a name, not empty and without control characters",
        ),
        (
            "stream = [{ name = \"\" }]",
            "[[stream]] 1: name = \"\": allowed is a name, not empty and without control characters",
        ),
        (
            "stream = [{ name = \"a\" }, { name = \"b\", events = [\"DTMF\", \"dtmf\"] }]",
            "[[stream]] 2: events = \"dtmf\": allowed is event names in capitals such as CHANNEL_ANSWER or CUSTOM sofia::register, and not ALL",
        ),
        (
            "stream = [{ name = \"a\", max_len = 1 }, { name = \"a\", max_len = 2 }]",
            "[[stream]] 2: max_len = 2: allowed is 1, as jackfield.toml: [[stream]] 1: max_len says of the same stream",
        ),
        (
            "stream = [{ name = \"a\", when = { A = \"b\" } }]",
            "[[stream]] 1: when = { A = \"b\" }: allowed is a condition beside events, to which it applies",
        ),
        (
            "stream = [{ name = \"a\", events = [\"DTMF\"], when = \"x\" }]",
            "[[stream]] 1: when = \"x\": allowed is a table of header names and texts such as { \"Call-Direction\" = \"inbound\" }",
        ),
        (
            "stream = [{ name = \"a\", event = [] }]",
            "[[stream]] 1: event: unknown key; did you mean events?",
        ),
    ]);
}

#[test]
fn text_that_is_not_toml_is_named_by_its_place() {
    check_file(&[
        (
            "\n [esl\nport = 1",
            "line 2, column 6: unclosed table, expected `]`",
        ),
        (
            "esl.port = 1\nesl.port = 2",
            "line 2, column 5: duplicate key",
        ),
    ]);
}

#[test]
fn each_mistake_in_a_variable_says_what_is_allowed() {
    for (name, value, line) in [
        (
            "ESL_PORT",
            "x",
            "ESL_PORT = \"x\": allowed is a port from 1 to 65535",
        ),
        (
            "ESL_RECONNECT_DELAY",
            "soon",
            "ESL_RECONNECT_DELAY = \"soon\": allowed is a duration above zero such as 300ms, 5s or 1h30m",
        ),
        (
            "READER_MAX_LATENCY",
            "-1s",
            "READER_MAX_LATENCY = \"-1s\": allowed is a duration such as 300ms, 5s or 1h30m",
        ),
        (
            "REDIS_REMOTE_ADDR",
            "u:secret@host:x",
            "REDIS_REMOTE_ADDR = \"***@host:x\": allowed is a host and a port such as 127.0.0.1:6379",
        ),
        (
            "REDIS_REMOTE_DB",
            "two",
            "REDIS_REMOTE_DB = \"two\": allowed is the number of a Redis database such as 2",
        ),
        (
            "HEALTH_PORT",
            "0",
            "HEALTH_PORT = \"0\": allowed is a port from 1 to 65535",
        ),
        (
            "EVENTS_TO_PUSH",
            "DTMF, all",
            "EVENTS_TO_PUSH = \"all\": allowed is event names in capitals such as CHANNEL_ANSWER or CUSTOM sofia::register, and not ALL",
        ),
        (
            "JOBS_MAX_LEN",
            "-1",
            "JOBS_MAX_LEN = \"-1\": allowed is a whole number, 0 for no limit",
        ),
        (
            "STREAM_JOBS",
            "a\u{0}b",
            "STREAM_JOBS = \"a\\0b\": allowed is a name, not empty and without control characters",
        ),
        (
            "JACKFIELD_ESL_HOTS",
            "x",
            "JACKFIELD_ESL_HOTS: unknown variable; did you mean JACKFIELD_ESL_HOST?",
        ),
        (
            "JACKFIELD_ESL_PASWORD_FILE",
            "x",
            "JACKFIELD_ESL_PASWORD_FILE: unknown variable; did you mean JACKFIELD_ESL_PASSWORD?",
        ),
        (
            "JACKFIELD_STREAM",
            "x",
            "JACKFIELD_STREAM: unknown variable",
        ),
        (
            "JACKFIELD_HTTP_TOKEN_FILE",
            "secret",
            "JACKFIELD_HTTP_TOKEN_FILE = ***: cannot be read: No such file or directory (os error 2)",
        ),
        (
            "JACKFIELD_ESL_HOST_FILE",
            "/no/such",
            "JACKFIELD_ESL_HOST_FILE = \"/no/such\": cannot be read: No such file or directory (os error 2)",
        ),
    ] {
        assert_eq!(Situation::variable(name, value).mistakes(), [line]);
    }
}

#[test]
fn a_variable_and_its_file_are_a_mistake() {
    let mistakes = Situation::variable("JACKFIELD_ESL_PASSWORD", "a")
        .and_variable_file("JACKFIELD_ESL_PASSWORD_FILE", "b")
        .mistakes();
    assert_eq!(
        mistakes,
        [
            "JACKFIELD_ESL_PASSWORD and JACKFIELD_ESL_PASSWORD_FILE are both set: allowed is one of them"
        ]
    );
}

#[test]
fn the_go_services_two_streams_as_one_need_one_limit() {
    let mistakes = Situation::variable("STREAM_EVENTS", "one")
        .and_variable("STREAM_JOBS", "one")
        .and_variable("EVENTS_MAX_LEN", "1")
        .and_variable("JOBS_MAX_LEN", "2")
        .mistakes();
    assert_eq!(
        mistakes,
        ["EVENTS_MAX_LEN = \"1\": allowed is \"2\", as JOBS_MAX_LEN says of the same stream"]
    );
}

#[test]
fn all_mistakes_come_in_one_go_one_line_each() {
    let mistakes = Situation::file("esl.port = 0\nlog.level = \"a\\nb\"")
        .and_variable("BUFFER_SIZE", "many")
        .and_flag("redis.timeout", "0")
        .and_flag("esl.prot", "1")
        .mistakes();
    assert_eq!(
        mistakes,
        [
            "jackfield.toml: esl.port = 0: allowed is a port from 1 to 65535",
            "flag redis.timeout = \"0\": allowed is a duration above zero such as 300ms, 5s or 1h30m",
            "BUFFER_SIZE = \"many\": allowed is a whole number from 1 to 10000000",
            "jackfield.toml: log.level = \"a\\nb\": allowed is error, warn, info, debug or trace",
            "flag esl.prot: unknown key; did you mean esl.port?",
        ]
    );
}

#[test]
fn a_file_that_is_named_must_be_there() {
    let sources = Sources {
        file: Some("/no/such.toml".into()),
        ..Sources::default()
    };
    assert_eq!(
        load(sources).unwrap_err().to_string(),
        "/no/such.toml: cannot be read: No such file or directory (os error 2)"
    );
}

#[test]
fn variables_that_are_not_utf_8_are_mistakes_only_where_they_mean_something() {
    let broken = || OsString::from_vec(vec![0xff]);
    let load_with = |name: &str| {
        load(Sources {
            env: vec![(name.into(), broken())],
            ..Sources::default()
        })
    };
    assert!(load_with("HOME").is_ok());
    assert!(load_with("WRITER_WORKERS").is_ok());
    assert_eq!(
        load_with("ESL_HOST").unwrap_err().to_string(),
        "ESL_HOST = ***: allowed is text in UTF-8"
    );
}

#[test]
fn no_secret_shows_in_debug_output() {
    let config = Situation::variable("ESL_PASSWORD", "hidden1")
        .and_variable("JACKFIELD_HTTP_TOKEN", "hidden2")
        .and_variable("JACKFIELD_REDIS_URL", "redis://me:hidden3@r")
        .config();
    assert_eq!(config.redis.password.expose(), "hidden3");
    assert_eq!(config.redis.password.to_string(), "***");
    let shown = format!("{config:?}{config:#?}");
    assert!(!shown.contains("hidden"), "{shown}");
}

#[test]
fn a_secret_that_cannot_be_one_is_refused_unseen() {
    for (name, allowed) in [
        ("JACKFIELD_ESL_PASSWORD", "a password without line breaks"),
        ("JACKFIELD_REDIS_PASSWORD", "a password without line breaks"),
        ("REDIS_REMOTE_PASSWORD", "a password without line breaks"),
        (
            "JACKFIELD_HTTP_TOKEN",
            "visible ASCII characters without spaces",
        ),
        ("JACKFIELD_REDIS_KEY", "the path of a PEM file"),
    ] {
        let mistakes = Situation::variable(name, "hid\r\nden").mistakes();
        assert_eq!(mistakes, [format!("{name} = ***: allowed is {allowed}")]);
    }
    for name in ["JACKFIELD_ESL_PASSWORD_FILE", "JACKFIELD_HTTP_TOKEN_FILE"] {
        let mistakes = Situation::default()
            .and_variable_file(name, "hidden\n\n")
            .mistakes();
        assert!(
            mistakes[0].starts_with(&format!("{name} = ***: allowed is ")),
            "one line break at the end is that of the editor, two are not: {mistakes:?}"
        );
    }
    let mistakes = Situation::variable("JACKFIELD_REDIS_PASSWORD_FILE", "/no/hidden").mistakes();
    assert_eq!(
        mistakes,
        [
            "JACKFIELD_REDIS_PASSWORD_FILE = ***: cannot be read: No such file or directory (os error 2)"
        ]
    );
}

#[test]
fn a_user_of_redis_needs_a_password() {
    for url in ["redis://me@r", "rediss://me:@r"] {
        let mistakes = Situation::variable("JACKFIELD_REDIS_URL", url).mistakes();
        assert_eq!(
            mistakes,
            [
                "jackfield.toml: redis.password: missing; allowed is the password of the user of redis.url or redis.user"
            ]
        );
    }
}
