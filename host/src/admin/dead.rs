//! `GET /dead` lists the dead letters; `POST /dead/replay` makes one an input once more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{ConnectInfo, Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::timeout;

use super::access::{admit, allow};
use super::{View, body};
use crate::journal::Lsn;
use crate::writer::dead::{DeadError, DeadLetter, Id};

/// The largest body of a request: a whole event, with room for what JSON makes of its bytes.
const MAX_BODY: usize = 64 << 20;
/// How long a replayed dead letter may take to be in the journal.
const REPLAY: Duration = Duration::from_secs(5);

/// Letters of each place that are listed unless the request says otherwise.
const LIMIT: usize = 20;
/// The most that a request may say.
const MOST: usize = 1_000;

/// A dead letter for another try: its event, the bytes that were none, or where it lies.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Letter {
    Event(String),
    Frame(String),
    Id(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    limit: Option<usize>,
}

/// The newest letters of Redis and of the local file, the newest of each last.
pub(super) async fn list(
    State(view): State<Arc<View>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Query(Which { limit }): Query<Which>,
    headers: HeaderMap,
) -> Response {
    if let Err(forbidden) = admit(&view.token, "dead", peer, &headers) {
        return forbidden.into_response();
    }
    let limit = limit.unwrap_or(LIMIT).min(MOST);
    let mut places = view.dead_letters();
    let listed = spawn_blocking(move || {
        let mut letters = Vec::new();
        let (mut total, mut errors) = (0, Vec::new());
        // The local file has something above all when Redis is in trouble.
        for listed in [places.newest(limit), places.newest_local(limit)] {
            match listed {
                Ok(listed) => {
                    letters.extend(listed.letters.iter().map(DeadLetter::summary));
                    total += listed.total;
                }
                Err(error) => errors.push(error.to_string()),
            }
        }
        json!({ "letters": letters, "total": total, "errors": errors })
    });
    match listed.await {
        Ok(listed) => Json(listed).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Answers with the number of the new input once it is in the journal.
pub(super) async fn replay(State(view): State<Arc<View>>, request: Request) -> Response {
    // Before the body is read: who may not replay may not fill the memory either.
    if let Err(forbidden) = allow(&view.token, "replaying", request.headers()) {
        return forbidden.into_response();
    }
    let body = match body::read(request, MAX_BODY).await {
        Ok(body) => body,
        Err(refused) => return refused.into_response(),
    };
    let text = match serde_json::from_slice(&body) {
        Ok(Letter::Event(text) | Letter::Frame(text)) => text,
        Ok(Letter::Id(id)) => return replay_from(&view, &id).await.into_response(),
        Err(error) => {
            let why = format!(
                "{error}; allowed is {{\"event\": \"…\"}}, {{\"frame\": \"…\"}} or {{\"id\": \"…\"}}\n"
            );
            return (StatusCode::BAD_REQUEST, why).into_response();
        }
    };
    match journaled(&view, text).await {
        Ok(lsn) => Json(json!({ "lsn": lsn })).into_response(),
        Err(refused) => refused.into_response(),
    }
}

/// A letter where it lies. It is removed when its event is in the journal: an interruption between the two leaves a letter that was
/// replayed, never one that was lost.
async fn replay_from(view: &View, id: &str) -> Result<Response, (StatusCode, String)> {
    let id: Id = id
        .parse()
        .map_err(|allowed| (StatusCode::BAD_REQUEST, format!("id: {id:?}: {allowed}\n")))?;
    let (mut places, wanted) = (view.dead_letters(), id.clone());
    let found = spawn_blocking(move || {
        let letter = places.find(&wanted);
        letter.map(|letter| (places, letter))
    });
    let (mut places, letter) = found.await.map_err(gone)?.map_err(refused)?;
    let Some(text) = letter.again().map(str::to_owned) else {
        let why = "its event was cut short and is no JSON object any more\n".to_owned();
        return Err((StatusCode::UNPROCESSABLE_ENTITY, why));
    };
    let lsn = journaled(view, text).await?;
    let removed = spawn_blocking(move || places.remove(&id)).await;
    let removed = removed.map_err(gone)?;
    let error = removed.err().map(|error| error.to_string());
    Ok(Json(json!({ "lsn": lsn, "not_removed": error })).into_response())
}

async fn journaled(view: &View, text: String) -> Result<Lsn, (StatusCode, String)> {
    match timeout(REPLAY, view.arrivals.replay(text.into())).await {
        Ok(Ok(lsn)) => Ok(lsn),
        // It may be decided all the same, but nothing is promised.
        Ok(Err(_)) | Err(_) => {
            let why = "the journal does not take it now; see /readyz\n";
            Err((StatusCode::SERVICE_UNAVAILABLE, why.to_owned()))
        }
    }
}

fn refused(error: DeadError) -> (StatusCode, String) {
    let code = match error {
        DeadError::NotFound => StatusCode::NOT_FOUND,
        DeadError::Stream(_) | DeadError::File(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    (code, format!("{error}\n"))
}

fn gone(error: JoinError) -> (StatusCode, String) {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))
}
