//! How a version goes: for the last good one, into quarantine, or aside for a while. What becomes of it is told to the loader, which
//! remembers it.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::{Running, Slot};
use crate::config::OnError;
use crate::filter::probation::{Complaint, Judgment, may_resume};
use crate::filter::refusal::short;
use crate::filter::version::{Active, Made};
use crate::filter::workshop::Workshop;

/// Good versions that are kept to go back to.
const GOOD: usize = 3;

/// What the loader has to remember of a version.
pub struct Report {
    /// The filter's file.
    pub file: Arc<str>,
    /// SHA-256 of the component.
    pub digest: Arc<str>,
    /// The whole text of its settings file.
    pub settings: Arc<str>,
    /// What became of it.
    pub became: Became,
}

/// What became of a version.
pub enum Became {
    /// It proved good.
    Good,
    /// It did not start when its turn came: it may be tried again.
    NotStarted,
    /// It ran, and is not to run again, for this reason.
    TakenBack(String),
}

/// From which version to which one a filter went back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolledBack {
    /// Digest of the version that ran.
    pub from: Arc<str>,
    /// Digest of the one that runs now.
    pub to: Arc<str>,
}

/// Why a filter cannot be rolled back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoWayBack {
    /// There is no such filter.
    #[error("no filter {0:?} in the chain")]
    NoFilter(String),
    /// It never had another version that was good.
    #[error("filter {0:?} has no earlier good version")]
    NoVersion(String),
    /// The earlier version does not start any more.
    #[error("the earlier version of filter {0:?} does not start: {1}")]
    NoStart(String, String),
}

impl Slot {
    /// Whether the running version stays; to be asked after each batch of events.
    pub(in crate::filter) fn judge(&mut self, workshop: &Workshop, now: Instant, now_us: u64) {
        let Some(active) = self.active.as_ref().filter(|_| self.suspended.is_none()) else {
            return;
        };
        match self.watch.judge(now) {
            Judgment::GoOn => {}
            Judgment::Good => {
                let (made, filter) = (active.made.clone(), &*self.status.file);
                tracing::info!(filter, version = &*active.version, "filter proved good");
                self.report(&made, Became::Good);
                self.good.retain(|good| !good.is_same(&made));
                self.good.insert(0, made);
                self.good.truncate(GOOD);
                self.changed = true;
            }
            Judgment::Bad(complaint) => {
                let why = match (complaint, &self.status.last_error) {
                    (Complaint::Failing { .. }, Some(error)) => format!("{complaint}: {error}"),
                    _ => complaint.to_string(),
                };
                if let Err(no_way) = self.go_back(workshop, complaint.cause(), &why, now_us) {
                    self.quarantine(workshop, complaint.cause(), &why, &no_way);
                }
            }
        }
    }

    /// Puts the last good version in the place of the one that runs, which is not tried again.
    pub(in crate::filter) fn go_back(
        &mut self,
        workshop: &Workshop,
        cause: &'static str,
        why: &str,
        now_us: u64,
    ) -> Result<RolledBack, NoWayBack> {
        let name = self.status.file.to_string();
        let from = self.active.as_ref().map(|active| active.made.clone());
        let is_another = |good: &Made| !from.as_ref().is_some_and(|from| from.is_same(good));
        if !self.good.iter().any(is_another) {
            return Err(NoWayBack::NoVersion(name));
        }
        // What the newer version saved may mean nothing to the older one; what that one saved itself it knows.
        let newest = self.save(workshop, now_us);
        let states = [newest, self.handed_over.take()].into_iter().flatten();
        let states: Vec<_> = states.map(Some).chain([None]).collect();
        let active = self.start_good(workshop, &states, now_us)?;
        let rolled_back = RolledBack {
            from: Arc::clone(&self.status.digest),
            to: Arc::clone(&active.made.component.digest),
        };
        if let Some(from) = &from {
            self.report(from, Became::TakenBack(why.to_owned()));
            self.good.retain(|good| !good.is_same(from));
        }
        // The next version is compared with what this one did before.
        let before = self.watch.before();
        self.put(workshop, active, true, before);
        self.metrics.taken_back(cause);
        tracing::error!(
            filter = name,
            cause,
            why,
            from = &*rolled_back.from,
            to = &*rolled_back.to,
            "filter rolled back to its last good version"
        );
        self.status.complain(format!("rolled back: {why}"));
        Ok(rolled_back)
    }

    /// The newest good version that starts, other than the one that runs, with the first of these states that it takes. One that
    /// does not start is good no more.
    pub(super) fn start_good(
        &mut self,
        workshop: &Workshop,
        states: &[Option<Bytes>],
        now_us: u64,
    ) -> Result<Active, NoWayBack> {
        let (file, name) = (Arc::clone(&self.status.file), self.status.file.to_string());
        let running = self.active.as_ref().map(|active| active.made.clone());
        let is_running = |good: &Made| running.as_ref().is_some_and(|one| one.is_same(good));
        let others = self.good.iter().filter(|good| !is_running(good));
        let mut why = NoWayBack::NoVersion(name.clone());
        for made in others.cloned().collect::<Vec<_>>() {
            for saved in states {
                match Active::start(workshop, &file, made.clone(), saved.as_ref(), now_us) {
                    Ok(active) => {
                        self.keep(saved.clone());
                        return Ok(active);
                    }
                    Err(refusal) => {
                        why = NoWayBack::NoStart(name.clone(), short(refusal.to_string()));
                    }
                }
            }
            self.good.retain(|good| !good.is_same(&made));
        }
        Err(why)
    }

    /// There is nothing to go back to: the version is taken out, and the policy decides.
    fn quarantine(
        &mut self,
        workshop: &Workshop,
        cause: &'static str,
        why: &str,
        no_way: &NoWayBack,
    ) {
        let Some(active) = self.active.take() else {
            return;
        };
        self.report(&active.made, Became::TakenBack(why.to_owned()));
        workshop.discard(active);
        self.metrics.taken_back(cause);
        self.metrics.forget();
        self.next_tick = None;
        self.rests = None;
        self.suspended = None;
        self.status.state = Running::Quarantined;
        self.status.complain(format!("quarantined: {why}"));
        self.changed = true;
        tracing::error!(
            filter = &*self.status.file, cause, why, error = no_way.to_string(), on_load = ?self.limits.on_error.load,
            "filter quarantined; events are treated by its on_load"
        );
    }

    /// It takes too much of the pipeline's time.
    pub(in crate::filter) fn suspend(&mut self, workshop: &Workshop, now: Instant, now_us: u64) {
        let why = "it took over half of the time while the backlog grew";
        if self.limits.on_error.load == OnError::LastGood
            && self.go_back(workshop, "load", why, now_us).is_ok()
        {
            return;
        }
        self.suspended = Some(now);
        self.metrics.taken_back("load");
        self.status.state = Running::Suspended;
        self.status.complain(format!("suspended: {why}"));
        self.changed = true;
        tracing::error!(
            filter = &*self.status.file, on_load = ?self.limits.on_error.load,
            "filter suspended: it took over half of the time while the backlog grew; events are treated by its on_load"
        );
    }

    /// A suspended filter works again when the backlog is gone.
    pub(in crate::filter) fn resume(&mut self, now: Instant, waiting: u64) {
        let over = |suspended: Instant| may_resume(suspended, now, waiting);
        if self.suspended.is_some_and(over) {
            self.suspended = None;
            self.watch.begin_again(now);
            self.status.state = Running::Running;
            self.changed = true;
            tracing::info!(filter = &*self.status.file, "filter works again");
        }
    }

    pub(super) fn report(&mut self, made: &Made, became: Became) {
        self.reports.push(Report {
            file: Arc::clone(&self.status.file),
            digest: Arc::clone(&made.component.digest),
            settings: Arc::clone(&made.text),
            became,
        });
    }

    pub(in crate::filter) fn take_reports(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.reports)
    }
}
