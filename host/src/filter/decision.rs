//! Checks what a filter answered. Nothing that the contract forbids gets past here, and nothing of a bad answer is applied.

use super::guest::bindings::jackfield::filter::types;
use super::instance::Failure;
use super::refusal::short;

/// Changes to one event in one call.
const MAX_EDITS: usize = 1_024;
/// Events derived in one call.
const MAX_DERIVED: usize = 256;
/// Events derived of one input, by all filters: what they multiply ends here.
const MAX_DERIVED_OF_INPUT: usize = 1_024;
/// Bytes of text in all answers to one input. An event of FreeSWITCH has some ten thousand.
const MAX_TEXT_OF_INPUT: usize = 1 << 20;
/// Streams that one event goes to.
const MAX_STREAMS: usize = 16;
/// Bytes of a header's name, a stream's name, an event's name.
const MAX_NAME: usize = 512;
/// Bytes of a reason.
const MAX_REASON: usize = 128;

/// The streams that a filter may name: whole names, or beginnings that end in `*`.
#[derive(Clone, Debug)]
pub(super) struct AllowedStreams(pub(super) Vec<String>);

impl AllowedStreams {
    fn check(&self, stream: &str) -> Result<(), Failure> {
        if stream.is_empty() || stream.len() > MAX_NAME || stream.chars().any(char::is_control) {
            return bad(format!(
                "stream name {stream:?} is empty, too long or has control characters"
            ));
        }
        if !self.0.iter().any(|pattern| covers(pattern, stream)) {
            return bad(format!(
                "stream {stream:?} is not allowed (filters.streams = {:?})",
                self.0
            ));
        }
        Ok(())
    }

    fn check_all(&self, streams: &[String]) -> Result<(), Failure> {
        if streams.len() > MAX_STREAMS {
            return bad(format!(
                "{} streams for one event; at most {MAX_STREAMS} are allowed",
                streams.len()
            ));
        }
        streams.iter().try_for_each(|stream| self.check(stream))
    }
}

pub(super) fn check(decision: &types::Decision, allowed: &AllowedStreams) -> Result<(), Failure> {
    match &decision.verdict {
        types::Verdict::Pass => {}
        types::Verdict::Drop(reason) | types::Verdict::DeadLetter(reason) => check_reason(reason)?,
        types::Verdict::Route(streams) if streams.is_empty() => {
            return bad("route([]) names no stream; say drop with a reason instead".to_owned());
        }
        types::Verdict::Route(streams) => allowed.check_all(streams)?,
    }
    if decision.edits.len() > MAX_EDITS {
        return bad(format!(
            "{} edits; at most {MAX_EDITS} are allowed",
            decision.edits.len()
        ));
    }
    for edit in &decision.edits {
        match edit {
            types::Edit::Set(header) => check_name("header", &header.name)?,
            types::Edit::Keep(names) if names.len() > MAX_EDITS => {
                return bad(format!(
                    "keep of {} names; at most {MAX_EDITS} are allowed",
                    names.len()
                ));
            }
            types::Edit::Keep(_) | types::Edit::Remove(_) | types::Edit::Body(_) => {}
        }
    }
    check_derived(&decision.emit, allowed)
}

pub(super) fn check_derived(
    derived: &[types::Derived],
    allowed: &AllowedStreams,
) -> Result<(), Failure> {
    if derived.len() > MAX_DERIVED {
        return bad(format!(
            "{} derived events; at most {MAX_DERIVED} are allowed",
            derived.len()
        ));
    }
    for event in derived {
        check_name("event", &event.name)?;
        event
            .headers
            .iter()
            .try_for_each(|header| check_name("header", &header.name))?;
        allowed.check_all(&event.streams)?;
    }
    Ok(())
}

/// What all filters together may still make of one input, or of one tick: it bounds the memory that an input can take.
#[derive(Debug)]
pub(super) struct Allowance {
    derived: usize,
    text: usize,
}

impl Allowance {
    pub(super) fn of_one_input() -> Allowance {
        Allowance {
            derived: MAX_DERIVED_OF_INPUT,
            text: MAX_TEXT_OF_INPUT,
        }
    }

    /// Takes what this answer needs, or says what is too much.
    pub(super) fn take(&mut self, decision: &types::Decision) -> Result<(), Failure> {
        let edits: usize = decision.edits.iter().map(edit_text).sum();
        self.take_some(decision.emit.len(), edits + derived_text(&decision.emit))
    }

    pub(super) fn take_derived(&mut self, derived: &[types::Derived]) -> Result<(), Failure> {
        self.take_some(derived.len(), derived_text(derived))
    }

    fn take_some(&mut self, derived: usize, text: usize) -> Result<(), Failure> {
        let Some(derived) = self.derived.checked_sub(derived) else {
            return bad(format!(
                "over {MAX_DERIVED_OF_INPUT} derived events of one input"
            ));
        };
        let Some(text) = self.text.checked_sub(text) else {
            return bad(format!(
                "over {MAX_TEXT_OF_INPUT} bytes of text of one input"
            ));
        };
        *self = Allowance { derived, text };
        Ok(())
    }
}

fn edit_text(edit: &types::Edit) -> usize {
    match edit {
        types::Edit::Set(header) => header.name.len() + header.value.len(),
        types::Edit::Remove(name) => name.len(),
        types::Edit::Keep(names) => names.iter().map(String::len).sum(),
        types::Edit::Body(body) => body.len(),
    }
}

fn derived_text(derived: &[types::Derived]) -> usize {
    let text = |event: &types::Derived| {
        let headers = event.headers.iter();
        let headers: usize = headers
            .map(|header| header.name.len() + header.value.len())
            .sum();
        event.name.len() + headers + event.body.as_ref().map_or(0, String::len)
    };
    derived.iter().map(text).sum()
}

/// Whether a whole name, or a beginning that ends in `*`, means this one.
pub(super) fn covers(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => pattern == name,
    }
}

fn check_reason(reason: &str) -> Result<(), Failure> {
    if reason.is_empty() || reason.len() > MAX_REASON {
        return bad(format!(
            "a reason of {} bytes; 1 to {MAX_REASON} are allowed",
            reason.len()
        ));
    }
    if reason.chars().any(char::is_control) {
        return bad(format!("reason {reason:?} has control characters"));
    }
    Ok(())
}

fn check_name(what: &str, name: &str) -> Result<(), Failure> {
    if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
        let shown: String = name.chars().take(64).collect();
        return bad(format!(
            "{what} name {shown:?} is empty, over {MAX_NAME} bytes or has control characters"
        ));
    }
    Ok(())
}

fn bad(what: String) -> Result<(), Failure> {
    Err(Failure::BadOutput(short(what)))
}

#[cfg(test)]
mod tests {
    use super::{AllowedStreams, check, types};

    fn decision(verdict: types::Verdict) -> types::Decision {
        types::Decision {
            verdict,
            edits: Vec::new(),
            emit: Vec::new(),
        }
    }

    fn problem(decision: &types::Decision) -> Option<String> {
        let allowed = AllowedStreams(vec!["freeswitch:*".to_owned(), "calls".to_owned()]);
        check(decision, &allowed)
            .err()
            .map(|failure| failure.to_string())
    }

    fn route(streams: &[&str]) -> types::Decision {
        decision(types::Verdict::Route(
            streams.iter().map(ToString::to_string).collect(),
        ))
    }

    #[test]
    fn what_the_contract_allows_passes() {
        assert_eq!(problem(&decision(types::Verdict::Pass)), None);
        assert_eq!(
            problem(&decision(types::Verdict::Drop("noise".to_owned()))),
            None
        );
        assert_eq!(problem(&route(&["freeswitch:x", "calls"])), None);
    }

    #[test]
    fn what_the_contract_forbids_is_named() {
        for (decision, part) in [
            (route(&[]), "route([]) names no stream"),
            (route(&["callsX"]), "stream \"callsX\" is not allowed"),
            (route(&["freeswitch:a\nb"]), "control characters"),
            (route(&["calls"; 17]), "17 streams"),
            (
                decision(types::Verdict::Drop(String::new())),
                "a reason of 0 bytes",
            ),
            (
                decision(types::Verdict::DeadLetter("x".repeat(200))),
                "a reason of 200 bytes",
            ),
        ] {
            let problem = problem(&decision).unwrap_or_default();
            assert!(problem.contains(part), "{problem:?} should say {part:?}");
        }
        let header = |name: &str| {
            types::Edit::Set(types::Header {
                name: name.to_owned(),
                value: "x".to_owned(),
            })
        };
        for name in ["", "a\r\nb", "a\0"] {
            let forged = types::Decision {
                edits: vec![header(name)],
                ..decision(types::Verdict::Pass)
            };
            assert!(
                problem(&forged).unwrap_or_default().contains("header name"),
                "{name:?}"
            );
        }
        let many = types::Decision {
            edits: vec![header("a"); 2_000],
            ..decision(types::Verdict::Pass)
        };
        assert!(problem(&many).unwrap_or_default().contains("2000 edits"));
    }
}
