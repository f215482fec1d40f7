//! Whole configurations: what a user writes, and what the stages get or what the user is told.

use std::fs;

use tempfile::TempDir;

use super::types::{Config, EventPattern, Route};
use super::{Sources, load};

mod drop_in;
mod journal;
mod layers;
mod mistakes;
mod page;
mod streams;

/// A file, an environment and flags, from texts.
#[derive(Default)]
pub(super) struct Situation {
    file: String,
    env: Vec<(String, String)>,
    flags: Vec<(String, String)>,
    dir: Option<TempDir>,
}

impl Situation {
    pub(super) fn file(text: &str) -> Self {
        Self {
            file: text.to_owned(),
            ..Self::default()
        }
    }

    fn variable(name: &str, value: &str) -> Self {
        Self::default().and_variable(name, value)
    }

    fn and_variable(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    fn and_flag(mut self, key: &str, value: &str) -> Self {
        self.flags.push((key.to_owned(), value.to_owned()));
        self
    }

    /// A variable that names a file with this content.
    fn and_variable_file(mut self, name: &str, content: &str) -> Self {
        let dir = self.dir.get_or_insert_with(|| TempDir::new().unwrap());
        let path = dir.path().join(name);
        fs::write(&path, content).unwrap();
        let path = path.to_str().unwrap().to_owned();
        self.and_variable(name, &path)
    }

    /// The configuration, or the mistakes, with the folder of the file left out.
    fn load(self) -> Result<Config, Vec<String>> {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("jackfield.toml");
        fs::write(&path, &self.file).unwrap();
        let env = self.env.into_iter().map(|(n, v)| (n.into(), v.into()));
        let sources = Sources {
            file: Some(path),
            env: env.collect(),
            flags: self.flags,
        };
        let folder = format!("{}/", dir.path().display());
        load(sources).map_err(|mistakes| {
            let lines = mistakes.iter().map(ToString::to_string);
            lines.map(|line| line.replace(&folder, "")).collect()
        })
    }

    pub(super) fn config(self) -> Config {
        self.load()
            .unwrap_or_else(|mistakes| panic!("unexpected mistakes: {mistakes:#?}"))
    }

    fn mistakes(self) -> Vec<String> {
        self.load().expect_err("a mistake")
    }
}

/// What holds if nobody sets anything.
pub(super) fn defaults() -> Config {
    Situation::default().config()
}

fn events(names: &[&str]) -> Vec<EventPattern> {
    let pattern = |name: &&str| EventPattern {
        name: (*name).to_owned(),
        subclass: None,
    };
    names.iter().map(pattern).collect()
}

fn route(stream: usize, names: &[&str], when: &[(&str, &str)]) -> Route {
    let when = when.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
    Route {
        stream,
        events: events(names),
        when: when.collect(),
    }
}
