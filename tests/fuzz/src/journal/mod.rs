//! The journal: whatever happens to its files, it opens unless a person must settle something, gives no number twice, reads
//! everything that is whole, and works from then on.
//!
//! The data is a script (see `script`), or, where it begins like a segment, the bytes of one.

mod check;
mod damage;
mod disk;
mod layout;
mod script;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jackfield::config;
use jackfield::journal::{EPOCH, Journal, JournalError, Kind, Lsn, Reader};

use check::are_in_order;
use damage::damage;
use disk::{File, MemoryDisk};
use layout::segments;
use script::{Step, steps};

const DIR: &str = "/journal";
const RETAIN: Duration = Duration::from_secs(60);
/// Of a segment the smallest, and room enough that nothing is ever given up.
const MAX_SIZE: u64 = 8 << 20;

/// What one run appends at most, in steps and bytes.
const MOST_STEPS: usize = 64;
const MOST_BYTES: usize = 5 << 18;

/// Runs one script, and sees to it that the journal works afterwards.
pub fn run(data: &[u8]) {
    let mut scene = Scene::default();
    if data.starts_with(b"JACKFJNL") {
        scene.disk.put(&format!("{EPOCH:016x}.jnl"), File::of(data));
    } else {
        for step in steps(data).iter().take(MOST_STEPS) {
            scene.step(step);
        }
    }
    scene.end();
}

/// A journal on its disk, and what was given to it.
#[derive(Default)]
struct Scene {
    disk: MemoryDisk,
    journal: Option<Journal>,
    /// It cannot be opened until something else happens to its files.
    is_refused: bool,
    /// The last number that was given and must not be given again.
    given: Lsn,
    /// Inputs and decisions that were appended and are not written yet.
    pending: Vec<Appended>,
    /// Those that were written, as long as nothing was damaged or deleted.
    written: Option<Vec<Appended>>,
    /// Numbers of inputs that were written and have no decision.
    undecided: Vec<Lsn>,
    appended_bytes: usize,
    serial: u64,
}

/// What was appended: kind, number, time, connection, offset, payload.
type Appended = (u8, Lsn, u64, u32, u64, Vec<u8>);

impl Scene {
    fn step(&mut self, step: &Step) {
        match step.letter {
            'i' => self.append(step.below(0, 5), step.below(1, 1 << 17)),
            'd' => self.decide(step.below(0, 1 << 12)),
            'm' => self.mark(step.below(0, 1 << 12)),
            'n' => {
                let name = format!("fs{}", step.number(0));
                if let Some(journal) = self.journal() {
                    journal.name_router(&name);
                }
            }
            'w' => self.write(),
            'c' => self.close(),
            'k' => self.kill(),
            't' => self.tidy(step),
            _ => {
                self.kill();
                damage(&self.disk, step);
                self.is_refused = false;
                self.written = None;
                if step.letter == 'R' {
                    // The name of a segment keeps its numbers from being given again; that is gone.
                    self.given = 0;
                }
            }
        }
    }

    /// The open journal; none if it cannot be opened.
    fn journal(&mut self) -> Option<&mut Journal> {
        if self.journal.is_none() && !self.is_refused {
            self.open();
        }
        self.journal.as_mut()
    }

    fn open(&mut self) {
        let before = segments(&self.disk, false);
        check::readers(&self.disk, &segments(&self.disk, true));
        check::inspections(&self.disk, &before);
        match open(&self.disk, None) {
            Ok((journal, found)) => {
                check::opened(&journal, &found, &before);
                assert!(
                    journal.first() > self.given,
                    "{:x} was given before",
                    self.given
                );
                let after = segments(&self.disk, true);
                check::spared(&before, &after);
                check::readers(&self.disk, &after);
                self.given = journal.first() - 1;
                self.undecided.clear();
                self.journal = Some(journal);
            }
            Err(error) => {
                check::refused(&error, &before);
                self.is_refused = true;
            }
        }
        if before.is_empty() {
            self.written = Some(Vec::new());
        }
    }

    fn append(&mut self, kind: usize, size: usize) {
        let kinds = [
            Kind::Json,
            Kind::Plain,
            Kind::Tick,
            Kind::Internal,
            Kind::Replay,
        ];
        let payload = self.payload(size);
        let (at_us, connection, offset) = (self.serial, 7, self.serial * 3);
        let Some(journal) = self.journal() else {
            return;
        };
        let lsn = journal.append(kinds[kind], at_us, connection, offset, &payload);
        assert!(lsn > self.given, "{lsn:x} was given before");
        self.given = lsn;
        let kind = u8::try_from(kind + 1).expect("a small code");
        self.pending
            .push((kind, lsn, at_us, connection, offset, payload));
    }

    fn decide(&mut self, size: usize) {
        let payload = self.payload(size);
        let at_us = self.serial;
        // Opening it forgets what was undecided.
        if self.journal().is_none() || self.undecided.is_empty() {
            return;
        }
        let lsn = self.undecided.remove(0);
        if let Some(journal) = self.journal() {
            journal.decide(lsn, at_us, &payload);
        }
        self.pending.push((16, lsn, at_us, 0, 0, payload));
    }

    fn mark(&mut self, size: usize) {
        let (payload, lsn, at_us) = (self.payload(size), self.given, self.serial);
        if let Some(journal) = self.journal() {
            journal.mark(lsn, at_us, &payload);
        }
    }

    /// Bytes that no other payload has.
    fn payload(&mut self, size: usize) -> Vec<u8> {
        self.serial += 1;
        let size = size.min(MOST_BYTES.saturating_sub(self.appended_bytes));
        self.appended_bytes += size;
        let mut payload = self.serial.to_le_bytes().to_vec();
        payload.resize(payload.len() + size, b'p');
        payload
    }

    fn write(&mut self) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        let wrote = journal.write(0).expect("the disk has room and no faults");
        assert_eq!(wrote.lost, 0, "nothing is given up");
        let pending = std::mem::take(&mut self.pending);
        let inputs = pending.iter().filter(|(kind, ..)| *kind < 16);
        self.undecided.extend(inputs.map(|(_, lsn, ..)| *lsn));
        if let Some(written) = &mut self.written {
            written.extend(pending);
        }
    }

    fn close(&mut self) {
        if let Some(journal) = self.journal.take() {
            journal.close();
        }
        self.ended();
    }

    fn kill(&mut self) {
        self.journal = None;
        self.disk.settle();
        self.ended();
    }

    fn ended(&mut self) {
        self.pending.clear();
        let Some(written) = &self.written else {
            return;
        };
        let segments = segments(&self.disk, true);
        let there =
            check::records(&segments).filter(|record| record.is_input() || record.is_decision());
        let there = there.map(|record| {
            let payload = record.payload.clone();
            (
                record.kind,
                record.lsn,
                record.at_us,
                record.connection,
                record.offset,
                payload,
            )
        });
        assert!(
            there.eq(written.iter().cloned()),
            "what was written is in the files as docs/journal.md says"
        );
    }

    /// What Redis has goes when it has been kept for its time; what Redis has not stays.
    fn tidy(&mut self, step: &Step) {
        if self.journal().is_none() {
            return;
        }
        let before = segments(&self.disk, true);
        let inputs = check::records(&before).filter(|record| record.is_input());
        let numbers: Vec<Lsn> = inputs.map(|record| record.lsn).collect();
        let committed = numbers
            .get(step.below(0, numbers.len()))
            .copied()
            .unwrap_or_default();
        if let Some(journal) = &mut self.journal {
            journal.committed(committed);
            let now = Instant::now();
            journal.tidy(now);
            journal.tidy(now + RETAIN);
        }
        self.written = None;
        let after = segments(&self.disk, true);
        check::readers(&self.disk, &after);
        if !are_in_order(&before) || !check::are_headers_true(&before) {
            return;
        }
        for lsn in numbers.iter().filter(|lsn| **lsn > committed) {
            let is_there =
                check::records(&after).any(|record| record.is_input() && record.lsn == *lsn);
            assert!(
                is_there,
                "{lsn:x} is gone, and Redis has only what is up to {committed:x}"
            );
        }
    }

    /// The journal works: what is appended is read by the next process, which is the same journal.
    fn end(&mut self) {
        let Some(journal) = self.journal() else {
            return;
        };
        let (id, first) = (journal.id().to_owned(), self.given);
        self.append(0, 10);
        self.append(1, 20);
        self.write();
        self.decide(30);
        self.mark(5);
        let last = self.given;
        self.write();
        let router = self
            .journal()
            .and_then(|journal| journal.router().map(str::to_owned));
        self.close();

        let inputs = Reader::inputs_after(Arc::new(self.disk.clone()), Path::new(DIR), first);
        let inputs: Vec<Lsn> = numbers(inputs);
        assert_eq!(
            inputs.last_chunk(),
            Some(&[last - 1, last]),
            "the new inputs are read"
        );
        if router.is_some() {
            let other = open(&self.disk, Some("another")).map(|_| ());
            assert!(
                matches!(other, Err(JournalError::OtherRouter { .. })),
                "{other:?}"
            );
        }
        let Some(journal) = self.journal() else {
            assert!(last + EPOCH >= layout::NUMBERS, "it opened before");
            return;
        };
        assert_eq!(journal.id(), id, "the journal is the same");
        assert_eq!(
            journal.router().map(str::to_owned),
            router,
            "the router is the same"
        );
        self.close();
    }
}

fn open(
    disk: &MemoryDisk,
    router: Option<&str>,
) -> Result<(Journal, jackfield::journal::Found), JournalError> {
    let settings = config::Journal {
        dir: DIR.into(),
        max_size: MAX_SIZE,
        retain: RETAIN,
        sync: config::Sync::Never,
    };
    Journal::open(Arc::new(disk.clone()), &settings, router)
}

fn numbers(mut reader: Reader) -> Vec<Lsn> {
    let mut numbers = Vec::new();
    while let Some(head) = reader.next_head().expect("a segment can be read") {
        numbers.push(head.lsn);
    }
    numbers
}
