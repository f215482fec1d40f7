//! Every file in `corpus/` once more: what the fuzzer starts from, and what it has found.

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use jackfield::pipeline::decode;
use jackfield_fuzz::{config, decision, event, framer, journal};

#[test]
fn every_file_of_the_corpus_keeps_the_framers_promises() {
    replay("framer", framer::run);
}

#[test]
fn every_file_of_the_corpus_keeps_the_events_promises() {
    replay("event", event::run);
}

#[test]
fn every_file_of_the_corpus_keeps_the_journals_promises() {
    replay("journal", journal::run);
}

#[test]
fn every_file_of_the_corpus_keeps_the_decisions_promises() {
    replay("decision", decision::run);
}

#[test]
fn every_file_of_the_corpus_keeps_the_configurations_promises() {
    replay("config", config::run);
}

/// A new version of the encoding would refuse the files of the old one without a word.
#[test]
fn the_decisions_of_the_corpus_have_all_that_a_decision_can_have() {
    let decided = files("decision").into_iter().filter_map(|file| {
        let data = fs::read(file).expect("a readable file");
        decode(&data).ok()
    });
    let all: Vec<_> = decided.flatten().collect();
    let shown = serde_json::to_string(&all).expect("a decision is shown as JSON");
    let outcomes = ["streams", "dead", "malformed", "dropped"];
    let verdicts = ["route", "drop", "dead_letter"];
    let edits = ["set", "remove", "keep", "body"];
    for one in [&outcomes[..], &verdicts, &edits].concat() {
        assert!(shown.contains(&format!("{{\"{one}\":")), "none has {one}");
    }
    for one in [r#""pass""#, r#""unrouted""#, r#""derived":{"by""#] {
        assert!(shown.contains(one), "none has {one}");
    }
    let steps = || all.iter().flat_map(|became| &became.steps);
    assert!(steps().any(|step| step.failure.is_some()), "no call failed");
    assert!(steps().any(|step| step.took_ns == u32::MAX), "none is slow");
}

fn replay(target: &str, run: fn(&[u8])) {
    let files = files(target);
    assert!(!files.is_empty(), "corpus/{target} is empty");
    let broken: Vec<&PathBuf> = files
        .iter()
        .filter(|file| {
            let data = fs::read(file).expect("a readable file");
            catch_unwind(|| run(&data)).is_err()
        })
        .collect();
    assert!(broken.is_empty(), "a promise is broken by {broken:#?}");
}

fn files(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{error}: {folder:?}"));
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    files
}
