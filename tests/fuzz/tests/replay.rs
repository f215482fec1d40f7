//! Every file in `corpus/` once more: what the fuzzer starts from, and what it has found.

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

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
