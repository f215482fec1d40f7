//! One file as it was at a look, and how exactly that is read: nothing that has changed since, nothing that blocks, nothing from
//! outside of its folder. And how to hear early that a file of a folder may have changed.

use std::fs::{self, File, Metadata};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// How often files are looked at without a watch event.
pub(crate) const POLL: Duration = Duration::from_millis(500);
/// How long a file has to stay the same.
pub(crate) const SETTLE: Duration = Duration::from_millis(100);

/// What tells one state of a file from another without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stamp {
    /// A regular file of the folder, perhaps at the end of symlinks.
    Regular {
        /// Where it was looked for.
        at: PathBuf,
        /// Where it is, without symlinks.
        real: PathBuf,
        state: State,
    },
    /// Something that cannot be read as a file, and why.
    Unreadable(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl State {
    fn of(found: &Metadata) -> State {
        State {
            inode: (found.dev(), found.ino()),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }
}

impl Stamp {
    /// What is at `path` in `folder`, which has no symlinks itself; nothing where there is no file. Symlinks are followed, as a
    /// ConfigMap's files are links to links, but only within the folder.
    pub(crate) fn of(path: &Path, folder: &Path) -> Option<Stamp> {
        let shown = path.display();
        let unreadable = |why: String| Some(Stamp::Unreadable(why));
        let found = fs::canonicalize(path).and_then(|real| {
            let found = fs::symlink_metadata(&real)?;
            Ok((real, found))
        });
        match found {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => unreadable(format!("{shown}: {error}")),
            Ok((real, _)) if !real.starts_with(folder) => unreadable(format!(
                "{shown} leads to {}, outside of {}",
                real.display(),
                folder.display()
            )),
            Ok((_, found)) if !found.is_file() => {
                unreadable(format!("{shown} is not a regular file"))
            }
            Ok((real, found)) => Some(Stamp::Regular {
                at: path.to_owned(),
                real,
                state: State::of(&found),
            }),
        }
    }

    /// The file's bytes; none if it is not as it was, before or after it was read.
    pub(crate) fn read(&self, max: u64) -> Result<Option<Vec<u8>>, String> {
        let (shown, real, state) = match self {
            Stamp::Regular { at, real, state } => (at.display(), real, state),
            Stamp::Unreadable(why) => return Err(why.clone()),
        };
        let State { size, .. } = *state;
        if size > max {
            return Err(format!(
                "{shown} has {size} bytes; at most {max} are allowed"
            ));
        }
        // What may be there by now must neither block nor do anything by being opened.
        let flags =
            OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let mut file = match rustix::fs::open(real, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT | Errno::LOOP) => return Ok(None),
            Err(error) => return Err(format!("{shown}: {error}")),
        };
        let read = |file: &mut File| {
            if State::of(&file.metadata()?) != *state {
                return Ok(None);
            }
            let mut bytes = Vec::new();
            file.take(size + 1).read_to_end(&mut bytes)?;
            let same = State::of(&file.metadata()?) == *state && bytes.len() as u64 == size;
            Ok(same.then_some(bytes))
        };
        read(&mut file).map_err(|error: std::io::Error| format!("{shown}: {error}"))
    }
}

/// A watch only makes it faster; without one, looks by the timer find every change.
pub(crate) fn watch_folder(dir: &Path, wake: SyncSender<()>) -> Option<RecommendedWatcher> {
    let woke = move |event: notify::Result<notify::Event>| {
        // Our own looks are accesses: waking for them would never end.
        if !event.is_ok_and(|event| event.kind.is_access()) {
            // A full channel means that whoever looks is to wake anyway.
            let _full = wake.try_send(());
        }
    };
    let mut watcher = notify::recommended_watcher(woke).ok()?;
    watcher.watch(dir, RecursiveMode::NonRecursive).ok()?;
    Some(watcher)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::process::Command;

    use super::Stamp;

    fn stamped(dir: &Path) -> (std::path::PathBuf, Stamp) {
        let path = dir.join("a.wasm");
        fs::write(&path, "a").unwrap();
        let stamp = Stamp::of(&path, dir).unwrap();
        (path, stamp)
    }

    #[test]
    fn a_file_is_read_as_it_was_stamped_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let dir = fs::canonicalize(dir.path()).unwrap();
        let (path, stamp) = stamped(&dir);
        assert_eq!(stamp.read(10), Ok(Some(b"a".to_vec())));
        fs::write(&path, "bb").unwrap();
        assert_eq!(stamp.read(10), Ok(None), "written again");
        let (_, stamp) = stamped(&dir);
        fs::write(dir.join("new"), "a").unwrap();
        fs::rename(dir.join("new"), &path).unwrap();
        assert_eq!(stamp.read(10), Ok(None), "replaced by one of the same size");
        fs::remove_file(&path).unwrap();
        assert_eq!(stamp.read(10), Ok(None), "gone");
    }

    #[test]
    fn what_was_swapped_in_since_neither_blocks_nor_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let dir = fs::canonicalize(dir.path()).unwrap();
        let swaps: [fn(&Path); 4] = [
            |path| symlink("/dev/zero", path).unwrap(),
            |path| symlink("/dev/tty", path).unwrap(),
            |path| fs::create_dir(path).unwrap(),
            |path| {
                let made = Command::new("mkfifo").arg(path).status().unwrap();
                assert!(made.success());
            },
        ];
        for swap in swaps {
            let (path, stamp) = stamped(&dir);
            fs::remove_file(&path).unwrap();
            swap(&path);
            assert_eq!(stamp.read(10), Ok(None));
            if path.is_dir() {
                fs::remove_dir(&path).unwrap();
            } else {
                fs::remove_file(&path).unwrap();
            }
        }
    }

    #[test]
    fn a_link_out_of_the_folder_is_not_followed_and_named() {
        let outside = tempfile::tempdir().unwrap();
        let outside = fs::canonicalize(outside.path()).unwrap();
        let (target, _) = stamped(&outside);
        let dir = tempfile::tempdir().unwrap();
        let dir = fs::canonicalize(dir.path()).unwrap();
        let path = dir.join("b.wasm");
        symlink(&target, &path).unwrap();
        let why = format!(
            "{} leads to {}, outside of {}",
            path.display(),
            target.display(),
            dir.display()
        );
        assert_eq!(Stamp::of(&path, &dir), Some(Stamp::Unreadable(why)));
    }
}
