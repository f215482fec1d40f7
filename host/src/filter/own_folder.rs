//! A folder that the host alone may write, for files that it believes later: compiled code, and what filters ran before.
//!
//! Files are replaced as a whole, by a rename, so a crash leaves the one before. It knows nothing of what is in them.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::clock;

/// The end of a file's name while it is written.
const NEW: &str = ".new";

/// A folder of this host's user.
#[derive(Clone, Debug)]
pub(super) struct OwnFolder(PathBuf);

/// A file of it.
#[derive(Debug)]
pub(super) struct OwnFile {
    pub(super) name: String,
    pub(super) size: u64,
    /// When it was written or [touched](OwnFolder::touch).
    pub(super) used: SystemTime,
}

impl OwnFolder {
    /// Makes the folder (0700) where it is missing. One that somebody else could have put files into is refused.
    pub(super) fn open(dir: &Path) -> io::Result<OwnFolder> {
        match DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let found = fs::symlink_metadata(dir)?;
        let user = rustix::process::geteuid().as_raw();
        let refuse = |why: String| {
            let text = format!("{} {why}", dir.display());
            Err(io::Error::new(ErrorKind::PermissionDenied, text))
        };
        if !found.is_dir() {
            return refuse("is no folder".to_owned());
        }
        if found.uid() != user {
            return refuse(format!("belongs to user {}, not to {user}", found.uid()));
        }
        if found.mode() & 0o022 != 0 {
            let mode = found.mode() & 0o777;
            return refuse(format!(
                "may be written by others (mode {mode:o}): chmod go-w, or remove it"
            ));
        }
        let folder = OwnFolder(dir.to_owned());
        for torn in folder.list(NEW)? {
            folder.remove(&torn.name)?;
        }
        Ok(folder)
    }

    pub(super) fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.0.join(name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        }
    }

    /// Replaces a file (0600) by these parts, one after the other. Waits for the disk.
    pub(super) fn write(&self, name: &str, parts: &[&[u8]]) -> io::Result<()> {
        let new = self.0.join(format!("{name}{NEW}"));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&new)?;
        for part in parts {
            file.write_all(part)?;
        }
        file.sync_data()?;
        fs::rename(&new, self.0.join(name))?;
        File::open(&self.0)?.sync_all()
    }

    /// Notes that the file was used.
    pub(super) fn touch(&self, name: &str) -> io::Result<()> {
        let now = UNIX_EPOCH + Duration::from_micros(clock::now_us());
        File::open(self.0.join(name))?.set_modified(now)
    }

    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.0.join(name))
    }

    /// The files whose names end so, in any order.
    pub(super) fn list(&self, suffix: &str) -> io::Result<Vec<OwnFile>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if name.ends_with(suffix) {
                let found = entry.metadata()?;
                files.push(OwnFile {
                    name,
                    size: found.len(),
                    used: found.modified()?,
                });
            }
        }
        Ok(files)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::OwnFolder;

    #[test]
    fn a_folder_is_made_for_its_owner_alone_and_so_are_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("own");
        let folder = OwnFolder::open(&dir).unwrap();
        folder.write("a", &[b"x", b"y"]).unwrap();
        let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(dir.clone()), mode(dir.join("a"))), (0o700, 0o600));
        assert_eq!(folder.read("a").unwrap(), Some(b"xy".to_vec()));
        assert_eq!(folder.read("b").unwrap(), None);
    }

    #[test]
    fn a_folder_that_others_may_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for (mode, allowed) in [(0o755, true), (0o770, false), (0o702, false)] {
            fs::set_permissions(dir.path(), Permissions::from_mode(mode)).unwrap();
            let opened = OwnFolder::open(dir.path());
            assert_eq!(opened.is_ok(), allowed, "{mode:o}: {opened:?}");
        }
        let other = dir.path().join("link");
        std::os::unix::fs::symlink("/usr", &other).unwrap();
        assert!(OwnFolder::open(&other).is_err(), "a link is no own folder");
    }

    #[test]
    fn what_a_crash_left_half_written_goes_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.new"), "half").unwrap();
        fs::write(dir.path().join("b"), "whole").unwrap();
        let folder = OwnFolder::open(dir.path()).unwrap();
        let names: Vec<String> = folder
            .list("")
            .unwrap()
            .into_iter()
            .map(|file| file.name)
            .collect();
        assert_eq!(names, ["b"]);
    }
}
