//! A disk in memory: a folder of files that can be damaged between two openings of a journal.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use jackfield::journal::{Disk, DiskFile, Lock};

/// What a disk fails to read at once.
const SECTOR: usize = 4096;
/// What Linux says of a sector that cannot be read.
const EIO: i32 = 5;
/// The zeros behind what was written to a preallocated file, however many were asked for: a MiB of them would teach nothing more,
/// and take most of the time.
const BLANK: usize = 512;

/// The disk; clones are the same disk.
#[derive(Clone, Debug, Default)]
pub(super) struct MemoryDisk(Arc<Mutex<BTreeMap<String, Content>>>);

/// One file, shared with whoever has it open.
type Content = Arc<Mutex<File>>;

#[derive(Clone, Debug, Default)]
pub(super) struct File {
    /// What was written; so many zeros follow.
    pub(super) bytes: Vec<u8>,
    blank: usize,
    /// Sectors that cannot be read, by number.
    pub(super) bad: BTreeSet<usize>,
}

impl File {
    pub(super) fn of(bytes: &[u8]) -> File {
        let bytes = bytes.to_vec();
        File {
            bytes,
            ..File::default()
        }
    }

    fn size(&self) -> usize {
        self.bytes.len() + self.blank
    }

    /// Whether this byte cannot be read.
    pub(super) fn is_bad(&self, at: usize) -> bool {
        self.bad.contains(&(at / SECTOR))
    }
}

impl MemoryDisk {
    /// The names of all files, in order.
    pub(super) fn names(&self) -> Vec<String> {
        lock(&self.0).keys().cloned().collect()
    }

    /// A copy of a file; an empty one where there is none.
    pub(super) fn file(&self, name: &str) -> File {
        let content = lock(&self.0).get(name).cloned();
        content.map_or_else(File::default, |content| lock(&content).clone())
    }

    /// Puts a file in the place of whatever is there.
    pub(super) fn put(&self, name: &str, file: File) {
        lock(&self.0).insert(name.to_owned(), Arc::new(Mutex::new(file)));
    }

    /// Takes a file away.
    pub(super) fn take(&self, name: &str) {
        lock(&self.0).remove(name);
    }

    /// Nobody writes any more: preallocated zeros are bytes like all others, which can be damaged.
    pub(super) fn settle(&self) {
        for content in lock(&self.0).values() {
            let mut file = lock(content);
            let size = file.size();
            file.bytes.resize(size, 0);
            file.blank = 0;
        }
    }

    fn content(&self, path: &Path) -> io::Result<Content> {
        let found = lock(&self.0).get(&name(path)).cloned();
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for MemoryDisk {
    fn make_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, _path: &Path) -> io::Result<Option<Lock>> {
        Ok(Some(Box::new(())))
    }

    fn create(&self, path: &Path, size: u64) -> io::Result<Arc<dyn DiskFile>> {
        if self.content(path).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = File {
            blank: index(size).min(BLANK),
            ..File::default()
        };
        lock(&self.0).insert(name(path), Arc::new(Mutex::new(file)));
        self.open(path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(OpenFile(self.content(path)?)))
    }

    fn list(&self, _dir: &Path) -> io::Result<Vec<(String, u64)>> {
        let files = lock(&self.0);
        let files = files
            .iter()
            .map(|(name, content)| (name.clone(), lock(content).size() as u64));
        Ok(files.collect())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let removed = lock(&self.0).remove(&name(path));
        removed
            .map(drop)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn truncate(&self, path: &Path, length: u64) -> io::Result<()> {
        let content = self.content(path)?;
        let mut file = lock(&content);
        file.bytes.truncate(index(length));
        file.blank = index(length) - file.bytes.len();
        Ok(())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
struct OpenFile(Content);

impl DiskFile for OpenFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut file = lock(&self.0);
        let (start, end) = (index(offset), index(offset) + bytes.len());
        if file.bytes.len() < end {
            file.bytes.resize(end, 0);
        }
        file.bytes[start..end].copy_from_slice(bytes);
        Ok(())
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let file = lock(&self.0);
        let start = index(offset);
        let length = file.size().saturating_sub(start).min(into.len());
        let mut sectors = start / SECTOR..(start + length).div_ceil(SECTOR);
        if length > 0 && sectors.any(|sector| file.bad.contains(&sector)) {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let written = file.bytes.get(start..).unwrap_or_default();
        let (from_bytes, blank) = into[..length].split_at_mut(written.len().min(length));
        from_bytes.copy_from_slice(&written[..from_bytes.len()]);
        blank.fill(0);
        Ok(length)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(lock(&self.0).size() as u64)
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().expect("nothing panics with the disk in hand")
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("a small file")
}

fn name(path: &Path) -> String {
    let name = path.file_name().expect("a file has a name");
    name.to_str().expect("names are text").to_owned()
}
