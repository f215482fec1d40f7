//! `jackfield filter check`: whether a host takes a component, and what it is.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::facts::{self, Facts};
use super::{Settings, engine, settings_file};
use crate::cli::FAILED;
use crate::config::FilterLimits;
use crate::filter::{Engine, FilterFile, Inspected, inspect};

#[derive(Debug, Args)]
pub(super) struct Check {
    /// The components.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The settings file of all of them [default: NAME.toml beside each NAME.wasm, if it is there].
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    #[command(flatten)]
    host: Settings,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

/// What a program reads of one file.
#[derive(Serialize)]
struct Answer<'a> {
    file: &'a Path,
    ok: bool,
    error: Option<&'a str>,
    #[serde(flatten)]
    facts: Option<Facts<'a>>,
}

/// What came of one file.
struct Checked {
    file: PathBuf,
    facts: Option<Inspected>,
    /// Why a host would refuse it.
    error: Option<String>,
}

impl Check {
    pub(super) fn run(self) -> Result<ExitCode, ExitCode> {
        let limits = self.host.load()?.filters.limits;
        let engine = engine()?;
        let check = |file: &PathBuf| -> Result<Checked, ExitCode> {
            let settings = settings_file(self.settings.as_deref(), file)?;
            Ok(Checked::new(&engine, file, &settings, &limits))
        };
        let checked: Vec<Checked> = self.files.iter().map(check).collect::<Result<_, _>>()?;
        if self.json {
            let answers: Vec<Answer<'_>> = checked.iter().map(Checked::answer).collect();
            println!("{:#}", json!(answers));
        } else {
            checked.iter().for_each(Checked::print);
        }
        if checked.iter().any(|one| one.error.is_some()) {
            return Err(ExitCode::from(FAILED));
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Checked {
    fn new(engine: &Engine, file: &Path, settings: &Path, limits: &FilterLimits) -> Checked {
        let inspected = inspect(engine, &FilterFile::read(file, settings), limits);
        let (facts, error) = match inspected {
            Ok(facts) => {
                let broken = facts.golden.as_ref().err().map(ToString::to_string);
                (Some(facts), broken)
            }
            Err(refusal) => (None, Some(refusal.to_string())),
        };
        Checked {
            file: file.to_owned(),
            facts,
            error,
        }
    }

    fn print(&self) {
        let file = self.file.display();
        match &self.error {
            None => println!("{file}: ok"),
            Some(why) => println!("{file}: refused: {why}"),
        }
        for (name, value) in self.facts.iter().flat_map(facts::lines) {
            println!("  {name:<8} {value}");
        }
    }

    fn answer(&self) -> Answer<'_> {
        Answer {
            file: &self.file,
            ok: self.error.is_none(),
            error: self.error.as_deref(),
            facts: self.facts.as_ref().map(Facts::of),
        }
    }
}
