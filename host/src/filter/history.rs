//! What is known of versions that were tried: which were refused, which ran well, which were taken back, and copies of those
//! that may be needed again. The archive outlives the host; what was merely refused is forgotten with it.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;

use super::archive::{Archive, Version};
use super::slot::{Became, Report};
use super::version::Made;
use crate::clock;

/// Refused versions that are remembered.
const REFUSED: usize = 256;
/// Admitted versions of a file whose copies stay: the newest may yet be refused by its swap.
const ADMITTED: usize = 2;

/// The loader's memory.
pub(super) struct History {
    archive: Archive,
    /// By component and settings; the newest last.
    refused: VecDeque<(Tried, String)>,
    /// Digests by file, the newest first.
    admitted: HashMap<Arc<str>, Vec<Arc<str>>>,
}

/// The digests of a component and of its settings' text.
#[derive(PartialEq, Eq)]
struct Tried(Arc<str>, Arc<str>);

impl Tried {
    fn of(version: &Version) -> Tried {
        let settings = super::engine::digest(version.settings.as_bytes());
        Tried(Arc::clone(&version.digest), settings)
    }
}

impl History {
    pub(super) fn new(archive: Archive) -> History {
        History {
            archive,
            refused: VecDeque::new(),
            admitted: HashMap::new(),
        }
    }

    /// What became of a version that was to run.
    pub(super) fn note(&mut self, report: Report) {
        let Report {
            file,
            digest,
            settings,
            became,
        } = report;
        let version = Version { digest, settings };
        let noted = match became {
            Became::Good => self.archive.note_good(&file, version),
            Became::TakenBack(why) => self.taken_back(&file, &version, &why),
            Became::NotStarted => Ok(()),
        };
        if let Err(error) = noted.and_then(|()| self.tidy()) {
            tracing::warn!(%error, filter = &*file, "what became of a version is not kept over a restart");
        }
    }

    /// A version that is not to be tried again, also after a restart.
    pub(super) fn taken_back(
        &mut self,
        file: &str,
        version: &Version,
        why: &str,
    ) -> io::Result<()> {
        self.archive.quarantine(file, version, why, clock::now_us())
    }

    /// A version that is not to be tried again by this process.
    pub(super) fn refused(&mut self, version: &Version, why: String) {
        if self.refused.len() == REFUSED {
            self.refused.pop_front();
        }
        self.refused.push_back((Tried::of(version), why));
    }

    /// Why a version is not to be tried.
    pub(super) fn why_not(&self, file: &str, version: &Version) -> Option<&str> {
        if let Some(held) = self.archive.quarantined(file, version) {
            return Some(&held.why);
        }
        let tried = Tried::of(version);
        let refused = self.refused.iter().rev().find(|(one, _)| *one == tried);
        refused.map(|(_, why)| why.as_str())
    }

    /// A version that may run now; a copy of it is kept while it may be needed.
    pub(super) fn admitted(&mut self, file: &Arc<str>, digest: &Arc<str>, component: &[u8]) {
        let admitted = self.admitted.entry(Arc::clone(file)).or_default();
        admitted.retain(|one| one != digest);
        admitted.insert(0, Arc::clone(digest));
        admitted.truncate(ADMITTED);
        let kept = self.archive.keep(digest, component);
        if let Err(error) = kept.and_then(|()| self.tidy()) {
            tracing::warn!(%error, filter = &**file, "no copy of the filter is kept: after a restart it cannot be gone back to");
        }
    }

    /// Copies of components that nobody needs any more go.
    fn tidy(&self) -> io::Result<()> {
        let admitted = self.admitted.values().flatten();
        let needed: Vec<Arc<str>> = admitted.cloned().collect();
        self.archive.tidy(&needed)
    }

    /// Whether it is the version that was good last.
    pub(super) fn is_good(&self, file: &str, made: &Made) -> bool {
        let good = self.archive.good(file).first();
        good.is_some_and(|good| made.is_version(&good.digest, &good.settings))
    }

    /// Versions that were good, the newest first, as far as there are copies of them.
    pub(super) fn good(&self, file: &str) -> Vec<(Version, Vec<u8>)> {
        let good = self.archive.good(file).iter();
        let copy = |version: &Version| {
            let bytes = self.archive.copy(&version.digest).ok().flatten()?;
            Some((version.clone(), bytes))
        };
        good.filter_map(copy).collect()
    }
}
