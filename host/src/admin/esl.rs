//! `POST /esl`: an API command to FreeSWITCH, over the connection that the host has anyway.
//!
//! The body is the bare command, the answer FreeSWITCH's text as it came, whatever it says. `?mode=bgapi` runs it in the background
//! and answers when it has ended; `?timeout=` says how long to wait. Only what `esl.allow` names is run.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use super::access::allow;
use super::{View, body};
use crate::config::duration;
use crate::esl::CommandError;

/// The largest command, in bytes.
const MAX_COMMAND: usize = 64 << 10;
/// How long a command may take unless the request says otherwise.
const WITHIN: Duration = Duration::from_secs(5);
/// The longest that a request may say.
const LONGEST: Duration = Duration::from_secs(600);

/// How a command is run.
#[derive(Clone, Copy)]
struct Manner {
    is_background: bool,
    within: Duration,
}

/// Answers with FreeSWITCH's text, or with the kind of error and its words.
pub(super) async fn run(State(view): State<Arc<View>>, request: Request) -> Response {
    if let Err(forbidden) = allow(&view.token, "running a command", request.headers()) {
        return forbidden.into_response();
    }
    let manner = match manner(request.uri().query().unwrap_or_default()) {
        Ok(manner) => manner,
        Err(why) => return (StatusCode::BAD_REQUEST, why).into_response(),
    };
    let body = match body::read(request, MAX_COMMAND).await {
        Ok(body) => body,
        Err(refused) => return refused.into_response(),
    };
    let Ok(command) = std::str::from_utf8(&body) else {
        let why = "bad_command: the body is no UTF-8\n";
        return (StatusCode::BAD_REQUEST, why).into_response();
    };
    match ask(&view, command, manner).await {
        Ok(text) => {
            view.metrics.command("answered");
            let kind = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
            (kind, text).into_response()
        }
        Err(error) => {
            view.metrics.command(error.kind());
            let why = format!("{}: {error}\n", error.kind());
            (status(&error), why).into_response()
        }
    }
}

async fn ask(view: &View, command: &str, manner: Manner) -> Result<Bytes, CommandError> {
    view.allowed.borrow().check(command)?;
    match manner.is_background {
        true => view.commands.background(command, manner.within).await,
        false => view.commands.api(command, manner.within).await,
    }
}

fn status(error: &CommandError) -> StatusCode {
    match error {
        CommandError::Bad(_) => StatusCode::BAD_REQUEST,
        CommandError::NotAllowed(_) => StatusCode::FORBIDDEN,
        CommandError::NotConnected | CommandError::ConnectionLost | CommandError::Busy => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        CommandError::Late(_) => StatusCode::GATEWAY_TIMEOUT,
        CommandError::TooLarge { .. } | CommandError::Unreadable(_) => StatusCode::BAD_GATEWAY,
    }
}

/// What the query asks for; no value that is allowed has a character that would be encoded.
fn manner(query: &str) -> Result<Manner, String> {
    let mut manner = Manner {
        is_background: false,
        within: WITHIN,
    };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("mode", "api")) => manner.is_background = false,
            Some(("mode", "bgapi")) => manner.is_background = true,
            Some(("timeout", text)) => {
                let within = duration(text).filter(|d| !d.is_zero() && *d <= LONGEST);
                manner.within = within.ok_or_else(|| refusal(pair))?;
            }
            _ => return Err(refusal(pair)),
        }
    }
    Ok(manner)
}

fn refusal(pair: &str) -> String {
    format!(
        "query {pair:?}: allowed is mode=api, mode=bgapi, and timeout= with a duration above zero and up to 10m such as 30s\n"
    )
}

#[cfg(test)]
mod tests {
    use super::{Duration, manner};

    #[test]
    fn the_query_says_how_a_command_is_run() {
        for (query, is_background, seconds) in [
            ("", false, 5),
            ("mode=api", false, 5),
            ("mode=bgapi", true, 5),
            ("timeout=10m", false, 600),
            ("mode=bgapi&timeout=1m30s", true, 90),
        ] {
            let manner = manner(query).unwrap();
            let found = (manner.is_background, manner.within);
            let expected = (is_background, Duration::from_secs(seconds));
            assert_eq!(found, expected, "{query}");
        }
    }

    #[test]
    fn what_the_query_may_not_say_is_named() {
        for query in [
            "mode=background",
            "timeout=11m",
            "timeout=0",
            "timeout=5",
            "timeout",
            "tmeout=5s",
        ] {
            let why = manner(query).err().unwrap();
            let start = format!("query {query:?}: allowed is");
            assert!(why.starts_with(&start), "{why}");
        }
    }
}
