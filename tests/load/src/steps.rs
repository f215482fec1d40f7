//! The steps of the event path one by one: runs the host's own benchmark of them, and reads what Criterion found.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// What one run of `host/benches/event_path.rs` found.
pub struct Steps {
    /// Where Criterion puts its figures.
    results: tempfile::TempDir,
}

impl Steps {
    /// Runs it, with so many seconds for each step.
    pub fn run(seconds: f64) -> Steps {
        let results = tempfile::tempdir().expect("a folder");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let ran = Command::new(cargo)
            .args([
                "bench",
                "--quiet",
                "-p",
                "jackfield",
                "--bench",
                "event_path",
                "--",
            ])
            .args(["--noplot", "--warm-up-time", "0.3", "--sample-size", "30"])
            .args(["--measurement-time", &seconds.to_string()])
            .env("CRITERION_HOME", results.path())
            .output();
        let ran = ran.expect("cargo runs");
        // Criterion tells its progress there.
        let said = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "the steps are not measured: {said}");
        Steps { results }
    }

    /// The median time of a step, in nanoseconds.
    pub fn ns(&self, group: &str, step: &str) -> f64 {
        let file = self.results.path().join(group).join(step);
        let file = file.join("new/estimates.json");
        ns(&file).unwrap_or_else(|| panic!("{} has no median", file.display()))
    }
}

fn ns(file: &Path) -> Option<f64> {
    let text = fs::read_to_string(file).ok()?;
    let found: Value = serde_json::from_str(&text).ok()?;
    found["median"]["point_estimate"].as_f64()
}
