//! What two answers of `/status` are worth on a terminal.
//!
//! Pure. What an event or a filter says is printed without what a terminal would obey.

use std::time::Duration;

use serde_json::Value;

use super::table::Table;
use crate::cli::printable;

/// Digits of a digest that tell two versions apart.
const DIGEST: usize = 12;

/// `now`, with the rates since `then`, which was `elapsed` before.
pub(super) fn screen(then: &Value, now: &Value, elapsed: Duration) -> String {
    let look = Look {
        then,
        now,
        seconds: elapsed.as_secs_f64().max(0.001),
    };
    let parts = [
        look.head(),
        look.alarms(),
        look.stages(),
        look.links(),
        look.filters(),
        look.streams(),
        look.rest(),
    ];
    let parts = parts.into_iter().filter(|part| !part.is_empty());
    parts.collect::<Vec<String>>().join("\n")
}

struct Look<'a> {
    then: &'a Value,
    now: &'a Value,
    seconds: f64,
}

impl Look<'_> {
    fn head(&self) -> String {
        let now = self.now;
        let ready = match at(now, "ready").as_bool() {
            Some(true) => "ready",
            _ => "NOT READY",
        };
        format!(
            "jackfield {}  router {}  up {}  {ready}  health {} {} ({})\n",
            text(at(now, "version")),
            text(at(now, "router")),
            age(number(at(now, "uptime_s"))),
            number(at(now, "health/value")),
            text(at(now, "health/level")),
            text(at(now, "health/link")),
        )
    }

    fn alarms(&self) -> String {
        let mut table = Table::new(&["ALARMS", "STAGE", "", "SINCE", "CAUSE"], 0..0);
        for alarm in list(at(self.now, "alarms")) {
            table.row(vec![
                text(at(alarm, "level")).to_uppercase(),
                text(at(alarm, "stage")),
                text(at(alarm, "name")),
                self.since(at(alarm, "since_us")),
                text(at(alarm, "cause")),
            ]);
        }
        match table.text() {
            empty if empty.is_empty() => "ALARMS  none\n".to_owned(),
            alarms => alarms,
        }
    }

    fn stages(&self) -> String {
        let head = [
            "STAGE", "EVENTS/S", "P50", "P99", "BUSY", "STARVED", "BLOCKED",
        ];
        let mut table = Table::new(&head, 1..7);
        for (stage, latency) in [
            ("intake", None),
            ("pipeline", Some("reader")),
            ("writer", Some("writer")),
            ("socket to Redis", Some("total")),
        ] {
            let latency = latency.map(|name| at(self.now, &format!("latency/{name}")));
            let us = |key| latency.map_or(String::new(), |of| millis(number(at(of, key))));
            let stages = format!("/stages/{stage}");
            let is_stage = self.now.pointer(&stages).is_some();
            let rate = match is_stage {
                true => rate(self.per_second(&format!("{stages}/events"))),
                false => String::new(),
            };
            let mut row = vec![stage.to_owned(), rate, us("p50_us"), us("p99_us")];
            if is_stage {
                let shares = ["busy_us", "starved_us", "blocked_us"];
                row.extend(shares.map(|key| {
                    let share = self.per_second(&format!("{stages}/{key}")) / 10_000.0;
                    format!("{:.0} %", share.clamp(0.0, 100.0))
                }));
            }
            table.row(row);
        }
        table.text()
    }

    fn links(&self) -> String {
        let head = [
            "LINK",
            "STATE",
            "HEALTH",
            "",
            "SINCE",
            "LOSSES",
            "PEER",
            "LAST ERROR",
        ];
        let mut table = Table::new(&head, 2..3);
        for (name, link) in at(self.now, "links").as_object().into_iter().flatten() {
            table.row(vec![
                name.clone(),
                text(at(link, "state")),
                number(at(link, "health/value")).to_string(),
                text(at(link, "health/level")),
                self.since(at(link, "since_us")),
                number(at(link, "losses")).to_string(),
                text(at(link, "peer")),
                text(at(link, "last_error")),
            ]);
        }
        table.text()
    }

    fn filters(&self) -> String {
        let head = [
            "FILTER",
            "VERSION",
            "DIGEST",
            "STATE",
            "SINCE",
            "CALLS/S",
            "P50",
            "P99",
            "DROPS",
            "FAILURES",
            "LAST ERROR",
        ];
        let mut table = Table::new(&head, 5..10);
        for (place, filter) in list(at(self.now, "filters")).iter().enumerate() {
            let digest = text(at(filter, "digest"));
            let tally = at(filter, "tally");
            let state = match at(filter, "probation").as_bool() {
                Some(true) => format!("{}, on probation", text(at(filter, "state"))),
                _ => text(at(filter, "state")),
            };
            // A new version begins to count anew.
            let is_same = at(self.then, &format!("filters/{place}/digest")) == at(filter, "digest");
            let calls = match is_same {
                true => self.per_second(&format!("/filters/{place}/tally/calls")),
                false => 0.0,
            };
            table.row(vec![
                text(at(filter, "file")),
                text(at(filter, "version")),
                digest.chars().take(DIGEST).collect(),
                state,
                self.since(at(filter, "since_us")),
                rate(calls),
                micros(number(at(filter, "p50_ns"))),
                micros(number(at(filter, "p99_ns"))),
                number(at(tally, "drops")).to_string(),
                number(at(tally, "failures")).to_string(),
                text(at(filter, "last_error")),
            ]);
        }
        table.text()
    }

    fn streams(&self) -> String {
        let head = [
            "STREAM",
            "LENGTH",
            "OF",
            "ENTRIES/S",
            "RESERVE",
            "SLOWEST GROUP",
        ];
        let mut table = Table::new(&head, 1..5);
        for (place, stream) in list(at(self.now, "streams")).iter().enumerate() {
            let reserve = at(stream, "reserve");
            let ratio = at(reserve, "ratio").as_f64();
            table.row(vec![
                text(at(stream, "name")),
                at(stream, "length")
                    .as_u64()
                    .map_or("?".to_owned(), |n| n.to_string()),
                number(at(stream, "max_len")).to_string(),
                rate(self.per_second(&format!("/streams/{place}/entries"))),
                ratio.map_or(String::new(), |ratio| format!("{:.0} %", ratio * 100.0)),
                text(at(reserve, "group")),
            ]);
        }
        table.text()
    }

    fn rest(&self) -> String {
        let (journal, lane) = (at(self.now, "journal"), at(self.now, "lane"));
        let (dead, counts) = (at(self.now, "dead_letters"), at(self.now, "counts"));
        let count = |key: &str| number(at(counts, key));
        let balanced = match at(counts, "balanced").as_bool() {
            Some(true) => "balanced",
            _ => "NOT BALANCED",
        };
        format!(
            "JOURNAL   {} waiting, {} of {} undelivered, {} on disk, sync p99 {}\n\
             REDIS     {} waiting, cursor {}, {} transactions\n\
             DEAD      {} in {}, {} in the local file\n\
             ACCOUNTS  received {} = delivered {} + dropped {} + dead-lettered {} + lost {} + pending {}, {balanced}\n",
            number(at(journal, "waiting")),
            bytes(number(at(journal, "undelivered_bytes"))),
            bytes(number(at(journal, "max_bytes"))),
            bytes(number(at(journal, "bytes"))),
            millis(number(at(journal, "sync_p99_us"))),
            number(at(lane, "waiting")),
            number(at(lane, "cursor")),
            number(at(lane, "batches")),
            at(dead, "length")
                .as_u64()
                .map_or("?".to_owned(), |n| n.to_string()),
            text(at(dead, "stream")),
            number(at(dead, "local")),
            count("received"),
            count("delivered"),
            count("dropped"),
            count("dead_lettered"),
            count("lost"),
            count("pending"),
        )
    }

    /// How fast a number grows; 0 for one that began anew.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a rate for people; counts are far below 2⁵³"
    )]
    fn per_second(&self, pointer: &str) -> f64 {
        let of = |status: &Value| status.pointer(pointer).and_then(Value::as_u64);
        let grown = of(self.now)
            .unwrap_or(0)
            .saturating_sub(of(self.then).unwrap_or(0));
        grown as f64 / self.seconds
    }

    /// How long ago, by the host's own clock, as far as the terminal's is right.
    fn since(&self, at_us: &Value) -> String {
        match at_us.as_u64() {
            None | Some(0) => String::new(),
            Some(at_us) => age(crate::clock::now_us().saturating_sub(at_us) / 1_000_000),
        }
    }
}

/// What is at this place; null where nothing is.
fn at<'a>(value: &'a Value, place: &str) -> &'a Value {
    value.pointer(&format!("/{place}")).unwrap_or(&Value::Null)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn text(value: &Value) -> String {
    printable(value.as_str().unwrap_or_default())
}

fn rate(per_second: f64) -> String {
    format!("{per_second:.1}")
}

fn millis(us: u64) -> String {
    format!("{}.{:02} ms", us / 1_000, us % 1_000 / 10)
}

fn micros(ns: u64) -> String {
    format!("{}.{:01} µs", ns / 1_000, ns % 1_000 / 100)
}

fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut unit = "B";
    let mut whole = bytes;
    for larger in UNITS {
        if whole < 1_024 {
            break;
        }
        (whole, unit) = (whole / 1_024, larger);
    }
    format!("{whole} {unit}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rates_and_shares_are_those_of_the_time_between() {
        let at = |events: u64, busy_us: u64, blocked_us: u64| json!({ "stages": { "pipeline": { "events": events, "busy_us": busy_us, "starved_us": 0, "blocked_us": blocked_us } } });
        let text = screen(
            &at(1_000, 500_000, 0),
            &at(3_000, 1_000_000, 1_500_000),
            Duration::from_secs(2),
        );
        let line = text.lines().find(|line| line.starts_with("pipeline"));
        let cells: Vec<&str> = line.unwrap().split_whitespace().collect();
        assert_eq!(cells[1], "1000.0", "{text}");
        assert_eq!(cells[6..], ["25", "%", "0", "%", "75", "%"], "{text}");
    }

    #[test]
    fn an_alarm_is_a_sentence_that_a_terminal_does_not_obey() {
        let now = json!({ "alarms": [{
            "level": "error", "stage": "filter", "name": "10-a", "cause": "trap\u{1b}[2J", "since_us": null
        }] });
        let text = screen(&json!({}), &now, Duration::from_secs(1));
        assert!(
            text.contains("ERROR   filter  10-a         trap\\u{1b}[2J"),
            "{text}"
        );
        let well = screen(&json!({}), &json!({ "alarms": [] }), Duration::from_secs(1));
        assert!(well.contains("ALARMS  none"), "{well}");
    }

    #[test]
    fn sizes_and_ages_are_short() {
        assert_eq!(bytes(1_023), "1023 B");
        assert_eq!(bytes(4 << 30), "4 GiB");
        assert_eq!(age(59), "59 s");
        assert_eq!(age(3_700), "1 h 1 min");
        assert_eq!(millis(1_234), "1.23 ms");
        assert_eq!(micros(950), "0.9 µs");
    }
}
