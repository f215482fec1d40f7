//! What is done for the streams from time to time, between two batches: trimming by age, and a look at how far their slowest
//! consumers are from losing entries to it.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::connection::{Connection, ConnectionError};
use super::reserve::Alarms;
use crate::metrics::Metrics;
use crate::route::Routes;

/// When it is due, and what was said already.
#[derive(Debug)]
pub(super) struct Upkeep {
    every: Duration,
    next: Instant,
    trim_error: Option<String>,
    alarms: Alarms,
    shown: BTreeSet<String>,
}

impl Upkeep {
    pub(super) fn new(every: Duration) -> Upkeep {
        Upkeep {
            every,
            next: Instant::now() + every,
            trim_error: None,
            alarms: Alarms::default(),
            shown: BTreeSet::new(),
        }
    }

    /// When it is due.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// Trims and surveys. What Redis refuses is no reason to stop writing.
    pub(super) async fn run(
        &mut self,
        connection: &mut Connection,
        routes: &Routes,
        metrics: &Metrics,
    ) -> Result<(), ConnectionError> {
        self.next = Instant::now() + self.every;
        let error = connection.trim(routes).await?;
        if let Some(error) = &error
            && self.trim_error.as_ref() != Some(error)
        {
            tracing::warn!(error, "trimming refused by Redis");
        }
        self.trim_error = error;
        let reserves = connection.survey(routes).await?;
        self.alarms.watch(&reserves);
        let mut shown = BTreeSet::new();
        for reserve in &reserves {
            let stream = &*reserve.stream.name;
            metrics.reserve(stream, Some(reserve.reserve));
            shown.insert(stream.to_owned());
        }
        for gone in self.shown.difference(&shown) {
            metrics.reserve(gone, None);
        }
        self.shown = shown;
        Ok(())
    }
}
