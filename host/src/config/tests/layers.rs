//! Which of several places wins.

use std::time::Duration;

use super::Situation;

#[test]
fn flags_win_over_variables_over_the_go_services_over_the_file() {
    let file = "[esl]\nhost = \"file\"\n[esl.backoff]\nmax = \"1m\"\n";
    let host = |situation: Situation| situation.config().esl.host;
    let in_file = || Situation::file(file);
    let go = || in_file().and_variable("ESL_HOST", "go");
    let own = || go().and_variable("JACKFIELD_ESL_HOST", "own");
    assert_eq!(host(in_file()), "file");
    assert_eq!(host(go()), "go");
    assert_eq!(host(own()), "own");
    assert_eq!(host(own().and_flag("esl.host", "flag")), "flag");

    let config = in_file()
        .and_variable("JACKFIELD_ESL_BACKOFF_MAX", "2m")
        .config();
    assert_eq!(config.esl.backoff.max, Duration::from_secs(120));
}

#[test]
fn a_wrong_value_that_another_layer_hides_is_no_mistake() {
    let config = Situation::file("[esl]\nport = \"x\"")
        .and_flag("esl.port", "1")
        .config();
    assert_eq!(config.esl.port, 1);
}

#[test]
fn a_variable_can_name_a_file_that_holds_the_value() {
    for content in ["s e c", "s e c\n", "s e c\r\n"] {
        let config = Situation::variable("ESL_PASSWORD", "go")
            .and_variable_file("JACKFIELD_ESL_PASSWORD_FILE", content)
            .config();
        assert_eq!(config.esl.password.expose(), "s e c", "from {content:?}");
    }
}

#[test]
fn the_parts_of_redis_address_from_the_go_service_go_over_a_file_and_under_its_own_variable() {
    let file = "[redis]\nurl = \"redis://me:pass@file:1/9\"";
    let redis = Situation::file(file)
        .and_variable("REDIS_REMOTE_ADDR", "go:2")
        .config()
        .redis;
    assert_eq!((redis.host.as_str(), redis.port, redis.db), ("go", 2, 9));
    assert_eq!(
        (redis.user.as_str(), redis.password.expose()),
        ("me", "pass")
    );

    let redis = Situation::file(file)
        .and_variable("REDIS_REMOTE_DB", "4")
        .and_variable("JACKFIELD_REDIS_URL", "redis://own")
        .config()
        .redis;
    assert_eq!(
        (redis.host.as_str(), redis.port, redis.db),
        ("own", 6379, 0)
    );
}

#[test]
fn user_and_password_of_redis_by_their_own_settings_go_over_those_of_the_address() {
    let credentials = |situation: Situation| {
        let redis = situation.config().redis;
        (redis.user, redis.password.expose().to_owned())
    };
    let expected = |user: &str, password: &str| (user.to_owned(), password.to_owned());
    let file =
        |more: &str| Situation::file(&format!("[redis]\nurl = \"redis://me:pass@r\"\n{more}"));
    let own = "user = \"file\"\npassword = \"file's\"";
    assert_eq!(credentials(file("")), expected("me", "pass"));
    assert_eq!(credentials(file(own)), expected("file", "file's"));
    assert_eq!(
        credentials(file("").and_variable_file("JACKFIELD_REDIS_PASSWORD_FILE", "own\n")),
        expected("me", "own")
    );
    // Not those of the file over those of the environment.
    assert_eq!(
        credentials(file(own).and_variable("JACKFIELD_REDIS_URL", "redis://env:env's@r")),
        expected("env", "env's")
    );
    assert_eq!(
        credentials(file(own).and_variable("REDIS_REMOTE_PASSWORD", "go's")),
        expected("file", "go's")
    );
    assert_eq!(
        credentials(
            Situation::variable("REDIS_REMOTE_PASSWORD", "go's")
                .and_variable("JACKFIELD_REDIS_PASSWORD", "own")
        ),
        expected("", "own")
    );
}

#[test]
fn the_listen_address_wins_over_the_health_port_from_any_layer() {
    let config = Situation::file("[http]\nlisten = \"127.0.0.1:1\"")
        .and_variable("HEALTH_PORT", "2")
        .config();
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:1");
}

#[test]
fn a_default_pause_gives_way_to_the_one_that_is_set() {
    let pauses = |name, value| {
        let backoff = Situation::variable(name, value).config().esl.backoff;
        (backoff.initial.as_secs(), backoff.max.as_secs())
    };
    assert_eq!(pauses("ESL_RECONNECT_DELAY", "30s"), (30, 30));
    assert_eq!(pauses("ESL_MAX_RECONNECT_DELAY", "2s"), (2, 2));
}
