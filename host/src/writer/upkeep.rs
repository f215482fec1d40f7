//! What is done for the streams from time to time, between two batches: trimming by age, and a look at how long they are and how
//! far their slowest consumers are from losing entries.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::connection::{Connection, ConnectionError};
use super::reserve::{Alarms, Positions, Reserve};
use crate::metrics::Metrics;
use crate::pipeline::{ReserveStatus, Seen, StreamStatus};
use crate::route::{Routes, Stream};

/// How often the streams are looked at,
const LOOK: Duration = Duration::from_secs(1);
/// unless that took more than one part in so many of the time: with hundreds of streams, batches would wait for it.
const LOOK_SHARE: u32 = 100;

/// When it is due, and what was said already.
#[derive(Debug)]
pub(super) struct Upkeep {
    trim_every: Duration,
    next_trim: Instant,
    next_look: Instant,
    trim_error: Option<String>,
    alarms: Alarms,
    shown: BTreeSet<Arc<str>>,
}

impl Upkeep {
    pub(super) fn new(trim_every: Duration) -> Upkeep {
        let now = Instant::now();
        Upkeep {
            trim_every,
            next_trim: now + trim_every,
            next_look: now,
            trim_error: None,
            alarms: Alarms::default(),
            shown: BTreeSet::new(),
        }
    }

    /// When something is due.
    pub(super) fn next(&self) -> Instant {
        self.next_trim.min(self.next_look)
    }

    /// Does what is due. What Redis refuses is no reason to stop writing.
    pub(super) async fn run(
        &mut self,
        connection: &mut Connection,
        routes: &Routes,
        metrics: &Metrics,
        seen: &Seen,
    ) -> Result<(), ConnectionError> {
        let now = Instant::now();
        if self.next_trim <= now {
            self.next_trim = now + self.trim_every;
            self.trim(connection, routes).await?;
        }
        if self.next_look <= now {
            let streams = routes.known().into_iter().chain([routes.dead_letter()]);
            let (positions, reserves) = connection.survey(streams.collect()).await?;
            self.alarms.watch(&reserves);
            self.show(&positions, &reserves, metrics, seen);
            let looked = Instant::now();
            self.next_look = looked + LOOK.max(looked.duration_since(now) * LOOK_SHARE);
        }
        Ok(())
    }

    async fn trim(
        &mut self,
        connection: &mut Connection,
        routes: &Routes,
    ) -> Result<(), ConnectionError> {
        let error = connection.trim(routes).await?;
        if let Some(error) = &error
            && self.trim_error.as_ref() != Some(error)
        {
            tracing::warn!(error, "trimming refused by Redis");
        }
        self.trim_error = error;
        Ok(())
    }

    fn show(
        &mut self,
        positions: &Positions,
        reserves: &[Reserve],
        metrics: &Metrics,
        seen: &Seen,
    ) {
        let of = |stream: &Stream| reserves.iter().find(|one| one.stream.name == stream.name);
        let mut shown = BTreeSet::new();
        let streams = positions.lengths.iter().map(|(stream, length)| {
            let reserve = of(stream);
            metrics.streams.length(&stream.name, *length);
            metrics
                .streams
                .reserve(&stream.name, reserve.map(|one| one.reserve));
            shown.insert(Arc::clone(&stream.name));
            StreamStatus {
                name: Arc::clone(&stream.name),
                length: *length,
                max_len: stream.max_len,
                reserve: reserve.map(status),
            }
        });
        seen.show_streams(streams.collect());
        for gone in self.shown.difference(&shown) {
            metrics.streams.length(gone, None);
            metrics.streams.reserve(gone, None);
        }
        self.shown = shown;
    }
}

fn status(reserve: &Reserve) -> ReserveStatus {
    ReserveStatus {
        group: reserve.group.clone(),
        ratio: reserve.reserve,
        unread: reserve.unread,
        age_s: reserve.age.as_secs(),
    }
}
