//! Prints entries to standard output instead of writing them to Redis: one JSON object a line, for a look at what a chain does.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use tokio::io::AsyncWriteExt;

use super::{Acknowledged, End};
use crate::clock;
use crate::ledger::Ledger;
use crate::link::Link;
use crate::metrics::Metrics;
use crate::pipeline::{Outbox, Seen};
use crate::route::Entry;

/// The writer of `--stdout`.
pub struct Printer {
    /// Where decisions come from.
    pub outbox: Arc<Outbox>,
    /// Learns what need not be journaled any longer.
    pub seen: Arc<Seen>,
    /// The accounts.
    pub ledger: Arc<Ledger>,
    /// Latencies.
    pub metrics: Arc<Metrics>,
    /// The link that would be Redis'.
    pub link: Arc<Link>,
}

impl Printer {
    /// Runs until the outbox is closed and drained, or nobody reads any more.
    pub async fn run(self) -> End {
        self.link.ready();
        if let Err(error) = self.print().await {
            tracing::error!(%error, "standard output is gone");
        }
        self.link.stopped();
        End::Drained
    }

    async fn print(&self) -> std::io::Result<()> {
        let mut out = tokio::io::stdout();
        let mut printed = 0;
        loop {
            let decisions = tokio::select! {
                decisions = self.outbox.next(printed, 64) => decisions,
                () = self.link.asked_again() => {
                    self.link.ready();
                    continue;
                }
            };
            let Some(decisions) = decisions else {
                break;
            };
            let deliveries: Vec<_> = decisions
                .iter()
                .flat_map(|decision| &decision.events)
                .collect();
            let mut text = String::new();
            for entry in deliveries.iter().flat_map(|delivery| &delivery.entries) {
                text.push_str(&line(entry).to_string());
                text.push('\n');
            }
            out.write_all(text.as_bytes()).await?;
            out.flush().await?;
            let dead = deliveries.iter().filter(|delivery| delivery.dead).count() as u64;
            let delivered = deliveries.len() as u64 - dead;
            let now_us = clock::now_us();
            let since = |us: u64| now_us.saturating_sub(us);
            let decided = decisions.iter().map(|one| since(one.decided_us));
            self.metrics.writer_latency.observe(decided);
            let received = decisions.iter().map(|one| since(one.received_us));
            self.metrics.total_latency.observe(received);
            self.metrics.processed.inc_by(delivered);
            self.ledger.written(delivered, dead);
            printed = decisions.last().map_or(printed, |last| last.lsn);
            self.outbox.acknowledged(printed);
            let known = Acknowledged {
                lsn: printed,
                ..Acknowledged::default()
            };
            self.seen.acknowledge(printed, known.encode());
        }
        Ok(())
    }
}

/// `{"stream": …, "event": {…}}`: each field that is JSON as JSON, the others as text.
fn line(entry: &Entry) -> Value {
    let mut line = Map::from_iter([("stream".to_owned(), json!(entry.stream.name))]);
    for (field, value) in &entry.fields {
        let text = || Value::from(String::from_utf8_lossy(value));
        let value = if field == "event" {
            serde_json::from_slice(value).unwrap_or_else(|_| text())
        } else {
            text()
        };
        line.insert(String::from_utf8_lossy(field).into_owned(), value);
    }
    Value::Object(line)
}
