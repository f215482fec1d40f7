//! The settings file, checked; see `ready.toml`.

use std::time::Duration;

use serde::Deserialize;

use crate::rules::{Kind, Name, Need, Rules, is_name};

/// A swap hands them all over in 100 ms, of which ten thousand take a quarter on a slow core.
const MAX_CALLS: usize = 20_000;

/// The settings file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    ids: Vec<String>,
    start: Vec<String>,
    link: Vec<String>,
    end: Vec<String>,
    timeout: String,
    forget: String,
    max_calls: usize,
    need: Vec<WrittenNeed>,
    declare: Option<WrittenDeclare>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenNeed {
    event: String,
    name: Option<String>,
    name_from: Option<String>,
    header: Option<String>,
    value: Option<String>,
    always: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenDeclare {
    event: String,
    header: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ids: vec!["Unique-ID".into(), "Other-Leg-Unique-ID".into()],
            start: vec!["CHANNEL_CREATE".into()],
            link: Vec::new(),
            end: vec!["CHANNEL_HANGUP_COMPLETE".into()],
            timeout: "30s".into(),
            forget: "4h".into(),
            max_calls: 10_000,
            need: Vec::new(),
            declare: None,
        }
    }
}

impl Settings {
    /// The rules, or what is wrong with the settings.
    pub(crate) fn checked(self) -> Result<Rules, String> {
        if self.need.is_empty() {
            return Err("nothing to wait for: give at least one `[[need]]`".into());
        }
        let mut rules = Rules {
            events: Vec::new(),
            headers: vec!["Event-Name".into(), "Event-Subclass".into()],
            ids: Vec::new(),
            start: Vec::new(),
            end: Vec::new(),
            declare: None,
            needs: Vec::new(),
            timeout: duration(&self.timeout).ok_or_else(|| wrong("timeout", &self.timeout))?,
            forget: duration(&self.forget).ok_or_else(|| wrong("forget", &self.forget))?,
            max_calls: self.max_calls,
        };
        if rules.forget < rules.timeout {
            return Err(format!(
                "`forget` is {}, shorter than `timeout`, {}: a call would be forgotten while it waits",
                self.forget, self.timeout
            ));
        }
        if !(1..=MAX_CALLS).contains(&self.max_calls) {
            return Err(format!(
                "`max_calls` is {}: allowed is 1 to {MAX_CALLS}",
                self.max_calls
            ));
        }
        for (setting, value) in [("ids", &self.ids), ("start", &self.start)] {
            if value.is_empty() {
                return Err(format!("`{setting}` is empty: name at least one"));
            }
        }
        for id in &self.ids {
            let place = rules
                .header(id)
                .map_err(|error| format!("`ids`: {error}"))?;
            rules.ids.push(place);
        }
        rules.start = rules.kinds("start", &self.start)?;
        rules.kinds("link", &self.link)?;
        rules.end = rules.kinds("end", &self.end)?;
        if let Some(declare) = &self.declare {
            let declare = rules.declaration(declare);
            rules.declare = Some(declare.map_err(|error| format!("`declare`: {error}"))?);
        }
        for (need, number) in self.need.into_iter().zip(1..) {
            let need = rules.need(need);
            let need = need.map_err(|error| format!("need {number}: {error}"))?;
            rules.needs.push(need);
        }
        if !rules.has_needs() && rules.declare.is_none() {
            return Err("no call would ever wait: give a `[[need]]` with a `name` and without `always = false`, or `[declare]`".into());
        }
        Ok(rules)
    }
}

impl Rules {
    /// Its place among the headers, which it joins if it is new.
    fn header(&mut self, name: &str) -> Result<usize, String> {
        if name.is_empty() {
            return Err("the name of a header is empty".into());
        }
        let known = self.headers.iter().position(|known| known == name);
        Ok(known.unwrap_or_else(|| {
            self.headers.push(name.to_owned());
            self.headers.len() - 1
        }))
    }

    fn kinds(&mut self, setting: &str, events: &[String]) -> Result<Vec<Kind>, String> {
        let kinds = events.iter().map(|event| self.kind(event));
        let kinds: Result<Vec<Kind>, String> = kinds.collect();
        kinds.map_err(|error| format!("`{setting}`: {error}"))
    }

    fn kind(&mut self, event: &str) -> Result<Kind, String> {
        let (name, subclass) = match event.split_once(' ') {
            None => (event, None),
            Some((name, subclass)) => (name, Some(subclass)),
        };
        let is_one = !name.is_empty() && subclass.is_none_or(|subclass| !subclass.is_empty());
        if !is_one || event.contains('*') || (subclass.is_some() && name != "CUSTOM") {
            return Err(format!(
                "the event is `{event}`: allowed is a name such as CHANNEL_ANSWER, or CUSTOM and a subclass"
            ));
        }
        if !self.events.iter().any(|known| known == event) {
            self.events.push(event.to_owned());
        }
        Ok(Kind {
            name: name.to_owned(),
            subclass: subclass.map(str::to_owned),
        })
    }

    fn declaration(&mut self, declare: &WrittenDeclare) -> Result<(Kind, usize), String> {
        Ok((self.kind(&declare.event)?, self.header(&declare.header)?))
    }

    fn need(&mut self, need: WrittenNeed) -> Result<Need, String> {
        let kind = self.kind(&need.event)?;
        let condition = match (need.header, need.value) {
            (Some(header), Some(value)) => Some((self.header(&header)?, value)),
            (None, None) => None,
            _ => return Err("`header` and `value` go together: the event meets the need if the header has this value".into()),
        };
        let name = match (need.name, need.name_from, need.always) {
            (Some(name), None, _) if name == "start" || name == "declaration" => {
                return Err(format!(
                    "`{name}` cannot be a need's name: it stands for itself in `Ready-Missing`"
                ));
            }
            (Some(name), None, always) if is_name(&name) => Name::Is(name, always.unwrap_or(true)),
            (Some(name), None, _) => {
                return Err(format!(
                    "`name` is `{name}`: allowed are 1 to 64 letters, digits, `_`, `-` and `.`"
                ));
            }
            (None, Some(_), Some(_)) => {
                return Err(
                    "`always` needs a `name`: what `name_from` names is known only by then".into(),
                );
            }
            (None, Some(header), None) => Name::In(self.header(&header)?),
            (Some(_), Some(_), _) | (None, None, _) => {
                return Err("give `name`, or `name_from` for the header that holds it".into());
            }
        };
        Ok(Need {
            kind,
            condition,
            name,
        })
    }
}

fn wrong(setting: &str, value: &str) -> String {
    format!(
        "`{setting}` is `{value}`: allowed is a whole number above zero with a unit, such as 500ms, 30s, 5m or 4h"
    )
}

fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    // A thousand years: so that no time that is added to it is too long.
    let millis = number.parse::<u64>().ok()?.checked_mul(millis)?;
    (1..=1_000 * 365 * 86_400_000)
        .contains(&millis)
        .then(|| Duration::from_millis(millis))
}
