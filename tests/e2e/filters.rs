//! What filters do to events, and what the host shows of it.

use jackfield::simulator::Event;
use serde_json::json;

use crate::harness::{component, field, place_filter, wait_for};
use crate::scene::{DEAD, EVENTS, Scene};

#[tokio::test(flavor = "multi_thread")]
async fn redact_route_and_project_in_a_chain_do_what_their_settings_say() {
    let redact = "mask = [\"Caller-ANI\"]\nkeep = 2\nhash = [\"variable_customer\"]\nsalt = \"sixteen bytes or more\"\n";
    let route = "[[rule]]\nevent = \"CHANNEL_ANSWER\"\nheader = \"variable_tenant\"\npattern = \"acme*\"\nstreams = [\"freeswitch:acme\", \"freeswitch:all\"]\n";
    let project =
        "keep = [\"Caller-*\", \"variable_customer\"]\n[rename]\nvariable_tenant = \"Tenant\"\n";
    let scene = Scene::start(|setup| {
        setup
            .filter("10-redact", "redact", redact)
            .filter("20-route", "route", route)
            .filter("30-project", "project", project)
    })
    .await;
    let call = |tenant: &str| {
        let event = Event::new("CHANNEL_ANSWER")
            .header("Caller-ANI", "0301234567")
            .header("variable_customer", "K-1");
        event.header("variable_tenant", tenant).header("Other", "x")
    };
    for tenant in ["acme-1", "other", "acme-2"] {
        scene.switch.fire(call(tenant));
    }
    scene.settle();
    let acme = scene.redis.events("freeswitch:acme");
    assert_eq!(
        acme.len(),
        2,
        "two of three have a tenant that the rule matches"
    );
    let hash = acme[0]["variable_customer"].as_str().unwrap();
    assert!(
        hash.len() == 32 && hash.bytes().all(|b| b.is_ascii_hexdigit()),
        "a hash of 32 hex digits: {hash}"
    );
    let expected = |tenant: &str| json!({"Event-Name": "CHANNEL_ANSWER", "Caller-ANI": "********67", "variable_customer": hash, "Tenant": tenant});
    assert_eq!(
        acme,
        [expected("acme-1"), expected("acme-2")],
        "masked, hashed, projected, renamed"
    );
    assert_eq!(
        scene.redis.events("freeswitch:all"),
        acme,
        "each of a rule's streams gets its copy"
    );
    assert_eq!(
        scene.redis.events(EVENTS),
        [expected("other")],
        "what no rule matches goes where the routes say"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_filter_drops_is_counted_by_filter_and_reason() {
    let rule =
        |event: &str, reason: &str| format!("[[rule]]\nevent = \"{event}\"\ndrop = \"{reason}\"\n");
    let rules = rule("CHANNEL_HANGUP", "not billed")
        + &rule("CUSTOM sofia::pre_register", "registration attempt");
    let mut scene = Scene::start(|setup| setup.filter("20-route", "route", &rules)).await;
    scene.fire(3);
    for _ in 0..2 {
        scene.switch.fire(Event::new("CHANNEL_HANGUP"));
    }
    scene
        .switch
        .fire(Event::new("CUSTOM").header("Event-Subclass", "sofia::pre_register"));
    scene
        .switch
        .fire(Event::new("CUSTOM").header("Event-Subclass", "sofia::register"));
    let counts = &scene.settle()["counts"];
    let by =
        |reason: &str, events: u64| json!({"by": "20-route", "reason": reason, "events": events});
    assert_eq!(
        counts["dropped_by"],
        json!([by("not billed", 2), by("registration attempt", 1)])
    );
    assert_eq!(
        (&counts["dropped"], &counts["delivered"]),
        (&json!(3), &json!(4))
    );
    let metric = |reason: &str| {
        scene.metric(
            "jackfield_dropped_total",
            &format!("by=\"20-route\",reason=\"{reason}\""),
        )
    };
    assert_eq!(
        (metric("not billed"), metric("registration attempt")),
        (2, 1),
        "the metric says the same"
    );
    assert_eq!(
        scene.metric(
            "jackfield_filter_verdicts_total",
            "filter=\"20-route\",verdict=\"drop\""
        ),
        3
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_kept_with_its_event_filter_and_reason() {
    let settings = "attack = \"dead-letter\"\nafter = 2\n";
    let mut scene = Scene::start(|setup| setup.filter("10-judge", "hostile", settings)).await;
    scene.fire(2);
    let counts = &scene.settle()["counts"];
    assert_eq!(
        (&counts["delivered"], &counts["dead_lettered"]),
        (&json!(1), &json!(1)),
        "the second event is dead-lettered"
    );
    let dead = scene.redis.entries(DEAD);
    assert_eq!(dead.len(), 1);
    let of = |name: &str| field(&dead[0], name);
    assert_eq!(
        (of("filter"), of("reason"), of("streams")),
        ("10-judge", "told to", EVENTS),
        "who, why, and where it would have gone"
    );
    let event: serde_json::Value = serde_json::from_str(of("event")).unwrap();
    assert_eq!(event["Number"], "1", "the event itself is kept");
    assert_eq!(
        scene.redis.events(EVENTS).len(),
        1,
        "and written nowhere else"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_derived_event_goes_through_the_filters_after_its_own_and_the_routes() {
    let streams = "[[stream]]\nname = \"freeswitch:telephony:events\"\nevents = [\"CHANNEL_ANSWER\", \"HOSTILE_DERIVED\"]\n";
    let mut scene = Scene::start(|setup| {
        let setup = setup.config(streams).filter(
            "10-before",
            "hostile",
            "attack = \"version\"\nversion = \"before\"\n",
        );
        let setup = setup.filter("20-derive", "hostile", "attack = \"derive\"\n");
        setup.filter("30-count", "hostile", "attack = \"counter\"\n")
    })
    .await;
    scene.fire(2);
    let counts = &scene.settle()["counts"];
    assert_eq!(
        (&counts["inputs"], &counts["derived"], &counts["delivered"]),
        (&json!(2), &json!(2), &json!(4))
    );
    let events = scene.redis.events(EVENTS);
    let summary: Vec<_> = events
        .iter()
        .map(|event| {
            (
                &event["Event-Name"],
                &event["X-Of"],
                &event["X-Count"],
                &event["X-Version"],
            )
        })
        .collect();
    let (answer, derived, none) = (
        json!("CHANNEL_ANSWER"),
        json!("HOSTILE_DERIVED"),
        json!(null),
    );
    let (one, two, three, four, before) = (
        json!("1"),
        json!("2"),
        json!("3"),
        json!("4"),
        json!("before"),
    );
    let expected = [
        (&answer, &none, &one, &before),
        (&derived, &one, &two, &none),
        (&answer, &none, &three, &before),
        (&derived, &two, &four, &none),
    ];
    assert_eq!(
        summary, expected,
        "a derived event follows its own, and is seen by later filters alone"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tick_gives_a_filter_time_without_any_event() {
    let streams = "[[stream]]\nname = \"freeswitch:ticks\"\nevents = [\"HOSTILE_TICK\"]\n";
    let scene = Scene::start(|setup| {
        setup
            .config(streams)
            .env("JACKFIELD_ROUTER_NAME", "no-event-tells-it")
            .filter("10-tick", "hostile", "attack = \"tick\"\ntick_ms = 20\n")
    })
    .await;
    let ticks = wait_for("ten ticks are in Redis", || {
        Some(scene.redis.events("freeswitch:ticks")).filter(|ticks| ticks.len() >= 10)
    });
    let times: Vec<u64> = ticks
        .iter()
        .map(|tick| tick["X-Now"].as_str().unwrap().parse().unwrap())
        .collect();
    let gaps: Vec<u64> = times
        .windows(2)
        .map(|pair| pair[1].checked_sub(pair[0]).expect("time goes on"))
        .collect();
    assert!(
        gaps.iter().all(|gap| *gap >= 15_000),
        "a tick every 20 ms and not more often: gaps of {gaps:?} µs"
    );
    let counts = &scene.host.status()["counts"];
    assert_eq!(
        counts["balanced"], true,
        "ticks' events are in the accounts: {counts:#}"
    );
    assert!(
        counts["inputs"] == 0 && counts["derived"].as_u64() >= Some(10),
        "they are derived, not received: {counts:#}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_filters_want_is_asked_of_freeswitch() {
    let settings = "attack = \"version\"\nwants = [\"CODEC\", \"CUSTOM a::b\"]\n";
    let streams = "[[stream]]\nname = \"freeswitch:answers\"\nevents = [\"CHANNEL_ANSWER\"]\n";
    let scene = Scene::start(|setup| {
        setup
            .config(streams)
            .filter("10-wants", "hostile", settings)
    })
    .await;
    let commands = scene.switch.commands();
    assert!(
        commands.iter().any(
            |command| command.trim() == "event json CHANNEL_ANSWER CODEC HEARTBEAT CUSTOM a::b"
        ),
        "the union of routes, filters and HEARTBEAT: {commands:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_changes_the_subscription_of_the_live_connection_without_missing_events() {
    let wants = |event: &str| format!("attack = \"version\"\nwants = [\"{event}\"]\n");
    let streams = format!(
        "[[stream]]\nname = \"{EVENTS}\"\nevents = [\"CHANNEL_ANSWER\"]\nmax_len = 0\n[[stream]]\nname = \"freeswitch:custom\"\nevents = [\"CUSTOM a::b\"]\n"
    );
    let mut scene = Scene::start(|setup| {
        setup
            .config(&streams)
            .filter("10-wants", "hostile", &wants("CODEC"))
    })
    .await;
    let firing = scene.fire_steadily();
    for (event, command) in [
        ("PRESENCE_IN", "event json PRESENCE_IN"),
        ("CUSTOM", "event json ALL"),
        ("CUSTOM c::d", "filter delete Event-Name /^/"),
        ("CODEC", "filter Event-Name CODEC"),
    ] {
        let count = || {
            scene
                .switch
                .commands()
                .iter()
                .filter(|sent| sent.trim() == command)
                .count()
        };
        let before = count();
        place_filter(
            &scene.host.filters,
            "10-wants",
            &component("hostile"),
            &wants(event),
        );
        wait_for(
            &format!("{command} for {event}: {:#?}", scene.switch.commands()),
            || (count() > before).then_some(()),
        );
        scene
            .switch
            .fire(Event::new("CUSTOM").header("Event-Subclass", "a::b"));
    }
    scene.stop(firing);
    scene.all_delivered();
    assert_eq!(
        scene.redis.events("freeswitch:custom").len(),
        4,
        "a subclass that stays wanted is never missed either"
    );
    assert_eq!(
        scene.host.status()["links"]["esl"]["connects"],
        1,
        "all on one connection"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_filters_log_and_count_appears_in_the_log_and_the_metrics() {
    let mut scene = Scene::start(|setup| {
        setup
            .env("LOG_LEVEL", "debug")
            .filter("10-talk", "hostile", "attack = \"log-and-count\"\n")
    })
    .await;
    scene.fire(3);
    scene.settle();
    let counter = |name: &str| {
        scene.metric(
            "jackfield_filter_custom_total",
            &format!("filter=\"10-talk\",counter=\"{name}\""),
        )
    };
    assert_eq!(
        (counter("seen"), counter("tens")),
        (3, 30),
        "count() adds up"
    );
    let log = wait_for("the last line is in the log", || {
        Some(scene.host.log()).filter(|log| log.contains("error 3"))
    });
    for (level, text) in [
        ("DEBUG", "debug 1"),
        ("INFO", "info 2"),
        ("WARN", "warn 3"),
        ("ERROR", "error 1"),
    ] {
        let line = log
            .lines()
            .find(|line| line.contains(text))
            .unwrap_or_default();
        let expected = format!("{level} filter log filter=\"10-talk\" text=\"{text}\"");
        assert!(
            line.ends_with(&expected),
            "its level, its filter, its text: {line}"
        );
    }
    assert!(
        !log.contains("cranelift") && log.lines().count() < 100,
        "and no library's debug lines: {log}"
    );
}
