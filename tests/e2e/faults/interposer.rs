//! Faults between the unchanged binary and the kernel: the rules for the library of `tests/interposer`.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::harness::{interposer, wait_for};

#[path = "../../interposer/src/layout.rs"]
pub(super) mod layout;

pub(crate) use layout::Point;

/// What happens there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strike {
    Fail(i32),
    /// For so many milliseconds.
    Hang(u64),
    KillBefore,
    KillAfter,
    /// Killed when so many thousandths are written.
    KillWithin(u64),
    /// The disk is full when so many thousandths are written.
    FillWithin(u64),
}

pub(crate) const EIO: i32 = 5;
pub(crate) const EROFS: i32 = 30;
pub(crate) const ENOSPC: i32 = 28;

/// A process' share of the library: its control file, and the folder for what a power cut could take back.
pub(crate) struct Interposer {
    dir: TempDir,
    control: File,
}

impl Interposer {
    pub(crate) fn new() -> Interposer {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("undo")).unwrap();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        let control = options.open(dir.path().join("control")).unwrap();
        control.set_len(layout::WORDS * 8).unwrap();
        Interposer { dir, control }
    }

    /// What the process' environment needs. `undo`: keep what a power cut could take back.
    pub(crate) fn environment(&self, undo: bool) -> Vec<(&'static str, PathBuf)> {
        let mut variables = vec![
            ("LD_PRELOAD", interposer()),
            ("INTERPOSER_CONTROL", self.dir.path().join("control")),
        ];
        if undo {
            variables.push(("INTERPOSER_UNDO", self.undo()));
        }
        variables
    }

    /// Where the record of what could be taken back is.
    pub(crate) fn undo(&self) -> PathBuf {
        self.dir.path().join("undo")
    }

    /// Tells which port Redis has.
    pub(crate) fn know_redis(&self, port: u16) {
        self.set(layout::REDIS_PORT, u64::from(port));
    }

    /// Moves the wall clock of the process.
    pub(crate) fn move_clock(&self, seconds: i64) {
        self.set(
            layout::CLOCK_OFFSET_US,
            (seconds * 1_000_000).cast_unsigned(),
        );
    }

    /// After `skip` calls at this point, `times` of them are struck. One rule has one of eight places.
    pub(crate) fn strike(&self, place: u64, point: Point, skip: u64, times: u64, strike: Strike) {
        assert!(place < layout::RULES);
        let (action, argument) = match strike {
            Strike::Fail(error) => (layout::FAIL, u64::try_from(error).unwrap()),
            Strike::Hang(milliseconds) => (layout::HANG, milliseconds),
            Strike::KillBefore => (layout::KILL_BEFORE, 0),
            Strike::KillAfter => (layout::KILL_AFTER, 0),
            Strike::KillWithin(permille) => (layout::KILL_WITHIN, permille),
            Strike::FillWithin(permille) => (layout::FILL_WITHIN, permille),
        };
        self.relax(place);
        // The point comes last: it is what makes a rule one.
        for (word, value) in [
            (layout::SKIP, skip),
            (layout::TIMES, times),
            (layout::ACTION, action),
            (layout::ARGUMENT, argument),
            (layout::HITS, 0),
            (layout::POINT, point as u64),
        ] {
            self.set(word_of(place, word), value);
        }
    }

    /// The rule in this place is over.
    pub(crate) fn relax(&self, place: u64) {
        self.set(word_of(place, layout::POINT), 0);
    }

    /// How often the rule in this place has struck.
    pub(crate) fn hits(&self, place: u64) -> u64 {
        let mut word = [0; 8];
        self.control
            .read_exact_at(&mut word, word_of(place, layout::HITS) * 8)
            .unwrap();
        u64::from_le_bytes(word)
    }

    /// Waits until the rule in this place has struck.
    #[track_caller]
    pub(crate) fn wait_struck(&self, place: u64) {
        wait_for("the fault has struck", || {
            (self.hits(place) > 0).then_some(())
        });
    }

    fn set(&self, word: u64, value: u64) {
        self.control
            .write_all_at(&value.to_le_bytes(), word * 8)
            .unwrap();
    }
}

/// Where this word of the rule in this place is.
fn word_of(place: u64, word: u64) -> u64 {
    8 + 8 * place + word
}

/// Such as `/proc/self/maps` would tell: that the library is really there.
pub(crate) fn is_interposed(pid: u32) -> bool {
    let maps = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("maps"));
    maps.is_ok_and(|maps| maps.contains("libinterposer.so"))
}
