use std::time::Duration;

use crate::testing::{event, filter, reload};
use crate::{Derived, Event, Filter, Level, Manifest, NoSettings, Verdict};

/// A filter whose `handle` is a function of the test, with one declared header.
struct Probe(fn(&mut Event) -> Verdict);

impl Filter for Probe {
    type Settings = NoSettings;

    fn new(_: NoSettings, _: Option<Vec<u8>>) -> Result<Self, String> {
        Ok(Self(|_| Verdict::Pass))
    }

    fn manifest(&self) -> Manifest {
        Manifest::new().headers(["declared"])
    }

    fn handle(&mut self, event: &mut Event) -> Verdict {
        (self.0)(event)
    }
}

#[test]
fn a_header_reads_alike_whether_it_was_declared_or_not() {
    let mut probe = Probe(|event| {
        assert_eq!(event.get("declared"), Some("1"));
        assert_eq!(event.declared(0), Some("1"));
        assert_eq!(event.declared(1), None);
        assert_eq!(event.get("other"), Some("3"), "the last occurrence counts");
        assert_eq!(event.get("absent"), None);
        let (first, second) = (event.get("other"), event.get("Event-Name"));
        assert_eq!(
            (first, second),
            (Some("3"), Some("X")),
            "what was read stays borrowed"
        );
        assert_eq!(event.body(), Some("text"));
        assert_eq!(event.now(), 5);
        Verdict::Pass
    });
    event("X")
        .header("declared", "1")
        .header("other", "2")
        .header("other", "3")
        .body("text")
        .at(5)
        .run(&mut probe);
}

#[test]
fn a_filter_sees_its_own_edits() {
    let mut probe = Probe(|event| {
        assert_eq!(
            (event.get("declared"), event.get("other")),
            (Some("1"), Some("2"))
        );
        event.set("declared", "10");
        event.set("other", "20");
        event.set("new", "30");
        event.remove("other");
        event.set("new", "31");
        event.set_body("new text");
        assert_eq!(event.get("declared"), Some("10"));
        assert_eq!(event.declared(0), Some("10"));
        assert_eq!(event.get("other"), None);
        assert_eq!(event.get("new"), Some("31"));
        assert_eq!(event.body(), Some("new text"));
        let headers: Vec<_> = event.headers().collect();
        assert_eq!(
            headers,
            [("Event-Name", "X"), ("declared", "10"), ("new", "31")]
        );
        Verdict::drop("seen")
    });
    let after = event("X")
        .header("declared", "1")
        .header("other", "2")
        .run(&mut probe);
    assert_eq!(after.verdict, Verdict::drop("seen"));
    let headers: Vec<_> = after.headers().collect();
    assert_eq!(
        headers,
        [("Event-Name", "X"), ("declared", "10"), ("new", "31")],
        "the host arrives at the same event"
    );
    assert_eq!(after.body(), Some("new text"));
}

#[test]
fn what_a_filter_sends_is_recorded() {
    let mut probe = Probe(|event| {
        event.emit(Derived::new("A").header("h", "v").body("b").stream("s"));
        crate::info!("constant");
        crate::warn!("number {}", 1);
        crate::count("seen", 1);
        crate::count("seen", 2);
        Verdict::route(["s"])
    });
    let after = event("X").run(&mut probe);
    assert_eq!(after.verdict, Verdict::Route(vec!["s".into()]));
    assert_eq!(after.derived[0].get("h"), Some("v"));
    assert_eq!(
        after.logs,
        [
            (Level::Info, "constant".into()),
            (Level::Warn, "number 1".into())
        ]
    );
    assert_eq!(after.counts["seen"], 3);
}

#[test]
fn a_tick_is_a_whole_number_of_milliseconds_and_never_becomes_zero() {
    let interval = |every| Manifest::new().tick(every).tick_interval;
    assert_eq!(interval(Duration::ZERO), 0);
    assert_eq!(interval(Duration::from_micros(1)), 1);
    assert_eq!(interval(Duration::from_secs(2)), 2000);
    assert_eq!(interval(Duration::MAX), u32::MAX);
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Nested {
    rule: Vec<Rule>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    weight: u8,
}

/// A filter with settings and state.
#[derive(Debug)]
struct Weigher(u64);

impl Filter for Weigher {
    type Settings = Nested;

    fn new(settings: Nested, saved: Option<Vec<u8>>) -> Result<Self, String> {
        let before = saved.map_or(0, |saved| saved.iter().map(|byte| u64::from(*byte)).sum());
        Ok(Self(
            before
                + settings
                    .rule
                    .iter()
                    .map(|rule| u64::from(rule.weight))
                    .sum::<u64>(),
        ))
    }

    fn manifest(&self) -> Manifest {
        Manifest::new()
    }

    fn handle(&mut self, _: &mut Event) -> Verdict {
        Verdict::Pass
    }

    fn save(&self) -> Vec<u8> {
        vec![1; usize::try_from(self.0).unwrap()]
    }
}

#[test]
fn a_reload_hands_over_the_state() {
    let old: Weigher = filter("[[rule]]\nweight = 7").unwrap();
    let new: Weigher = reload(&old, "[[rule]]\nweight = 1").unwrap();
    assert_eq!(new.0, 8);
}

#[test]
fn an_error_in_the_settings_names_the_setting() {
    let cases = [
        (
            "[[rule]]\nweight = 1\n[[rule]]\nweight = 'x'",
            "settings: `rule[1].weight`: invalid type: string \"x\", expected u8",
        ),
        (
            "[[rule]]\nweight = 256",
            "settings: `rule[0].weight`: invalid value: integer `256`, expected u8",
        ),
        (
            "[[rule]]\nwheight = 1",
            "settings: `rule[0].wheight`: unknown field `wheight`, expected `weight`",
        ),
        ("[[rule]]", "settings: `rule[0]`: missing field `weight`"),
        ("", "settings: missing field `rule`"),
    ];
    for (settings, expected) in cases {
        assert_eq!(
            filter::<Weigher>(settings).err().as_deref(),
            Some(expected),
            "for {settings:?}"
        );
    }
}

#[test]
fn the_hosts_own_table_is_not_the_filters() {
    filter::<Weigher>("rule = []\n[jackfield]\ndeadline = '5ms'").unwrap();
}

/// Keeps what its test needs, in an order that shows whether later edits see earlier ones.
struct Keeper;

impl Filter for Keeper {
    type Settings = NoSettings;

    fn new(_: NoSettings, _: Option<Vec<u8>>) -> Result<Self, String> {
        Ok(Self)
    }

    fn manifest(&self) -> Manifest {
        Manifest::new().headers(["Caller-ANI", "X-Gone"])
    }

    fn handle(&mut self, event: &mut Event) -> Verdict {
        event.keep(["Caller-*", "X-Kept"]);
        assert_eq!(event.get("X-Gone"), None, "gone for the filter itself");
        assert_eq!(event.get("Caller-ANI"), Some("1"));
        event.remove("Caller-R*");
        event.remove("*-Name");
        event.set("X-New", "new");
        let names: Vec<&str> = event.headers().map(|(name, _)| name).collect();
        assert_eq!(names, ["Event-Name", "Caller-ANI", "X-Kept", "X-New"]);
        Verdict::Pass
    }
}

#[test]
fn patterns_keep_and_remove_for_the_filter_and_for_the_event() {
    let after = event("DTMF")
        .header("Caller-ANI", "1")
        .header("Caller-RDNIS", "2")
        .header("X-Gone", "3")
        .header("X-Kept", "4")
        .body("stays")
        .run(&mut Keeper);
    let names: Vec<&str> = after.headers().map(|(name, _)| name).collect();
    assert_eq!(names, ["Event-Name", "Caller-ANI", "X-Kept", "X-New"]);
    assert_eq!(after.body(), Some("stays"));
}
