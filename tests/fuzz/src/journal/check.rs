//! What the journal says of its files, against what `layout` reads in them.

use std::path::Path;
use std::sync::Arc;

use jackfield::journal::{
    Disk, EPOCH, Found, Head, Item, Journal, JournalError, Kind, Lsn, Reader, Record, SegmentFile,
};

use super::DIR;
use super::disk::MemoryDisk;
use super::layout::{NUMBERS, Placed, Segment, decisions_after, inputs_after};

/// The readers give what is there, each record once and in order, from wherever one begins.
pub(super) fn readers(disk: &MemoryDisk, segments: &[Segment]) {
    if segments.iter().any(|segment| segment.is_unknown) {
        return;
    }
    let all = records(segments).filter(|record| record.is_known());
    let mut reader = Reader::all(shared(disk), Path::new(DIR));
    same(&read(&mut reader), all);
    let damaged: usize = segments.iter().map(|segment| segment.damage.len()).sum();
    assert_eq!(reader.quarantined(), damaged as u64, "damaged places");

    let numbers: Vec<Lsn> = records(segments).map(|record| record.lsn).collect();
    let last = numbers.iter().copied().max().unwrap_or_default();
    let border = segments.last().map_or(0, |segment| segment.number);
    let before = |number: Lsn, count| number.saturating_sub(count);
    let places = [
        0,
        before(last, 1),
        last,
        before(border, 2),
        before(border, 1),
    ];
    let middle = numbers.get(numbers.len() / 2).copied();
    for after in places.into_iter().chain(middle) {
        let mut reader = Reader::inputs_after(shared(disk), Path::new(DIR), after);
        same(&read(&mut reader), inputs_after(segments, after));
        let (decisions, again) = decisions_after(segments, after);
        let mut reader = Reader::decisions_after(shared(disk), Path::new(DIR), after);
        same(&read(&mut reader), decisions);
        let mut reader = Reader::decided_again_after(shared(disk), Path::new(DIR), after);
        same(&read(&mut reader), again);
    }
}

fn read(reader: &mut Reader) -> Vec<Record> {
    let mut records = Vec::new();
    while let Some(record) = reader.next().expect("a segment can be read") {
        records.push(record);
    }
    assert_eq!(
        reader.next().expect("a segment can be read"),
        None,
        "the end is the end"
    );
    records
}

fn same<'a>(read: &[Record], placed: impl IntoIterator<Item = &'a Placed>) {
    let mut placed = placed.into_iter();
    for record in read {
        let expected = placed.next();
        let is_same = expected.is_some_and(|placed| is(&record.head, &record.payload, placed));
        assert!(is_same, "{record:?} where {expected:?} is next");
    }
    let missing = placed.next();
    assert!(missing.is_none(), "{missing:?} is not read");
}

fn is(head: &Head, payload: &[u8], placed: &Placed) -> bool {
    let kind = match placed.kind {
        1 => Kind::Json,
        2 => Kind::Plain,
        3 => Kind::Tick,
        4 => Kind::Internal,
        5 => Kind::Replay,
        16 => Kind::Decision,
        17 => Kind::Mark,
        18 => Kind::Router,
        _ => return false,
    };
    let expected = Head {
        lsn: placed.lsn,
        kind,
        at_us: placed.at_us,
        connection: placed.connection,
        offset: placed.offset,
    };
    *head == expected && payload == placed.payload
}

/// What people are shown of each segment is how it lies there.
pub(super) fn inspections(disk: &MemoryDisk, segments: &[Segment]) {
    let files = SegmentFile::all(disk, Path::new(DIR)).expect("a folder");
    assert!(
        files
            .iter()
            .map(|file| file.number)
            .eq(segments.iter().map(|segment| segment.number))
    );
    for (file, segment) in files
        .iter()
        .zip(segments)
        .filter(|(_, segment)| !segment.is_unknown)
    {
        let mut inspection = file.open(disk).expect("readable").expect("it is there");
        let opening = inspection
            .opening()
            .expect("readable")
            .map(|opening| (opening.first, opening.router));
        let header = segment
            .header
            .as_ref()
            .map(|header| (header.first, header.router.clone()));
        assert_eq!(opening, header, "the header of {}", file.name());
        let (mut records, mut damage) = (segment.records.iter(), segment.damage.iter());
        while let Some(item) = inspection.next().expect("readable") {
            match item {
                Item::Record {
                    position,
                    head,
                    payload,
                } => {
                    let placed = records.next().expect("no more records than there are");
                    assert!(is(&head, payload, placed), "{head:?} where {placed:?} lies");
                    assert_eq!(position, placed.position as u64);
                }
                Item::Unknown => {
                    let placed = records.next().expect("no more records than there are");
                    assert!(!placed.is_known(), "{placed:?} is known");
                }
                Item::Damaged(bytes) => {
                    let place = damage.next().expect("no more damage than there is");
                    assert_eq!(bytes, place.start as u64..place.end as u64);
                }
            }
        }
        assert!(
            records.next().is_none() && damage.next().is_none(),
            "all of {} is shown",
            file.name()
        );
        assert_eq!(
            inspection.used(),
            segment.end as u64,
            "where {} ends",
            file.name()
        );
        assert_eq!(
            inspection.unfinished().expect("readable"),
            segment.torn as u64
        );
    }
}

/// An open refuses what a person must settle, and nothing else.
pub(super) fn refused(error: &JournalError, before: &[Segment]) {
    match error {
        JournalError::UnknownVersion { .. } => {
            assert!(before.iter().any(|segment| segment.is_unknown), "{error}");
        }
        JournalError::Unwritable { .. } => {
            let highest = highest(before);
            assert!(
                next_epoch(highest) >= NUMBERS,
                "{error} although numbers are left after {highest:x}"
            );
        }
        _ => panic!("{error}"),
    }
}

/// What an open made of the files that were there `before`.
pub(super) fn opened(journal: &Journal, found: &Found, before: &[Segment]) {
    assert!(
        !before.iter().any(|segment| segment.is_unknown),
        "a newer version is left alone"
    );
    let first = journal.first();
    assert_eq!(first % EPOCH, 0, "an epoch begins");
    assert!(first < NUMBERS, "{first:x} is nobody's number");
    for segment in before {
        assert!(first > segment.number, "{first:x} was in the folder");
    }
    let lsns = |segment: &Segment| {
        let known = segment.records.iter().filter(|record| record.is_known());
        known.map(|record| record.lsn).max().unwrap_or_default()
    };
    let newest = before.last().map_or(0, lsns);
    assert!(first > newest, "{first:x} is not above {newest:x}");
    if are_in_order(before) {
        let highest = highest(before);
        assert!(first > highest, "{first:x} is not above {highest:x}");
        let last = records(before)
            .filter(|record| record.is_input())
            .map(|record| record.lsn)
            .max();
        assert_eq!(found.last, last.unwrap_or_default(), "the last input");
    }
    let decided = |segment: &Segment| {
        let decisions = segment.records.iter().filter(|record| record.is_decision());
        decisions.map(|record| record.lsn).max().unwrap_or_default()
    };
    assert!(
        found.decided >= before.last().map_or(0, decided),
        "the last decision"
    );
    let mark = records(before).filter(|record| record.is_mark()).last();
    let found = found.mark.as_ref();
    assert_eq!(found.is_some(), mark.is_some(), "the newest mark");
    if let (Some(found), Some(mark)) = (found, mark) {
        assert!(
            is(&found.head, &found.payload, mark),
            "{found:?} where {mark:?} is the newest"
        );
    }
}

/// The inputs and decisions that were there before are there still.
pub(super) fn spared(before: &[Segment], after: &[Segment]) {
    let kept = |record: &&Placed| record.is_input() || record.is_decision();
    let (mut after, before) = (records(after).filter(kept), records(before).filter(kept));
    for record in before {
        let next = after.next();
        let same = next.is_some_and(|next| {
            (next.kind, next.lsn, &next.payload) == (record.kind, record.lsn, &record.payload)
        });
        assert!(same, "{record:?} is gone, {next:?} is next");
    }
    assert_eq!(after.next(), None, "nothing appears");
}

/// Every record of a segment is below the next segment's number, as a journal writes them.
pub(super) fn are_in_order(segments: &[Segment]) -> bool {
    segments.windows(2).all(|pair| match pair {
        [one, next] => one.records.iter().all(|record| record.lsn < next.number),
        _ => true,
    })
}

/// Every input of a segment is below what the headers of later ones say they begin with, as a journal writes them.
pub(super) fn are_headers_true(segments: &[Segment]) -> bool {
    let mut first = Lsn::MAX;
    segments.iter().rev().all(|segment| {
        let is_true = segment
            .records
            .iter()
            .all(|record| !record.is_input() || record.lsn < first);
        first = first.min(
            segment
                .header
                .as_ref()
                .map_or(segment.number, |header| header.first),
        );
        is_true
    })
}

/// The highest number that is in the folder.
pub(super) fn highest(segments: &[Segment]) -> Lsn {
    let known = records(segments).filter(|record| record.is_known());
    let numbers = segments.iter().map(|segment| segment.number);
    numbers
        .chain(known.map(|record| record.lsn))
        .max()
        .unwrap_or_default()
}

fn next_epoch(number: Lsn) -> Lsn {
    (number / EPOCH + 1) * EPOCH
}

pub(super) fn records(segments: &[Segment]) -> impl Iterator<Item = &Placed> {
    segments.iter().flat_map(|segment| &segment.records)
}

fn shared(disk: &MemoryDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}
