use jackfield_sdk::testing::{Handled, Incoming, event, filter, reload};
use jackfield_sdk::{Derived, Event, Filter, Manifest, NoSettings, Verdict};

use super::Ready;

mod orders;

/// Microseconds.
const SECOND: u64 = 1_000_000;

/// Two needs of every call, one that only a declaration asks for, and needs that tell their name themselves.
const SETTINGS: &str = r#"
end = ["CHANNEL_HANGUP_COMPLETE"]
link = ["CHANNEL_BRIDGE"]
timeout = "10s"
forget = "1h"
declare = { event = "CUSTOM ready::needs", header = "Ready-Needs" }
[[need]]
name = "answered"
event = "CHANNEL_ANSWER"
[[need]]
name = "joined"
event = "CUSTOM conference::maintenance"
header = "Action"
value = "add-member"
[[need]]
name = "recording"
event = "RECORD_START"
always = false
[[need]]
name_from = "Ready-Need"
event = "CUSTOM ready::seen"
"#;

fn ready() -> Ready {
    filter(SETTINGS).unwrap()
}

fn of(name: &str, id: &str) -> Incoming {
    let (name, subclass) = name
        .split_once(' ')
        .map_or((name, None), |(name, subclass)| (name, Some(subclass)));
    let event = event(name).header("Unique-ID", id);
    match subclass {
        Some(subclass) => event.header("Event-Subclass", subclass),
        None => event,
    }
}

fn joined(id: &str) -> Incoming {
    of("CUSTOM conference::maintenance", id).header("Action", "add-member")
}

fn reported(id: &str, need: &str) -> Incoming {
    of("CUSTOM ready::seen", id).header("Ready-Need", need)
}

fn declared(id: &str, needs: &str) -> Incoming {
    of("CUSTOM ready::needs", id).header("Ready-Needs", needs)
}

fn linked(id: &str, other: &str) -> Incoming {
    of("CHANNEL_BRIDGE", id).header("Other-Leg-Unique-ID", other)
}

/// What was derived, as `READY a` or `READY_TIMEOUT a timeout: start,joined`.
fn said(derived: &[Derived]) -> Vec<String> {
    let one = |derived: &Derived| {
        let get = |name: &str| derived.get(name).unwrap_or_default();
        let mut text = format!("{} {}", derived.name, get("Unique-ID"));
        if derived.name != "READY" {
            text += &format!(" {}: {}", get("Ready-Reason"), get("Ready-Missing"));
        }
        text
    };
    derived.iter().map(one).collect()
}

fn says(handled: &Handled) -> Vec<String> {
    said(&handled.derived)
}

/// Ticks at these seconds; what came of the last one.
fn ticks(ready: &mut Ready, seconds: &[u64]) -> Vec<String> {
    let ticks = seconds.iter().map(|second| ready.tick(second * SECOND));
    said(&ticks.last().unwrap_or_default())
}

#[test]
fn a_call_is_ready_once_when_all_its_needs_were_seen() {
    let mut ready = ready();
    let created = of("CHANNEL_CREATE", "a").at(SECOND).run(&mut ready);
    assert_eq!((says(&created).len(), created.verdict), (0, Verdict::Pass));
    assert_eq!(created.edits.len(), 1);
    assert_eq!(created.counts.len(), 0);
    let answered = of("CHANNEL_ANSWER", "a").at(3 * SECOND);
    assert!(says(&answered.clone().run(&mut ready)).is_empty());
    assert!(
        says(&answered.at(4 * SECOND).run(&mut ready)).is_empty(),
        "the same need twice is one need"
    );
    let last = joined("a").at(4_500_000).run(&mut ready);
    assert_eq!(last.counts["ready"], 1);
    let headers: Vec<(&str, &str)> = last.derived[0]
        .headers
        .iter()
        .map(|header| (&*header.name, &*header.value))
        .collect();
    let expected = [
        ("Event-Date-Timestamp", "4500000"),
        ("Unique-ID", "a"),
        ("Ready-Ids", "a"),
        ("Ready-Needs", "answered,joined"),
        ("Ready-Phase", "ready"),
        ("Ready-Took-Ms", "3500"),
        ("Ready-Took-Ms-answered", "2000"),
        ("Ready-Took-Ms-joined", "3500"),
    ];
    assert_eq!(
        (&*last.derived[0].name, &*headers),
        ("READY", &expected[..])
    );
    assert!(says(&joined("a").run(&mut ready)).is_empty(), "once");
}

#[test]
fn events_carry_the_phase_of_their_call() {
    let mut ready = ready();
    let mut phase = |incoming: Incoming| {
        let handled = incoming.run(&mut ready);
        handled.get("Ready-Phase").map(str::to_owned)
    };
    assert_eq!(phase(of("CHANNEL_ANSWER", "a")), None, "before its start");
    assert_eq!(phase(of("CHANNEL_CREATE", "a")).unwrap(), "created");
    assert_eq!(phase(joined("a")).unwrap(), "ready");
    assert_eq!(
        phase(of("CHANNEL_HANGUP_COMPLETE", "a")).unwrap(),
        "terminated"
    );
    assert_eq!(phase(of("CHANNEL_ANSWER", "a")).unwrap(), "terminated");
}

#[test]
fn a_call_that_waits_too_long_is_told_once_with_what_is_missing() {
    let mut ready = ready();
    of("CHANNEL_CREATE", "a").at(7 * SECOND).run(&mut ready);
    of("CHANNEL_ANSWER", "a").at(8 * SECOND).run(&mut ready);
    of("CHANNEL_ANSWER", "unstarted").run(&mut ready);
    assert!(
        ticks(&mut ready, &[100, 109]).is_empty(),
        "time counts from the first tick on"
    );
    let derived = ready.tick(110 * SECOND);
    assert_eq!(
        said(&derived),
        [
            "READY_TIMEOUT a timeout: joined",
            "READY_TIMEOUT unstarted timeout: start,joined"
        ]
    );
    assert_eq!(derived[0].get("Ready-Took-Ms-answered"), Some("1000"));
    assert_eq!(derived[0].get("Ready-Phase"), Some("created"));
    assert_eq!(derived[1].get("Ready-Phase"), None);
    assert!(
        says(&joined("a").run(&mut ready)).is_empty(),
        "too late: never both"
    );
    assert!(ticks(&mut ready, &[111, 200]).is_empty());
}

#[test]
fn a_call_that_ends_before_it_is_ready_is_told_at_once() {
    let mut ready = ready();
    of("CHANNEL_CREATE", "a").run(&mut ready);
    let ended = of("CHANNEL_HANGUP_COMPLETE", "a").run(&mut ready);
    assert_eq!(says(&ended), ["READY_TIMEOUT a ended: answered,joined"]);
    assert_eq!(ended.counts["ended"], 1);

    assert!(
        says(&of("CHANNEL_HANGUP_COMPLETE", "b").run(&mut ready)).is_empty(),
        "a call of which nothing else was seen: it was there before the host"
    );
    let late = of("CHANNEL_CREATE", "b").run(&mut ready);
    assert_eq!(
        says(&late),
        ["READY_TIMEOUT b ended: answered,joined"],
        "the end overtook it"
    );
}

#[test]
fn an_event_declares_needs_for_one_call() {
    let mut ready = ready();
    for id in ["a", "b"] {
        of("CHANNEL_CREATE", id).run(&mut ready);
    }
    declared("a", "recording, crm,crm").run(&mut ready);
    for met in [
        of("CHANNEL_ANSWER", "a"),
        joined("a"),
        reported("a", "other"),
    ] {
        assert!(
            says(&met.run(&mut ready)).is_empty(),
            "they take the place of the settings'"
        );
    }
    reported("a", "crm").run(&mut ready);
    let last = of("RECORD_START", "a").run(&mut ready);
    assert_eq!(says(&last), ["READY a"]);
    assert_eq!(last.derived[0].get("Ready-Needs"), Some("recording,crm"));
    of("CHANNEL_ANSWER", "b").run(&mut ready);
    assert_eq!(
        says(&joined("b").run(&mut ready)),
        ["READY b"],
        "no other call is meant"
    );

    let refused = declared("c", "no spaces,ü,").run(&mut ready);
    assert_eq!(refused.counts["names_refused"], 2);
    of("CHANNEL_CREATE", "d").run(&mut ready);
    of("CHANNEL_ANSWER", "d").run(&mut ready);
    assert_eq!(
        says(&declared("d", "answered").run(&mut ready)),
        ["READY d"],
        "nothing is left"
    );
}

#[test]
fn without_needs_of_every_call_each_waits_for_its_declaration() {
    let settings = SETTINGS.replace(
        "[[need]]\nname = \"answered\"",
        "[[need]]\nalways = false\nname = \"answered\"",
    );
    let settings = settings.replace("name = \"joined\"", "name = \"joined\"\nalways = false");
    let mut ready: Ready = filter(&settings).unwrap();
    of("CHANNEL_CREATE", "a").run(&mut ready);
    of("CHANNEL_CREATE", "b").run(&mut ready);
    assert_eq!(
        says(&declared("a", "").run(&mut ready)),
        ["READY a"],
        "it needs nothing"
    );
    assert_eq!(
        ticks(&mut ready, &[1, 11]),
        ["READY_TIMEOUT b timeout: declaration"]
    );
}

#[test]
fn legs_are_one_call_which_ends_with_the_last() {
    let mut ready = ready();
    of("CHANNEL_CREATE", "a").run(&mut ready);
    of("CHANNEL_CREATE", "b")
        .header("Other-Leg-Unique-ID", "a")
        .run(&mut ready);
    of("CHANNEL_ANSWER", "b").run(&mut ready);
    let ended = of("CHANNEL_HANGUP_COMPLETE", "b").run(&mut ready);
    assert_eq!(
        ended.get("Ready-Phase"),
        Some("created"),
        "the other leg goes on"
    );
    let last = joined("a").run(&mut ready);
    assert_eq!(says(&last), ["READY a"]);
    assert_eq!(last.derived[0].get("Ready-Ids"), Some("a,b"));
    let ended = of("CHANNEL_HANGUP_COMPLETE", "a").run(&mut ready);
    assert_eq!(ended.get("Ready-Phase"), Some("terminated"));
    assert_eq!(said(&ready.tick(SECOND)), said(&[]));
    assert_eq!(ready.calls.iter().len(), 1, "events of it may still come");
    ticks(&mut ready, &[61]);
    assert_eq!(ready.calls.iter().len(), 0);
}

#[test]
fn what_was_said_of_one_of_two_calls_stands_when_they_are_joined() {
    let mut ready = ready();
    for id in ["a", "b"] {
        of("CHANNEL_CREATE", id).run(&mut ready);
        of("CHANNEL_ANSWER", id).run(&mut ready);
    }
    assert_eq!(says(&joined("b").run(&mut ready)), ["READY b"]);
    let link = linked("a", "b").run(&mut ready);
    assert_eq!((says(&link).len(), link.counts["joined"]), (0, 1));
    assert_eq!(link.get("Ready-Phase"), Some("ready"));
    assert!(says(&joined("a").run(&mut ready)).is_empty());
    assert!(
        ticks(&mut ready, &[1, 11]).is_empty(),
        "and it waits no longer"
    );
}

#[test]
fn no_id_joins_everything_with_everything() {
    let mut ready = ready();
    let over: u64 = (0..40)
        .map(|leg| {
            let create = of("CHANNEL_CREATE", &format!("leg {leg}"));
            let handled = create
                .header("Other-Leg-Unique-ID", "standing")
                .run(&mut ready);
            handled.counts.get("ids_over").copied().unwrap_or_default()
        })
        .sum();
    assert_eq!(
        (ready.calls.iter().len(), over),
        (1 + 25, 25),
        "16 ids are one call, the others their own"
    );
    of("CHANNEL_ANSWER", "leg 39")
        .header("Other-Leg-Unique-ID", "standing")
        .run(&mut ready);
    let last = joined("leg 39").run(&mut ready);
    assert_eq!(says(&last), ["READY leg 39"]);
    let long = "x".repeat(129);
    assert_eq!(
        of("CHANNEL_CREATE", &long).run(&mut ready).counts["without_id"],
        1
    );
}

#[test]
fn at_the_bound_the_oldest_gives_way_first_of_all_one_that_only_is_remembered() {
    let mut ready: Ready = filter(&format!("max_calls = 2\n{SETTINGS}")).unwrap();
    of("CHANNEL_CREATE", "a").run(&mut ready);
    for event in [
        of("CHANNEL_CREATE", "b"),
        of("CHANNEL_ANSWER", "b"),
        joined("b"),
    ] {
        event.run(&mut ready);
    }
    let third = of("CHANNEL_CREATE", "c").run(&mut ready);
    assert_eq!(
        (says(&third).len(), third.counts["evicted"]),
        (0, 1),
        "b was ready"
    );
    let fourth = of("CHANNEL_ANSWER", "d").run(&mut ready);
    assert_eq!(says(&fourth), ["READY_TIMEOUT a evicted: answered,joined"]);
    assert_eq!(fourth.counts["evicted"], 1);
    assert_eq!(ready.calls.iter().len(), 2);
}

#[test]
fn new_settings_apply_to_the_calls_that_wait() {
    let mut old = ready();
    for call in 0..30 {
        of("CHANNEL_CREATE", &call.to_string()).run(&mut old);
        of("CHANNEL_ANSWER", &call.to_string()).run(&mut old);
    }
    old.tick(SECOND);
    let less = "max_calls = 15\n[[need]]\nname = \"answered\"\nevent = \"CHANNEL_ANSWER\"\n";
    let mut new: Ready = reload(&old, less).unwrap();
    let first = of("CHANNEL_ANSWER", "29").run(&mut new);
    assert_eq!(says(&first)[0], "READY 29", "with its next event");
    assert_eq!(first.counts["evicted"], 10, "a few at a time");
    of("CHANNEL_ANSWER", "28").run(&mut new);
    assert_eq!(new.calls.iter().len(), 15);
    let due = ticks(&mut new, &[2, 11]);
    assert_eq!(
        (due.len(), &*due[0]),
        (15, "READY 13"),
        "or when its time is up"
    );
}

#[test]
fn what_only_is_remembered_is_forgotten_in_time() {
    let mut ready = ready();
    linked("a", "b").run(&mut ready);
    assert!(
        ticks(&mut ready, &[1, 11]).is_empty(),
        "nobody waits for what is only linked"
    );
    assert_eq!(ready.calls.iter().len(), 0);
    for event in [
        of("CHANNEL_CREATE", "c"),
        of("CHANNEL_ANSWER", "c"),
        joined("c"),
    ] {
        event.run(&mut ready);
    }
    ticks(&mut ready, &[12, 3_611]);
    joined("c").run(&mut ready);
    ticks(&mut ready, &[3_612, 7_211]);
    assert_eq!(ready.calls.iter().len(), 1, "its last event counts");
    ticks(&mut ready, &[7_212]);
    assert_eq!(ready.calls.iter().len(), 0);
}

#[test]
fn calls_that_time_out_together_do_not_exceed_what_one_answer_may_hold() {
    let mut ready = ready();
    for call in 0..250 {
        of("CHANNEL_CREATE", &call.to_string()).run(&mut ready);
    }
    ready.tick(SECOND);
    let told: Vec<usize> = (11..15)
        .map(|second| ready.tick(second * SECOND).len())
        .collect();
    assert_eq!(told, [100, 100, 50, 0]);
}

#[test]
fn a_damaged_state_starts_anew_with_a_warning() {
    let mut old = ready();
    for id in ["a", "b"] {
        of("CHANNEL_CREATE", id).run(&mut old);
        declared(id, "answered").run(&mut old);
    }
    linked("c", "b").run(&mut old);
    old.tick(SECOND);
    let saved = old.save();
    let again: Ready = reload(&old, SETTINGS).unwrap();
    assert!(
        old.calls.iter().eq(again.calls.iter()),
        "the state is the same"
    );

    let mut damaged: Vec<Vec<u8>> = (1..saved.len())
        .map(|length| saved[..length].to_vec())
        .collect();
    for place in 0..saved.len() {
        let mut bytes = saved.clone();
        bytes[place] ^= 1;
        damaged.push(bytes);
    }
    damaged.push([saved.as_slice(), &[0]].concat());
    for bytes in damaged {
        let new = reload::<Ready>(&Saved(bytes), SETTINGS).unwrap();
        assert_eq!(new.calls.iter().len(), 0);
    }
    assert!(ready().save().is_empty(), "no calls, no state");
}

/// A filter that saved these bytes.
struct Saved(Vec<u8>);

impl Filter for Saved {
    type Settings = NoSettings;

    fn new(_: NoSettings, saved: Option<Vec<u8>>) -> Result<Self, String> {
        Ok(Self(saved.unwrap_or_default()))
    }

    fn manifest(&self) -> Manifest {
        Manifest::new()
    }

    fn handle(&mut self, _: &mut Event) -> Verdict {
        Verdict::Pass
    }

    fn save(&self) -> Vec<u8> {
        self.0.clone()
    }
}

fn refusal(settings: &str) -> String {
    filter::<Ready>(settings)
        .err()
        .expect("the settings should be refused")
}

#[test]
fn mistakes_in_the_settings_are_named() {
    let need = "[[need]]\nevent = \"CHANNEL_ANSWER\"\n";
    let named = format!("{need}name = \"answered\"\n");
    let plus = |text: &str| refusal(&format!("{text}\n{named}"));
    let of_need = |text: &str| refusal(&format!("{need}{text}"));
    for (refusal, text) in [
        (
            refusal(""),
            "nothing to wait for: give at least one `[[need]]`",
        ),
        (
            plus("timeout = '30'"),
            "`timeout` is `30`: allowed is a whole number above zero with a unit, such as 500ms, 30s, 5m or 4h",
        ),
        (
            plus("forget = '0s'"),
            "`forget` is `0s`: allowed is a whole number above zero with a unit, such as 500ms, 30s, 5m or 4h",
        ),
        (
            plus("timeout = '5h'"),
            "`forget` is 4h, shorter than `timeout`, 5h: a call would be forgotten while it waits",
        ),
        (
            plus("max_calls = 0"),
            "`max_calls` is 0: allowed is 1 to 20000",
        ),
        (plus("ids = []"), "`ids` is empty: name at least one"),
        (plus("start = []"), "`start` is empty: name at least one"),
        (plus("ids = ['']"), "`ids`: the name of a header is empty"),
        (
            plus("link = ['CHANNEL_*']"),
            "`link`: the event is `CHANNEL_*`: allowed is a name such as CHANNEL_ANSWER, or CUSTOM and a subclass",
        ),
        (
            plus("end = ['']"),
            "`end`: the event is ``: allowed is a name such as CHANNEL_ANSWER, or CUSTOM and a subclass",
        ),
        (
            plus("start = ['CUSTOM ']"),
            "`start`: the event is `CUSTOM `: allowed is a name such as CHANNEL_ANSWER, or CUSTOM and a subclass",
        ),
        (
            plus("declare = { event = 'DTMF x', header = 'Needs' }"),
            "`declare`: the event is `DTMF x`: allowed is a name such as CHANNEL_ANSWER, or CUSTOM and a subclass",
        ),
        (
            of_need(""),
            "need 1: give `name`, or `name_from` for the header that holds it",
        ),
        (
            of_need("name = 'a'\nname_from = 'b'"),
            "need 1: give `name`, or `name_from` for the header that holds it",
        ),
        (
            of_need("name = 'a b'"),
            "need 1: `name` is `a b`: allowed are 1 to 64 letters, digits, `_`, `-` and `.`",
        ),
        (
            of_need("name = 'start'"),
            "need 1: `start` cannot be a need's name: it stands for itself in `Ready-Missing`",
        ),
        (
            of_need("name = 'a'\nheader = 'b'"),
            "need 1: `header` and `value` go together: the event meets the need if the header has this value",
        ),
        (
            of_need("name_from = 'a'\nalways = true"),
            "need 1: `always` needs a `name`: what `name_from` names is known only by then",
        ),
        (
            of_need("name_from = 'Need'"),
            "no call would ever wait: give a `[[need]]` with a `name` and without `always = false`, or `[declare]`",
        ),
        (
            of_need("name = 'a'\nalways = false"),
            "no call would ever wait: give a `[[need]]` with a `name` and without `always = false`, or `[declare]`",
        ),
        (
            of_need("name = 1"),
            "settings: `need[0].name`: invalid type: integer `1`, expected a string",
        ),
    ] {
        assert_eq!(refusal, text);
    }
    assert!(
        plus("timeouts = 1").contains("unknown field `timeouts`, expected one of `ids`, `start`")
    );
}

#[test]
fn the_example_settings_are_valid() {
    filter::<Ready>(include_str!("../ready.toml")).unwrap();
}

#[test]
fn the_filter_sees_only_what_its_settings_name() {
    let manifest = ready().manifest();
    assert_eq!(
        manifest.events,
        [
            "CHANNEL_CREATE",
            "CHANNEL_BRIDGE",
            "CHANNEL_HANGUP_COMPLETE",
            "CUSTOM ready::needs",
            "CHANNEL_ANSWER",
            "CUSTOM conference::maintenance",
            "RECORD_START",
            "CUSTOM ready::seen"
        ]
    );
    assert_eq!(
        manifest.headers,
        [
            "Event-Name",
            "Event-Subclass",
            "Unique-ID",
            "Other-Leg-Unique-ID",
            "Ready-Needs",
            "Action",
            "Ready-Need"
        ]
    );
    assert_eq!(manifest.tick_interval, 250);
}
