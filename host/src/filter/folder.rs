//! The filter folder as it stands: which files are there, and whether they have settled.
//!
//! A file counts once its size and times have stayed the same between two looks, so that one that is being copied is not
//! read half. Looks happen on a watch event and on a timer, because bind mounts and symlink swaps raise no events.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The largest component file that is read.
const MAX_COMPONENT: u64 = 64 << 20;
/// The largest settings file.
const MAX_SETTINGS: u64 = 1 << 20;

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

/// What tells one state of a file from another without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    regular: bool,
}

type Stamps = BTreeMap<Arc<str>, (Stamp, Option<Stamp>)>;

/// The folder, and what was seen of it at the last look.
#[derive(Debug)]
pub struct Folder {
    dir: PathBuf,
    seen: Stamps,
    taken: Option<Stamps>,
}

impl Folder {
    /// A folder that need not exist: no folder, no filters.
    pub fn new(dir: PathBuf) -> Folder {
        Folder {
            dir,
            seen: Stamps::new(),
            taken: None,
        }
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether the folder differs from what was taken last.
    pub fn look(&mut self) -> Look {
        let now = stamps(&self.dir);
        let settled = now == self.seen;
        self.seen = now;
        match (self.taken.as_ref() == Some(&self.seen), settled) {
            (true, _) => Look::Same,
            (false, false) => Look::Settling,
            (false, true) => Look::Changed,
        }
    }

    /// Reads the filters as they were at the last look.
    pub fn take(&mut self) -> Vec<FilterFile> {
        self.taken = Some(self.seen.clone());
        let read = |(name, (component, settings)): (&Arc<str>, &(Stamp, Option<Stamp>))| {
            let path = |extension: &str| self.dir.join(format!("{name}.{extension}"));
            FilterFile {
                name: Arc::clone(name),
                component: read_file(&path("wasm"), component, MAX_COMPONENT),
                settings: match settings {
                    None => Ok(String::new()),
                    Some(stamp) => {
                        read_file(&path("toml"), stamp, MAX_SETTINGS).and_then(|bytes| {
                            String::from_utf8(bytes)
                                .map_err(|_| format!("{name}.toml is not UTF-8"))
                        })
                    }
                },
            }
        };
        self.seen.iter().map(read).collect()
    }
}

/// What a look saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing new.
    Same,
    /// Something is changing.
    Settling,
    /// Something has changed and settled.
    Changed,
}

fn read_file(path: &Path, stamp: &Stamp, max: u64) -> Result<Vec<u8>, String> {
    let shown = path.display();
    if !stamp.regular {
        return Err(format!("{shown} is not a regular file"));
    }
    if stamp.size > max {
        return Err(format!(
            "{shown} has {} bytes; at most {max} are allowed",
            stamp.size
        ));
    }
    let file = fs::File::open(path).map_err(|error| format!("{shown}: {error}"))?;
    let mut bytes = Vec::new();
    file.take(max + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("{shown}: {error}"))?;
    Ok(bytes)
}

fn stamps(dir: &Path) -> Stamps {
    let Ok(entries) = fs::read_dir(dir) else {
        return Stamps::new();
    };
    let mut stamps = Stamps::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        let Some(name) = filter_name(&path) else {
            continue;
        };
        if let Some(component) = stamp(&path) {
            stamps.insert(name, (component, stamp(&path.with_extension("toml"))));
        }
    }
    stamps
}

/// `10-redact` of `10-redact.wasm`; hidden files are no filters.
fn filter_name(path: &Path) -> Option<Arc<str>> {
    let name = path.file_name()?.to_str()?.strip_suffix(".wasm")?;
    (!name.is_empty() && !name.starts_with('.')).then(|| name.into())
}

/// Follows symlinks: a ConfigMap's files are links to links.
fn stamp(path: &Path) -> Option<Stamp> {
    let meta = fs::metadata(path).ok()?;
    Some(Stamp {
        inode: (meta.dev(), meta.ino()),
        size: meta.size(),
        modified: (meta.mtime(), meta.mtime_nsec()),
        changed: (meta.ctime(), meta.ctime_nsec()),
        regular: meta.is_file(),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Folder, Look};

    #[test]
    fn a_file_counts_once_it_has_settled() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = Folder::new(dir.path().to_owned());
        assert_eq!(
            folder.look(),
            Look::Changed,
            "an empty folder is a state that nobody has taken"
        );
        assert!(folder.take().is_empty());
        fs::write(dir.path().join("20-b.wasm"), "b").unwrap();
        assert_eq!(folder.look(), Look::Settling);
        fs::write(dir.path().join("20-b.wasm"), "bb").unwrap();
        assert_eq!(folder.look(), Look::Settling, "it is still being written");
        assert_eq!(folder.look(), Look::Changed);
        assert_eq!(folder.take().first().unwrap().component, Ok(b"bb".to_vec()));
        assert_eq!(folder.look(), Look::Same);
    }

    #[test]
    fn filters_come_in_name_order_with_their_settings() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("20-b.wasm", "b"),
            ("10-a.wasm", "a"),
            ("10-a.toml", "x = 1"),
            (".c.wasm", "c"),
            ("d.txt", "d"),
        ] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        fs::create_dir(dir.path().join("30-dir.wasm")).unwrap();
        let mut folder = Folder::new(dir.path().to_owned());
        folder.look();
        let files = folder.take();
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
    fn a_swapped_symlink_is_a_change() {
        let dir = tempfile::tempdir().unwrap();
        for version in ["v1", "v2"] {
            fs::create_dir(dir.path().join(version)).unwrap();
            fs::write(dir.path().join(version).join("a.wasm"), version).unwrap();
        }
        let data = dir.path().join("..data");
        std::os::unix::fs::symlink("v1", &data).unwrap();
        std::os::unix::fs::symlink("..data/a.wasm", dir.path().join("a.wasm")).unwrap();
        let mut folder = Folder::new(dir.path().to_owned());
        folder.look();
        assert_eq!(folder.take()[0].component, Ok(b"v1".to_vec()));
        fs::remove_file(&data).unwrap();
        std::os::unix::fs::symlink("v2", &data).unwrap();
        assert_eq!(folder.look(), Look::Settling);
        assert_eq!(folder.look(), Look::Changed);
        assert_eq!(folder.take()[0].component, Ok(b"v2".to_vec()));
    }
}
