//! `jackfield filter build`: the crate's component with its golden cases in it, checked, where it is to be.
//!
//! What would be refused is not written, and what is written appears at once: a host that watches the folder sees a whole
//! file or none.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use serde_json::json;
use thiserror::Error;

use super::facts::{self, Facts};
use super::package::{self, Package};
use super::{engine, failed, limits_here, misused};
use crate::config::FilterLimits;
use crate::filter::golden::{Broken, Cases};
use crate::filter::{Engine, FilterFile, Inspected, Refusal, inspect};

#[derive(Debug, Args)]
pub(super) struct Build {
    /// The crate's folder, or its Cargo.toml.
    #[arg(long, value_name = "DIR", default_value = ".")]
    manifest_path: PathBuf,
    /// Where the component is written [default: NAME.wasm in cargo's target folder]. It is checked with the settings beside
    /// it; in the target folder, with NAME.toml of the crate.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

/// What a program reads.
#[derive(Serialize)]
struct Answer<'a> {
    path: &'a Path,
    #[serde(flatten)]
    facts: Facts<'a>,
}

/// Why no component is written.
#[derive(Debug, Error)]
enum Failure {
    #[error("--output {}: allowed is a file name that ends in .wasm", .0.display())]
    Output(PathBuf),
    #[error(transparent)]
    Package(#[from] package::Failure),
    #[error("a host would refuse it")]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Golden(#[from] Broken),
    #[error("cannot write {path}")]
    Unwritable { path: String, source: io::Error },
}

impl Failure {
    fn code(self) -> ExitCode {
        match self {
            Failure::Package(failure) => failure.code(),
            Failure::Output(_) => misused(&self),
            _ => failed(&self),
        }
    }
}

impl Build {
    pub(super) fn run(self) -> Result<ExitCode, ExitCode> {
        let limits = limits_here()?;
        let engine = engine()?;
        let (path, facts) = self.make(&engine, &limits).map_err(Failure::code)?;
        if self.json {
            let facts = Facts::of(&facts);
            println!("{:#}", json!(Answer { path: &path, facts }));
        } else {
            for (name, value) in facts::lines(&facts) {
                println!("{name:<8} {value}");
            }
            println!("{:<8} {}", "path", path.display());
        }
        Ok(ExitCode::SUCCESS)
    }

    fn make(
        &self,
        engine: &Engine,
        limits: &FilterLimits,
    ) -> Result<(PathBuf, Inspected), Failure> {
        let is_wasm = |path: &PathBuf| {
            path.extension()
                .is_some_and(|extension| extension == "wasm")
        };
        if let Some(output) = self.output.as_ref().filter(|output| !is_wasm(output)) {
            return Err(Failure::Output(output.clone()));
        }
        let package = Package::build(&self.manifest_path)?;
        let (path, settings) = match &self.output {
            Some(output) => (output.clone(), output.with_extension("toml")),
            None => (package.output(), package.settings()),
        };
        let golden = package.golden()?.into_iter();
        let cases = Cases::new(golden.map(|file| (file.name, file.case))).map_err(Broken::from)?;
        let bytes = cases.embed(&package.component()?).map_err(Broken::from)?;
        let file = FilterFile {
            name: package.name.as_str().into(),
            component: Ok(bytes.clone()),
            settings: FilterFile::settings(&settings),
        };
        let mut facts = inspect(engine, &file, limits)?;
        facts.golden = Ok(facts.golden?);
        write(&path, &bytes).map_err(|source| Failure::Unwritable {
            path: path.display().to_string(),
            source,
        })?;
        Ok((path, facts))
    }
}

/// Under another name first, which no host takes for a filter.
pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let part = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let written = File::create(&part)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&part, path));
    if written.is_err() {
        // Why it could not be written matters more than what is left of it.
        let _removed = fs::remove_file(&part);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::write;

    #[test]
    fn a_component_takes_the_place_of_the_one_before_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("10-tag.wasm");
        for bytes in [b"one", b"two"] {
            write(&path, bytes).unwrap();
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let missing = dir.path().join("missing/10-tag.wasm");
        assert_eq!(
            write(&missing, b"one").unwrap_err().kind(),
            std::io::ErrorKind::NotFound
        );
    }
}
