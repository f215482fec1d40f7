//! A disk in memory that fails on demand, for tests.
//!
//! For each file it keeps what the page cache has and what the platter has, and the writes between them. A crash of the
//! process spares the page cache; a power cut keeps what was synced, any part of every other write, and the folder's changes up to any
//! one of them (they reach a journaling file system's disk in order).

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::journal::disk::{Disk, DiskFile, Lock};

/// The disk; clones are the same disk.
#[derive(Debug, Clone, Default)]
pub(super) struct FaultyDisk(Arc<Mutex<State>>);

/// What can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Create,
    Write,
    Sync,
    Remove,
    Truncate,
}

#[derive(Debug, Default)]
struct State {
    files: Vec<Inode>,
    names: BTreeMap<String, usize>,
    synced_names: BTreeMap<String, usize>,
    unsynced_names: Vec<(String, Option<usize>)>,
    faults: Vec<Fault>,
    /// Every call fails, as for a process that is gone.
    dead: bool,
    locked: bool,
    synced_after_failure: bool,
    syncs: u64,
}

#[derive(Debug)]
struct Fault {
    call: Call,
    calls: u32,
    code: i32,
    /// Bytes of a write that are written all the same.
    partial: usize,
    then_dead: bool,
}

#[derive(Debug, Default)]
struct Inode {
    content: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<Change>,
    sync_failed: bool,
}

#[derive(Debug)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

#[derive(Debug)]
struct Held(Arc<Mutex<State>>);

#[derive(Debug)]
struct FaultyFile(Arc<Mutex<State>>, usize);

impl FaultyDisk {
    /// The next `calls` calls of this kind fail; a write after `partial` bytes.
    pub(super) fn fail(&self, call: Call, calls: u32, code: i32, partial: usize) {
        self.state().faults.push(Fault {
            call,
            calls,
            code,
            partial,
            then_dead: false,
        });
    }

    /// The process dies in its next write, after `partial` bytes.
    pub(super) fn die_in_write(&self, partial: usize) {
        self.state().faults.push(Fault {
            call: Call::Write,
            calls: 1,
            code: 5,
            partial,
            then_dead: true,
        });
    }

    /// A new process: faults are over, the page cache is what it was.
    pub(super) fn revive(&self) {
        let mut state = self.state();
        state.faults.clear();
        state.dead = false;
        // It cannot know of the old one's failures.
        for file in &mut state.files {
            file.sync_failed = false;
        }
    }

    /// The power goes and comes back. `seed` decides what was on the platter.
    pub(super) fn cut_power(&self, seed: u64) {
        let mut dice = Dice(seed | 1);
        let mut state = self.state();
        let kept = dice.below(state.unsynced_names.len() + 1);
        let changes: Vec<_> = state.unsynced_names.drain(..).take(kept).collect();
        for (name, file) in changes {
            match file {
                Some(file) => state.synced_names.insert(name, file),
                None => state.synced_names.remove(&name),
            };
        }
        state.names = state.synced_names.clone();
        for file in &mut state.files {
            for change in std::mem::take(&mut file.unsynced) {
                match (change, dice.below(3)) {
                    (change, 0) => change.apply(&mut file.synced, usize::MAX),
                    (Change::Write(at, bytes), 1) => {
                        let part = dice.below(bytes.len() + 1);
                        Change::Write(at, bytes).apply(&mut file.synced, part);
                    }
                    _ => {}
                }
            }
            file.content = file.synced.clone();
        }
    }

    /// Turns one bit of a file, on the platter and in the cache.
    pub(super) fn flip(&self, name: &str, bit: usize) {
        let mut state = self.state();
        let file = state.names[name];
        let file = &mut state.files[file];
        file.content[bit / 8] ^= 1 << (bit % 8);
        if let Some(byte) = file.synced.get_mut(bit / 8) {
            *byte ^= 1 << (bit % 8);
        }
    }

    /// Whether a file was synced again whose sync had failed.
    pub(super) fn synced_after_failure(&self) -> bool {
        self.state().synced_after_failure
    }

    /// How often a file was synced.
    pub(super) fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// The bytes of a file.
    pub(super) fn content(&self, name: &str) -> Vec<u8> {
        let state = self.state();
        state.files[state.names[name]].content.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics with the disk in hand")
    }
}

impl Disk for FaultyDisk {
    fn make_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, _path: &Path) -> io::Result<Option<Lock>> {
        let mut state = self.state();
        if std::mem::replace(&mut state.locked, true) {
            return Ok(None);
        }
        Ok(Some(Box::new(Held(Arc::clone(&self.0)))))
    }

    fn create(&self, path: &Path, size: u64) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.check(Call::Create)?;
        let name = name_of(path);
        if state.names.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = state.files.len();
        state.files.push(Inode::default());
        state.files[file].change(Change::Length(size), usize::MAX);
        state.names.insert(name.clone(), file);
        state.unsynced_names.push((name, Some(file)));
        Ok(Arc::new(FaultyFile(Arc::clone(&self.0), file)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.state();
        let file = state.names.get(&name_of(path));
        let file = *file.ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(FaultyFile(Arc::clone(&self.0), file)))
    }

    fn list(&self, _dir: &Path) -> io::Result<Vec<(String, u64)>> {
        let state = self.state();
        let names = state.names.iter();
        let files = names.map(|(name, file)| {
            let length = state.files[*file].content.len();
            (name.clone(), length as u64)
        });
        Ok(files.collect())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.check(Call::Remove)?;
        let name = name_of(path);
        state.names.remove(&name).ok_or(io::ErrorKind::NotFound)?;
        state.unsynced_names.push((name, None));
        Ok(())
    }

    fn truncate(&self, path: &Path, length: u64) -> io::Result<()> {
        let mut state = self.state();
        state.check(Call::Truncate)?;
        let file = state.names[&name_of(path)];
        state.files[file].change(Change::Length(length), usize::MAX);
        Ok(())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.check(Call::Sync)?;
        state.unsynced_names.clear();
        state.synced_names = state.names.clone();
        Ok(())
    }
}

impl DiskFile for FaultyFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.0.lock().expect("not poisoned");
        let outcome = state.check(Call::Write);
        let length = outcome
            .as_ref()
            .map_or_else(|fault| fault.1, |()| usize::MAX);
        let change = Change::Write(offset, bytes.to_vec());
        state.files[self.1].change(change, length);
        outcome.map_err(|fault| fault.0)
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.0.lock().expect("not poisoned");
        let content = &state.files[self.1].content;
        let rest = content.get(index(offset)..).unwrap_or_default();
        let length = rest.len().min(into.len());
        into[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.0.lock().expect("not poisoned");
        let outcome = state.check(Call::Sync);
        state.syncs += 1;
        state.synced_after_failure |= state.files[self.1].sync_failed;
        let file = &mut state.files[self.1];
        let unsynced = std::mem::take(&mut file.unsynced);
        if let Err(fault) = outcome {
            // What was to be written is forgotten, as the kernel does.
            file.sync_failed = true;
            return Err(fault.0);
        }
        for change in unsynced {
            change.apply(&mut file.synced, usize::MAX);
        }
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        let state = self.0.lock().expect("not poisoned");
        Ok(state.files[self.1].content.len() as u64)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.lock().expect("not poisoned").locked = false;
    }
}

/// An error, and how many bytes of a write were written before it.
struct Failed(io::Error, usize);

impl From<Failed> for io::Error {
    fn from(failed: Failed) -> io::Error {
        failed.0
    }
}

impl State {
    fn check(&mut self, call: Call) -> Result<(), Failed> {
        if self.dead {
            return Err(Failed(io::Error::from_raw_os_error(5), 0));
        }
        let fault = self.faults.iter_mut().find(|fault| fault.call == call);
        let Some(fault) = fault.filter(|fault| fault.calls > 0) else {
            return Ok(());
        };
        fault.calls -= 1;
        let failed = Failed(io::Error::from_raw_os_error(fault.code), fault.partial);
        self.dead = fault.then_dead;
        self.faults.retain(|fault| fault.calls > 0);
        Err(failed)
    }
}

impl Inode {
    fn change(&mut self, change: Change, length: usize) {
        change.apply(&mut self.content, length);
        if let Change::Write(at, bytes) = change {
            let part = bytes[..length.min(bytes.len())].to_vec();
            self.unsynced.push(Change::Write(at, part));
        } else {
            self.unsynced.push(change);
        }
    }
}

impl Change {
    /// Makes the change, a write up to its first `length` bytes.
    fn apply(&self, content: &mut Vec<u8>, length: usize) {
        match self {
            Change::Length(size) => content.resize(index(*size), 0),
            Change::Write(at, bytes) => {
                let bytes = &bytes[..length.min(bytes.len())];
                let at = index(*at);
                if content.len() < at + bytes.len() {
                    content.resize(at + bytes.len(), 0);
                }
                content[at..at + bytes.len()].copy_from_slice(bytes);
            }
        }
    }
}

/// Numbers that only look random: xorshift64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        index(self.0 >> 11) % limit
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("a small file")
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().expect("a file has a name");
    name.to_str().expect("names are text").to_owned()
}
