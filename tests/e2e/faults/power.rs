//! A power cut: what was written and not forced to the disk is taken back, as far as the dice say.
//!
//! Of what was done to the journal's files since they were last forced, each write stays, goes, or stays in part; new and removed
//! names are taken back from the last one on, as a journaling file system does. `tests/interposer/src/undo.rs` writes the log.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::dice::Dice;
use super::interposer::layout::{
    CREATED, FOLDER_SYNC_BEGAN, FOLDER_SYNCED, REMOVED, SYNC_BEGAN, SYNCED, TRUNCATED, WRITTEN,
};

/// What a disk writes at once.
const SECTOR: usize = 512;

#[derive(Debug)]
struct Entry {
    what: u64,
    segment: u64,
    at: u64,
    before: Vec<u8>,
}

/// What was taken back.
#[derive(Debug, Default)]
pub(crate) struct Cut {
    pub(crate) writes: u64,
    pub(crate) names: u64,
}

/// Cuts the power of a process that is gone. The log begins anew.
pub(crate) fn cut(undo: &Path, journal: &Path, dice: &mut Dice) -> Cut {
    let log = undo.join("log");
    let entries = read(&fs::read(&log).unwrap_or_default());
    let safe = safe(&entries);
    let mut cut = Cut::default();
    let names = entries.iter().zip(&safe);
    let unsafe_names =
        names.filter(|(entry, safe)| matches!(entry.what, CREATED | REMOVED) && !**safe);
    let mut names_to_go = dice.within(0..unsafe_names.count() as u64 + 1);
    for (entry, safe) in entries.iter().zip(&safe).rev() {
        let name = format!("{:016x}", entry.segment);
        let path = journal.join(format!("{name}.jnl"));
        match entry.what {
            _ if *safe => {}
            WRITTEN => cut.writes += u64::from(take_back(&path, entry, dice)),
            TRUNCATED if dice.within(0..2) == 0 => {
                if let Ok(file) = OpenOptions::new().write(true).open(&path) {
                    file.write_all_at(&entry.before, entry.at).unwrap();
                }
            }
            CREATED if names_to_go > 0 => {
                names_to_go -= 1;
                cut.names += u64::from(fs::remove_file(&path).is_ok());
            }
            REMOVED if names_to_go > 0 => {
                names_to_go -= 1;
                let kept = undo.join(format!("{name}.removed"));
                cut.names += u64::from(fs::rename(kept, &path).is_ok());
            }
            _ => {}
        }
    }
    drop(fs::remove_file(log));
    for kept in fs::read_dir(undo).unwrap() {
        fs::remove_file(kept.unwrap().path()).unwrap();
    }
    cut
}

fn read(log: &[u8]) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut rest = log;
    while let Some((head, after)) = rest.split_at_checked(32) {
        let word = |place: usize| u64::from_le_bytes(head[8 * place..][..8].try_into().unwrap());
        let length = usize::try_from(word(3)).unwrap();
        // The process may have been killed while it wrote this one: then it did not do it either.
        let Some((before, after)) = after.split_at_checked(length) else {
            break;
        };
        entries.push(Entry {
            what: word(0),
            segment: word(1),
            at: word(2),
            before: before.to_vec(),
        });
        rest = after;
    }
    entries
}

/// Whether each of them is on the disk for good: done before a force of its file, or folder, that succeeded.
fn safe(entries: &[Entry]) -> Vec<bool> {
    let mut succeeded = BTreeSet::new();
    let mut forced = BTreeSet::new();
    let mut folder = false;
    let mut safe: Vec<bool> = entries
        .iter()
        .rev()
        .map(|entry| {
            match entry.what {
                SYNCED | FOLDER_SYNCED => drop(succeeded.insert(entry.at)),
                SYNC_BEGAN if succeeded.contains(&entry.at) => drop(forced.insert(entry.segment)),
                FOLDER_SYNC_BEGAN if succeeded.contains(&entry.at) => folder = true,
                _ => {}
            }
            match entry.what {
                CREATED | REMOVED => folder,
                _ => forced.contains(&entry.segment),
            }
        })
        .collect();
    safe.reverse();
    safe
}

/// Takes a write back: not at all, whole, or but for some sectors at its beginning. Whether anything was.
fn take_back(path: &Path, entry: &Entry, dice: &mut Dice) -> bool {
    let Ok(file) = OpenOptions::new().write(true).open(path) else {
        return false;
    };
    let (first, sectors) = (
        usize::try_from(entry.at).unwrap() % SECTOR,
        entry.before.len() / SECTOR + 1,
    );
    let kept = match dice.within(0..3) {
        0 => return false,
        1 => 0,
        _ => (dice.within(0..sectors as u64) as usize * SECTOR).saturating_sub(first),
    };
    restore(&file, entry, kept.min(entry.before.len()));
    true
}

fn restore(file: &File, entry: &Entry, kept: usize) {
    file.write_all_at(&entry.before[kept..], entry.at + kept as u64)
        .unwrap();
}
