//! The switch's sign of life: HEARTBEAT, and the RE_SCHEDULE of the task that fires it.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use super::api::{FULL_VERSION, uptime};
use super::compose::Composed;
use super::event::Value;
use super::switch::{Switch, Vitals};

/// Fires a heartbeat at every interval, the first after one interval. Never returns; without an interval it fires nothing.
pub(super) async fn beat(switch: &Switch, interval: Duration) {
    if interval.is_zero() {
        return std::future::pending().await;
    }
    let mut ticks = tokio::time::interval_at(Instant::now() + interval, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let vitals = switch.vitals();
        switch.fire(heartbeat(vitals));
        switch.fire(reschedule(vitals, interval));
    }
}

fn heartbeat(vitals: Vitals) -> Composed {
    let channels = vitals.channels.to_string();
    let headers = [
        ("Event-Info", "System Ready"),
        ("Up-Time", &uptime(vitals.uptime_us)),
        ("FreeSWITCH-Version", FULL_VERSION),
        ("Uptime-msec", &(vitals.uptime_us / 1_000).to_string()),
        ("Session-Count", &channels),
        ("Max-Sessions", "5000"),
        ("Session-Per-Sec", "1000"),
        ("Session-Per-Sec-Last", "0"),
        ("Session-Per-Sec-Max", "18"),
        ("Session-Per-Sec-FiveMin", "18"),
        ("Session-Since-Startup", &vitals.sessions.to_string()),
        ("Session-Peak-Max", &channels),
        ("Session-Peak-FiveMin", &channels),
        ("Idle-CPU", "90.000000"),
    ];
    composed(
        "HEARTBEAT",
        &headers,
        ["switch_core.c", "send_heartbeat", "95"],
    )
}

fn reschedule(vitals: Vitals, interval: Duration) -> Composed {
    let next = vitals.now_us / 1_000_000 + interval.as_secs();
    let headers = [
        ("Task-ID", "1"),
        ("Task-Desc", "heartbeat"),
        ("Task-Group", "core"),
        ("Task-Runtime", &next.to_string()),
    ];
    composed(
        "RE_SCHEDULE",
        &headers,
        ["switch_scheduler.c", "switch_scheduler_execute", "73"],
    )
}

fn composed(name: &str, headers: &[(&str, &str)], caller: [&str; 3]) -> Composed {
    let header = |(name, value): &(&str, &str)| (name.as_bytes().to_vec(), Value::from(*value));
    Composed {
        name: name.to_owned(),
        after: headers.iter().map(header).collect(),
        caller: caller.map(str::to_owned),
        ..Composed::default()
    }
}
