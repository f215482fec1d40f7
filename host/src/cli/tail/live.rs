//! `jackfield tail` over HTTP: `GET /events` of the running host, as lines.

use std::io::{BufRead, BufReader, Read};
use std::process::ExitCode;

use serde::Deserialize;

use crate::cli::http::Host;
use crate::cli::journal::{Failure, Output};
use crate::cli::why::tell;
use crate::cli::{FAILED, print_error};
use crate::pipeline::Told;

/// What the host says between events.
#[derive(Deserialize)]
struct Gap {
    from: u64,
    to: Option<u64>,
    why: String,
}

#[derive(Deserialize)]
struct End {
    why: String,
}

/// Prints what the host tells until it ends; the exit code says whether that was asked for.
pub(super) fn follow(host: &Host, query: &str, json: bool) -> Result<ExitCode, ExitCode> {
    let (status, mut body) = host.open(&format!("/events?{query}")).map_err(|error| {
        print_error(&error);
        ExitCode::from(FAILED)
    })?;
    if !status.is_success() {
        let mut why = String::new();
        // What cannot be read adds nothing to the status.
        let _read = body.read_to_string(&mut why);
        eprintln!("jackfield: {status}: {}", why.trim_end());
        return Err(ExitCode::from(FAILED));
    }
    let mut output = Output::stdout();
    let mut lines = BufReader::new(body);
    let (mut line, mut kind) = (String::new(), String::new());
    loop {
        line.clear();
        if lines.buffer().is_empty() {
            // It may take a while now.
            output.flush().map_err(Failure::code)?;
        }
        match lines.read_line(&mut line) {
            Ok(0) => return failed("the host is gone"),
            Ok(_) => {}
            Err(error) => return failed(&format!("the host is gone: {error}")),
        }
        let text = line.trim_end();
        if let Some(name) = text.strip_prefix("event: ") {
            name.clone_into(&mut kind);
        }
        let Some(data) = text.strip_prefix("data: ") else {
            continue;
        };
        if kind == "end" {
            let end: Option<End> = serde_json::from_str(data).ok();
            let why = end.map_or(String::new(), |end| end.why);
            output.finish().map_err(Failure::code)?;
            return match why.as_str() {
                "limit" | "timeout" => Ok(ExitCode::SUCCESS),
                why => failed(&format!("the host ended it: {why}")),
            };
        }
        print(&kind, data, json, &mut output).map_err(Failure::code)?;
    }
}

fn print(kind: &str, data: &str, json: bool, output: &mut Output) -> Result<(), Failure> {
    if json {
        return match kind {
            "event" => output.line(data),
            kind => output.line(format_args!("{{\"{kind}\":{data}}}")),
        };
    }
    match kind {
        "event" => match serde_json::from_str::<Told>(data) {
            Ok(told) => tell(&told, false, output),
            Err(error) => output.line(format_args!("  not understood: {error}")),
        },
        _ => match serde_json::from_str::<Gap>(data) {
            Ok(Gap {
                from,
                to: Some(to),
                why,
            }) => output.line(format_args!("  missing: {from} to {to}: {why}")),
            Ok(Gap {
                from,
                to: None,
                why,
            }) => output.line(format_args!(
                "  what comes from {from} on may be missing: {why}"
            )),
            Err(error) => output.line(format_args!("  not understood: {error}")),
        },
    }
}

fn failed(why: &str) -> Result<ExitCode, ExitCode> {
    eprintln!("jackfield: {why}");
    Err(ExitCode::from(FAILED))
}
