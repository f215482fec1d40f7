//! The accounts and the links, read at each scrape and kept nowhere else.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::sync::watch;

use super::links;
use super::stage::Stages;
use crate::ledger::Ledger;
use crate::link::Links;
use crate::pipeline::CallsStatus;

/// Reads the ledger and the links at each scrape.
#[derive(Debug)]
pub(super) struct Books {
    pub(super) ledger: Arc<Ledger>,
    pub(super) links: Arc<Links>,
    pub(super) calls: watch::Receiver<CallsStatus>,
    pub(super) stages: Arc<Stages>,
}

impl Collector for Books {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let accounts = self.ledger.accounts();
        let mut counter = |name: &str, help: &str, value: u64| {
            let value = ConstCounter::new(value);
            value.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)
        };
        let (esl, redis) = (self.links.esl.snapshot(), self.links.redis.snapshot());
        counter(
            "telephony_esl_reconnections",
            "Times the Event Socket came back",
            esl.connects.saturating_sub(1),
        )?;
        counter(
            "telephony_redis_reconnections",
            "Times Redis came back",
            redis.connects.saturating_sub(1),
        )?;
        counter(
            "jackfield_inputs",
            "Events from FreeSWITCH, replayed dead letters, and what an earlier run left undecided",
            accounts.inputs,
        )?;
        counter(
            "jackfield_replayed",
            "Events that an earlier run of the host had decided and this one delivered",
            accounts.replayed,
        )?;
        counter(
            "jackfield_derived",
            "Events that filters made",
            accounts.derived,
        )?;
        counter(
            "jackfield_received",
            "Inputs, derived and replayed events",
            accounts.balance().received,
        )?;
        counter(
            "jackfield_delivered",
            "Events with all entries in Redis",
            accounts.delivered,
        )?;
        counter(
            "jackfield_dead_lettered",
            "Events kept with a reason",
            accounts.dead_lettered,
        )?;
        let mut gauge = |name: &str, help: &str, value: u64| {
            let value = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            value.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
        };
        gauge(
            "jackfield_pending",
            "Events held by some stage",
            accounts.pending,
        )?;
        gauge(
            "telephony_esl_connections_total",
            "Event Socket connections that are up",
            u64::from(esl.state.is_up()),
        )?;
        gauge(
            "telephony_redis_connections_total",
            "Redis connections that are up",
            u64::from(redis.state.is_up()),
        )?;
        links::encode(&mut encoder, &self.links, &self.calls.borrow())?;
        encode_stages(&mut encoder, &self.stages)?;
        let mut dropped = encoder.encode_descriptor(
            "jackfield_dropped",
            "Events dropped on purpose",
            None,
            MetricType::Counter,
        )?;
        for (key, events) in &accounts.dropped {
            let label = [("by", key.by.as_str()), ("reason", key.reason.as_str())];
            ConstCounter::new(*events).encode(dropped.encode_family(&label)?)?;
        }
        let mut lost = encoder.encode_descriptor(
            "jackfield_lost",
            "Events lost, by cause",
            None,
            MetricType::Counter,
        )?;
        for (cause, events) in &accounts.lost {
            ConstCounter::new(*events).encode(lost.encode_family(&[("cause", *cause)])?)?;
        }
        Ok(())
    }
}

fn encode_stages(encoder: &mut DescriptorEncoder<'_>, stages: &Stages) -> std::fmt::Result {
    let mut seconds = encoder.encode_descriptor(
        "jackfield_stage_seconds",
        "What a stage did with its time: busy, starved (nothing came) or blocked (what comes after it took nothing)",
        None,
        MetricType::Counter,
    )?;
    for (stage, spent) in stages.all() {
        let spent = spent.status();
        for (state, us) in [
            ("busy", spent.busy_us),
            ("starved", spent.starved_us),
            ("blocked", spent.blocked_us),
        ] {
            let label = [("stage", stage), ("state", state)];
            let time = Duration::from_micros(us).as_secs_f64();
            ConstCounter::new(time).encode(seconds.encode_family(&label)?)?;
        }
    }
    Ok(())
}
