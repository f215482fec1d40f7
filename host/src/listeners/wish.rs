//! What a listener asks for, as the query of `GET /events` has it: `event`, `header`, `since`, `limit`, `timeout`.
//!
//! Every mistake is told, each on a line with the key, the value and what is allowed.

use std::time::Duration;

use super::pattern::Interest;
use crate::config::duration;
use crate::journal::Lsn;

/// Each costs time for every event and listener.
const CONDITIONS: usize = 32;

/// What a listener asks for.
#[derive(Debug, Default)]
pub struct Wish {
    pub(super) interest: Interest,
    /// Inputs above this number; `None`: those that are decided from now on.
    pub(super) since: Option<Lsn>,
    /// That number is the last one that the listener was given, maybe by another journal.
    pub(super) resumes: bool,
    /// It ends after so many events.
    pub(super) limit: Option<u64>,
    /// It ends after so long.
    pub(super) timeout: Option<Duration>,
}

impl Wish {
    /// Reads a query. `Last-Event-ID` is what a browser sends when it connects again to the same address, so it is newer than `since`.
    ///
    /// # Errors
    /// What is wrong with it, a line for each mistake.
    pub fn parse(query: &str, last_event_id: Option<&str>) -> Result<Wish, String> {
        let mut wish = Wish::default();
        let mut mistakes = String::new();
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            if let Err(allowed) = wish.set(&key, &value) {
                mistakes.push_str(&format!("{key}: {value:?}: allowed is {allowed}\n"));
            }
        }
        if let Some(id) = last_event_id {
            wish.resumes = true;
            match id.parse() {
                Ok(lsn) => wish.since = Some(lsn),
                Err(_) => mistakes.push_str(&format!("Last-Event-ID: {id:?}: allowed is {LSN}\n")),
            }
        }
        let conditions = wish.interest.conditions();
        if conditions > CONDITIONS {
            mistakes.push_str(&format!(
                "{conditions} times event or header: allowed is {CONDITIONS} times\n"
            ));
        }
        match mistakes.is_empty() {
            true => Ok(wish),
            false => Err(mistakes),
        }
    }

    /// An error says what is allowed.
    fn set(&mut self, key: &str, value: &str) -> Result<(), &'static str> {
        match key {
            "event" if value.is_empty() => Err(EVENT),
            "event" => {
                self.interest.add_event(value);
                Ok(())
            }
            "header" => match value.split_once(':') {
                Some((name, pattern)) if !name.is_empty() => {
                    self.interest.add_header(name, pattern);
                    Ok(())
                }
                _ => Err("a header and a pattern such as Caller-Destination-Number:49*"),
            },
            "since" => once(&mut self.since, value.parse().ok(), LSN),
            "limit" => once(
                &mut self.limit,
                value.parse().ok(),
                "a number of events, once",
            ),
            "timeout" => once(
                &mut self.timeout,
                duration(value),
                "a duration such as 300ms, 5s or 1h30m, once",
            ),
            _ => Err("event, header, since, limit or timeout as a key"),
        }
    }
}

const EVENT: &str =
    "an event name, or a name and a subclass such as CUSTOM sofia::register; * stands for any text";
const LSN: &str = "an event's LSN, once";

fn once<T>(
    slot: &mut Option<T>,
    value: Option<T>,
    allowed: &'static str,
) -> Result<(), &'static str> {
    if slot.is_some() || value.is_none() {
        return Err(allowed);
    }
    *slot = value;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_with_all_its_keys() {
        let query = "event=CUSTOM%20sofia::register&event=HEARTBEAT&header=A:b*&since=5&limit=2&timeout=1m30s";
        let wish = Wish::parse(query, None).unwrap();
        assert_eq!(wish.interest.conditions(), 3);
        assert_eq!(
            (wish.since, wish.limit, wish.timeout),
            (Some(5), Some(2), Some(Duration::from_secs(90)))
        );
        let wish = Wish::parse("since=5", Some("7")).unwrap();
        assert_eq!(
            (wish.since, wish.resumes),
            (Some(7), true),
            "what was given last is newer"
        );
        let wish = Wish::parse("", None).unwrap();
        assert_eq!((wish.since, wish.limit, wish.timeout), (None, None, None));
    }

    #[test]
    fn every_mistake_is_told_with_what_is_allowed() {
        let query = "event=&header=A&since=x&limit=-1&timeout=5&limt=1&since=1&since=2";
        let mistakes = Wish::parse(query, Some("z")).unwrap_err();
        let lines: Vec<&str> = mistakes.lines().collect();
        assert_eq!(lines.len(), 8, "{mistakes}");
        assert_eq!(lines[2], "since: \"x\": allowed is an event's LSN, once");
        assert_eq!(
            lines[5],
            "limt: \"1\": allowed is event, header, since, limit or timeout as a key"
        );
        let many = "event=A&".repeat(CONDITIONS + 1);
        let mistake = Wish::parse(&many, None).unwrap_err();
        assert_eq!(mistake, "33 times event or header: allowed is 32 times\n");
    }
}
