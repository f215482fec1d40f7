//! Turns the state of the folder into a change of the chain: reads, compiles, tries, off the hot path.
//!
//! Each version is attempted once: a file that was refused is tried again only when it or its settings change, and what was
//! refused or taken back before is not tried at all.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::admission::Admission;
use super::archive::{Archive, Version};
use super::cache::Cache;
use super::compiler::Compiler;
use super::engine::{Component, Engine, digest};
use super::folder::{FilterFile, Folder, Taken};
use super::history::History;
use super::refusal::{Again, Refusal, short};
use super::rehearsal::Occasion;
use super::slot::{Became, Refused, Report};
use super::status::Attempt;
use super::version::Made;
use crate::clock;
use crate::config::{FilterLimits, Filters, filter_settings};
use crate::metrics::Metrics;
use crate::stamp::{POLL, SETTLE, watch_folder};

/// Compiled components that are kept beside the running ones, for files that go back and forth.
const KEPT: usize = 16;
/// How long a start waits for filters that have to be compiled: no event is read meanwhile. What is not ready by then goes live
/// when it is; until then its last good version runs, or its `on_load` decides.
const START: Duration = Duration::from_secs(20);
/// The folder of the candidates, in `filters.dir`.
const SHADOW: &str = "shadow";

/// What the chain should become: all filters of the folder, in order.
pub struct Change {
    /// In name order.
    pub planned: Vec<Planned>,
    /// The candidates, in name order.
    pub shadows: Vec<Planned>,
    /// Filters beyond those that may run.
    pub ignored: usize,
}

/// One filter of a change.
pub struct Planned {
    /// The file's name without `.wasm`.
    pub file: Arc<str>,
    pub(super) plan: Plan,
    /// How the file got on, if it was tried.
    pub(super) attempt: Option<Attempt>,
    /// Versions that were good in an earlier run of the host, the newest first; told once a file.
    pub(super) good: Vec<Made>,
}

impl Planned {
    fn keep(file: Arc<str>) -> Planned {
        Planned {
            file,
            plan: Plan::Keep,
            attempt: None,
            good: Vec::new(),
        }
    }

    /// Why it cannot run, if it cannot.
    pub fn refusal(&self) -> Option<&Refusal> {
        match &self.plan {
            Plan::Refused(refused) => Some(&refused.why),
            _ => None,
        }
    }
}

pub(super) enum Plan {
    /// As it is.
    Keep,
    /// A new version or new settings.
    Start(Made),
    /// No version that could run.
    Refused(Refused),
}

/// A component's digest and its settings' text, or why that cannot be read.
type Tried = (Arc<str>, Result<String, String>);

/// Gives what the filter of a name saw last, in order.
pub type PastOf = Box<dyn Fn(&str) -> Box<dyn Iterator<Item = Occasion>> + Send>;

/// What a running host has beside the folder.
pub struct Beside {
    /// What the filter of a name saw last.
    pub past: PastOf,
    /// Where each gate is counted.
    pub metrics: Arc<Metrics>,
}

/// Watches the folder and prepares changes.
pub struct Loader {
    engine: Arc<Engine>,
    defaults: Filters,
    filters: Attempted,
    shadows: Attempted,
    compiler: Compiler,
    compiled: Vec<Component>,
    history: History,
    beside: Option<Beside>,
    /// New settings: limits for the versions that are to come.
    limits: Option<watch::Receiver<FilterLimits>>,
    /// The host stops: what is left undone is of no use any more.
    stop: Arc<AtomicBool>,
    /// While the host starts: how long it waits for filters.
    start_by: Option<Instant>,
    /// The host runs: there are events to yield to.
    is_watching: bool,
}

/// One folder, and what was tried last of each of its files.
struct Attempted {
    folder: Folder,
    last: HashMap<Arc<str>, Tried>,
}

impl Attempted {
    fn new(folder: Folder) -> Attempted {
        Attempted {
            folder,
            last: HashMap::new(),
        }
    }
}

impl Loader {
    /// A loader for `filters.dir` that compiles in this process, keeps nothing, and knows nothing of past traffic.
    pub fn new(engine: Arc<Engine>, defaults: Filters) -> Loader {
        let filters = Folder::new(defaults.dir.clone());
        let shadows = Folder::new(defaults.dir.join(SHADOW));
        Loader {
            engine,
            defaults,
            filters: Attempted::new(filters),
            shadows: Attempted::new(shadows),
            compiler: Compiler::here(),
            compiled: Vec::new(),
            history: History::new(Archive::in_memory()),
            beside: None,
            limits: None,
            stop: Arc::default(),
            start_by: None,
            is_watching: false,
        }
    }

    /// Compiles in a process apart, which ends when `stop` is set.
    #[must_use]
    pub fn apart(mut self, stop: Arc<AtomicBool>) -> Loader {
        self.compiler.go_apart(Arc::clone(&stop));
        self.stop = stop;
        self
    }

    /// Keeps what it compiled and what it knows of versions in `dir`, the host's own folder; where that cannot be, it goes on
    /// without.
    #[must_use]
    pub fn keeping(mut self, dir: &Path) -> Loader {
        let opened =
            Archive::open(dir).and_then(|archive| Ok((archive, Cache::open(dir, &self.engine)?)));
        match opened {
            Ok((archive, cache)) => {
                self.history = History::new(archive);
                self.compiler.keep_in(cache);
            }
            Err(error) => {
                tracing::error!(%error, "neither compiled filters nor their versions are kept");
            }
        }
        self
    }

    /// Follows new settings: versions that run keep the limits that they started with.
    #[must_use]
    pub fn following(mut self, limits: watch::Receiver<FilterLimits>) -> Loader {
        self.limits = Some(limits);
        self
    }

    /// Tries filters on past traffic, and counts what becomes of them.
    #[must_use]
    pub fn beside(mut self, beside: Beside) -> Loader {
        self.beside = Some(beside);
        self
    }

    /// The filters as they are now, without waiting for the folder to settle: for the start. A host does not wait for ever for
    /// its filters, and candidates can wait until it runs.
    pub fn load(&mut self) -> Change {
        self.filters.folder.look();
        self.start_by = self.beside.is_some().then(|| Instant::now() + START);
        let (planned, ignored) = self.changes(false);
        self.start_by = None;
        Change {
            planned,
            shadows: Vec::new(),
            ignored,
        }
    }

    /// Hands on a change whenever the folder has one, until `stop` is set. `reports` gives what became of versions that went live.
    pub fn watch(
        mut self,
        stop: &AtomicBool,
        mut changed: impl FnMut(Change),
        mut reports: impl FnMut() -> Vec<Report>,
    ) {
        self.is_watching = true;
        let (wake, woken) = sync_channel(1);
        let mut watcher = None;
        let mut settling = false;
        loop {
            if watcher.is_none() {
                watcher = watch_folder(self.filters.folder.dir(), wake.clone());
            }
            if settling {
                // A copy raises many events: none of them may shorten the time in which it has to stay the same.
                std::thread::sleep(SETTLE);
            } else {
                let _woken_or_due = woken.recv_timeout(POLL);
            }
            reports().into_iter().for_each(|report| self.note(report));
            if stop.load(Ordering::Acquire) {
                return;
            }
            if let Some(limits) = &self.limits {
                self.defaults.limits.clone_from(&limits.borrow());
            }
            let (filters, shadows) = (self.filters.folder.look(), self.shadows.folder.look());
            settling = filters.settling || shadows.settling;
            if filters.changed || shadows.changed {
                changed(self.change());
            }
        }
    }

    /// What became of a version that was to run.
    fn note(&mut self, report: Report) {
        if let Became::NotStarted = report.became {
            // The same file once more is another try.
            self.filters.last.remove(&report.file);
        }
        self.history.note(report);
    }

    /// Versions that were good in an earlier run, as far as they can still be had.
    fn good(&mut self, file: &Arc<str>) -> Vec<Made> {
        let mut made = Vec::new();
        for (version, bytes) in self.history.good(file) {
            let settings = filter_settings(&version.settings, &self.defaults.limits);
            let (Ok((limits, settings)), Ok((component, _))) =
                (settings, self.compile(&version.digest, &bytes))
            else {
                continue;
            };
            if component.admit(limits.wasi).is_ok() {
                made.push(Made {
                    component,
                    settings: settings.into(),
                    limits,
                    text: version.settings,
                    muted: false,
                });
            }
        }
        made
    }

    fn change(&mut self) -> Change {
        let (planned, ignored) = self.changes(false);
        let (shadows, _) = self.changes(true);
        Change {
            planned,
            shadows,
            ignored,
        }
    }

    /// All files of one folder, and how many there are beyond those that may run.
    fn changes(&mut self, is_shadow: bool) -> (Vec<Planned>, usize) {
        let folder = if is_shadow {
            &mut self.shadows
        } else {
            &mut self.filters
        };
        let files = folder.folder.take();
        let ignored = folder.folder.ignored();
        // What is not in the folder any more was never tried.
        let there: HashSet<&Arc<str>> = files.iter().map(Taken::name).collect();
        folder.last.retain(|name, _| there.contains(name));
        let planned = files.into_iter().map(|file| match file {
            Taken::Read(file) => self.plan(file, is_shadow),
            Taken::Unchanged(file) => Planned::keep(file),
        });
        (planned.collect(), ignored)
    }

    fn plan(&mut self, file: FilterFile, is_shadow: bool) -> Planned {
        let name = Arc::clone(&file.name);
        let digest = file
            .component
            .as_ref()
            .map_or_else(|_| "".into(), |bytes| digest(bytes));
        let tried = (Arc::clone(&digest), file.settings.clone());
        let attempt = Attempt::new(clock::now_us(), Arc::clone(&digest));
        let folder = if is_shadow {
            &mut self.shadows
        } else {
            &mut self.filters
        };
        let is_stopping = self.stop.load(Ordering::Acquire);
        if is_stopping || file.component.is_ok() && folder.last.get(&name) == Some(&tried) {
            return Planned::keep(name);
        }
        let is_new = folder.last.insert(Arc::clone(&name), tried).is_none();
        let good = match is_new && !is_shadow {
            true => self.good(&name),
            false => Vec::new(),
        };
        let mut limits = self.defaults.limits.clone();
        let (made, attempt) = self.admit(&file, attempt, &mut limits, is_shadow);
        let plan = match made {
            Ok(made) => {
                if let (Ok(bytes), false) = (&file.component, is_shadow) {
                    self.history.admitted(&name, &digest, bytes);
                }
                Plan::Start(made)
            }
            Err(why) => {
                self.refused(&file, &digest, &why, is_shadow);
                Plan::Refused(Refused {
                    digest,
                    limits,
                    why,
                })
            }
        };
        Planned {
            file: name,
            plan,
            attempt: Some(attempt),
            good,
        }
    }

    /// Whether and when it is tried again.
    fn refused(&mut self, file: &FilterFile, digest: &Arc<str>, why: &Refusal, is_shadow: bool) {
        let version = Version {
            digest: Arc::clone(digest),
            settings: file.text().into(),
        };
        let folder = match is_shadow {
            true => &mut self.shadows,
            false => &mut self.filters,
        };
        match why.tried_again() {
            Again::Soon => {
                folder.last.remove(&file.name);
                folder.folder.forget(&file.name);
            }
            Again::WhenCopied => {
                folder.last.remove(&file.name);
            }
            Again::WhenChanged => self.history.refused(&version, short(why.to_string())),
            Again::Never => {
                let why = short(why.to_string());
                if let Err(error) = self.history.taken_back(&file.name, &version, &why) {
                    tracing::warn!(%error, filter = &*file.name, "what became of a version is not kept over a restart");
                }
            }
            Again::AsBefore => {}
        }
    }

    /// All gates but the last one, the swap. `limits` holds the file's own as soon as they are known.
    fn admit(
        &mut self,
        file: &FilterFile,
        attempt: Attempt,
        limits: &mut FilterLimits,
        is_shadow: bool,
    ) -> (Result<Made, Refusal>, Attempt) {
        let engine = Arc::clone(&self.engine);
        let beside = self.beside.take();
        let mut admission = Admission {
            engine: &engine,
            file: &file.name,
            attempt,
            metrics: beside.as_ref().map(|beside| &*beside.metrics),
        };
        let mut admitted = self.make(file, &mut admission, limits);
        // One that was good stood the test of real life.
        if let (Ok(made), Some(beside), false) = (&admitted, &beside, is_shadow)
            && !self.history.is_good(&file.name, made)
        {
            let past = (beside.past)(&file.name);
            let past = past.take_while(|_| !self.stop.load(Ordering::Acquire));
            if let Err(why) = admission.rehearse(made, past) {
                admitted = Err(why);
            }
        }
        let attempt = admission.attempt;
        self.beside = beside;
        (admitted, attempt)
    }

    fn make(
        &mut self,
        file: &FilterFile,
        admission: &mut Admission<'_>,
        limits: &mut FilterLimits,
    ) -> Result<Made, Refusal> {
        let bytes = admission.gate("read", || {
            let bytes = file.bytes()?;
            Ok((bytes, format!("{} bytes", bytes.len())))
        })?;
        let (text, settings) = admission.gate("settings", || {
            let (own, settings) = file.read_settings(&self.defaults.limits)?;
            *limits = own;
            Ok(((file.text(), settings), String::new()))
        })?;
        let version = Version {
            digest: Arc::clone(&admission.attempt.digest),
            settings: text.into(),
        };
        admission.gate("history", || {
            match self.history.why_not(&file.name, &version) {
                Some(why) => Err(Refusal::Before(why.to_owned())),
                None => Ok(((), String::new())),
            }
        })?;
        let component = admission.gate("compile", || self.compile(&version.digest, bytes))?;
        admission.gate("contract", || {
            component.admit(limits.wasi)?;
            Ok(((), String::new()))
        })?;
        let made = Made {
            component,
            settings: settings.into(),
            limits: limits.clone(),
            text: version.settings,
            muted: false,
        };
        admission.configure(&made)?;
        admission.golden(&made.component, limits, bytes)?;
        Ok(made)
    }

    /// The component of a file with this digest.
    fn compile(&mut self, digest: &Arc<str>, bytes: &[u8]) -> Result<(Component, String), Refusal> {
        let mut compiled = self.compiled.iter();
        if let Some(known) = compiled.find(|component| component.digest == *digest) {
            return Ok((known.clone(), "cached".to_owned()));
        }
        let (until, yields) = (self.start_by, self.is_watching);
        let (component, was_kept) =
            self.compiler
                .component(&self.engine, digest, bytes, until, yields)?;
        if self.compiled.len() == KEPT {
            self.compiled.remove(0);
        }
        self.compiled.push(component.clone());
        let found = if was_kept { "cached" } else { "" };
        Ok((component, found.to_owned()))
    }
}
