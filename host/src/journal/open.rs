//! Opening a journal: the lock, what an earlier process left, and a first segment of our own.
//!
//! Whatever the state of the files, it either refuses for a reason that a person must settle or leaves a journal that works;
//! damage and unfinished writes are no reasons.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::config;
use crate::journal::append::{Journal, Parts};
use crate::journal::disk::Disk;
use crate::journal::format::{EPOCH, LSN_END, file_name};
use crate::journal::recover::{Found, Survey, survey};
use crate::journal::sync::{Progress, Shared, Syncer};

/// The pause between two syncs, and so what a power cut may cost, in [`config::Sync::Interval`].
const INTERVAL: Duration = Duration::from_millis(10);

/// Why a journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another process has it.
    #[error("the journal in {} is in use by another process", dir.display())]
    Locked {
        /// The journal's folder.
        dir: PathBuf,
    },
    /// It was written for another FreeSWITCH.
    #[error("the journal in {} belongs to router {found:?}, not to {wanted:?}", dir.display())]
    OtherRouter {
        /// The journal's folder.
        dir: PathBuf,
        /// The name in the journal.
        found: String,
        /// The name that was asked for.
        wanted: String,
    },
    /// A newer program wrote it.
    #[error("{} has version {version} of the journal's format, this program knows version 1", path.display())]
    UnknownVersion {
        /// The segment.
        path: PathBuf,
        /// The version in its header.
        version: u32,
    },
    /// The folder cannot be made, read or written. A full disk is among these: numbers are safe only once
    /// the first segment is on disk. So is a folder with a number above which there is no room for another epoch.
    #[error("cannot use the journal's folder {}", dir.display())]
    Unwritable {
        /// The journal's folder.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Journal {
    /// Opens the journal in `settings.dir`, makes it if it is not there, and starts a new segment on disk.
    /// `router` is the name it must bear, where that is known already.
    pub fn open(
        disk: Arc<dyn Disk>,
        settings: &config::Journal,
        router: Option<&str>,
    ) -> Result<(Journal, Found), JournalError> {
        let pause = match settings.sync {
            config::Sync::Interval => Some(INTERVAL),
            config::Sync::Batch => Some(Duration::ZERO),
            config::Sync::Never => None,
        };
        Journal::open_synced(disk, settings, router, |shared| {
            pause.map(|pause| Syncer::start(shared, pause)).transpose()
        })
    }

    /// The same with whatever syncs.
    pub(super) fn open_synced(
        disk: Arc<dyn Disk>,
        settings: &config::Journal,
        router: Option<&str>,
        start: impl FnOnce(Shared) -> io::Result<Option<Syncer>>,
    ) -> Result<(Journal, Found), JournalError> {
        let dir = settings.dir.clone();
        let unwritable = |source| JournalError::Unwritable {
            dir: dir.clone(),
            source,
        };
        disk.make_dir(&dir).map_err(unwritable)?;
        let lock = disk.lock(&dir.join("lock")).map_err(unwritable)?;
        let Some(lock) = lock else {
            return Err(JournalError::Locked { dir });
        };
        let mut survey = survey(disk.as_ref(), &dir)?;
        if survey.highest >= LSN_END - EPOCH {
            return Err(unwritable(io::Error::other("its numbers are used up")));
        }
        if let (Some(found), Some(wanted)) = (&survey.router, router)
            && found != wanted
        {
            return Err(JournalError::OtherRouter {
                found: found.clone(),
                wanted: wanted.to_owned(),
                dir,
            });
        }
        cut_tails(disk.as_ref(), settings, &mut survey);
        let progress = Arc::new(Progress::default());
        let shared = Shared::new(Arc::clone(&disk), dir.clone(), Arc::clone(&progress));
        let parts = Parts {
            router: router.map(str::to_owned),
            syncer: start(shared).map_err(unwritable)?,
            progress,
            lock,
        };
        let (found, empty) = (survey.found.clone(), std::mem::take(&mut survey.empty));
        let mut journal = Journal::after(survey, disk, settings, parts);
        journal.start(&empty).map_err(unwritable)?;
        Ok((journal, found))
    }
}

/// Cuts off what an interrupted write left behind. It is harmless where that fails: readers stop before it.
fn cut_tails(disk: &dyn Disk, settings: &config::Journal, survey: &mut Survey) {
    if survey.found.torn_bytes > 0 {
        tracing::warn!(
            bytes = survey.found.torn_bytes,
            "an unfinished write at the journal's end is cut off"
        );
    }
    for (number, end) in &survey.tails {
        let Some(segment) = survey
            .segments
            .iter_mut()
            .find(|segment| segment.number == *number && segment.size > *end)
        else {
            continue;
        };
        let path = settings.dir.join(file_name(*number));
        if disk.truncate(&path, *end).is_ok() {
            segment.size = *end;
        }
    }
}
