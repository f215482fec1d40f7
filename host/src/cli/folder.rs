//! A folder of a command's own, for what need not outlive it.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

/// Removed with all that is in it when it is dropped.
pub(super) struct Folder {
    pub(super) path: PathBuf,
}

impl Folder {
    /// A new, empty folder that nobody else may read: events carry numbers and digits.
    pub(super) fn new() -> io::Result<Folder> {
        let path = std::env::temp_dir().join(format!("jackfield-{}", std::process::id()));
        let made = |path: &PathBuf| DirBuilder::new().mode(0o700).create(path);
        match made(&path) {
            // Of a process that had our number before and was killed.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                std::fs::remove_dir_all(&path)?;
                made(&path)?;
            }
            other => other?,
        }
        Ok(Folder { path })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "the temporary folder stays");
        }
    }
}
