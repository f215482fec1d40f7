//! The disk under the journal: the few calls it needs, so that tests can make every one of them fail.
//!
//! [`RealDisk`] is the file system. It knows nothing of segments and records.

use std::any::Any;
use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

/// What is held as long as the journal is ours; dropping it lets go.
pub type Lock = Box<dyn Any + Send>;

/// A folder's files.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Makes the folder (0700) and those above it; one that is there stays as it is.
    fn make_dir(&self, dir: &Path) -> io::Result<()>;
    /// Takes the lock file at `path`, made where it is missing; none: somebody else has it.
    fn lock(&self, path: &Path) -> io::Result<Option<Lock>>;
    /// A new file (0600) of `size` zeros that writing will not make larger. Nothing is left behind by a failure.
    fn create(&self, path: &Path, size: u64) -> io::Result<Arc<dyn DiskFile>>;
    /// An existing file, for reading.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// The names and lengths of the files in a folder, in any order.
    fn list(&self, dir: &Path) -> io::Result<Vec<(String, u64)>>;
    /// Takes the file's name away; whoever has it open goes on reading it.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Cuts a file to its first `length` bytes.
    fn truncate(&self, path: &Path, length: u64) -> io::Result<()>;
    /// Makes the folder's new and removed names survive a power cut.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// An open file; threads may share it.
pub trait DiskFile: fmt::Debug + Send + Sync {
    /// Writes all of `bytes`; after an error any part of them may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Reads until `into` is full or the file ends; how much that was.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Makes everything written so far survive a power cut.
    fn sync(&self) -> io::Result<()>;
    /// The file's length now.
    fn size(&self) -> io::Result<u64>;
}

/// The machine's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn create(&self, path: &Path, size: u64) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new()
            .create_new(true)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(path)?;
        if let Err(error) = preallocate(&file, size) {
            // The first error is the one to tell; a file that stays costs its name.
            drop(std::fs::remove_file(path));
            return Err(error);
        }
        Ok(Arc::new(RealFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile(File::open(path)?)))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            match entry.metadata() {
                Ok(metadata) => files.push((name, metadata.len())),
                // It was removed while we looked.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(files)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn truncate(&self, path: &Path, length: u64) -> io::Result<()> {
        OpenOptions::new().write(true).open(path)?.set_len(length)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
}

/// Reserves the blocks now, so that a full disk shows when a segment begins and not within it.
fn preallocate(file: &File, size: u64) -> io::Result<()> {
    loop {
        return match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size) {
            Err(Errno::INTR) => continue,
            // This file system cannot reserve.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => file.set_len(size),
            other => other.map_err(io::Error::from),
        };
    }
}

#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.0.read_at(rest, offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}
