//! `POST /filters/NAME/rollback`: the last good version of a filter, by hand.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::time::timeout;

use super::View;
use super::access::allow;
use crate::filter::{NoWayBack, RolledBack};

/// How long a rollback may take.
const ROLL_BACK: Duration = Duration::from_secs(5);

/// Puts a filter's last good version in the place of the one that runs.
pub(super) async fn roll_back(
    State(view): State<Arc<View>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Response {
    if let Err(forbidden) = allow(&view.token, "rolling back", &headers) {
        return forbidden.into_response();
    }
    let rolled_back = view.seen.roll_back(&name);
    view.arrivals.wake();
    match timeout(ROLL_BACK, rolled_back).await {
        Ok(Ok(Ok(RolledBack { from, to }))) => {
            Json(json!({ "filter": name, "from": from, "to": to })).into_response()
        }
        Ok(Ok(Err(error))) => {
            let code = match error {
                NoWayBack::NoFilter(_) => StatusCode::NOT_FOUND,
                NoWayBack::NoVersion(_) | NoWayBack::NoStart(..) => StatusCode::CONFLICT,
            };
            (code, format!("{error}\n")).into_response()
        }
        Ok(Err(_)) | Err(_) => {
            let why = "the pipeline does not answer now; see /readyz\n";
            (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
        }
    }
}
