//! Where and when the numbers were measured.

use std::fs;
use std::process::Command;

/// Processor, kernel, Redis and revision, in one sentence.
pub fn described() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let of = |name: &str| {
        let line = info.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.split_once(": "));
        value.map_or("unknown", |(_, value)| value).to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let redis = said("redis-server", &["--version"]);
    let version = redis.split_whitespace().find(|word| word.starts_with("v="));
    format!(
        "{cores} × {}, Linux {}, redis-server {}, revision {}, {}",
        of("model name"),
        said("uname", &["-r"]),
        version.unwrap_or("v=unknown").trim_start_matches("v="),
        said("git", &["rev-parse", "--short", "HEAD"]),
        said("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
    )
}

fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let text = text.unwrap_or_default();
    if text.is_empty() {
        "unknown".to_owned()
    } else {
        text
    }
}
