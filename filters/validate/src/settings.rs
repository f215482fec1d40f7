//! The settings file, checked; see `validate.toml`.

use serde::Deserialize;

use crate::kind::Kind;
use crate::pattern::Pattern;
use crate::{Action, Rule, Validate};

/// A reason is at most 128 bytes long: the header's name, and what is wrong.
const NAME_MAX: usize = 100;

/// The settings file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    action: Does,
    mark: String,
    rule: Vec<Written>,
}

/// `action` as written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Does {
    Drop,
    Mark,
    DeadLetter,
}

/// A rule as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    event: String,
    header: String,
    #[serde(default = "yes")]
    required: bool,
    #[serde(rename = "type")]
    kind: Option<Kind>,
    pattern: Option<String>,
}

fn yes() -> bool {
    true
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            action: Does::DeadLetter,
            mark: "X-Invalid".into(),
            rule: Vec::new(),
        }
    }
}

impl Settings {
    /// The filter, or what is wrong with the settings.
    pub(crate) fn checked(self) -> Result<Validate, String> {
        if self.rule.is_empty() {
            return Err("no rule: give at least one `[[rule]]`, or remove the filter".into());
        }
        let action = match self.action {
            Does::Drop => Action::Drop,
            Does::DeadLetter => Action::DeadLetter,
            Does::Mark if self.mark.is_empty() => {
                return Err("`mark` is empty: name the header to set".into());
            }
            Does::Mark => Action::Mark(self.mark),
        };
        let mut validate = Validate {
            events: Vec::new(),
            headers: vec!["Event-Name".into(), "Event-Subclass".into()],
            rules: Vec::new(),
            action,
        };
        let mut every_event = false;
        for (written, number) in self.rule.into_iter().zip(1..) {
            let event = written.event.clone();
            let rule = validate.rule(written);
            validate
                .rules
                .push(rule.map_err(|error| format!("rule {number}: {error}"))?);
            every_event |= event == "*";
            if !validate.events.contains(&event) {
                validate.events.push(event);
            }
        }
        if every_event {
            validate.events.clear();
        }
        Ok(validate)
    }
}

impl Validate {
    fn rule(&mut self, written: Written) -> Result<Rule, String> {
        let Written {
            event,
            header,
            required,
            kind,
            pattern,
        } = written;
        if event.is_empty() || (event.contains('*') && event != "*") {
            return Err(format!(
                "`event` is `{event}`: a whole name is allowed, or `*` alone for every event"
            ));
        }
        if header.is_empty() || header.len() > NAME_MAX {
            return Err(format!(
                "`header` has {} bytes: allowed are 1 to {NAME_MAX}",
                header.len()
            ));
        }
        if !required && kind.is_none() && pattern.is_none() {
            return Err(
                "it checks nothing: a header that is not `required` needs a `type` or a `pattern`"
                    .into(),
            );
        }
        let pattern = pattern
            .map(|written| {
                Pattern::parse(&written).map_err(|why| format!("`pattern` is `{written}`: {why}"))
            })
            .transpose()?;
        let event = (event != "*").then(|| match event.split_once(' ') {
            Some((name, subclass)) => (name.to_owned(), Some(subclass.to_owned())),
            None => (event, None),
        });
        let known = self.headers.iter().position(|known| *known == header);
        let index = known.unwrap_or(self.headers.len());
        let rule = Rule {
            event,
            header: index,
            missing: required.then(|| format!("{header}: missing")),
            kind: kind.map(|kind| (kind, format!("{header}: not of type {}", kind.name()))),
            pattern: pattern.map(|pattern| (pattern, format!("{header}: not like its pattern"))),
        };
        if known.is_none() {
            self.headers.push(header);
        }
        Ok(rule)
    }
}
