//! The configuration: any file, environment and flags are settings that keep their bounds, or mistakes that a person can act
//! on; and no secret is ever shown.
//!
//! The data is the text of the file. Behind it, each after a zero byte, may stand variables (`NAME=VALUE`) and flags
//! (`--KEY=VALUE`). The value of a `_FILE` variable is what is in its file; with `?` before it, the name of a file that is
//! not there.

mod accepted;
mod secret;

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use jackfield::config::{
    FilterLimits, Mistake, Mistakes, OnError, Policy, Sources, Wasi, filter_settings, load,
};
use toml::Table;

/// Checks one configuration, and its file's text as that of a filter.
pub fn run(data: &[u8]) {
    let mut parts = data.split(|byte| *byte == 0);
    let text = parts.next().unwrap_or_default();
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).expect("a file is written");
        path
    };
    let file = write("jackfield.toml", text);
    let (mut env, mut flags) = (Vec::new(), Vec::new());
    for (number, part) in parts.enumerate() {
        let Some((name, value)) = pair(part) else {
            continue;
        };
        if let Some(key) = name.strip_prefix("--") {
            flags.push((key.to_owned(), String::from_utf8_lossy(value).into_owned()));
            continue;
        }
        let value = match value.strip_prefix(b"?") {
            // Nothing on this machine is read but what was made for this run.
            _ if !name.ends_with("_FILE") => OsString::from_vec(value.to_vec()),
            Some(path) => {
                let path = String::from_utf8_lossy(path).replace('/', "_");
                folder.path().join("not").join(path).into_os_string()
            }
            None => write(&number.to_string(), value).into_os_string(),
        };
        env.push((name.into(), value));
    }
    let sources = Sources {
        file: Some(file),
        env,
        flags,
    };
    let loaded = load(sources.clone());
    match &loaded {
        Ok(config) => accepted::check(config, &sources, text),
        Err(mistakes) => check_mistakes(mistakes),
    }
    secret::check(&loaded, &sources, text);
    check_one_more(sources, loaded.err());

    if let Ok(text) = std::str::from_utf8(text) {
        check_filter(text);
    }
}

fn pair(part: &[u8]) -> Option<(&str, &[u8])> {
    let end = part.iter().position(|byte| *byte == b'=')?;
    Some((std::str::from_utf8(&part[..end]).ok()?, &part[end + 1..]))
}

/// Each mistake is one line that names the setting and says what is allowed.
fn check_mistakes(mistakes: &Mistakes) {
    assert!(mistakes.iter().next().is_some(), "a refusal says why");
    for mistake in mistakes.iter() {
        let line = mistake.to_string();
        let is_line = !line.contains(char::is_control);
        assert!(is_line, "a mistake is one line: {line:?}");
        let (named, explained) = match mistake {
            Mistake::Value { place, allowed, .. } | Mistake::Missing { place, allowed } => {
                (place, allowed.as_str())
            }
            Mistake::Unknown { place, what, .. } => (place, *what),
            Mistake::Both { variable } => (variable, "both"),
            Mistake::File { place, cause } => (place, cause.as_str()),
        };
        let is_told = !named.trim().is_empty() && !explained.is_empty();
        assert!(is_told, "{line:?} says where and what");
    }
    let lines: Vec<String> = mistakes.iter().map(Mistake::to_string).collect();
    assert_eq!(mistakes.to_string(), lines.join("\n"), "one line each");
}

/// One mistake more is told, and all others still are, but for those about a value that it hides.
fn check_one_more(sources: Sources, mistakes: Option<Mistakes>) {
    let mut sources = sources;
    sources.flags.retain(|(key, _)| key != "limits.total");
    sources.flags.push(("limits.total".into(), "soon".into()));
    let lines = |mistakes: &Mistakes| {
        let lines = mistakes.iter().map(Mistake::to_string);
        lines.collect::<Vec<String>>()
    };
    let told = lines(&load(sources).expect_err("soon is no duration"));
    let is_own = |line: &String| line.starts_with("flag limits.total = \"soon\"");
    assert!(told.iter().any(is_own), "it is told among {told:#?}");
    let names = ["limits.total", "LIMITS_TOTAL", "TOTAL_MAX_LATENCY"];
    let is_other = |line: &&String| !names.iter().any(|name| line.contains(name));
    let before = mistakes.as_ref().map(lines).unwrap_or_default();
    let (before, told) = (before.iter().filter(is_other), told.iter().filter(is_other));
    assert!(before.eq(told), "all others still are");
}

/// Every setting of a filter's file reaches it, in the order of the file.
fn check_filter(text: &str) {
    let defaults = FilterLimits {
        deadline: Duration::from_millis(10),
        memory: 16 << 20,
        on_error: Policy::all(OnError::Pass),
        wasi: Wasi::Locked,
        streams: Vec::new(),
        probation: Duration::from_secs(60),
        fuse: true,
    };
    match filter_settings(text, &defaults) {
        Ok((limits, json)) => {
            accepted::check_limits(&limits);
            let settings: serde_json::Value = serde_json::from_str(&json).expect("JSON");
            let settings = settings.as_object().expect("an object");
            let own = text.parse::<Table>().expect("they were read");
            let own = own.keys().filter(|name| *name != "jackfield");
            assert!(own.eq(settings.keys()), "{json} of {text}");
        }
        Err(mistakes) => check_mistakes(&mistakes),
    }
}
