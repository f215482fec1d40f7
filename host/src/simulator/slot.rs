//! The slots in the values of a script, and the text around them.
//!
//! Reads the notation of `calls.txt`: slots in guillemets, bytes after backslashes.

/// A part of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Literal(Vec<u8>),
    Slot(Slot),
}

/// Something that is filled in when the event is fired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    CoreUuid,
    Switchname,
    Local,
    Gmt,
    Micros,
    Sequence,
    LateLocal,
    LateGmt,
    LateMicros,
    LateSequence(usize),
    Uuid(usize),
    Moment(usize, Unit),
    Between(usize, usize, Unit),
    Session(usize),
    Number,
    Dialed(usize),
}

/// How a moment or a span is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Micros,
    Millis,
    Seconds,
    Date,
}

/// How many values of each kind the slots of a happening name.
#[derive(Debug, Default, Clone)]
pub(super) struct Needs {
    pub(super) uuids: usize,
    pub(super) moments: usize,
    pub(super) sessions: usize,
    pub(super) dialed: usize,
    /// Events that are numbered at the start of the call and fired later.
    pub(super) late: usize,
}

impl Needs {
    /// Makes sure that there is a value for the slot.
    pub(super) fn note(&mut self, slot: Slot) {
        let reach = |count: &mut usize, index: usize| *count = (*count).max(index + 1);
        match slot {
            Slot::Uuid(index) => reach(&mut self.uuids, index),
            Slot::Session(index) => reach(&mut self.sessions, index),
            Slot::Dialed(index) => reach(&mut self.dialed, index),
            _ => {
                for moment in slot.moments().into_iter().flatten() {
                    reach(&mut self.moments, moment);
                }
            }
        }
    }
}

impl Slot {
    /// The moments that the slot shows.
    pub(super) fn moments(self) -> [Option<usize>; 2] {
        match self {
            Slot::Moment(moment, _) => [Some(moment), None],
            Slot::Between(end, start, _) => [Some(end), Some(start)],
            _ => [None, None],
        }
    }

    fn named(name: &str) -> Option<Slot> {
        let (kind, rest) = name.split_at_checked(1)?;
        Some(match kind {
            "u" => Slot::Uuid(rest.parse().ok()?),
            "s" => Slot::Session(rest.parse().ok()?),
            "d" => Slot::Dialed(rest.parse().ok()?),
            "n" if rest.is_empty() => Slot::Number,
            "t" => {
                let digits = rest.trim_end_matches(|c: char| c.is_ascii_alphabetic());
                let unit = match rest.strip_prefix(digits)? {
                    "" | "u" => Unit::Micros,
                    "m" => Unit::Millis,
                    "s" => Unit::Seconds,
                    "d" => Unit::Date,
                    _ => return None,
                };
                match digits.split_once("-t") {
                    Some((end, start)) => {
                        Slot::Between(end.parse().ok()?, start.parse().ok()?, unit)
                    }
                    None => Slot::Moment(digits.parse().ok()?, unit),
                }
            }
            _ => return None,
        })
    }
}

/// A value, taken apart. `None` if a slot in it is not known.
pub(super) fn pieces(text: &str) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    for (place, part) in text.split('«').enumerate() {
        let literal = if place == 0 {
            part
        } else {
            let (name, literal) = part.split_once('»')?;
            pieces.push(Piece::Slot(Slot::named(name)?));
            literal
        };
        if !literal.is_empty() {
            pieces.push(Piece::Literal(unescaped(literal)));
        }
    }
    Some(pieces)
}

/// The bytes that a text of the script stands for.
pub(super) fn unescaped(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let (decoded, after) = match (byte, after) {
            (b'\\', [b'n', after @ ..]) => (b'\n', after),
            (b'\\', [b't', after @ ..]) => (b'\t', after),
            (b'\\', [b'\\', after @ ..]) => (b'\\', after),
            (b'\\', [b'x', high, low, after @ ..]) => (hex(*high) << 4 | hex(*low), after),
            _ => (byte, after),
        };
        out.push(decoded);
        rest = after;
    }
    out
}

fn hex(digit: u8) -> u8 {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{Piece, Slot, Unit, pieces};

    #[test]
    fn slots_and_escapes_are_found_in_a_value() {
        let found = pieces("a\\n\\xE9«u12»b«t3-t1m»").unwrap();
        let expected = [
            Piece::Literal(b"a\n\xE9".to_vec()),
            Piece::Slot(Slot::Uuid(12)),
            Piece::Literal(b"b".to_vec()),
            Piece::Slot(Slot::Between(3, 1, Unit::Millis)),
        ];
        assert_eq!(found, expected);
        assert!(
            pieces("«nosuch»").is_none() && pieces("«u").is_none(),
            "mistakes are seen"
        );
    }
}
