//! What the filters, and the calls that are believed alive, keep over a restart: one file in the journal's folder, with the number of the newest
//! input that each of them knows.
//!
//! It is replaced as a whole, by a rename, so a crash leaves the one before it. A file that does not read is as good as none:
//! filters then start anew, and no event depends on it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::calls::Calls;
use crate::filter::Kept;
use crate::journal::Lsn;

const FILE: &str = "filters.state";
/// Version of the encoding, in the first byte.
const VERSION: u8 = 3;

/// What there is to keep between two inputs.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Saved {
    /// The journal's id: numbers of another journal mean nothing.
    pub(super) journal: String,
    /// Of the filters. Each knows as much of the past as its own number says.
    pub(super) filters: Vec<Kept>,
    /// Those that are believed alive. Not copied: there may be many.
    pub(super) calls: Arc<Calls>,
    /// The calls know every input up to here, and none after it.
    pub(super) lsn: Lsn,
}

impl Saved {
    /// The newest input that something in it knows.
    pub(super) fn newest(&self) -> Lsn {
        let filters = self.filters.iter().map(|kept| kept.lsn);
        filters.fold(self.lsn, Lsn::max)
    }

    /// What the run before this one saved for this journal.
    pub(super) fn load(dir: &Path, journal: &str) -> Option<Saved> {
        let path = dir.join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "saved state of the filters cannot be read");
                return None;
            }
        };
        let saved = decode(&bytes);
        if saved.is_none() {
            tracing::warn!(path = %path.display(), "saved state of the filters is damaged: they start anew");
        }
        saved.filter(|saved| saved.journal == journal)
    }

    /// Replaces the file. Waits for the disk.
    pub(super) fn store(&self, dir: &Path) -> io::Result<()> {
        let bytes = encode(self).map_err(io::Error::other)?;
        let new = dir.join(format!("{FILE}.new"));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&new)?;
        file.write_all(&bytes)?;
        file.sync_data()?;
        fs::rename(&new, dir.join(FILE))?;
        File::open(dir)?.sync_all()
    }
}

fn encode(saved: &Saved) -> Result<Vec<u8>, postcard::Error> {
    let mut bytes = postcard::to_extend(saved, vec![VERSION])?;
    let sum = crc32c::crc32c(&bytes);
    bytes.extend(sum.to_le_bytes());
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Option<Saved> {
    let (bytes, sum) = bytes.split_last_chunk()?;
    if crc32c::crc32c(bytes) != u32::from_le_bytes(*sum) {
        return None;
    }
    let (version, bytes) = bytes.split_first()?;
    (*version == VERSION)
        .then(|| postcard::from_bytes(bytes).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::{Arc, FILE, Kept, Saved};

    fn saved() -> Saved {
        Saved {
            journal: "a".to_owned(),
            filters: vec![Kept {
                file: "10-dedup".into(),
                lsn: 1 << 30,
                state: Some(vec![1, 2, 3].into()),
            }],
            calls: Arc::default(),
            lsn: 1 << 40,
        }
    }

    #[test]
    fn what_was_stored_is_loaded_for_the_same_journal_only() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Saved::load(dir.path(), "a"), None, "nothing was saved yet");
        saved().store(dir.path()).unwrap();
        assert_eq!(Saved::load(dir.path(), "a"), Some(saved()));
        assert_eq!(Saved::load(dir.path(), "b"), None, "of another journal");
    }

    #[test]
    fn a_damaged_file_is_as_good_as_none() {
        let dir = tempfile::tempdir().unwrap();
        saved().store(dir.path()).unwrap();
        let path = dir.path().join(FILE);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut broken = whole.clone();
            broken[at] ^= 1;
            std::fs::write(&path, &broken).unwrap();
            assert_eq!(Saved::load(dir.path(), "a"), None, "byte {at} flipped");
            std::fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(Saved::load(dir.path(), "a"), None, "cut at byte {at}");
        }
    }
}
