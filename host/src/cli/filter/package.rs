//! A filter's crate: building its component with cargo, and reading its golden cases.
//!
//! Cargo's own output goes to standard error, as when an author runs it. Cargo and the compiler are whatever is installed;
//! what is missing is named with the command that installs it.

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use serde::Deserialize;
use thiserror::Error;

use super::{failed, misused};
use crate::filter::golden::{Case, Cases, Unreadable};

const TARGET: &str = "wasm32-wasip2";

/// A crate that was built.
#[derive(Debug)]
pub(super) struct Package {
    /// The package's name.
    pub(super) name: String,
    /// The crate's folder.
    pub(super) dir: PathBuf,
    /// What cargo made of it.
    artifact: PathBuf,
}

/// Why there is no component, or why its golden cases cannot be read.
#[derive(Debug, Error)]
pub(super) enum Failure {
    #[error("no Cargo.toml in {}; `jackfield filter new NAME` writes a filter's crate", .0.display())]
    NoCrate(PathBuf),
    #[error("{path}: {why}")]
    Manifest { path: String, why: String },
    #[error(
        "cargo is missing ({0}); install Rust: curl --proto '=https' -sSf https://sh.rustup.rs | sh"
    )]
    NoCargo(PathBuf),
    #[error("cannot run {}", cargo.display())]
    Unrunnable { cargo: PathBuf, source: io::Error },
    #[error("the compiler lacks the target {TARGET}; install it: rustup target add {TARGET}")]
    NoTarget,
    #[error("cargo build failed")]
    Build,
    #[error(
        "{0} makes no component; its Cargo.toml needs: [lib] crate-type = [\"cdylib\", \"rlib\"]"
    )]
    NoComponent(String),
    #[error("cannot read {path}")]
    Unreadable { path: String, source: io::Error },
    #[error("{path}: {why}")]
    Case { path: String, why: String },
    #[error(transparent)]
    Cases(#[from] Unreadable),
}

impl Failure {
    /// The exit code, after it was said what is wrong.
    pub(super) fn code(self) -> ExitCode {
        match self {
            Failure::NoCrate(_) => misused(&self),
            _ => failed(&self),
        }
    }

    fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> Failure {
        let path = path.display().to_string();
        move |source| Failure::Unreadable { path, source }
    }
}

/// The part of a Cargo.toml that is asked for.
#[derive(Deserialize)]
struct Manifest {
    package: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

/// One of cargo's messages.
#[derive(Deserialize)]
struct Message {
    reason: String,
    #[serde(default)]
    manifest_path: PathBuf,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

impl Package {
    /// Builds the crate in this folder, or of this Cargo.toml.
    pub(super) fn build(at: &Path) -> Result<Package, Failure> {
        let manifest = match at.file_name() {
            Some(name) if name == "Cargo.toml" => at.to_owned(),
            _ => at.join("Cargo.toml"),
        };
        if !manifest.is_file() {
            return Err(Failure::NoCrate(at.to_owned()));
        }
        let manifest = std::fs::canonicalize(&manifest).map_err(Failure::unreadable(&manifest))?;
        let name = package_name(&manifest)?;
        let dir = manifest.parent().unwrap_or(&manifest).to_owned();
        let messages = cargo_build(&dir)?;
        let artifact = artifact(&messages, &manifest);
        let artifact = artifact.ok_or_else(|| Failure::NoComponent(name.clone()))?;
        Ok(Package {
            name,
            dir,
            artifact,
        })
    }

    /// Its component.
    pub(super) fn component(&self) -> Result<Vec<u8>, Failure> {
        std::fs::read(&self.artifact).map_err(Failure::unreadable(&self.artifact))
    }

    /// Where a built filter lies unless it is to be elsewhere: in cargo's target folder.
    pub(super) fn output(&self) -> PathBuf {
        // …/target/wasm32-wasip2/release/….wasm
        let target = self.artifact.ancestors().nth(3).unwrap_or(&self.dir);
        target.join(format!("{}.wasm", self.name))
    }

    /// The example settings beside its Cargo.toml.
    pub(super) fn settings(&self) -> PathBuf {
        self.dir.join(format!("{}.toml", self.name))
    }

    /// The cases in `golden/`, in the order of their names.
    pub(super) fn golden(&self) -> Result<Vec<GoldenFile>, Failure> {
        let dir = self.dir.join("golden");
        match std::fs::read_dir(&dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            _ => golden_files(&dir),
        }
    }
}

/// The cases in a folder.
pub(super) fn cases(dir: &Path) -> Result<Cases, Failure> {
    let files = golden_files(dir)?;
    Ok(Cases::new(
        files.into_iter().map(|file| (file.name, file.case)),
    )?)
}

fn golden_files(dir: &Path) -> Result<Vec<GoldenFile>, Failure> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(Failure::unreadable(dir))? {
        let path = entry.map_err(Failure::unreadable(dir))?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            files.push(GoldenFile::read(path)?);
        }
    }
    files.sort_by(|one, other| one.name.cmp(&other.name));
    Cases::new(
        files
            .iter()
            .map(|file| (file.name.clone(), file.case.clone())),
    )?;
    Ok(files)
}

/// A case in its file.
#[derive(Debug)]
pub(super) struct GoldenFile {
    /// The file's name without `.json`.
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) text: String,
    pub(super) case: Case,
}

impl GoldenFile {
    fn read(path: PathBuf) -> Result<GoldenFile, Failure> {
        let text = std::fs::read_to_string(&path).map_err(Failure::unreadable(&path))?;
        let case = Case::parse(&text).map_err(|why| Failure::Case {
            path: path.display().to_string(),
            why,
        })?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        Ok(GoldenFile {
            name: name.into_owned(),
            path,
            text,
            case,
        })
    }
}

fn package_name(manifest: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(manifest).map_err(Failure::unreadable(manifest))?;
    let wrong = |why: String| Failure::Manifest {
        path: manifest.display().to_string(),
        why,
    };
    let read: Manifest =
        toml::from_str(&text).map_err(|error| wrong(error.message().to_owned()))?;
    let package = read.package.map(|package| package.name);
    package.ok_or_else(|| wrong("no [package], so there is nothing to build".to_owned()))
}

/// Cargo's messages, one a line.
fn cargo_build(dir: &Path) -> Result<String, Failure> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let ran = Command::new(&cargo)
        .args(["build", "--release", "--target", TARGET])
        .args(["--message-format", "json-render-diagnostics"])
        .current_dir(dir)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output();
    match ran {
        Ok(ran) if ran.status.success() => Ok(String::from_utf8_lossy(&ran.stdout).into_owned()),
        Ok(_) if lacks_target(dir) => Err(Failure::NoTarget),
        Ok(_) => Err(Failure::Build),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(Failure::NoCargo(cargo.into())),
        Err(source) => Err(Failure::Unrunnable {
            cargo: cargo.into(),
            source,
        }),
    }
}

/// Whether the compiler of this folder has no standard library for the target.
fn lacks_target(dir: &Path) -> bool {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| OsString::from("rustc"));
    let asked = Command::new(rustc)
        .args(["--print", "target-libdir", "--target", TARGET])
        .current_dir(dir)
        .stderr(Stdio::null())
        .output();
    asked.is_ok_and(|answer| {
        let libdir = String::from_utf8_lossy(&answer.stdout);
        answer.status.success() && !Path::new(libdir.trim()).is_dir()
    })
}

/// The component that cargo says it made of this manifest's package.
fn artifact(messages: &str, manifest: &Path) -> Option<PathBuf> {
    let messages = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok());
    let made = messages.filter(|message| {
        message.reason == "compiler-artifact" && message.manifest_path == manifest
    });
    made.flat_map(|made| made.filenames).find(|file| {
        file.extension()
            .is_some_and(|extension| extension == "wasm")
    })
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::artifact;

    #[test]
    fn the_component_is_the_packages_own() {
        let messages = r#"not JSON
{"reason":"compiler-artifact","manifest_path":"/other/Cargo.toml","filenames":["/target/other.wasm"]}
{"reason":"compiler-artifact","manifest_path":"/tag/Cargo.toml","filenames":["/target/libtag.rlib","/target/tag.wasm"]}
{"reason":"build-finished","success":true}"#;
        assert_eq!(
            artifact(messages, Path::new("/tag/Cargo.toml")),
            Some(PathBuf::from("/target/tag.wasm"))
        );
        assert_eq!(artifact(messages, Path::new("/none/Cargo.toml")), None);
    }
}
