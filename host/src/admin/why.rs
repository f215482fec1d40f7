//! `GET /why?event=…`: what became of an event, and which filter did it, from the journal.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{ConnectInfo, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use super::View;
use super::access::admit;
use crate::clock::parse_rfc3339;
use crate::pipeline::{Search, Searched, Told};

/// Answers unless the request says otherwise.
const LIMIT: usize = 100;
/// The most that a request may say: whole events are held in memory.
const MOST: usize = 1_000;
/// How long the journal is read for one request.
const WITHIN: Duration = Duration::from_secs(10);

/// What is asked.
#[derive(Debug, PartialEq, Eq)]
struct Question {
    event: String,
    from: u64,
    to: u64,
    limit: usize,
}

/// Answers with an array, the oldest input first.
pub(super) async fn why(
    State(view): State<Arc<View>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    if let Err(forbidden) = admit(&view.token, "why", peer, &headers) {
        return forbidden.into_response();
    }
    let question = match Question::parse(&query.unwrap_or_default()) {
        Ok(question) => question,
        Err(mistakes) => return (StatusCode::BAD_REQUEST, mistakes).into_response(),
    };
    // Each reads the disk that the journal is written to.
    let Ok(_turn) = view.searches.try_acquire() else {
        let busy = "others search the journal already; ask again\n";
        return (StatusCode::SERVICE_UNAVAILABLE, busy).into_response();
    };
    let times = question.from..question.to;
    let search = Search::new(&view.reach.disk, &view.reach.dir, &question.event, times);
    let found = tokio::task::spawn_blocking(move || find(search, question.limit)).await;
    match found {
        Ok(Ok(told)) => Json(told).into_response(),
        Ok(Err((code, why))) => (code, why).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn find(mut search: Search, limit: usize) -> Result<Vec<Told>, (StatusCode, String)> {
    let deadline = Instant::now() + WITHIN;
    let mut found = Vec::new();
    while found.len() < limit {
        let searched = search.advance().map_err(|error| {
            let why = format!("the journal cannot be read: {error}\n");
            (StatusCode::INTERNAL_SERVER_ERROR, why)
        })?;
        match searched {
            Searched::Found(told) => found.push(*told),
            Searched::Passed if Instant::now() > deadline => {
                let why = format!(
                    "the journal was not read to its end within {} s: ask by LSN, or `jackfield why`\n",
                    WITHIN.as_secs()
                );
                return Err((StatusCode::GATEWAY_TIMEOUT, why));
            }
            Searched::Passed => {}
            Searched::End => break,
        }
    }
    Ok(found)
}

impl Question {
    /// Every mistake is told, each on a line with the key, the value and what is allowed.
    fn parse(query: &str) -> Result<Question, String> {
        let mut question = Question {
            event: String::new(),
            from: 0,
            to: u64::MAX,
            limit: LIMIT,
        };
        let mut mistakes = String::new();
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            if let Err(allowed) = question.set(&key, &value) {
                mistakes.push_str(&format!("{key}: {value:?}: allowed is {allowed}\n"));
            }
        }
        if question.event.is_empty() && mistakes.is_empty() {
            let names = Search::names();
            mistakes = format!("event: missing; an event is asked for by {names}\n");
        }
        match mistakes.is_empty() {
            true => Ok(question),
            false => Err(mistakes),
        }
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), &'static str> {
        const TIME: &str = "a time in UTC such as 2026-11-27T15:04:05Z";
        match key {
            "event" if !value.is_empty() => self.event = value.to_owned(),
            "event" => return Err("an LSN, an Event-UUID or a Unique-ID"),
            "from" => self.from = parse_rfc3339(value).ok_or(TIME)?,
            "to" => self.to = parse_rfc3339(value).ok_or(TIME)?,
            "limit" => {
                let limit = value.parse().ok();
                self.limit = limit
                    .filter(|limit| (1..=MOST).contains(limit))
                    .ok_or("a number from 1 to 1000")?;
            }
            _ => return Err("event, from, to or limit as a key"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_read_with_all_its_keys() {
        let query = "event=a%20b&from=1970-01-01T00:00:01Z&to=1970-01-01T00:00:02Z&limit=5";
        let expected = Question {
            event: "a b".to_owned(),
            from: 1_000_000,
            to: 2_000_000,
            limit: 5,
        };
        assert_eq!(Question::parse(query), Ok(expected));
    }

    #[test]
    fn every_mistake_is_told_with_what_is_allowed() {
        let mistakes = Question::parse("event=&from=yesterday&limit=0&who=me").unwrap_err();
        let lines: Vec<&str> = mistakes.lines().collect();
        assert_eq!(lines.len(), 4, "{mistakes}");
        assert_eq!(lines[2], "limit: \"0\": allowed is a number from 1 to 1000");
        let missing = Question::parse("").unwrap_err();
        assert!(missing.starts_with("event: missing"), "{missing}");
    }
}
