//! `jackfield filter test`: a filter's golden cases in the real engine; in its crate those of `golden/`, of a component those
//! that it carries.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};
use thiserror::Error;

use super::build::write;
use super::package::{self, GoldenFile, Package};
use super::{engine, failed, limits_here};
use crate::cli::FAILED;
use crate::filter::golden::{Case, Cases, Fault, Rehearsal, expecting};
use crate::filter::{FilterFile, Prepared, Refusal};

#[derive(Debug, Args)]
pub(super) struct Test {
    /// A component, to run the cases that it carries [default: the crate here is built, and golden/*.json are run].
    #[arg(conflicts_with_all = ["manifest_path", "update"])]
    file: Option<PathBuf>,
    /// Cases for FILE in place of those that it carries, for a filter in another language.
    #[arg(long, value_name = "DIR", requires = "file")]
    golden: Option<PathBuf>,
    /// The crate's folder, or its Cargo.toml.
    #[arg(long, value_name = "DIR", default_value = ".")]
    manifest_path: PathBuf,
    /// Write what the filter decides into golden/*.json as what is expected of it.
    #[arg(long)]
    update: bool,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

/// The component is none that could be tried.
#[derive(Debug, Error)]
#[error("a host would refuse it")]
struct Refused(#[source] Refusal);

/// A golden file cannot be written.
#[derive(Debug, Error)]
#[error("cannot write {path}")]
struct Unwritable {
    path: String,
    source: io::Error,
}

/// What came of one case.
struct Ran {
    case: String,
    fault: Option<Fault>,
    /// Its file says something else now.
    updated: bool,
}

impl Test {
    pub(super) fn run(self) -> Result<ExitCode, ExitCode> {
        let ran = match &self.file {
            Some(file) => self.carried(file),
            None => self.written(),
        };
        let ran = ran?;
        let failures = ran.iter().filter(|ran| ran.fault.is_some()).count();
        if self.json {
            println!("{:#}", Value::from_iter(ran.iter().map(Ran::json)));
        } else {
            ran.iter().for_each(Ran::print);
            println!("{} golden cases, {failures} failed", ran.len());
        }
        if failures > 0 {
            return Err(ExitCode::from(FAILED));
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The cases for a component, or else those that it carries.
    fn carried(&self, path: &Path) -> Result<Vec<Ran>, ExitCode> {
        let file = FilterFile::read(path, &path.with_extension("toml"));
        let cases = match (&self.golden, &file.component) {
            (Some(dir), _) => package::cases(dir).map_err(package::Failure::code)?,
            (None, Ok(bytes)) => Cases::of_component(bytes).map_err(|error| failed(&error))?,
            // The refusal says why it cannot be read.
            (None, Err(_)) => Cases::default(),
        };
        with_rehearsal(&file, |rehearsal| {
            let check = |(name, case): (&str, &Case)| Ran::new(name, rehearsal.check(case).err());
            cases.iter().map(check).collect()
        })
    }

    /// The cases in `golden/` of a crate.
    fn written(&self) -> Result<Vec<Ran>, ExitCode> {
        let failure = |failure: package::Failure| failure.code();
        let package = Package::build(&self.manifest_path).map_err(failure)?;
        let golden = package.golden().map_err(failure)?;
        let file = FilterFile {
            name: package.name.as_str().into(),
            component: Ok(package.component().map_err(failure)?),
            settings: FilterFile::settings(&package.settings()),
        };
        let ran = with_rehearsal(&file, |rehearsal| {
            let run = |golden: &GoldenFile| match self.update {
                false => Ok(Ran::new(&golden.name, rehearsal.check(&golden.case).err())),
                true => update(rehearsal, golden),
            };
            golden
                .iter()
                .map(run)
                .collect::<Result<Vec<Ran>, Unwritable>>()
        })?;
        ran.map_err(|failure| failed(&failure))
    }
}

fn with_rehearsal<T>(
    file: &FilterFile,
    run: impl FnOnce(&Rehearsal<'_>) -> T,
) -> Result<T, ExitCode> {
    let limits = limits_here()?;
    let engine = engine()?;
    let prepared =
        Prepared::new(&engine, file, &limits).map_err(|error| failed(&Refused(error)))?;
    Ok(run(&prepared.rehearsal(&engine)))
}

/// Writes what comes of a case into its file.
fn update(rehearsal: &Rehearsal<'_>, golden: &GoldenFile) -> Result<Ran, Unwritable> {
    let outcomes = match rehearsal.outcomes(&golden.case) {
        Ok(outcomes) => outcomes,
        Err(fault) => return Ok(Ran::new(&golden.name, Some(fault))),
    };
    let mut ran = Ran::new(&golden.name, None);
    if golden.case.expected().ne(outcomes.iter().map(Some)) {
        let path = golden.path.display().to_string();
        let text = expecting(&golden.text, &outcomes);
        write(&golden.path, text.as_bytes()).map_err(|source| Unwritable { path, source })?;
        ran.updated = true;
    }
    Ok(ran)
}

impl Ran {
    fn new(case: &str, fault: Option<Fault>) -> Ran {
        Ran {
            case: case.to_owned(),
            fault,
            updated: false,
        }
    }

    fn print(&self) {
        match &self.fault {
            Some(fault) => println!("{}: failed: {fault}", self.case),
            None if self.updated => println!("{}: updated", self.case),
            None => println!("{}: ok", self.case),
        }
    }

    fn json(&self) -> Value {
        let error = self.fault.as_ref().map(ToString::to_string);
        json!({ "case": self.case, "ok": error.is_none(), "error": error, "updated": self.updated })
    }
}
