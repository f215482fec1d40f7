//! What is known of the streams in Redis.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Lengths, what was written, and how near consumers are to a loss.
#[derive(Debug, Default)]
pub struct StreamMetrics {
    lengths: Family<StreamLabel, Gauge>,
    entries: Family<StreamLabel, Counter>,
    reserves: Family<StreamLabel, Gauge<f64, AtomicU64>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StreamLabel {
    stream: String,
}

impl StreamLabel {
    fn of(stream: &str) -> StreamLabel {
        StreamLabel {
            stream: stream.to_owned(),
        }
    }
}

impl StreamMetrics {
    /// So many entries are in a stream more.
    pub fn wrote(&self, stream: &str, entries: u64) {
        let label = StreamLabel::of(stream);
        self.entries.get_or_create(&label).inc_by(entries);
    }

    /// Entries that this process has written to a stream.
    pub fn written(&self, stream: &str) -> u64 {
        let label = StreamLabel::of(stream);
        self.entries.get(&label).map_or(0, |counter| counter.get())
    }

    /// A stream's length; `None`: it is not known.
    pub fn length(&self, stream: &str, length: Option<u64>) {
        let label = StreamLabel::of(stream);
        match length {
            Some(length) => {
                let length = i64::try_from(length).unwrap_or(i64::MAX);
                self.lengths.get_or_create(&label).set(length);
            }
            None => {
                self.lengths.remove(&label);
            }
        }
    }

    /// The distance of a stream's slowest consumer group to trimming; `None`: it has no group.
    pub fn reserve(&self, stream: &str, reserve: Option<f64>) {
        let label = StreamLabel::of(stream);
        match reserve {
            Some(reserve) => {
                self.reserves.get_or_create(&label).set(reserve);
            }
            None => {
                self.reserves.remove(&label);
            }
        }
    }

    pub(super) fn register(&self, r: &mut Registry) {
        r.register(
            "jackfield_stream_length",
            "Entries that a stream has in Redis",
            self.lengths.clone(),
        );
        r.register(
            "jackfield_stream_entries",
            "Entries written to a stream",
            self.entries.clone(),
        );
        r.register(
            "jackfield_consumer_reserve_ratio",
            "How far the slowest consumer group of a stream is from losing entries: 1 has read all, 0 loses them",
            self.reserves.clone(),
        );
    }
}
