//! HTTP: health, readiness, metrics and status, which read what the stages show; and what an operator may ask for.
//!
//! `/health`, `/livez`, `/readyz` and `/metrics` answer anyone; `/status` shows call data's whereabouts and answers loopback
//! peers, or whoever has the token; what changes something (`/dead/replay`) needs the token. `/health` is that of Telephony
//! Event Sync, byte for byte in its fields.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::to_bytes;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::clock;
use crate::config::Secret;
use crate::ledger::{Balance, Ledger};
use crate::link::{Link, Snapshot};
use crate::metrics::{Metrics, Percentiles};
use crate::pipeline::{Arrivals, Seen};

/// The largest body of a request: a whole event, with room for what JSON makes of its bytes.
const MAX_BODY: usize = 64 << 20;
/// How long a replayed dead letter may take to be in the journal.
const REPLAY: Duration = Duration::from_secs(5);

/// Everything that may be looked at.
pub struct View {
    /// The accounts.
    pub ledger: Arc<Ledger>,
    /// Where a replayed dead letter goes.
    pub arrivals: Arc<Arrivals>,
    /// The Event Socket.
    pub esl: Arc<Link>,
    /// Redis, or standard output in its place.
    pub redis: Arc<Link>,
    /// Latencies, and `/metrics`.
    pub metrics: Arc<Metrics>,
    /// The filters and the router's name.
    pub seen: Arc<Seen>,
    /// When the host started.
    pub started: Instant,
    /// `http.token`; empty for none.
    pub token: Secret,
}

#[derive(Serialize)]
struct Links {
    esl: Snapshot,
    redis: Snapshot,
}

#[derive(Serialize)]
struct Latencies {
    reader: Percentiles,
    writer: Percentiles,
    total: Percentiles,
}

impl View {
    /// What keeps the host from doing its job, if anything does.
    pub fn trouble(&self) -> Option<String> {
        let of = |name: &str, link: &Link| {
            let why = link
                .snapshot()
                .last_error
                .unwrap_or_else(|| "not connected yet".to_owned());
            (!link.is_ready()).then(|| format!("{name}: {why}"))
        };
        let journal = self.seen.journal().trouble;
        let journal = journal.map(|trouble| format!("journal: {trouble}"));
        let troubles: Vec<String> = [of("esl", &self.esl), of("redis", &self.redis), journal]
            .into_iter()
            .flatten()
            .collect();
        (!troubles.is_empty()).then(|| troubles.join("; "))
    }

    fn health(&self) -> (StatusCode, Value) {
        let trouble = self.trouble();
        let healthy = trouble.is_none();
        let (code, status) = match healthy {
            true => (StatusCode::OK, "healthy"),
            false => (StatusCode::SERVICE_UNAVAILABLE, "unhealthy"),
        };
        let data = json!({
            "is_healthy": healthy,
            "last_check": clock::rfc3339(clock::now_us()),
            "last_error": trouble,
            "redis_recovery_attempts": self.redis.snapshot().attempts,
            "esl_recovery_attempts": self.esl.snapshot().attempts,
        });
        (code, json!({ "status": status, "data": data }))
    }

    fn status(&self) -> Value {
        let accounts = self.ledger.accounts();
        let balance: Balance = accounts.balance();
        let dropped: Vec<Value> = accounts
            .dropped
            .iter()
            .map(|(key, events)| json!({ "by": key.by, "reason": key.reason, "events": events }))
            .collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "router": self.seen.router.get(),
            "uptime_s": self.started.elapsed().as_secs(),
            "ready": self.trouble().is_none(),
            "links": Links { esl: self.esl.snapshot(), redis: self.redis.snapshot() },
            "journal": self.seen.journal(),
            "filters": self.seen.filters(),
            "counts": {
                "inputs": accounts.inputs,
                "derived": accounts.derived,
                "replayed": accounts.replayed,
                "received": balance.received,
                "delivered": balance.delivered,
                "dropped": balance.dropped,
                "dead_lettered": balance.dead_lettered,
                "lost": balance.lost,
                "pending": balance.pending,
                "balanced": balance.holds(),
                "dropped_by": dropped,
                "lost_by": accounts.lost,
            },
            "latency": Latencies {
                reader: self.metrics.reader_latency.percentiles(),
                writer: self.metrics.writer_latency.percentiles(),
                total: self.metrics.total_latency.percentiles(),
            },
        })
    }
}

/// Loopback peers, or the token.
fn admits(token: &Secret, peer: SocketAddr, headers: &HeaderMap) -> bool {
    has_token(token, headers) || peer.ip().to_canonical().is_loopback()
}

/// The token, which must be configured.
fn has_token(token: &Secret, headers: &HeaderMap) -> bool {
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|given| given.strip_prefix("Bearer "));
    given.is_some_and(|given| !token.is_empty() && same(given, token.expose()))
}

/// Compares all bytes whatever they are, so that the time taken tells nothing.
fn same(given: &str, right: &str) -> bool {
    let differ = given
        .bytes()
        .zip(right.bytes())
        .fold(0, |differ, (one, other)| differ | (one ^ other));
    given.len() == right.len() && differ == 0
}

/// Answers requests until it is dropped.
pub async fn serve(listener: TcpListener, view: Arc<View>) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/health", get(health))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .route("/dead/replay", post(replay))
        .with_state(view);
    axum::serve(
        listener,
        routes.into_make_service_with_connect_info::<SocketAddr>(),
    )
    .await
}

async fn health(State(view): State<Arc<View>>) -> Response {
    let (code, body) = view.health();
    (code, Json(body)).into_response()
}

async fn readyz(State(view): State<Arc<View>>) -> Response {
    match view.trouble() {
        None => "ready\n".into_response(),
        Some(trouble) => (StatusCode::SERVICE_UNAVAILABLE, format!("{trouble}\n")).into_response(),
    }
}

async fn metrics(State(view): State<Arc<View>>) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match view.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn status(
    State(view): State<Arc<View>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> Response {
    if admits(&view.token, peer, &headers) {
        return Json(view.status()).into_response();
    }
    let why =
        "status is for loopback peers, or for the token of http.token (Authorization: Bearer …)\n";
    (StatusCode::FORBIDDEN, why).into_response()
}

/// A dead letter for another try: its event, or the bytes that were none.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Letter {
    Event(String),
    Frame(String),
}

/// Answers with the number of the new input once it is in the journal.
async fn replay(State(view): State<Arc<View>>, request: Request) -> Response {
    // Before the body is read: who may not replay may not fill the memory either.
    if !has_token(&view.token, request.headers()) {
        let why = match view.token.is_empty() {
            true => "replaying needs a token: set http.token\n",
            false => "replaying needs the token of http.token (Authorization: Bearer …)\n",
        };
        return (StatusCode::FORBIDDEN, why).into_response();
    }
    let body = match to_bytes(request.into_body(), MAX_BODY).await {
        Ok(body) => body,
        Err(error) => {
            return (StatusCode::PAYLOAD_TOO_LARGE, format!("{error}\n")).into_response();
        }
    };
    let text = match serde_json::from_slice(&body) {
        Ok(Letter::Event(text) | Letter::Frame(text)) => text,
        Err(error) => {
            let why = format!("{error}; allowed is {{\"event\": \"…\"}} or {{\"frame\": \"…\"}}\n");
            return (StatusCode::BAD_REQUEST, why).into_response();
        }
    };
    match timeout(REPLAY, view.arrivals.replay(text.into())).await {
        Ok(Ok(lsn)) => Json(json!({ "lsn": lsn })).into_response(),
        // It may be decided all the same, but nothing is promised.
        Ok(Err(_)) | Err(_) => {
            let why = "the journal does not take it now; see /readyz\n";
            (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, header};

    use super::admits;
    use crate::config::Secret;

    fn check(token: &str, peer: &str, given: Option<&str>) -> bool {
        let given = given.map(|given| (header::AUTHORIZATION, given.parse().unwrap()));
        let headers: HeaderMap = given.into_iter().collect();
        admits(&Secret::new(token), peer.parse().unwrap(), &headers)
    }

    #[test]
    fn loopback_needs_no_token() {
        for peer in [
            "127.0.0.1:1",
            "127.9.9.9:1",
            "[::1]:1",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert!(check("secret", peer, None), "{peer}");
        }
    }

    #[test]
    fn any_other_peer_needs_the_very_token() {
        for peer in [
            "192.0.2.7:1",
            "[2001:db8::7]:1",
            "[::ffff:192.0.2.7]:1",
            "0.0.0.0:1",
        ] {
            assert!(check("secret", peer, Some("Bearer secret")), "{peer}");
            for given in [
                None,
                Some("Bearer secreT"),
                Some("Bearer secret2"),
                Some("Bearer "),
                Some("secret"),
            ] {
                assert!(!check("secret", peer, given), "{peer} with {given:?}");
            }
            assert!(
                !check("", peer, Some("Bearer ")),
                "no token is configured, so none is right"
            );
        }
    }
}
