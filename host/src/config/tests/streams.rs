//! The `[[stream]]` tables, and what replaces them.

use std::time::Duration;

use super::{Situation, route};

#[test]
fn stream_tables_replace_the_go_services_streams_and_keep_the_order_of_rules() {
    let config = Situation::file(
        r#"
        [[stream]]
        name = "calls"
        events = ["CHANNEL_ANSWER"]
        when = { "Call-Direction" = "inbound", "Answer-State" = "answered" }
        max_len = 0
        [[stream]]
        name = "rest"
        events = ["CHANNEL_ANSWER", "CUSTOM sofia::register"]
        expire = "0"
        format = "fields"
        [[stream]]
        name = "calls"
        events = ["DTMF"]
        expire = "1h"
        [[stream]]
        name = "for filters"
        "#,
    )
    .and_variable("STREAM_JOBS", "\n")
    .and_variable("EVENTS_MAX_LEN", "5")
    .config();

    let inbound = [("Call-Direction", "inbound"), ("Answer-State", "answered")];
    assert_eq!(config.routes[0], route(0, &["CHANNEL_ANSWER"], &inbound));
    assert_eq!(
        config.routes[1].events[1].subclass.as_deref(),
        Some("sofia::register")
    );
    assert_eq!(config.routes[2], route(0, &["DTMF"], &[]));
    assert_eq!(
        config.routes.len(),
        3,
        "a stream without events has no rule"
    );
    let streams: Vec<_> = config
        .streams
        .iter()
        .map(|s| (s.name.as_str(), s.max_len, s.expire))
        .collect();
    assert_eq!(
        streams,
        [
            ("calls", 0, Some(Duration::from_secs(3600))),
            ("rest", 10_000, None),
            ("for filters", 10_000, Some(Duration::from_secs(600))),
        ]
    );
    let noted: Vec<_> = config.notes.iter().map(|note| note.variable).collect();
    assert_eq!(noted, ["STREAM_JOBS", "EVENTS_MAX_LEN"]);
}

#[test]
fn the_go_services_two_streams_may_be_one_if_their_limits_agree() {
    let one = || Situation::variable("STREAM_EVENTS", "one").and_variable("STREAM_JOBS", "one");
    let config = one().and_variable("EVENTS_EXPIRE_TIME", "5m").config();
    assert_eq!(config.streams.len(), 1);
    assert_eq!(config.streams[0].expire, Some(Duration::from_secs(300)));
    assert!(config.routes.iter().all(|route| route.stream == 0));
    assert_eq!(
        one().config().streams[0].expire,
        Some(Duration::from_secs(60)),
        "the Go service trims such a stream by both ages, so the shorter one holds"
    );
}
