//! Machine code of components that were compiled before, by their digest and what the engine says of itself: another version
//! of it, or another processor, finds nothing here.
//!
//! Code is believed only if its checksum fits, so a torn or damaged file is compiled again. The least recently used go.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::engine::Engine;
use super::own_folder::OwnFolder;

/// Files that are kept: as many as filters run.
const FILES: usize = 256;
/// Bytes of all of them.
const BYTES: u64 = 1 << 30;

const SUFFIX: &str = ".code";
const CHECKSUM: usize = 32;

/// The files of machine code in the host's own folder.
pub(super) struct Cache {
    folder: OwnFolder,
    engine: u64,
}

impl Cache {
    /// The cache of an earlier run, or a new one.
    pub(super) fn open(dir: &Path, engine: &Engine) -> io::Result<Cache> {
        let mut hasher = DefaultHasher::new();
        engine
            .wasmtime()
            .precompile_compatibility_hash()
            .hash(&mut hasher);
        Ok(Cache {
            folder: OwnFolder::open(dir)?,
            engine: hasher.finish(),
        })
    }

    /// The code of the component with this digest.
    pub(super) fn find(&self, digest: &str) -> Option<Vec<u8>> {
        let name = self.name(digest);
        let found = self.folder.read(&name).and_then(|found| {
            if found.is_some() {
                self.folder.touch(&name)?;
            }
            Ok(found)
        });
        let mut bytes = match found {
            Ok(found) => found?,
            Err(error) => {
                tracing::warn!(%error, file = name, "compiled filter cannot be read: compiling it again");
                return None;
            }
        };
        let code = bytes.split_off(CHECKSUM.min(bytes.len()));
        if bytes != checksum(&name, &code) {
            tracing::warn!(
                file = name,
                "compiled filter is damaged: compiling it again"
            );
            return None;
        }
        Some(code)
    }

    /// Keeps code; without it, the next start compiles again.
    pub(super) fn keep(&self, digest: &str, code: &[u8]) {
        let name = self.name(digest);
        let kept = self
            .folder
            .write(&name, &[&checksum(&name, code), code])
            .and_then(|()| self.forget_oldest());
        if let Err(error) = kept {
            tracing::warn!(%error, file = name, "compiled filter cannot be kept");
        }
    }

    fn name(&self, digest: &str) -> String {
        format!("{digest}-{:016x}{SUFFIX}", self.engine)
    }

    fn forget_oldest(&self) -> io::Result<()> {
        let mut files = self.folder.list(SUFFIX)?;
        files.sort_by_key(|file| std::cmp::Reverse(file.used));
        let mut bytes = 0;
        for (place, file) in files.iter().enumerate() {
            bytes += file.size;
            if place >= FILES || bytes > BYTES {
                self.folder.remove(&file.name)?;
            }
        }
        Ok(())
    }
}

/// The name is in it: code under another name is none.
fn checksum(name: &str, code: &[u8]) -> [u8; CHECKSUM] {
    Sha256::new()
        .chain_update(name)
        .chain_update(code)
        .finalize()
        .into()
}

#[cfg(test)]
mod tests {
    use super::{Cache, FILES, OwnFolder};

    fn cache(engine: u64) -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().unwrap();
        let folder = OwnFolder::open(&dir.path().join("filters")).unwrap();
        (dir, Cache { folder, engine })
    }

    #[test]
    fn what_was_kept_is_found_by_the_same_engine_only() {
        let (_dir, mut cache) = cache(1);
        assert_eq!(cache.find("ab"), None);
        cache.keep("ab", b"code");
        assert_eq!(cache.find("ab"), Some(b"code".to_vec()));
        assert_eq!(cache.find("cd"), None, "another component");
        cache.engine = 2;
        assert_eq!(cache.find("ab"), None, "another engine");
    }

    #[test]
    fn damaged_torn_and_renamed_code_is_none() {
        let (dir, cache) = cache(1);
        cache.keep("ab", b"code");
        let path = dir.path().join("filters").join(cache.name("ab"));
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut broken = whole.clone();
            broken[at] ^= 1;
            std::fs::write(&path, &broken).unwrap();
            assert_eq!(cache.find("ab"), None, "byte {at} flipped");
            std::fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(cache.find("ab"), None, "cut at byte {at}");
        }
        std::fs::write(path.with_file_name(cache.name("cd")), &whole).unwrap();
        assert_eq!(cache.find("cd"), None, "of another component");
    }

    #[test]
    fn the_least_recently_used_go() {
        let (_dir, cache) = cache(1);
        for number in 0..FILES {
            cache.keep(&number.to_string(), b"code");
        }
        assert!(cache.find("0").is_some(), "used again");
        cache.keep("new", b"code");
        assert!(cache.find("0").is_some());
        assert_eq!(cache.find("1"), None);
        assert!(cache.find("2").is_some());
    }
}
