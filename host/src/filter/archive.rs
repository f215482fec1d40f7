//! What the host remembers of filters over a restart: copies of components that went live, and a book of which versions of
//! each file were good and which are in quarantine.
//!
//! It lies in the host's own folder, as the drop folder is other people's. Every change waits for the disk: it is for the loader's
//! thread, never the pipeline's. A damaged book is as good as none. It decides nothing: who is good, others say.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::engine::digest;
use super::own_folder::OwnFolder;

/// Good versions of a file: the running one, the one before, and one more in case that was wrong, too.
const GOOD: usize = 3;
/// Versions of a file in quarantine.
const QUARANTINED: usize = 16;
/// Files in the book; those that changed longest ago go.
const FILES: usize = 256;
/// Bytes of a reason.
const REASON: usize = 512;

const BOOK: &str = "versions";
/// Version of the book's encoding, in its first byte.
const ENCODING: u8 = 1;
const COPY: &str = ".wasm";

/// What ran under a file's name: a component and the settings that it had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// SHA-256 of the component, in hexadecimal.
    pub digest: Arc<str>,
    /// The whole text of `NAME.toml`; empty if there was none.
    pub settings: Arc<str>,
}

/// A version that must not run again, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// SHA-256 of the component, in hexadecimal.
    pub digest: Arc<str>,
    /// SHA-256 of the settings' text.
    settings: Arc<str>,
    /// What it did.
    pub why: String,
    /// When, in microseconds since the epoch.
    pub at_us: u64,
}

impl Quarantine {
    fn holds(&self, version: &Version) -> bool {
        self.digest == version.digest && self.settings == digest(version.settings.as_bytes())
    }
}

/// The versions of one file. None is both good and in quarantine.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    file: Arc<str>,
    /// Newest first.
    good: Vec<Version>,
    /// Newest first.
    quarantined: Vec<Quarantine>,
}

/// The book and the copies.
#[derive(Debug)]
pub struct Archive {
    /// None: nothing outlives the process, and there are no copies.
    folder: Option<OwnFolder>,
    /// What changed last is last.
    book: Vec<Entry>,
}

impl Archive {
    /// One that keeps nothing on disk.
    pub fn in_memory() -> Archive {
        Archive {
            folder: None,
            book: Vec::new(),
        }
    }

    /// The archive of an earlier run, or a new one.
    ///
    /// # Errors
    /// The folder cannot be made or read, or others may write it.
    pub fn open(dir: &Path) -> io::Result<Archive> {
        let folder = OwnFolder::open(dir)?;
        let book = folder.read(BOOK)?;
        let book = book.map_or(Some(Vec::new()), |bytes| decode(&bytes));
        if book.is_none() {
            tracing::warn!(dir = %dir.display(), "the book of filter versions is damaged: starting a new one");
        }
        Ok(Archive {
            folder: Some(folder),
            book: book.unwrap_or_default(),
        })
    }

    /// Keeps a copy of a component.
    pub fn keep(&self, digest: &str, bytes: &[u8]) -> io::Result<()> {
        match &self.folder {
            Some(folder) if self.copy(digest)?.is_none() => {
                folder.write(&format!("{digest}{COPY}"), &[bytes])
            }
            _ => Ok(()),
        }
    }

    /// The copy of the component with this digest; a damaged one is none.
    pub fn copy(&self, digest: &str) -> io::Result<Option<Vec<u8>>> {
        let Some(folder) = &self.folder else {
            return Ok(None);
        };
        let copy = folder.read(&format!("{digest}{COPY}"))?;
        Ok(copy.filter(|bytes| *super::engine::digest(bytes) == *digest))
    }

    /// Good versions of a file, newest first.
    pub fn good(&self, file: &str) -> &[Version] {
        self.entry(file).map_or(&[], |entry| &entry.good)
    }

    /// Notes that a version has proved itself. It leaves quarantine, if it was there.
    pub fn note_good(&mut self, file: &str, version: Version) -> io::Result<()> {
        if self.good(file).first() == Some(&version) {
            return Ok(());
        }
        self.change(file, |entry| {
            entry.quarantined.retain(|held| !held.holds(&version));
            entry.good.retain(|good| *good != version);
            entry.good.insert(0, version);
            entry.good.truncate(GOOD);
        })
    }

    /// Why and since when a version is in quarantine, if it is.
    pub fn quarantined(&self, file: &str, version: &Version) -> Option<&Quarantine> {
        let held = &self.entry(file)?.quarantined;
        held.iter().find(|held| held.holds(version))
    }

    /// Puts a version into quarantine. It is good no more, if it was.
    pub fn quarantine(
        &mut self,
        file: &str,
        version: &Version,
        why: &str,
        at_us: u64,
    ) -> io::Result<()> {
        let held = Quarantine {
            digest: Arc::clone(&version.digest),
            settings: digest(version.settings.as_bytes()),
            why: why
                .get(..why.floor_char_boundary(REASON))
                .unwrap_or_default()
                .to_owned(),
            at_us,
        };
        self.change(file, |entry| {
            entry.good.retain(|good| good != version);
            entry.quarantined.retain(|held| !held.holds(version));
            entry.quarantined.insert(0, held);
            entry.quarantined.truncate(QUARANTINED);
        })
    }

    /// Removes the copies that are neither of a good version nor among `running`, by their digests.
    pub fn tidy(&self, running: &[Arc<str>]) -> io::Result<()> {
        let Some(folder) = &self.folder else {
            return Ok(());
        };
        let good = self.book.iter().flat_map(|entry| &entry.good);
        let needed: HashSet<&str> = good
            .map(|version| &*version.digest)
            .chain(running.iter().map(|digest| &**digest))
            .collect();
        for copy in folder.list(COPY)? {
            let digest = copy.name.strip_suffix(COPY).unwrap_or_default();
            if !needed.contains(digest) {
                folder.remove(&copy.name)?;
            }
        }
        Ok(())
    }

    fn entry(&self, file: &str) -> Option<&Entry> {
        self.book.iter().find(|entry| *entry.file == *file)
    }

    /// Changes what the book says of a file, also where the disk does not take it.
    fn change(&mut self, file: &str, change: impl FnOnce(&mut Entry)) -> io::Result<()> {
        let at = self.book.iter().position(|entry| *entry.file == *file);
        let mut entry = at.map_or_else(
            || Entry {
                file: file.into(),
                ..Entry::default()
            },
            |at| self.book.remove(at),
        );
        change(&mut entry);
        self.book.push(entry);
        let surplus = self.book.len().saturating_sub(FILES);
        self.book.drain(..surplus);
        let Some(folder) = &self.folder else {
            return Ok(());
        };
        let bytes = encode(&self.book).map_err(io::Error::other)?;
        folder.write(BOOK, &[&bytes])
    }
}

fn encode(book: &[Entry]) -> Result<Vec<u8>, postcard::Error> {
    let mut bytes = postcard::to_extend(book, vec![ENCODING])?;
    let sum = crc32c::crc32c(&bytes);
    bytes.extend(sum.to_le_bytes());
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Option<Vec<Entry>> {
    let (bytes, sum) = bytes.split_last_chunk()?;
    if crc32c::crc32c(bytes) != u32::from_le_bytes(*sum) {
        return None;
    }
    let (encoding, bytes) = bytes.split_first()?;
    (*encoding == ENCODING)
        .then(|| postcard::from_bytes(bytes).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    fn version(number: usize) -> Version {
        Version {
            digest: digest(&number.to_le_bytes()),
            settings: "a = 1".into(),
        }
    }

    fn archive() -> (TempDir, Archive) {
        let dir = tempfile::tempdir().unwrap();
        let archive = Archive::open(dir.path()).unwrap();
        (dir, archive)
    }

    #[test]
    fn good_versions_are_remembered_newest_first_over_a_restart() {
        let (dir, mut archive) = archive();
        for number in [1, 2, 3, 2, 4] {
            archive.note_good("10-a", version(number)).unwrap();
        }
        let archive = Archive::open(dir.path()).unwrap();
        assert_eq!(archive.good("10-a"), [version(4), version(2), version(3)]);
        assert_eq!(archive.good("20-b"), [], "another file");
    }

    #[test]
    fn a_version_in_quarantine_is_a_component_with_its_settings() {
        let (dir, mut archive) = archive();
        archive.quarantine("10-a", &version(1), "trap", 7).unwrap();
        let archive = Archive::open(dir.path()).unwrap();
        let held = archive.quarantined("10-a", &version(1)).unwrap();
        assert_eq!((held.why.as_str(), held.at_us), ("trap", 7));
        let mended = Version {
            settings: "a = 2".into(),
            ..version(1)
        };
        assert_eq!(archive.quarantined("10-a", &mended), None);
        assert_eq!(archive.quarantined("20-b", &version(1)), None);
    }

    #[test]
    fn no_version_is_both_good_and_in_quarantine() {
        let (_dir, mut archive) = archive();
        archive.note_good("10-a", version(1)).unwrap();
        archive.note_good("10-a", version(2)).unwrap();
        archive.quarantine("10-a", &version(2), "trap", 7).unwrap();
        assert_eq!(archive.good("10-a"), [version(1)]);
        archive.note_good("10-a", version(2)).unwrap();
        assert_eq!(archive.quarantined("10-a", &version(2)), None);
    }

    #[test]
    fn the_book_is_bounded() {
        let (_dir, mut archive) = archive();
        for number in 0..=QUARANTINED {
            let why = "ü".repeat(REASON);
            archive
                .quarantine("10-a", &version(number), &why, 7)
                .unwrap();
        }
        assert_eq!(archive.quarantined("10-a", &version(0)), None, "the oldest");
        let held = archive.quarantined("10-a", &version(1)).unwrap();
        assert_eq!(held.why.len(), REASON);
        for file in 0..FILES {
            archive.note_good(&file.to_string(), version(1)).unwrap();
        }
        assert_eq!(archive.book.len(), FILES);
        assert_eq!(archive.quarantined("10-a", &version(1)), None);
    }

    #[test]
    fn a_copy_is_what_its_digest_says_or_nothing() {
        let (dir, archive) = archive();
        let digest = digest(b"component");
        assert_eq!(archive.copy(&digest).unwrap(), None);
        archive.keep(&digest, b"component").unwrap();
        assert_eq!(archive.copy(&digest).unwrap(), Some(b"component".to_vec()));
        fs::write(dir.path().join(format!("{digest}.wasm")), "forged").unwrap();
        assert_eq!(archive.copy(&digest).unwrap(), None);
        archive.keep(&digest, b"component").unwrap();
        assert!(archive.copy(&digest).unwrap().is_some(), "kept anew");
    }

    #[test]
    fn copies_that_nobody_needs_go() {
        let (_dir, mut archive) = archive();
        let copies = [b"good", b"live", b"gone"].map(|bytes| (digest(bytes), bytes));
        for (digest, bytes) in &copies {
            archive.keep(digest, *bytes).unwrap();
        }
        let good = Version {
            digest: Arc::clone(&copies[0].0),
            settings: "".into(),
        };
        archive.note_good("10-a", good).unwrap();
        archive.tidy(&[Arc::clone(&copies[1].0)]).unwrap();
        let left = copies.map(|(digest, _)| archive.copy(&digest).unwrap().is_some());
        assert_eq!(left, [true, true, false]);
    }

    #[test]
    fn a_damaged_book_is_as_good_as_none() {
        let (dir, mut archive) = archive();
        archive.note_good("10-a", version(1)).unwrap();
        let path = dir.path().join(BOOK);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut broken = whole.clone();
            broken[at] ^= 1;
            for damaged in [&broken[..], &whole[..at]] {
                fs::write(&path, damaged).unwrap();
                assert_eq!(Archive::open(dir.path()).unwrap().book, [], "byte {at}");
            }
        }
    }

    #[test]
    fn without_a_folder_it_remembers_as_long_as_the_process_lives() {
        let mut archive = Archive::in_memory();
        archive.note_good("10-a", version(1)).unwrap();
        archive.keep("ab", b"x").unwrap();
        archive.tidy(&[]).unwrap();
        assert_eq!(archive.good("10-a"), [version(1)]);
        assert_eq!(archive.copy("ab").unwrap(), None);
    }
}
