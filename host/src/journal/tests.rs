//! The journal on a real disk, and the cases that deserve a name of their own.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use proptest::prelude::{any, prop, proptest};

use crate::config;
use crate::journal::faults::{Call, FaultyDisk};
use crate::journal::format::EPOCH;
use crate::journal::{
    Disk, Journal, JournalError, Kind, Lsn, Reader, RealDisk, Record, SegmentFile,
};

const EIO: i32 = 5;

fn settings(dir: &Path, sync: config::Sync) -> config::Journal {
    config::Journal {
        dir: dir.to_owned(),
        max_size: 64 << 20,
        retain: Duration::from_secs(60),
        sync,
    }
}

fn open(dir: &Path) -> Journal {
    let settings = settings(dir, config::Sync::Interval);
    let (journal, _) = Journal::open(Arc::new(RealDisk), &settings, None).expect("a good folder");
    journal
}

fn event(journal: &mut Journal, payload: &[u8]) -> Lsn {
    journal.append(Kind::Json, 1, 2, 3, payload)
}

fn read(mut reader: Reader) -> Vec<Record> {
    let mut records = Vec::new();
    while let Some(record) = reader.next().expect("readable") {
        records.push(record);
    }
    records
}

fn payloads(dir: &Path) -> Vec<Vec<u8>> {
    let records = read(Reader::inputs_after(Arc::new(RealDisk), dir, 0));
    records
        .iter()
        .map(|record| record.payload.to_vec())
        .collect()
}

/// Waits for what another thread does.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::yield_now();
    }
}

fn first_segment(dir: &Path) -> std::path::PathBuf {
    dir.join("0000010000000000.jnl")
}

#[test]
fn what_was_written_is_read_again_by_the_next_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("deep/journal");
    let mut journal = open(&dir);
    assert_eq!(journal.first(), EPOCH);
    assert!(journal.is_complete());
    let first = event(&mut journal, b"one");
    event(&mut journal, b"two");
    journal.decide(first, 9, b"passed");
    journal.mark(first, 10, b"acknowledged");
    journal.name_router("fs1");
    journal.write(0).expect("a good disk");
    let id = journal.id().to_owned();
    drop(journal);

    let settings = settings(&dir, config::Sync::Interval);
    let (journal, found) =
        Journal::open(Arc::new(RealDisk), &settings, Some("fs1")).expect("it is ours");
    assert_eq!(payloads(&dir), [b"one", b"two"]);
    assert_eq!((found.last, found.decided), (first + 1, first));
    let mark = found.mark.expect("the mark");
    assert_eq!(
        (mark.head.lsn, &mark.payload[..]),
        (first, &b"acknowledged"[..])
    );
    assert_eq!((journal.id(), journal.router()), (id.as_str(), Some("fs1")));
    assert_eq!(journal.first(), 2 * EPOCH, "a new epoch");
    let decisions = read(Reader::decisions_after(Arc::new(RealDisk), &dir, 0));
    assert_eq!(decisions.len(), 1, "the decision");
    assert_eq!(decisions[0].head.lsn, first);
}

#[test]
fn openings_without_events_leave_one_segment() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut journal = open(folder.path());
    journal.name_router("fs1");
    journal.mark(7, 1, b"mark");
    journal.write(0).expect("a good disk");
    journal.close();
    for open_again in 2..5 {
        let journal = open(folder.path());
        assert_eq!(journal.first(), open_again * EPOCH, "numbers go up");
        assert_eq!(journal.router(), Some("fs1"), "the name is kept");
        let files = RealDisk.list(folder.path()).expect("readable");
        assert_eq!(files.len(), 2, "a lock and a segment: {files:?}");
        journal.close();
    }
    let marks = read(Reader::all(Arc::new(RealDisk), folder.path()));
    assert_eq!(marks.len(), 1, "the mark is carried along");
}

#[test]
fn folder_and_files_are_for_their_owner_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("journal");
    let journal = open(&dir);
    let mode = |path: &Path| {
        let metadata = std::fs::metadata(path).expect("it is there");
        metadata.permissions().mode() & 0o777
    };
    assert_eq!(mode(&dir), 0o700);
    assert_eq!(mode(&first_segment(&dir)), 0o600);
    assert_eq!(mode(&dir.join("lock")), 0o600);
    drop(journal);
}

#[test]
fn a_second_open_is_refused_while_the_first_lives() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = open(folder.path());
    let settings = settings(folder.path(), config::Sync::Never);
    let second = Journal::open(Arc::new(RealDisk), &settings, None);
    assert!(matches!(second, Err(JournalError::Locked { dir }) if dir == folder.path()));
    drop(journal);
    Journal::open(Arc::new(RealDisk), &settings, None).expect("the lock went with its owner");
}

#[test]
fn another_routers_journal_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = settings(folder.path(), config::Sync::Never);
    let (journal, _) = Journal::open(Arc::new(RealDisk), &settings, Some("fs1")).expect("new");
    journal.close();
    let other = Journal::open(Arc::new(RealDisk), &settings, Some("fs2"));
    let Err(JournalError::OtherRouter { found, wanted, .. }) = other else {
        panic!("opened as another router");
    };
    assert_eq!((found.as_str(), wanted.as_str()), ("fs1", "fs2"));
    let (journal, _) = Journal::open(Arc::new(RealDisk), &settings, None).expect("no name asked");
    assert_eq!(journal.router(), Some("fs1"));
}

#[test]
fn a_newer_version_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    open(folder.path()).close();
    let path = first_segment(folder.path());
    let mut bytes = std::fs::read(&path).expect("readable");
    bytes[8] = 9;
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&path, bytes).expect("writable");
    let settings = settings(folder.path(), config::Sync::Never);
    let outcome = Journal::open(Arc::new(RealDisk), &settings, None);
    let Err(JournalError::UnknownVersion {
        path: named,
        version,
    }) = outcome
    else {
        panic!("opened what it cannot read");
    };
    assert_eq!((named, version), (path, 9));
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("file");
    std::fs::write(&dir, b"").expect("writable");
    let settings = settings(&dir, config::Sync::Never);
    let outcome = Journal::open(Arc::new(RealDisk), &settings, None);
    assert!(matches!(outcome, Err(JournalError::Unwritable { dir: named, .. }) if named == dir));
}

#[test]
fn a_cut_at_any_byte_costs_only_what_it_cut() {
    let disk = FaultyDisk::default();
    let settings = settings(Path::new("/journal"), config::Sync::Never);
    let whole = {
        let (mut journal, _) =
            Journal::open(Arc::new(disk.clone()), &settings, None).expect("a good disk");
        for payload in [&b"one"[..], b"the second", b"3"] {
            event(&mut journal, payload);
        }
        journal.write(0).expect("a good disk");
        journal.close();
        disk.content("0000010000000000.jnl")
    };
    // Header 64, records of 48 and their padded payloads.
    let ends = [64 + 56, 64 + 56 + 64, 64 + 56 + 64 + 56];
    for length in 0..whole.len() {
        let disk = FaultyDisk::default();
        let path = settings.dir.join("0000010000000000.jnl");
        let file = disk.create(&path, 0).expect("a new file");
        file.write_at(&whole[..length], 0).expect("a good disk");
        let (journal, found) = Journal::open(Arc::new(disk.clone()), &settings, None)
            .expect("a torn tail keeps nobody from opening");
        let left = read(Reader::inputs_after(
            Arc::new(disk.clone()),
            &settings.dir,
            0,
        ));
        // A record without its padding does not count as whole.
        let expected = ends.iter().filter(|end| **end <= length);
        assert_eq!(left.len(), expected.count(), "cut to {length} bytes");
        assert_eq!(found.quarantined, 0, "a torn tail is no damage");
        assert!(journal.first() > EPOCH, "no number is given twice");
    }
}

#[test]
fn zeros_on_the_disk_cost_only_what_they_hit() {
    let check = |zeros: &[(usize, usize)], left: &[&[u8]]| {
        let folder = tempfile::tempdir().expect("a folder");
        let mut journal = open(folder.path());
        for payload in [b"1", b"2", b"3"] {
            event(&mut journal, payload);
        }
        journal.write(0).expect("a good disk");
        journal.close();
        let path = first_segment(folder.path());
        let mut bytes = std::fs::read(&path).expect("readable");
        for (from, length) in zeros {
            bytes[*from..from + length].fill(0);
        }
        std::fs::write(&path, bytes).expect("writable");
        let journal = open(folder.path());
        assert_eq!(payloads(folder.path()), left, "zeros at {zeros:?}");
        let damaged = journal.progress().quarantined();
        assert_eq!(damaged, zeros.len() as u64, "zeros at {zeros:?}");
    };
    // The header has 64 bytes, a record 48 and its padded payload.
    let (header, second) = ((0, 64), (64 + 56, 56));
    check(&[header], &[b"1", b"2", b"3"]);
    check(&[second], &[b"1", b"3"]);
    check(&[header, second], &[b"1", b"3"]);
}

#[test]
fn a_folder_whose_numbers_are_used_up_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("3fffffffffffffff.jnl"), b"").expect("writable");
    let settings = settings(folder.path(), config::Sync::Never);
    let outcome = Journal::open(Arc::new(RealDisk), &settings, None);
    assert!(
        matches!(outcome, Err(JournalError::Unwritable { .. })),
        "{outcome:?}"
    );
    let files = RealDisk.list(folder.path()).expect("readable");
    assert_eq!(files.len(), 2, "the file and the lock: {files:?}");
}

#[test]
fn a_reader_follows_the_writer_over_segments() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut journal = open(folder.path());
    journal.hurry(4096);
    let mut reader = Reader::inputs_after(Arc::new(RealDisk), folder.path(), 0);
    let mut resting = reader.clone();
    for round in 0..200_u32 {
        assert!(
            reader.next().expect("readable").is_none(),
            "nothing new in round {round}"
        );
        let lsn = event(&mut journal, &round.to_le_bytes().repeat(40));
        journal.write(0).expect("a good disk");
        let record = reader.next().expect("readable").expect("the new one");
        assert_eq!(record.head.lsn, lsn);
        assert_eq!(record.payload[..4], round.to_le_bytes());
        resting.rest();
        assert_eq!(resting.next().expect("readable"), Some(record));
    }
    assert!(
        RealDisk.list(folder.path()).expect("readable").len() > 5,
        "several segments"
    );
}

#[test]
fn a_reader_whose_segment_is_deleted_while_it_rests_goes_on_with_what_is_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut journal = open(folder.path());
    journal.hurry(4096);
    let fill = |journal: &mut Journal| {
        let lsns: Vec<Lsn> = (0..50).map(|_| event(journal, &[7; 400])).collect();
        journal.write(0).expect("a good disk");
        lsns
    };
    let lsns = fill(&mut journal);
    let mut reader = Reader::inputs_after(Arc::new(RealDisk), folder.path(), 0);
    let first = reader.next().expect("readable").expect("one");
    assert_eq!(first.head.lsn, lsns[0]);
    reader.rest();
    let segments = SegmentFile::all(&RealDisk, folder.path()).expect("readable");
    std::fs::remove_file(folder.path().join(segments[0].name())).expect("it is there");
    let next = reader.next().expect("readable").expect("one");
    assert_eq!(next.head.lsn, segments[1].number, "the first that is left");
    assert_eq!(
        read(reader).last().map(|last| last.head.lsn),
        lsns.last().copied()
    );
}

#[test]
fn a_record_larger_than_a_segment_is_kept_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut journal = open(folder.path());
    let large: Vec<u8> = (0..=250_u8).cycle().take(9_000_000).collect();
    event(&mut journal, b"before");
    event(&mut journal, &large);
    event(&mut journal, b"after");
    journal.write(0).expect("a good disk");
    assert_eq!(
        payloads(folder.path()),
        [b"before".to_vec(), large, b"after".to_vec()]
    );
}

#[test]
fn an_open_of_a_full_journal_takes_no_more_room_than_it_may() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = config::Journal {
        max_size: 8 << 20,
        ..settings(folder.path(), config::Sync::Never)
    };
    for round in 0..3 {
        let disk = Arc::new(RealDisk);
        let (mut journal, _) = Journal::open(disk, &settings, None).expect("a good folder");
        let open = journal.size();
        assert!(open <= settings.max_size, "open {round}: {open} bytes");
        for _ in 0..200 {
            event(&mut journal, &[b'x'; 100_000]);
            journal.write(0).expect("a good disk");
        }
        let full = journal.size();
        assert!(full <= settings.max_size, "round {round}: {full} bytes");
    }
}

#[test]
fn committed_segments_go_after_the_retention_and_uncommitted_ones_stay() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut journal = open(folder.path());
    journal.hurry(4096);
    for _ in 0..30 {
        event(&mut journal, &[b'x'; 900]);
        journal.write(0).expect("a good disk");
    }
    let start = Instant::now();
    journal.committed(EPOCH + 15);
    journal.tidy(start);
    journal.tidy(start + Duration::from_secs(59));
    assert!(journal.is_complete(), "retention is not over");
    journal.committed(EPOCH + 5);
    journal.committed(EPOCH + 15);
    journal.tidy(start + Duration::from_secs(61));
    assert!(
        journal.oldest() > EPOCH,
        "what was committed all the time goes"
    );
    assert!(
        journal.oldest() <= EPOCH + 6,
        "what was not is retained anew"
    );
    journal.tidy(start + Duration::from_secs(200));
    assert!(!journal.is_complete());
    assert!(
        (EPOCH + 10..=EPOCH + 16).contains(&journal.oldest()),
        "the rest goes later"
    );
    let left = read(Reader::inputs_after(Arc::new(RealDisk), folder.path(), 0));
    assert_eq!(left.last().map(|record| record.head.lsn), Some(EPOCH + 29));
}

#[test]
fn a_failing_disk_is_left_alone_for_a_while() {
    let disk = FaultyDisk::default();
    let settings = settings(Path::new("/journal"), config::Sync::Never);
    let (mut journal, _) =
        Journal::open(Arc::new(disk.clone()), &settings, None).expect("a good disk");
    disk.fail(Call::Write, 2, EIO, 0);
    let first = event(&mut journal, b"one");
    let error = journal.write(0).expect_err("both attempts fail");
    assert_eq!(error.source.raw_os_error(), Some(EIO));
    assert!(journal.is_refusing());
    let second = event(&mut journal, b"two");
    assert_eq!(second, first + 1, "numbers go on");
    let error = journal
        .write(0)
        .expect_err("the disk is good again but left alone");
    assert_eq!(error.source.raw_os_error(), Some(EIO), "what it said last");
    let left = read(Reader::inputs_after(Arc::new(disk), &settings.dir, 0));
    assert!(left.is_empty(), "what was refused is not in the journal");
}

#[test]
fn batch_makes_decisions_durable_and_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = settings(folder.path(), config::Sync::Batch);
    let (mut journal, _) = Journal::open(Arc::new(RealDisk), &settings, None).expect("new");
    let woken = Arc::new(AtomicU64::new(0));
    let wake = Arc::clone(&woken);
    journal.on_synced(Box::new(move |_took| {
        wake.fetch_add(1, Ordering::SeqCst);
    }));
    let progress = journal.progress();
    let lsn = event(&mut journal, b"one");
    journal.decide(lsn, 1, b"");
    assert_eq!(progress.durable(), 0);
    journal.write(0).expect("a good disk");
    until("durable", || progress.durable() == lsn);
    until("the wake-up", || woken.load(Ordering::SeqCst) == 1);
}

#[test]
fn a_failed_sync_poisons_the_segment_and_writing_goes_on_in_another() {
    let disk = FaultyDisk::default();
    let settings = settings(Path::new("/journal"), config::Sync::Batch);
    let (mut journal, _) =
        Journal::open(Arc::new(disk.clone()), &settings, None).expect("a good disk");
    let progress = journal.progress();
    disk.fail(Call::Sync, 2, EIO, 0);
    event(&mut journal, b"one");
    journal.write(0).expect("writing works");
    until("both syncs failed", || progress.poisoned() == 2);
    event(&mut journal, b"two");
    journal.write(0).expect("in a new segment");
    let segments = disk.list(&settings.dir).expect("readable");
    assert_eq!(segments.len(), 2, "a new segment: {segments:?}");
    journal.close();
    assert!(
        !disk.synced_after_failure(),
        "the poisoned one was left alone"
    );
    assert_eq!(
        read(Reader::inputs_after(Arc::new(disk), &settings.dir, 0)).len(),
        2
    );
}

#[test]
fn an_idle_journal_does_not_sync() {
    let disk = FaultyDisk::default();
    let settings = settings(Path::new("/journal"), config::Sync::Interval);
    let (mut journal, _) =
        Journal::open(Arc::new(disk.clone()), &settings, None).expect("a good disk");
    let lsn = event(&mut journal, b"one");
    journal.decide(lsn, 1, b"");
    journal.write(0).expect("a good disk");
    until("the sync", || journal.progress().durable() == lsn);
    let syncs = disk.syncs();
    journal.write(0).expect("nothing to write");
    journal.close();
    // The close itself syncs the one segment.
    assert_eq!(disk.syncs(), syncs + 1);
}

#[test]
fn reading_a_folder_that_is_not_there_gives_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("nothing");
    let mut reader = Reader::all(Arc::new(RealDisk), &dir);
    assert!(reader.next().expect("no error").is_none());
    let outcome: io::Result<_> = RealDisk.list(&dir);
    assert!(outcome.is_err(), "reading did not make it");
}

proptest! {
    #[test]
    fn a_turned_bit_costs_at_most_the_record_it_hit(
        sizes in prop::collection::vec(0..400_usize, 1..30),
        place in any::<prop::sample::Index>(),
        bit in any::<prop::sample::Index>(),
    ) {
        let disk = FaultyDisk::default();
        let settings = settings(Path::new("/journal"), config::Sync::Never);
        let (mut journal, _) = Journal::open(Arc::new(disk.clone()), &settings, None).expect("a good disk");
        journal.hurry(4096);
        let mut written = Vec::new();
        for (at, size) in (0_u8..).zip(&sizes) {
            let payload = vec![at; *size];
            written.push((event(&mut journal, &payload), payload));
            journal.write(0).expect("a good disk");
        }
        drop(journal);
        let names = disk.list(&settings.dir).expect("readable");
        let name = &names[place.index(names.len())].0;
        // Beyond what was written there is nothing to hit.
        let content = disk.content(name);
        let used = content.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1);
        disk.flip(name, bit.index(used * 8));

        let (journal, found) = Journal::open(Arc::new(disk.clone()), &settings, None).expect("never a crash loop");
        let left = read(Reader::inputs_after(Arc::new(disk.clone()), &settings.dir, 0));
        for record in &left {
            let lsn = record.head.lsn;
            let same = written.iter().any(|(given, payload)| *given == lsn && *payload == record.payload);
            assert!(same, "{lsn:x} was never written like that");
        }
        assert!(left.len() + 1 >= written.len(), "{} of {} are left", left.len(), written.len());
        assert!(left.is_sorted_by_key(|record| record.head.lsn), "in order");
        assert!(found.quarantined <= 1, "one place at most");
        assert!(journal.first() > written.last().expect("one at least").0, "new numbers");
    }
}
