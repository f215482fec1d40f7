//! `POST /reconnect` and `POST /refresh`: what an operator does with links by hand.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::View;
use super::access::allow;
use crate::clock;
use crate::link::Link;
use crate::pipeline::CallsStatus;
use crate::settings::Outcome;

/// How long a link may take to be up again before the answer says that it is not.
const RECONNECT: Duration = Duration::from_secs(10);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(10);
/// How long FreeSWITCH may take to say which calls are alive.
const REFRESH: Duration = Duration::from_secs(15);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// One of them; without it all.
    link: Option<String>,
}

/// Gives connections up and makes them anew, at once. Answers with the links when they are up again.
pub(super) async fn reconnect(
    State(view): State<Arc<View>>,
    Query(Which { link }): Query<Which>,
    headers: HeaderMap,
) -> Response {
    if let Err(forbidden) = allow(&view.token, "reconnecting", &headers) {
        return forbidden.into_response();
    }
    let links = view.links.all().map(Arc::clone).into_iter();
    let chosen: Vec<Arc<Link>> = links
        .filter(|one| link.as_deref().is_none_or(|name| name == one.name()))
        .collect();
    if chosen.is_empty() {
        let allowed = view.links.all().map(|link| link.name()).join(", ");
        let why = format!("link={}: allowed is {allowed}\n", link.unwrap_or_default());
        return (StatusCode::BAD_REQUEST, why).into_response();
    }
    let before: Vec<u64> = chosen.iter().map(|link| link.snapshot().connects).collect();
    chosen.iter().for_each(|link| link.ask_again());
    let deadline = Instant::now() + RECONNECT;
    let is_back =
        |(link, before): (&Arc<Link>, &u64)| link.is_ready() && link.snapshot().connects > *before;
    while !chosen.iter().zip(&before).all(is_back) && Instant::now() < deadline {
        sleep(LOOK).await;
    }
    let all_back = chosen.iter().zip(&before).all(is_back);
    let shown = chosen
        .iter()
        .map(|link| (link.name().to_owned(), json!(link.snapshot())));
    let code = match all_back {
        true => StatusCode::OK,
        false => StatusCode::GATEWAY_TIMEOUT,
    };
    (code, Json(Value::from_iter(shown))).into_response()
}

/// Reads the settings again and asks FreeSWITCH which calls are alive. Answers with what came of both.
pub(super) async fn refresh(State(view): State<Arc<View>>, headers: HeaderMap) -> Response {
    if let Err(forbidden) = allow(&view.token, "refreshing", &headers) {
        return forbidden.into_response();
    }
    let settings = match Arc::clone(&view.settings).reload().await {
        Some(Outcome::Taken(changes)) => {
            json!({ "now": changes.now, "at_start": changes.at_start })
        }
        Some(Outcome::Refused(mistakes)) => {
            let mistakes = mistakes.iter().map(ToString::to_string);
            json!({ "mistakes": mistakes.collect::<Vec<String>>() })
        }
        None => json!({ "mistakes": ["the host ends"] }),
    };
    let calls = compare_calls(&view).await;
    let is_done = settings.get("mistakes").is_none() && calls.unknown.is_none();
    let code = match is_done {
        true => StatusCode::OK,
        // What is wrong is in the settings, or at FreeSWITCH.
        false => StatusCode::CONFLICT,
    };
    let answer = json!({ "settings": settings, "calls": calls });
    (code, Json(answer)).into_response()
}

async fn compare_calls(view: &View) -> CallsStatus {
    let mut calls = view.seen.calls();
    let before = calls.borrow_and_update().clone();
    if !before.followed {
        return before;
    }
    let now_us = clock::now_us();
    view.links.esl.ask_resync();
    let answered = calls.wait_for(|calls| calls.asked_us >= Some(now_us));
    match timeout(REFRESH, answered).await {
        Ok(Ok(calls)) => calls.clone(),
        Ok(Err(_)) | Err(_) => CallsStatus {
            unknown: Some("no answer from FreeSWITCH".to_owned()),
            ..before
        },
    }
}
