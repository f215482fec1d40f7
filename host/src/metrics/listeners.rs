//! What is counted of listeners.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Listeners, and how they ended.
#[derive(Debug, Default)]
pub struct ListenerMetrics {
    /// `jackfield_listeners`: those there are.
    pub now: Gauge,
    ended: Family<WhyLabel, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WhyLabel {
    why: &'static str,
}

impl ListenerMetrics {
    /// One is given no more.
    pub fn ended(&self, why: &'static str) {
        self.ended.get_or_create(&WhyLabel { why }).inc();
    }

    pub(super) fn register(&self, r: &mut Registry) {
        r.register(
            "jackfield_listeners",
            "Who listens to what becomes of events",
            self.now.clone(),
        );
        r.register(
            "jackfield_listeners_ended",
            "Listeners that are given no more, by why",
            self.ended.clone(),
        );
    }
}
