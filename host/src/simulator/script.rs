//! The calls of `calls.txt`, read once.
//!
//! Reads the file's instructions: which lines an event has, and which it copies from an earlier one. What a line means is `template`'s.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

use super::slot::Needs;
use super::template::Template;

const TEXT: &str = include_str!("calls.txt");

static SCRIPT: LazyLock<Result<Arc<Script>, ScriptError>> =
    LazyLock::new(|| Script::parse(TEXT).map(Arc::new));

/// What is wrong in the script, and where.
#[derive(Debug, Clone, thiserror::Error)]
#[error("calls.txt line {line}: {what}")]
pub(super) struct ScriptError {
    line: usize,
    what: &'static str,
}

/// Everything that can happen.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) happenings: Vec<Happening>,
}

/// A call, or some other sequence of events that belong together.
#[derive(Debug, Default)]
pub(super) struct Happening {
    pub(super) weight: u64,
    pub(super) events: Vec<Template>,
    pub(super) needs: Needs,
}

impl Script {
    /// The script that is compiled in.
    pub(super) fn shared() -> Result<Arc<Script>, ScriptError> {
        SCRIPT.clone()
    }

    fn parse(text: &str) -> Result<Script, ScriptError> {
        let mut happenings: Vec<Happening> = Vec::new();
        let mut events: Vec<Vec<&str>> = Vec::new();
        let mut starts = Vec::new();
        let mut borders = Vec::new();
        let mut base: Option<usize> = None;
        for (place, line) in text.lines().enumerate() {
            let fail = |what| ScriptError {
                line: place + 1,
                what,
            };
            if !line.contains('\t') && !line.starts_with(['|', '*']) {
                if line.starts_with('#') {
                    continue;
                }
                if let Some(rest) = line.strip_prefix("call ") {
                    let (_, weight) = rest.split_once(' ').ok_or_else(|| fail("no weight"))?;
                    let weight = weight.parse().map_err(|_| fail("bad weight"))?;
                    happenings.push(Happening {
                        weight,
                        ..Happening::default()
                    });
                    borders.push(events.len());
                    continue;
                }
                if let Some(rest) = line.strip_prefix("event") {
                    base = match rest.trim() {
                        "" => None,
                        number => Some(number.parse().map_err(|_| fail("bad event number"))?),
                    };
                    events.push(Vec::new());
                    starts.push(place + 1);
                    continue;
                }
                if let Some(range) = line.strip_prefix('=') {
                    let copied =
                        copied(&events, base, range).ok_or_else(|| fail("nothing to copy"))?;
                    events
                        .last_mut()
                        .ok_or_else(|| fail("no event"))?
                        .extend(copied);
                    continue;
                }
                return Err(fail("neither header nor instruction"));
            }
            events
                .last_mut()
                .ok_or_else(|| fail("header before the first event"))?
                .push(line);
        }
        let mut events = events.iter().zip(starts);
        let sizes = borders
            .iter()
            .zip(borders.iter().copied().skip(1).chain([events.len()]));
        for (happening, (start, end)) in happenings.iter_mut().zip(sizes) {
            let mut named = HashSet::new();
            for (lines, line) in events.by_ref().take(end - start) {
                let template = Template::read(lines, &mut happening.needs, &mut named);
                happening.events.push(template.ok_or(ScriptError {
                    line,
                    what: "an event that makes no sense",
                })?);
            }
        }
        Ok(Script { happenings })
    }
}

fn copied<'a>(events: &[Vec<&'a str>], base: Option<usize>, range: &str) -> Option<Vec<&'a str>> {
    let (from, to) = range.split_once('-').unwrap_or((range, range));
    let (from, to): (usize, usize) = (from.parse().ok()?, to.parse().ok()?);
    Some(events.get(base?)?.get(from..=to)?.to_vec())
}

#[cfg(test)]
mod tests {
    use super::Script;

    #[test]
    fn the_script_is_well_formed() {
        let script = Script::shared().unwrap();
        let events: usize = script
            .happenings
            .iter()
            .map(|happening| happening.events.len())
            .sum();
        assert!(events > 500, "only {events} events");
        for happening in &script.happenings {
            assert!(happening.weight > 0, "it never happens");
            assert!(!happening.events.is_empty(), "nothing happens");
        }
    }

    #[test]
    fn a_mistake_names_its_line() {
        let error = Script::parse("call x 1\nevent 9\n=0\n").unwrap_err();
        assert_eq!(error.to_string(), "calls.txt line 3: nothing to copy");
    }
}
