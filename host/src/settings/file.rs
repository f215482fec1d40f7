//! Watches the settings file: whatever replaces it, and however, it is read once it has stayed the same for a while.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;

use super::{Settings, lock, stamp_of};
use crate::stamp::{POLL, SETTLE, Stamp, watch_folder};

impl Settings {
    /// The file that is read next, and how it was when it was read last.
    fn place(&self) -> (Option<PathBuf>, Option<Stamp>) {
        let in_force = lock(&self.in_force);
        (in_force.sources.path(), in_force.stamp.clone())
    }
}

/// What one look at the file says.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    Same,
    Settling,
    Changed,
}

/// `before` is how it was at the last look, `read` when it was read.
fn look(before: &mut Option<Stamp>, now: Option<Stamp>, read: Option<&Stamp>) -> Look {
    if *before != now {
        *before = now;
        Look::Settling
    } else if before.as_ref() == read {
        Look::Same
    } else {
        Look::Changed
    }
}

/// Reloads the settings whenever the file has changed and settled, until `stop` is set.
pub fn watch(settings: &Settings, stop: &AtomicBool) {
    let (wake, woken) = sync_channel(1);
    let (mut watcher, mut settling) = (None, false);
    let (_, mut seen) = settings.place();
    loop {
        if watcher.is_none() {
            let (path, _) = settings.place();
            let folder = path.as_deref().and_then(Path::parent);
            let folder = folder.filter(|folder| *folder != Path::new(""));
            watcher = watch_folder(folder.unwrap_or(Path::new(".")), wake.clone());
        }
        if settling {
            // One change raises many events: none of them may shorten the time in which it has to stay the same.
            std::thread::sleep(SETTLE);
        } else {
            let _woken_or_due = woken.recv_timeout(POLL);
        }
        if stop.load(Ordering::Acquire) {
            return;
        }
        let (path, read) = settings.place();
        let now = path.as_deref().and_then(stamp_of);
        let found = look(&mut seen, now, read.as_ref());
        settling = found == Look::Settling;
        if found == Look::Changed {
            // What came of it is told where it is done.
            let _told = settings.reload_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::super::stamp_of;
    use super::{Look, look};

    #[test]
    fn a_change_counts_once_it_has_settled_and_once() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("a.toml"), dir.path().join("b.toml"));
        let mut seen = None;
        let read = None;
        assert_eq!(look(&mut seen, stamp_of(&path), read), Look::Same, "none");
        fs::write(&path, "a").unwrap();
        assert_eq!(look(&mut seen, stamp_of(&path), read), Look::Settling);
        fs::write(&path, "ab").unwrap();
        assert_eq!(look(&mut seen, stamp_of(&path), read), Look::Settling);
        assert_eq!(look(&mut seen, stamp_of(&path), read), Look::Changed);
        let read = seen.clone();
        let read = read.as_ref();
        assert_eq!(look(&mut seen, stamp_of(&path), read), Look::Same);
        fs::write(&other, "ab").unwrap();
        fs::rename(&other, &path).unwrap();
        assert_eq!(
            look(&mut seen, stamp_of(&path), read),
            Look::Settling,
            "another file of the same size"
        );
        assert_eq!(look(&mut seen, stamp_of(&path), read), Look::Changed);
    }

    #[test]
    fn a_link_in_the_way_to_the_file_that_leads_elsewhere_is_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for version in ["one", "two"] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("a.toml"), "same").unwrap();
        }
        symlink("one", at("..data")).unwrap();
        symlink("..data/a.toml", at("a.toml")).unwrap();
        let before = stamp_of(&at("a.toml"));
        symlink("two", at("..next")).unwrap();
        fs::rename(at("..next"), at("..data")).unwrap();
        assert!(before.is_some() && before != stamp_of(&at("a.toml")));
    }
}
