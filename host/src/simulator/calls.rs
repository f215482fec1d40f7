//! A call that goes on: which event of the script comes next, and the values of its slots.

use std::borrow::Cow;
use std::sync::Arc;

use super::encode::{self, Format};
use super::random::{Random, Uuid};
use super::script::{Happening, Script};
use super::slot::{Needs, Piece, Slot, Unit};
use super::stamp::{Date, Stamp};
use super::template::Template;

/// A running call.
#[derive(Debug)]
pub(super) struct Call {
    script: Arc<Script>,
    happening: usize,
    next: usize,
    values: Values,
}

/// What the slots of one call hold.
#[derive(Debug)]
struct Values {
    begun: Stamp,
    uuids: Vec<Uuid>,
    /// Microseconds; 0 until an event names the moment.
    moments: Vec<u64>,
    sessions: Vec<u64>,
    late: Vec<u64>,
    number: String,
    dialed: Vec<String>,
}

/// What the whole switch knows and an event shows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now<'a> {
    pub(super) core_uuid: &'a str,
    pub(super) switchname: &'a str,
    pub(super) stamp: &'a Stamp,
    pub(super) sequence: u64,
}

/// An event of a call, ready to be written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scripted<'a> {
    pub(super) template: &'a Template,
    call: &'a Call,
    now: Now<'a>,
}

impl Call {
    /// Chooses what happens and makes its values. `sequence` gives out the numbers of the events that are numbered ahead.
    pub(super) fn begin(
        script: &Arc<Script>,
        random: &mut Random,
        stamp: &Stamp,
        session: &mut u64,
        mut sequence: impl FnMut() -> u64,
    ) -> Option<Call> {
        let weights: u64 = script
            .happenings
            .iter()
            .map(|happening| happening.weight)
            .sum();
        let mut choice = random.below(weights);
        let happening = script.happenings.iter().position(|happening| {
            let chosen = choice < happening.weight;
            choice = choice.saturating_sub(happening.weight);
            chosen
        })?;
        let Needs {
            uuids,
            moments,
            sessions,
            dialed,
            late,
        } = script.happenings.get(happening)?.needs.clone();
        let values = Values {
            begun: stamp.clone(),
            uuids: (0..uuids).map(|_| random.uuid()).collect(),
            moments: vec![0; moments],
            sessions: (0..sessions)
                .map(|_| {
                    *session += 1;
                    *session
                })
                .collect(),
            late: (0..late).map(|_| sequence()).collect(),
            number: format!("+1555{:07}", random.below(10_000_000)),
            dialed: (0..dialed)
                .map(|_| (1000 + random.below(9000)).to_string())
                .collect(),
        };
        Some(Call {
            script: Arc::clone(script),
            happening,
            next: 0,
            values,
        })
    }

    fn happening(&self) -> Option<&Happening> {
        self.script.happenings.get(self.happening)
    }

    /// Whether the next event has its number already.
    pub(super) fn next_is_late(&self) -> bool {
        let next = self
            .happening()
            .and_then(|happening| happening.events.get(self.next));
        next.is_some_and(|template| template.late.is_some())
    }

    /// Moves on by one event.
    pub(super) fn advance<'a>(&'a mut self, now: Now<'a>) -> Option<Scripted<'a>> {
        let place = self.next;
        self.next += 1;
        let template = self
            .script
            .happenings
            .get(self.happening)?
            .events
            .get(place)?;
        for moment in &template.moments {
            if let Some(value) = self.values.moments.get_mut(*moment) {
                *value = now.stamp.micros;
            }
        }
        let number = template.late.and_then(|late| self.values.late.get(late));
        let now = Now {
            sequence: number.copied().unwrap_or(now.sequence),
            ..now
        };
        Some(Scripted {
            template,
            call: self,
            now,
        })
    }

    pub(super) fn is_over(&self) -> bool {
        self.happening()
            .is_none_or(|happening| self.next >= happening.events.len())
    }
}

impl Scripted<'_> {
    /// The whole event in one format.
    pub(super) fn render(&self, format: Format, out: &mut Vec<u8>) {
        for segment in self.template.segments(format) {
            out.extend_from_slice(&segment.literal);
            if let Some(slot) = segment.slot {
                let text = self.slot(slot);
                match format {
                    Format::Json => encode::json_text(out, text.as_bytes()),
                    Format::Plain => encode::plain_text(out, text.as_bytes()),
                }
            }
        }
        encode::close(format, out, &self.text(&self.template.body));
    }

    /// The first value of a header, if the event has it.
    pub(super) fn first(&self, name: &[u8]) -> Option<Cow<'_, [u8]>> {
        match self.template.first(name)? {
            [Piece::Literal(text)] => Some(Cow::Borrowed(text)),
            pieces => Some(Cow::Owned(self.text(pieces))),
        }
    }

    fn text(&self, pieces: &[Piece]) -> Vec<u8> {
        let mut text = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Literal(literal) => text.extend_from_slice(literal),
                Piece::Slot(slot) => text.extend_from_slice(self.slot(*slot).as_bytes()),
            }
        }
        text
    }

    fn slot(&self, slot: Slot) -> Cow<'_, str> {
        let Now {
            core_uuid,
            switchname,
            stamp,
            ..
        } = self.now;
        let values = &self.call.values;
        let moment = |index: usize| values.moments.get(index).copied().unwrap_or(0);
        let number = |number: u64| Cow::Owned(number.to_string());
        match slot {
            Slot::CoreUuid => Cow::Borrowed(core_uuid),
            Slot::Switchname => Cow::Borrowed(switchname),
            Slot::Local => Cow::Borrowed(&stamp.local),
            Slot::Gmt => Cow::Borrowed(&stamp.gmt),
            Slot::Micros => number(stamp.micros),
            Slot::Sequence => number(self.now.sequence),
            Slot::LateLocal => Cow::Borrowed(&values.begun.local),
            Slot::LateGmt => Cow::Borrowed(&values.begun.gmt),
            Slot::LateMicros => number(values.begun.micros),
            Slot::LateSequence(index) => number(values.late.get(index).copied().unwrap_or(0)),
            Slot::Uuid(index) => {
                let uuid = values
                    .uuids
                    .get(index)
                    .and_then(|uuid| std::str::from_utf8(uuid).ok());
                Cow::Borrowed(uuid.unwrap_or_default())
            }
            Slot::Moment(index, Unit::Date) => {
                Cow::Owned(Date::at(moment(index) / 1_000_000).local())
            }
            Slot::Moment(index, unit) => number(unit.of(moment(index))),
            Slot::Between(end, start, Unit::Seconds) => {
                let seconds = |index| Unit::Seconds.of(moment(index));
                number(seconds(end).saturating_sub(seconds(start)))
            }
            Slot::Between(end, start, unit) => {
                number(unit.of(moment(end).saturating_sub(moment(start))))
            }
            Slot::Session(index) => number(values.sessions.get(index).copied().unwrap_or(0)),
            Slot::Number => Cow::Borrowed(&values.number),
            Slot::Dialed(index) => {
                Cow::Borrowed(values.dialed.get(index).map_or("", String::as_str))
            }
        }
    }
}

impl Unit {
    fn of(self, micros: u64) -> u64 {
        match self {
            Unit::Micros | Unit::Date => micros,
            Unit::Millis => micros / 1_000,
            Unit::Seconds => micros / 1_000_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::Value;
    use super::{Call, Format, Now, Random, Script, Stamp, encode};

    /// Plays every happening of the script to its end and hands each event to a check.
    fn play_all(mut check: impl FnMut(&super::Scripted<'_>)) {
        let script = Script::shared().unwrap();
        let stamp = Stamp::now();
        let (mut random, mut session, mut late) = (Random::new(1), 0, 0);
        let mut unseen: Vec<usize> = (0..script.happenings.len()).collect();
        while !unseen.is_empty() {
            let mut call = Call::begin(&script, &mut random, &stamp, &mut session, || {
                late += 1;
                late
            })
            .unwrap();
            unseen.retain(|happening| *happening != call.happening);
            while !call.is_over() {
                let now = Now {
                    core_uuid: "core",
                    switchname: "sim 1",
                    stamp: &stamp,
                    sequence: 7,
                };
                check(&call.advance(now).unwrap());
            }
        }
    }

    #[test]
    fn prepared_events_are_written_like_composed_ones() {
        play_all(|event| {
            let headers = event.template.headers.iter();
            let header = |header: &super::super::template::Header| {
                (header.name.clone(), Value::Text(event.text(&header.value)))
            };
            let headers: Vec<_> = headers.map(header).collect();
            let body = event.text(&event.template.body);
            for format in [Format::Plain, Format::Json] {
                let mut prepared = Vec::new();
                event.render(format, &mut prepared);
                let composed = encode::event(format, &headers, &body);
                assert_eq!(
                    String::from_utf8_lossy(&prepared),
                    String::from_utf8_lossy(&composed)
                );
            }
        });
    }

    #[test]
    fn every_moment_is_known_when_it_is_shown() {
        play_all(|event| {
            for header in &event.template.headers {
                let value = event.text(&header.value);
                let value = String::from_utf8_lossy(&value);
                assert!(
                    !value.contains("1970-01-01") && !value.contains('«'),
                    "{}: {value}",
                    String::from_utf8_lossy(&header.name)
                );
            }
        });
    }
}
