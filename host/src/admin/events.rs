//! `GET /events`: what becomes of events while it happens, as server-sent events.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;

use super::View;
use super::access::admit;
use crate::listeners::{Listener, Refused, Wish};

pub(super) async fn events(
    State(view): State<Arc<View>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    match listen(&view, peer, &query.unwrap_or_default(), &headers) {
        Ok(listener) => {
            let head = [
                (header::CONTENT_TYPE, "text/event-stream"),
                (header::CACHE_CONTROL, "no-store"),
            ];
            (head, body(listener)).into_response()
        }
        Err((code, why)) => (code, why).into_response(),
    }
}

fn listen(
    view: &View,
    peer: SocketAddr,
    query: &str,
    headers: &HeaderMap,
) -> Result<Listener, (StatusCode, String)> {
    admit(&view.token, "events", peer, headers)?;
    let last = headers.get("last-event-id");
    let last = last.map(|last| String::from_utf8_lossy(last.as_bytes()));
    let wish = Wish::parse(query, last.as_deref());
    let wish = wish.map_err(|mistakes| (StatusCode::BAD_REQUEST, mistakes))?;
    view.listeners.listen(wish).map_err(|refused| {
        let code = match refused {
            Refused::TooMany(_) => StatusCode::SERVICE_UNAVAILABLE,
            Refused::Future { .. } => StatusCode::BAD_REQUEST,
        };
        (code, format!("{refused}\n"))
    })
}

/// Nothing runs but when the connection has room; a peer that goes away takes its listener with it.
fn body(listener: Listener) -> Body {
    let place = Some(listener.place());
    Body::from_stream(unfold((place, listener), |(place, listener)| async {
        let mut listener = listener;
        let message = match place {
            Some(place) => place,
            None => listener.next().await?,
        };
        Some((Ok::<Bytes, Infallible>(message), (None, listener)))
    }))
}
