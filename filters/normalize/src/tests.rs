use jackfield_sdk::testing::{Incoming, event, filter};
use jackfield_sdk::{Filter, Verdict};

use super::Normalize;

/// The name and the subject that the event gets.
#[track_caller]
fn check(settings: &str, event: Incoming, expected: Option<(&str, Option<&str>)>) {
    let mut normalize: Normalize = filter(settings).unwrap();
    let after = event.run(&mut normalize);
    assert_eq!(after.verdict, Verdict::Pass);
    assert!(after.derived.is_empty());
    let name = after.get("X-Event");
    assert_eq!(name.map(|name| (name, after.get("X-Subject"))), expected);
}

fn leg(name: &str) -> Incoming {
    event(name).header("Unique-ID", "leg-1")
}

fn refusal(settings: &str) -> String {
    filter::<Normalize>(settings)
        .err()
        .expect("the settings should be refused")
}

#[test]
fn a_calls_events_have_names_and_the_leg_as_subject() {
    for (event_name, name) in [
        ("CHANNEL_CREATE", "call.created"),
        ("CHANNEL_PROGRESS", "call.ringing"),
        ("CHANNEL_PROGRESS_MEDIA", "call.ringing"),
        ("CHANNEL_ANSWER", "call.answered"),
        ("CHANNEL_BRIDGE", "call.bridged"),
        ("CHANNEL_HANGUP_COMPLETE", "call.ended"),
    ] {
        check("", leg(event_name), Some((name, Some("leg-1"))));
    }
    check("", leg("CHANNEL_HANGUP"), None);
}

#[test]
fn jobs_peers_and_trunks_have_names_and_subjects_of_their_own() {
    let job = event("BACKGROUND_JOB").header("Job-UUID", "job-1");
    check("", job, Some(("job.completed", Some("job-1"))));
    let custom = |subclass: &str| event("CUSTOM").header("Event-Subclass", subclass);
    let peer = custom("sofia::register")
        .header("from-user", "1000")
        .header("from-host", "lab.example");
    check(
        "",
        peer,
        Some(("peer.registered", Some("1000@lab.example"))),
    );
    let trunk = custom("sofia::gateway_state").header("Gateway", "carrier1");
    check("", trunk, Some(("trunk.state_changed", Some("carrier1"))));
    check("", custom("conference::maintenance"), None);
    check(
        "",
        custom("sofia::register"),
        Some(("peer.registered", None)),
    );
}

#[test]
fn a_leg_rings_once() {
    let progress = |name: &str, ringing: &str, media: &str| {
        leg(name)
            .header("Caller-Channel-Progress-Time", ringing)
            .header("Caller-Channel-Progress-Media-Time", media)
    };
    let rings = Some(("call.ringing", Some("leg-1")));
    check("", progress("CHANNEL_PROGRESS", "1", "0"), rings);
    check("", progress("CHANNEL_PROGRESS_MEDIA", "1", "2"), None);
    check("", progress("CHANNEL_PROGRESS_MEDIA", "0", "1"), rings);
    check("", progress("CHANNEL_PROGRESS", "2", "1"), None);
}

#[test]
fn the_settings_add_names_and_change_them() {
    let settings = "[names]\nCHANNEL_HOLD = 'call.held'\nCHANNEL_ANSWER = 'call.up'\n'CUSTOM conference::maintenance' = 'conference.changed'";
    check(
        settings,
        leg("CHANNEL_HOLD"),
        Some(("call.held", Some("leg-1"))),
    );
    check(
        settings,
        leg("CHANNEL_ANSWER"),
        Some(("call.up", Some("leg-1"))),
    );
    let conference = event("CUSTOM").header("Event-Subclass", "conference::maintenance");
    check(settings, conference, Some(("conference.changed", None)));
    let wanted = filter::<Normalize>(settings).unwrap().manifest().events;
    assert_eq!(wanted.len(), 11, "nine of its own and two more: {wanted:?}");
}

#[test]
fn the_headers_names_are_settings_and_the_subject_may_be_left_out() {
    let mut normalize: Normalize = filter("header = 'Type'\nsubject = ''").unwrap();
    let after = leg("CHANNEL_ANSWER").run(&mut normalize);
    assert_eq!(after.get("Type"), Some("call.answered"));
    assert_eq!(after.edits.len(), 1);
}

#[test]
fn mistakes_in_the_settings_are_named() {
    let cases = [
        (
            "header = ''",
            "`header` is ``: any name is allowed but `Event-Name`, which stays as FreeSWITCH gave it",
        ),
        (
            "subject = 'X-Event'",
            "`subject` is `X-Event`: allowed is a name that is neither `header` nor `Event-Name`, or none",
        ),
        (
            "[names]\n'CHANNEL_*' = 'x'",
            "names `CHANNEL_*`: the whole name of an event is allowed, or `CUSTOM` and a subclass",
        ),
        ("[names]\nDTMF = ''", "names `DTMF`: the name is empty"),
    ];
    for (settings, expected) in cases {
        assert_eq!(refusal(settings), expected, "for {settings:?}");
    }
    assert!(refusal("name = 'x'").contains("unknown field `name`, expected one of `header`"));
}

#[test]
fn the_example_settings_are_valid() {
    filter::<Normalize>(include_str!("../normalize.toml")).unwrap();
}
