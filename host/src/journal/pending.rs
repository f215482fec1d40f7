//! What was appended and not yet written: encoded bytes, and where each record begins and ends.
//!
//! Does no I/O.

use std::ops::Range;

use bytes::Bytes;

use crate::journal::format::{HEAD, Head, Kind, Lsn, Record, push_record};

/// A buffer that grew beyond this for one write gives its memory back.
const KEEP_CAPACITY: usize = 4 << 20;

/// Records in the order in which they were appended.
#[derive(Debug, Default)]
pub(super) struct Pending {
    bytes: Vec<u8>,
    records: Vec<Placed>,
}

#[derive(Debug)]
struct Placed {
    head: Head,
    payload: usize,
    end: usize,
}

/// Some records that go into one segment in one write.
#[derive(Debug)]
pub(super) struct Piece {
    bytes: Range<usize>,
    records: Range<usize>,
}

/// What the journal's files hold, as far as later segments need it.
#[derive(Debug, Clone, Default)]
pub(super) struct Written {
    /// The last input.
    pub(super) last: Lsn,
    /// The newest mark.
    pub(super) mark: Option<Record>,
}

/// The highest numbers that are in the files, or may be because their write failed half way.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reach {
    /// Of an input.
    pub(super) last: Lsn,
    /// Of a decision, 0 for none.
    pub(super) decided: Lsn,
}

impl Reach {
    pub(super) fn max(self, other: Reach) -> Reach {
        Reach {
            last: self.last.max(other.last),
            decided: self.decided.max(other.decided),
        }
    }
}

impl Pending {
    pub(super) fn push(&mut self, head: Head, payload: &[u8]) {
        if !push_record(&mut self.bytes, &head, payload) {
            tracing::error!(
                lsn = head.lsn,
                bytes = payload.len(),
                "a record is too large for the journal"
            );
            return;
        }
        self.records.push(Placed {
            head,
            payload: payload.len(),
            end: self.bytes.len(),
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The bytes of all records.
    pub(super) fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The records, which nobody will write: they are taken out.
    pub(super) fn give_back(&mut self) -> Vec<Record> {
        let mut start = 0;
        let record = |placed: &Placed| {
            let payload = start + HEAD..start + HEAD + placed.payload;
            start = placed.end;
            let payload = self.bytes.get(payload).unwrap_or_default();
            Record {
                head: placed.head,
                payload: Bytes::copy_from_slice(payload),
            }
        };
        let records = self.records.iter().map(record).collect();
        self.clear();
        records
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.records.clear();
        if self.bytes.capacity() > KEEP_CAPACITY {
            self.bytes.shrink_to(KEEP_CAPACITY);
        }
    }

    /// The records after `last` that together take at most `capacity` bytes: at least one, or none if there is none left.
    pub(super) fn piece_after(&self, last: Option<&Piece>, capacity: u64) -> Option<Piece> {
        let (start, first) = last.map_or((0, 0), |piece| (piece.bytes.end, piece.records.end));
        let rest = self.records.get(first..)?;
        let fitting = rest.partition_point(|record| (record.end - start) as u64 <= capacity);
        let count = fitting.max(1);
        let end = rest.get(count - 1)?.end;
        Some(Piece {
            bytes: start..end,
            records: first..first + count,
        })
    }

    pub(super) fn bytes(&self, piece: &Piece) -> &[u8] {
        self.bytes.get(piece.bytes.clone()).unwrap_or_default()
    }

    /// The highest numbers in a piece.
    pub(super) fn reach(&self, piece: &Piece) -> Reach {
        let records = self.records.get(piece.records.clone()).unwrap_or_default();
        let mut reach = Reach::default();
        for Placed { head, .. } in records {
            if head.kind.is_input() {
                reach.last = reach.last.max(head.lsn);
            } else if head.kind == Kind::Decision {
                reach.decided = reach.decided.max(head.lsn);
            }
        }
        reach
    }

    /// Takes down that a piece is in the files now.
    pub(super) fn note(&self, piece: &Piece, written: &mut Written) {
        let records = self.records.get(piece.records.clone()).unwrap_or_default();
        let mut start = piece.bytes.start;
        for record in records {
            let head = record.head;
            match head.kind {
                Kind::Mark => {
                    let payload = start + HEAD..start + HEAD + record.payload;
                    let payload = self.bytes.get(payload).unwrap_or_default();
                    written.mark = Some(Record {
                        head,
                        payload: Bytes::copy_from_slice(payload),
                    });
                }
                kind if kind.is_input() => written.last = written.last.max(head.lsn),
                _ => {}
            }
            start = record.end;
        }
    }
}
