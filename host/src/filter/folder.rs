//! The filter folder as it stands: which files are there, which have settled, and what is in those that are new.
//!
//! A filter counts once its files have stayed the same between two looks, so that one that is being copied is not read half; one
//! that never does keeps no other waiting. Looks happen on a watch event and on a timer, because bind mounts and symlink swaps
//! raise no events. A folder that cannot be read for now says nothing: filters stay as they are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::refusal::Refusal;
use crate::config::{FilterLimits, filter_settings};
use crate::stamp::Stamp;

/// The largest component file that is read.
pub(super) const MAX_COMPONENT: u64 = 64 << 20;
/// The largest settings file.
pub(super) const MAX_SETTINGS: u64 = 1 << 20;
/// Filters that run; each takes a share of the pipeline's thread and its own memory.
const MAX_FILTERS: usize = 64;
/// A file that changes for so long is spoken of.
const UNSETTLED: Duration = Duration::from_secs(5);

/// One filter of the folder, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterFile {
    /// The file's name without `.wasm`.
    pub name: Arc<str>,
    /// The component's bytes, or why they cannot be had.
    pub component: Result<Vec<u8>, String>,
    /// The text of `NAME.toml`; empty if there is none.
    pub settings: Result<String, String>,
}

impl FilterFile {
    /// The component's bytes.
    pub(super) fn bytes(&self) -> Result<&[u8], Refusal> {
        let bytes = self.component.as_deref();
        bytes.map_err(|error| Refusal::Unreadable(error.clone()))
    }

    /// The settings' text; empty where it cannot be had.
    pub(super) fn text(&self) -> &str {
        self.settings.as_deref().unwrap_or_default()
    }

    /// Its own limits, which are `defaults` where it says nothing, and the settings for the guest as JSON text.
    pub(super) fn read_settings(
        &self,
        defaults: &FilterLimits,
    ) -> Result<(FilterLimits, String), Refusal> {
        let text = self.settings.as_deref();
        let text = text.map_err(|error| Refusal::Unreadable(error.clone()))?;
        filter_settings(text, defaults)
            .map_err(|mistakes| Refusal::Settings(mistakes.to_string().replace('\n', "; ")))
    }
}

/// One filter of the folder, as far as it is to be known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// As it was taken before, or changing and not to be read now.
    Unchanged(Arc<str>),
    /// New or changed.
    Read(FilterFile),
}

impl Taken {
    /// The file's name without `.wasm`.
    pub fn name(&self) -> &Arc<str> {
        match self {
            Taken::Unchanged(name) => name,
            Taken::Read(file) => &file.name,
        }
    }
}

/// What a look saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Something has changed and settled.
    pub changed: bool,
    /// Something is changing.
    pub settling: bool,
    /// Filters beyond the 64 that may run.
    pub ignored: usize,
}

/// The folder, and what was seen of it at the last look.
#[derive(Debug)]
pub struct Folder {
    dir: PathBuf,
    files: BTreeMap<Arc<str>, Tracked>,
    ignored: usize,
    /// As far as they were taken.
    ignored_taken: usize,
    /// Before it there is nothing that could have stayed the same.
    first_look: bool,
    readable: bool,
}

/// The two files of one filter.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamps {
    component: Stamp,
    settings: Option<Stamp>,
}

/// One filter over time.
#[derive(Debug, Default)]
struct Tracked {
    /// At the last look; none: it was not there.
    seen: Option<Stamps>,
    taken: Option<Stamps>,
    changing_since: Option<Instant>,
    told: bool,
}

impl Tracked {
    fn look(&mut self, name: &str, found: Option<Stamps>, now: Instant) {
        if found == self.seen {
            (self.changing_since, self.told) = (None, false);
            return;
        }
        self.seen = found;
        let since = *self.changing_since.get_or_insert(now);
        if !self.told && now.duration_since(since) > UNSETTLED {
            self.told = true;
            tracing::warn!(
                filter = name,
                "file does not settle: it is not read while it keeps changing"
            );
        }
    }

    fn settled(&self) -> bool {
        self.changing_since.is_none()
    }

    fn changed(&self) -> bool {
        self.settled() && self.seen != self.taken
    }

    /// What is to be known of it now; nothing where it is not there.
    fn take(&mut self, name: &Arc<str>) -> Option<Taken> {
        if self.changed() {
            match self.seen.as_ref().map(|stamps| stamps.read(name)) {
                Some(None) => self.changing_since = Some(Instant::now()),
                Some(Some(file)) => {
                    self.taken.clone_from(&self.seen);
                    return Some(Taken::Read(file));
                }
                None => self.taken = None,
            }
        }
        self.taken
            .as_ref()
            .map(|_| Taken::Unchanged(Arc::clone(name)))
    }
}

impl Stamps {
    /// None: it has changed since.
    fn read(&self, name: &Arc<str>) -> Option<FilterFile> {
        let component = self.component.read(MAX_COMPONENT).transpose()?;
        let settings = match &self.settings {
            None => Ok(Vec::new()),
            Some(stamp) => stamp.read(MAX_SETTINGS).transpose()?,
        };
        let text =
            |bytes| String::from_utf8(bytes).map_err(|_| format!("{name}.toml is not UTF-8"));
        Some(FilterFile {
            name: Arc::clone(name),
            component,
            settings: settings.and_then(text),
        })
    }
}

impl Folder {
    /// A folder that need not exist: no folder, no filters.
    pub fn new(dir: PathBuf) -> Folder {
        Folder {
            dir,
            files: BTreeMap::new(),
            ignored: 0,
            ignored_taken: 0,
            first_look: true,
            readable: true,
        }
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Looks what is there. At the first look everything counts as settled.
    pub fn look(&mut self) -> Look {
        let now = Instant::now();
        let was_readable = self.readable;
        let (mut found, ignored) = match stamps(&self.dir) {
            Ok(found) => found,
            Err(error) => {
                self.readable = false;
                if was_readable {
                    tracing::error!(%error, dir = %self.dir.display(), "the filter folder cannot be read: filters stay as they are");
                }
                return Look {
                    ignored: self.ignored,
                    ..Look::default()
                };
            }
        };
        self.readable = true;
        for name in found.keys() {
            self.files.entry(Arc::clone(name)).or_default();
        }
        for (name, file) in &mut self.files {
            let found = found.remove(name);
            if self.first_look {
                file.seen.clone_from(&found);
            }
            file.look(name, found, now);
        }
        self.files
            .retain(|_, file| file.seen.is_some() || file.taken.is_some());
        let still_ignored = self.first_look || ignored == self.ignored;
        self.ignored = ignored;
        self.first_look = false;
        let ignored_changed = still_ignored && ignored != self.ignored_taken;
        Look {
            changed: ignored_changed || self.files.values().any(Tracked::changed),
            settling: !still_ignored || !self.files.values().all(Tracked::settled),
            ignored,
        }
    }

    /// As if it had not been taken: the next take reads it again.
    pub fn forget(&mut self, name: &str) {
        if let Some(file) = self.files.get_mut(name) {
            file.taken = None;
        }
    }

    /// Filters beyond those that may run.
    pub fn ignored(&self) -> usize {
        self.ignored
    }

    /// The filters in name order, and what is in those that have changed and settled.
    pub fn take(&mut self) -> Vec<Taken> {
        if self.ignored > 0 && self.ignored != self.ignored_taken {
            tracing::error!(
                ignored = self.ignored,
                allowed = MAX_FILTERS,
                "too many filters: those behind the first ones in name order do not run"
            );
        }
        self.ignored_taken = self.ignored;
        self.files
            .iter_mut()
            .filter_map(|(name, file)| file.take(name))
            .collect()
    }
}

/// What is there of as many filters as may run, and how many there are beyond.
fn stamps(dir: &Path) -> io::Result<(BTreeMap<Arc<str>, Stamps>, usize)> {
    let mut names = BTreeSet::new();
    let folder = match fs::canonicalize(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok((BTreeMap::new(), 0)),
        other => other?,
    };
    for entry in fs::read_dir(dir)? {
        names.extend(filter_name(&entry?.path()));
    }
    let (mut found, mut ignored) = (BTreeMap::new(), 0);
    for name in names {
        if found.len() == MAX_FILTERS {
            ignored += 1;
            continue;
        }
        let stamp = |extension: &str| Stamp::of(&dir.join(format!("{name}.{extension}")), &folder);
        if let Some(component) = stamp("wasm") {
            let settings = stamp("toml");
            found.insert(
                name,
                Stamps {
                    component,
                    settings,
                },
            );
        }
    }
    Ok((found, ignored))
}

/// `10-redact` of `10-redact.wasm`; hidden files and names that break a line are no filters.
fn filter_name(path: &Path) -> Option<Arc<str>> {
    let name = path.file_name()?.to_str()?.strip_suffix(".wasm")?;
    let shown = !name.is_empty() && !name.starts_with('.') && !name.chars().any(char::is_control);
    shown.then(|| name.into())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::time::{Duration, Instant};

    use tempfile::TempDir;

    use super::{FilterFile, Folder, MAX_FILTERS, Stamps, Taken, Tracked, UNSETTLED, stamps};

    /// A folder that was taken while it was empty.
    fn folder() -> (TempDir, Folder) {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = Folder::new(dir.path().to_owned());
        assert!(!folder.look().changed, "there is nothing in it");
        (dir, folder)
    }

    fn write(dir: &TempDir, name: &str, text: &str) {
        fs::write(dir.path().join(name), text).unwrap();
    }

    /// Whether something changed, whether something is changing.
    fn look(folder: &mut Folder) -> (bool, bool) {
        let look = folder.look();
        (look.changed, look.settling)
    }

    const CHANGED: (bool, bool) = (true, false);
    const SETTLING: (bool, bool) = (false, true);
    const SAME: (bool, bool) = (false, false);

    fn read(taken: Vec<Taken>) -> Vec<FilterFile> {
        let read = taken.into_iter().filter_map(|taken| match taken {
            Taken::Read(file) => Some(file),
            Taken::Unchanged(_) => None,
        });
        read.collect()
    }

    #[test]
    fn a_file_counts_once_it_has_settled() {
        let (dir, mut folder) = folder();
        write(&dir, "20-b.wasm", "b");
        assert_eq!(look(&mut folder), SETTLING);
        write(&dir, "20-b.wasm", "bb");
        assert_eq!(look(&mut folder), SETTLING, "it is still being written");
        assert_eq!(look(&mut folder), CHANGED);
        assert_eq!(read(folder.take())[0].component, Ok(b"bb".to_vec()));
        assert_eq!(look(&mut folder), SAME);
        assert_eq!(folder.take(), [Taken::Unchanged("20-b".into())]);
        fs::remove_file(dir.path().join("20-b.wasm")).unwrap();
        assert_eq!(look(&mut folder), SETTLING);
        assert_eq!(
            folder.take(),
            [Taken::Unchanged("20-b".into())],
            "it may be on its way"
        );
        assert_eq!(look(&mut folder), CHANGED);
        assert_eq!(folder.take(), []);
    }

    #[test]
    fn a_file_that_never_stops_changing_keeps_no_other_waiting() {
        let (dir, mut folder) = folder();
        for round in 0..3 {
            write(&dir, "10-a.wasm", &"a".repeat(round));
            look(&mut folder);
        }
        write(&dir, "20-b.wasm", "b");
        look(&mut folder);
        write(&dir, "10-a.wasm", "aaaa");
        assert_eq!(look(&mut folder), (true, true));
        let files = read(folder.take());
        assert_eq!((files.len(), &*files[0].name), (1, "20-b"));
    }

    #[test]
    fn a_file_that_does_not_settle_is_spoken_of_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = Tracked::default();
        let (start, mut told) = (Instant::now(), Vec::new());
        for second in 0..8 {
            write(&dir, "a.wasm", &"a".repeat(second));
            let found = stamps(dir.path()).unwrap().0.into_values().next();
            file.look("a", found, start + Duration::from_secs(second as u64));
            told.push(file.told);
        }
        let unsettled = usize::try_from(UNSETTLED.as_secs()).unwrap();
        assert_eq!(told.iter().position(|told| *told), Some(unsettled + 1));
        let same: Option<Stamps> = file.seen.clone();
        file.look("a", same, start);
        assert!(!file.told && file.settled());
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_is_read_again_later() {
        let (dir, mut folder) = folder();
        write(&dir, "a.wasm", "a");
        look(&mut folder);
        assert_eq!(look(&mut folder), CHANGED);
        write(&dir, "a.wasm", "bb");
        assert_eq!(folder.take(), []);
        assert_eq!(look(&mut folder), SETTLING);
        assert_eq!(look(&mut folder), CHANGED);
        assert_eq!(read(folder.take())[0].component, Ok(b"bb".to_vec()));
    }

    #[test]
    fn filters_come_in_name_order_with_their_settings() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("20-b.wasm", "b"),
            ("10-a.wasm", "a"),
            ("10-a.toml", "x = 1"),
            (".c.wasm", "c"),
            ("two\nlines.wasm", "c"),
            ("d.txt", "d"),
        ] {
            write(&dir, name, text);
        }
        fs::create_dir(dir.path().join("30-dir.wasm")).unwrap();
        let mut folder = Folder::new(dir.path().to_owned());
        assert_eq!(look(&mut folder), CHANGED, "at the first look, as it is");
        let files = read(folder.take());
        let names: Vec<&str> = files.iter().map(|file| &*file.name).collect();
        assert_eq!(names, ["10-a", "20-b", "30-dir"]);
        assert_eq!(files[0].settings, Ok("x = 1".to_owned()));
        assert!(
            files[2]
                .component
                .as_ref()
                .unwrap_err()
                .ends_with("30-dir.wasm is not a regular file")
        );
    }

    #[test]
    fn filters_beyond_the_first_64_are_counted_and_left_out() {
        let (dir, mut folder) = folder();
        for number in 0..MAX_FILTERS + 3 {
            write(&dir, &format!("{number:03}.wasm"), "a");
        }
        assert_eq!(look(&mut folder), SETTLING);
        let seen = folder.look();
        assert_eq!((seen.changed, seen.ignored), (true, 3));
        let files = read(folder.take());
        assert_eq!(files.len(), MAX_FILTERS);
        assert_eq!(&*files.last().unwrap().name, "063");
        fs::remove_file(dir.path().join("066.wasm")).unwrap();
        assert_eq!(look(&mut folder), SETTLING);
        let seen = folder.look();
        assert_eq!(
            (seen.changed, seen.ignored),
            (true, 2),
            "a change of its own"
        );
        folder.take();
        assert_eq!(look(&mut folder), SAME);
    }

    #[test]
    fn a_folder_that_cannot_be_read_for_now_changes_nothing() {
        let (dir, mut folder) = folder();
        write(&dir, "a.wasm", "a");
        look(&mut folder);
        look(&mut folder);
        folder.take();
        let moved = dir.path().with_extension("moved");
        fs::rename(dir.path(), &moved).unwrap();
        fs::write(dir.path(), "a file where a folder is expected").unwrap();
        assert_eq!(look(&mut folder), SAME);
        assert_eq!(look(&mut folder), SAME);
        fs::remove_file(dir.path()).unwrap();
        fs::rename(&moved, dir.path()).unwrap();
        assert_eq!(look(&mut folder), SAME);
    }

    #[test]
    fn a_swapped_symlink_is_a_change() {
        let dir = tempfile::tempdir().unwrap();
        for version in ["v1", "v2"] {
            fs::create_dir(dir.path().join(version)).unwrap();
            fs::write(dir.path().join(version).join("a.wasm"), version).unwrap();
        }
        let data = dir.path().join("..data");
        symlink("v1", &data).unwrap();
        symlink("..data/a.wasm", dir.path().join("a.wasm")).unwrap();
        let mut folder = Folder::new(dir.path().to_owned());
        look(&mut folder);
        assert_eq!(read(folder.take())[0].component, Ok(b"v1".to_vec()));
        fs::remove_file(&data).unwrap();
        symlink("v2", &data).unwrap();
        assert_eq!(look(&mut folder), SETTLING);
        assert_eq!(look(&mut folder), CHANGED);
        assert_eq!(read(folder.take())[0].component, Ok(b"v2".to_vec()));
    }
}
