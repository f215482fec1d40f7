//! What is known to be in Redis: up to which LSN, and the newest entry of each stream.
//!
//! The pipeline keeps it as a mark in the journal, so that a host that starts anew notices that Redis came back with less.
//! The encoding has a version; a mark of another version is no mark. Pure.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::sync::Arc;

use crate::journal::Lsn;

/// Streams that are remembered: more would be no better evidence, and filters may name any number.
const MAX_STREAMS: usize = 1_000;
/// The first byte of the encoding.
const VERSION: u8 = 1;

/// The id of a stream entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryId {
    /// Milliseconds since the epoch by Redis' clock.
    pub ms: u64,
    /// Tells the entries of one millisecond apart.
    pub sequence: u64,
}

impl EntryId {
    /// Stands for an entry that was written but whose id is not known; Redis never gives this id.
    pub const UNKNOWN: EntryId = EntryId { ms: 0, sequence: 0 };

    /// Reads `<ms>-<sequence>`.
    pub fn parse(text: &[u8]) -> Option<EntryId> {
        let (ms, sequence) = std::str::from_utf8(text).ok()?.split_once('-')?;
        Some(EntryId {
            ms: ms.parse().ok()?,
            sequence: sequence.parse().ok()?,
        })
    }
}

impl Display for EntryId {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.sequence)
    }
}

/// What is known to be in Redis. It goes down when Redis comes back with less.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acknowledged {
    /// Everything up to here is in Redis; 0 if nothing ever was.
    pub lsn: Lsn,
    /// The last entry that was acknowledged in each stream, or [`EntryId::UNKNOWN`].
    pub ids: BTreeMap<Arc<str>, EntryId>,
}

impl Acknowledged {
    /// An entry of this stream was acknowledged.
    pub(super) fn remember(&mut self, stream: &str, id: EntryId) {
        if let Some(last) = self.ids.get_mut(stream) {
            *last = id;
        } else if self.ids.len() < MAX_STREAMS {
            self.ids.insert(stream.into(), id);
        }
    }

    /// An entry of this stream is in Redis, but its id was never seen.
    pub(super) fn remember_stream(&mut self, stream: &str) {
        if !self.ids.contains_key(stream) {
            self.remember(stream, EntryId::UNKNOWN);
        }
    }

    /// The streams are older than was remembered: all that is still known is that they exist.
    pub(super) fn forget_ids(&mut self) {
        for id in self.ids.values_mut() {
            *id = EntryId::UNKNOWN;
        }
    }

    /// The payload of a mark.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend(self.lsn.to_le_bytes());
        for (stream, id) in &self.ids {
            // A longer name is not worth a wider field: it is merely not remembered.
            let Ok(length) = u16::try_from(stream.len()) else {
                continue;
            };
            bytes.extend(length.to_le_bytes());
            bytes.extend(stream.as_bytes());
            bytes.extend(id.ms.to_le_bytes());
            bytes.extend(id.sequence.to_le_bytes());
        }
        bytes
    }

    /// Reads a mark's payload; `None` if it is of another version or damaged.
    pub fn decode(mut bytes: &[u8]) -> Option<Acknowledged> {
        let (&version, rest) = bytes.split_first()?;
        if version != VERSION {
            return None;
        }
        bytes = rest;
        let mut acknowledged = Acknowledged {
            lsn: number(&mut bytes)?,
            ids: BTreeMap::new(),
        };
        while !bytes.is_empty() {
            let (length, rest) = bytes.split_first_chunk()?;
            let (stream, rest) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
            bytes = rest;
            let id = EntryId {
                ms: number(&mut bytes)?,
                sequence: number(&mut bytes)?,
            };
            acknowledged.remember(std::str::from_utf8(stream).ok()?, id);
        }
        Some(acknowledged)
    }
}

fn number(bytes: &mut &[u8]) -> Option<u64> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::{Acknowledged, EntryId, MAX_STREAMS};

    fn acknowledged() -> Acknowledged {
        let mut acknowledged = Acknowledged {
            lsn: (1 << 40) + 7,
            ..Acknowledged::default()
        };
        acknowledged.remember("a", EntryId { ms: 5, sequence: 1 });
        acknowledged.remember(
            "ü",
            EntryId {
                ms: u64::MAX,
                sequence: 0,
            },
        );
        acknowledged
    }

    #[test]
    fn a_mark_is_read_back_and_a_damaged_one_is_none() {
        let bytes = acknowledged().encode();
        assert_eq!(Acknowledged::decode(&bytes), Some(acknowledged()));
        let whole: Vec<usize> = (0..bytes.len())
            .filter(|end| Acknowledged::decode(&bytes[..*end]).is_some())
            .collect();
        assert_eq!(whole, [9, 28], "a cut is only taken between two streams");
        assert_eq!(
            Acknowledged::decode(&[2, 0, 0, 0, 0, 0, 0, 0, 0]),
            None,
            "another version"
        );
    }

    #[test]
    fn streams_are_bounded_and_known_ones_go_on() {
        let mut acknowledged = acknowledged();
        for stream in 0..2 * MAX_STREAMS {
            acknowledged.remember(&stream.to_string(), EntryId::UNKNOWN);
        }
        assert_eq!(acknowledged.ids.len(), MAX_STREAMS);
        let id = EntryId { ms: 9, sequence: 9 };
        acknowledged.remember("a", id);
        assert_eq!(acknowledged.ids.get("a"), Some(&id));
        acknowledged.remember_stream("a");
        assert_eq!(
            acknowledged.ids.get("a"),
            Some(&id),
            "a known id is not forgotten"
        );
    }

    #[test]
    fn entry_ids_are_ordered_as_redis_orders_them() {
        let id = |text: &str| EntryId::parse(text.as_bytes()).unwrap();
        assert!(id("9-10") > id("9-9") && id("10-0") > id("9-10"));
        assert_eq!(id("9-10").to_string(), "9-10");
        for wrong in ["", "-", "1", "1-", "-1", "1-x"] {
            assert_eq!(EntryId::parse(wrong.as_bytes()), None, "{wrong:?}");
        }
    }
}
