//! HTTP: health, readiness, metrics and status, which read what the stages show; and what an operator may ask for.
//!
//! The page at `/`, `/health`, `/livez`, `/readyz` and `/metrics` answer anyone; `/status`, `/events`, `/why` and `/dead` show call
//! data and answer loopback peers, or whoever has the token; what changes something (`/reconnect`, `/refresh`, `/dead/replay`,
//! `/filters/NAME/rollback`) or runs a command (`/esl`) needs the token. `/health` is that of Telephony
//! Event Sync, byte for byte in its fields.

mod access;
mod alarms;
mod body;
mod dead;
mod esl;
mod events;
mod links;
mod page;
mod rollback;
mod server;
mod status;
mod view;
mod why;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use tokio::net::TcpListener;

pub use view::{Reach, View};

use access::admit;

/// Answers requests for as long as it runs.
pub async fn serve(listener: std::net::TcpListener, view: Arc<View>) {
    let served = match TcpListener::from_std(listener) {
        Ok(listener) => answer(listener, view).await,
        Err(error) => Err(error),
    };
    if let Err(error) = served {
        tracing::error!(%error, "HTTP cannot be served");
    }
}

async fn answer(listener: TcpListener, view: Arc<View>) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/", get(page::page))
        .route("/health", get(health))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .route("/reconnect", post(links::reconnect))
        .route("/refresh", post(links::refresh))
        .route("/events", get(events::events))
        .route("/why", get(why::why))
        .route("/dead", get(dead::list))
        .route("/dead/replay", post(dead::replay))
        .route("/esl", post(esl::run))
        .route("/filters/{name}/rollback", post(rollback::roll_back))
        .with_state(view);
    server::serve(listener, routes, server::Limits::default()).await
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
    match view.scrape() {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn status(
    State(view): State<Arc<View>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> Response {
    match admit(&view.token, "status", peer, &headers) {
        Ok(()) => Json(view.status()).into_response(),
        Err(forbidden) => forbidden.into_response(),
    }
}
