//! Turns the state of the folder into a change of the chain: reads, compiles, tries, off the hot path.
//!
//! Each version is attempted once: a file that was refused is tried again only when it or its settings change.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use super::engine::{Component, Engine, Refusal, digest};
use super::folder::{FilterFile, Folder, Look};
use super::slot::Made;
use crate::clock;
use crate::config::{FilterLimits, Filters, filter_settings};

/// How often the folder is looked at without a watch event.
const POLL: Duration = Duration::from_millis(500);
/// How long a file has to stay the same.
const SETTLE: Duration = Duration::from_millis(100);
/// Compiled components that are kept beside the running ones, for files that go back and forth.
const KEPT: usize = 16;

/// What the chain should become: all filters of the folder, in order.
pub struct Change {
    /// In name order.
    pub planned: Vec<Planned>,
}

impl Change {
    /// This change and one after it as one: what `later` keeps is what this one would have started.
    #[must_use]
    pub fn then(self, later: Change) -> Change {
        let mut earlier: HashMap<Arc<str>, Plan> = self
            .planned
            .into_iter()
            .map(|one| (one.file, one.plan))
            .collect();
        let merge = |Planned { file, plan }| {
            let plan = match plan {
                Plan::Keep => earlier.remove(&file).unwrap_or(Plan::Keep),
                plan => plan,
            };
            Planned { file, plan }
        };
        Change {
            planned: later.planned.into_iter().map(merge).collect(),
        }
    }
}

/// One filter of a change.
pub struct Planned {
    /// The file's name without `.wasm`.
    pub file: Arc<str>,
    pub(super) plan: Plan,
}

impl Planned {
    /// Why it cannot run, if it cannot.
    pub fn refusal(&self) -> Option<&Refusal> {
        match &self.plan {
            Plan::Refused { why, .. } => Some(why),
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
    Refused {
        digest: Arc<str>,
        limits: FilterLimits,
        why: Refusal,
    },
}

/// A component's digest and its settings' text, or why that cannot be read.
type Attempt = (Arc<str>, Result<String, String>);

/// Watches the folder and prepares changes.
pub struct Loader {
    engine: Arc<Engine>,
    defaults: Filters,
    folder: Folder,
    /// What was attempted last of each file.
    attempted: HashMap<Arc<str>, Attempt>,
    compiled: Vec<Component>,
}

impl Loader {
    /// A loader for `filters.dir`.
    pub fn new(engine: Arc<Engine>, defaults: Filters) -> Loader {
        let folder = Folder::new(defaults.dir.clone());
        Loader {
            engine,
            defaults,
            folder,
            attempted: HashMap::new(),
            compiled: Vec::new(),
        }
    }

    /// The folder as it is now, without waiting for it to settle: for the start.
    pub fn load(&mut self) -> Change {
        self.folder.look();
        self.change()
    }

    /// Hands on a change whenever the folder has one, until `stop` is set.
    pub fn watch(mut self, stop: &AtomicBool, mut changed: impl FnMut(Change)) {
        let (wake, woken) = sync_channel(1);
        let mut watcher = None;
        let mut seen = Look::Same;
        loop {
            if watcher.is_none() {
                watcher = watcher_of(&self.folder, wake.clone());
            }
            if seen == Look::Settling {
                // A copy raises many events: none of them may shorten the time in which it has to stay the same.
                std::thread::sleep(SETTLE);
            } else {
                let _woken_or_due = woken.recv_timeout(POLL);
            }
            if stop.load(Ordering::Acquire) {
                return;
            }
            seen = self.folder.look();
            if seen == Look::Changed {
                changed(self.change());
            }
        }
    }

    fn change(&mut self) -> Change {
        let _ticking = self.engine.ticking();
        let files = self.folder.take();
        self.attempted
            .retain(|name, _| files.iter().any(|file| file.name == *name));
        Change {
            planned: files.into_iter().map(|file| self.plan(file)).collect(),
        }
    }

    fn plan(&mut self, file: FilterFile) -> Planned {
        let name = Arc::clone(&file.name);
        let digest = file
            .component
            .as_ref()
            .map_or_else(|_| "".into(), |bytes| digest(bytes));
        let attempt = (Arc::clone(&digest), file.settings.clone());
        if file.component.is_ok() && self.attempted.get(&name) == Some(&attempt) {
            return Planned {
                file: name,
                plan: Plan::Keep,
            };
        }
        self.attempted.insert(Arc::clone(&name), attempt);
        let mut limits = self.defaults.limits.clone();
        let plan = match self.make(&file, &mut limits) {
            Ok(made) => Plan::Start(made),
            Err(why) => Plan::Refused {
                digest,
                limits,
                why,
            },
        };
        Planned { file: name, plan }
    }

    /// Compiles, checks the settings and tries both in an instance of its own. `limits` holds the file's own as soon as they are known.
    fn make(&mut self, file: &FilterFile, limits: &mut FilterLimits) -> Result<Made, Refusal> {
        let settings = file
            .settings
            .as_ref()
            .map_err(|error| Refusal::Unreadable(error.clone()))?;
        let (own, settings) = filter_settings(settings, &self.defaults.limits)
            .map_err(|mistakes| Refusal::Settings(mistakes.to_string().replace('\n', "; ")))?;
        *limits = own;
        let bytes = file
            .component
            .as_ref()
            .map_err(|error| Refusal::Unreadable(error.clone()))?;
        let component = self.compile(bytes)?;
        component.admit(limits.wasi)?;
        let made = Made {
            component,
            settings: settings.into(),
            limits: limits.clone(),
        };
        super::slot::rehearse(&self.engine, &file.name, &made, clock::now_us())?;
        Ok(made)
    }

    fn compile(&mut self, bytes: &[u8]) -> Result<Component, Refusal> {
        let digest = digest(bytes);
        if let Some(known) = self
            .compiled
            .iter()
            .find(|component| component.digest == digest)
        {
            return Ok(known.clone());
        }
        let component = self.engine.compile(bytes)?;
        if self.compiled.len() == KEPT {
            self.compiled.remove(0);
        }
        self.compiled.push(component.clone());
        Ok(component)
    }
}

/// A watch only makes it faster; without one, the timer finds every change.
fn watcher_of(folder: &Folder, wake: SyncSender<()>) -> Option<RecommendedWatcher> {
    let woke = move |event: notify::Result<notify::Event>| {
        // Our own looks are accesses: waking for them would never end.
        if !event.is_ok_and(|event| event.kind.is_access()) {
            // A full channel means that the loader is to wake anyway.
            let _full = wake.try_send(());
        }
    };
    let mut watcher = notify::recommended_watcher(woke).ok()?;
    watcher
        .watch(folder.dir(), RecursiveMode::NonRecursive)
        .ok()?;
    Some(watcher)
}
