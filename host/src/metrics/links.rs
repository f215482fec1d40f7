//! What `/metrics` says of links and of the calls that they missed.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::clock;
use crate::link::{Links, Snapshot};
use crate::pipeline::CallsStatus;

/// Writes all of it.
pub(super) fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    links: &Links,
    calls: &CallsStatus,
) -> fmt::Result {
    let now = links.all().map(|link| (link.name(), link.snapshot()));
    let one = |text| [("link", text)];
    let mut gauge = |name, help, value: &dyn Fn(&Snapshot) -> Option<f64>| {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (link, now) in &now {
            if let Some(value) = value(now) {
                ConstGauge::new(value).encode(family.encode_family(&one(*link))?)?;
            }
        }
        Ok(())
    };
    let seconds = |us: u64| Duration::from_micros(us).as_secs_f64();
    gauge("jackfield_link_up", "Whether a link is up", &|now| {
        Some(f64::from(u8::from(now.state.is_up())))
    })?;
    gauge(
        "jackfield_link_health",
        "What a link is worth, from 0 to 100; docs/links.md has the terms",
        &|now| Some(f64::from(now.health.value)),
    )?;
    gauge(
        "jackfield_link_attempts",
        "Failed tries since a link was last up",
        &|now| u32::try_from(now.attempts).ok().map(f64::from),
    )?;
    gauge(
        "jackfield_link_round_trip_seconds",
        "How long the peer took to answer last",
        &|now| now.round_trip_us.map(seconds),
    )?;
    gauge(
        "jackfield_link_lag_seconds",
        "How far a link is behind",
        &|now| now.lag_us.map(seconds),
    )?;
    let health = encoder.encode_descriptor(
        "jackfield_health",
        "The worst of the links that the host needs, from 0 to 100",
        None,
        MetricType::Gauge,
    )?;
    ConstGauge::new(i64::from(links.health().value)).encode(health)?;
    let mut losses = encoder.encode_descriptor(
        "jackfield_link_losses",
        "Times a link was lost after having been up",
        None,
        MetricType::Counter,
    )?;
    for (link, now) in &now {
        ConstCounter::new(now.losses).encode(losses.encode_family(&one(*link))?)?;
    }
    let mut down = encoder.encode_descriptor(
        "jackfield_link_down_seconds",
        "Time in which a link was not ready after it had been ready once",
        None,
        MetricType::Counter,
    )?;
    for (link, now) in &now {
        let time = seconds(now.down_until(clock::now_us()));
        ConstCounter::new(time).encode(down.encode_family(&one(*link))?)?;
    }
    encode_esl(encoder, &links.esl.snapshot())?;
    encode_calls(encoder, calls)
}

fn encode_esl(encoder: &mut DescriptorEncoder<'_>, esl: &Snapshot) -> fmt::Result {
    let mut ended = encoder.encode_descriptor(
        "jackfield_esl_ended",
        "Connections to the Event Socket, and tries, that ended, by cause",
        None,
        MetricType::Counter,
    )?;
    for (cause, times) in &esl.ended {
        ConstCounter::new(*times).encode(ended.encode_family(&[("cause", *cause)])?)?;
    }
    let stalled = encoder.encode_descriptor(
        "jackfield_esl_stalled_seconds",
        "Time in which the host did not run, and so did not read the Event Socket",
        None,
        MetricType::Counter,
    )?;
    ConstCounter::new(Duration::from_micros(esl.stalled_us).as_secs_f64()).encode(stalled)
}

fn encode_calls(encoder: &mut DescriptorEncoder<'_>, calls: &CallsStatus) -> fmt::Result {
    let alive = encoder.encode_descriptor(
        "jackfield_calls_alive",
        "Calls that are believed alive",
        None,
        MetricType::Gauge,
    )?;
    ConstGauge::new(i64::try_from(calls.alive).unwrap_or(i64::MAX)).encode(alive)?;
    let mut counter = |name, help, value: u64| {
        let descriptor = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(value).encode(descriptor)
    };
    counter(
        "jackfield_calls_lost",
        "Calls that ended unheard",
        calls.lost,
    )?;
    counter(
        "jackfield_calls_found",
        "Calls that began unheard",
        calls.found,
    )?;
    counter(
        "jackfield_freeswitch_restarts",
        "Times FreeSWITCH was found to be started anew",
        calls.restarts,
    )
}
