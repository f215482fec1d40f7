//! `jackfield filter new`: a filter's crate that builds anywhere, with the SDK and the contract of this very host in it.
//!
//! Nothing that is there is overwritten, and a crate that cannot be written whole leaves nothing behind.

mod sdk;

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use thiserror::Error;

use super::{failed, misused};

/// The longest name.
const NAME_MAX: usize = 64;

/// Names that Rust, cargo or the crate's own dependencies have.
const TAKEN: &[&str] = &[
    "abstract",
    "alloc",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "const",
    "continue",
    "core",
    "crate",
    "do",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "jackfield_sdk",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "proc_macro",
    "pub",
    "ref",
    "return",
    "self",
    "serde",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "unsafe",
    "unsized",
    "use",
    "virtual",
    "where",
    "while",
    "yield",
];

/// What stands for the crate's name in the template.
const PLACEHOLDER: &str = "{{name}}";

/// The crate but for what is named after it; paths and texts.
const TEMPLATE: &[(&str, &str)] = &[
    ("Cargo.toml", include_str!("template/manifest.toml")),
    (
        "rust-toolchain.toml",
        include_str!("../../../../rust-toolchain.toml"),
    ),
    (".gitignore", include_str!("template/gitignore")),
    ("README.md", include_str!("template/README.md")),
    ("src/lib.rs", include_str!("template/src/lib.rs")),
    ("{{name}}.toml", include_str!("template/settings.toml")),
    (
        "golden/answered.json",
        include_str!("template/golden/answered.json"),
    ),
    (
        "golden/defaults.json",
        include_str!("template/golden/defaults.json"),
    ),
    (
        "events/channel-answer.json",
        include_str!("template/events/channel-answer.json"),
    ),
    (
        "events/channel-hangup-complete.json",
        include_str!("template/events/channel-hangup-complete.json"),
    ),
    (
        "events/dtmf.json",
        include_str!("template/events/dtmf.json"),
    ),
    (
        "events/sofia-register.json",
        include_str!("template/events/sofia-register.json"),
    ),
];

#[derive(Debug, Args)]
pub(super) struct New {
    /// The name of the crate, of its folder and of the component.
    name: String,
    /// The folder that the crate's own is made in.
    #[arg(long, value_name = "DIR", default_value = ".")]
    into: PathBuf,
}

/// Why there is no new crate.
#[derive(Debug, Error)]
enum Failure {
    #[error(
        "NAME = {0:?}: allowed is a crate's name: 1 to {NAME_MAX} ASCII letters, digits, - and _, beginning with a letter, \
        and no word that Rust or cargo has a use for"
    )]
    Name(String),
    #[error("{} is there already; nothing was written", .0.display())]
    Exists(PathBuf),
    #[error("cannot write {}", path.display())]
    Unwritable { path: PathBuf, source: io::Error },
    #[error("the SDK's manifest cannot be made: {0}")]
    Manifest(String),
}

impl New {
    pub(super) fn run(self) -> Result<ExitCode, ExitCode> {
        let dir = self.write().map_err(|failure| match failure {
            Failure::Name(_) => misused(&failure),
            _ => failed(&failure),
        })?;
        let (name, dir) = (&self.name, dir.display());
        println!(
            "{dir} is a filter's crate; {dir}/README.md says how to go on:\n  \
            cd {dir}\n  cargo test\n  jackfield filter test\n  jackfield filter build --output FILTERS/40-{name}.wasm"
        );
        Ok(ExitCode::SUCCESS)
    }

    /// The crate's folder, written.
    fn write(&self) -> Result<PathBuf, Failure> {
        if !is_crate_name(&self.name) {
            return Err(Failure::Name(self.name.clone()));
        }
        let files = self.files()?;
        let unwritable = |path: &Path| {
            let path = path.to_owned();
            move |source| Failure::Unwritable { path, source }
        };
        fs::create_dir_all(&self.into).map_err(unwritable(&self.into))?;
        let dir = self.into.join(&self.name);
        match fs::create_dir(&dir) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Err(Failure::Exists(dir));
            }
            made => made.map_err(unwritable(&dir))?,
        }
        for (path, text) in files {
            let path = dir.join(path);
            let folder = path.parent().unwrap_or(&dir);
            let written = fs::create_dir_all(folder).and_then(|()| fs::write(&path, text));
            if let Err(source) = written {
                // Why it could not be written matters more than what is left of it.
                let _removed = fs::remove_dir_all(&dir);
                return Err(unwritable(&path)(source));
            }
        }
        Ok(dir)
    }

    /// All files of the crate: paths and texts.
    fn files(&self) -> Result<Vec<(String, String)>, Failure> {
        let named = |text: &str| text.replace(PLACEHOLDER, &self.name);
        let template = TEMPLATE
            .iter()
            .map(|(path, text)| (named(path), named(text)));
        let mut files: Vec<(String, String)> = template.collect();
        files.extend(sdk::files().map_err(Failure::Manifest)?);
        Ok(files)
    }
}

fn is_crate_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    name.len() <= NAME_MAX
        && name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(allowed)
        && !TAKEN.contains(&name.replace('-', "_").to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{New, TEMPLATE, is_crate_name};
    use crate::event::{Event, Format};
    use crate::filter::golden::Case;

    #[test]
    fn a_name_is_one_that_cargo_and_rust_take() {
        for name in ["tag", "call-record", "a_1", "X2"] {
            assert!(is_crate_name(name), "{name}");
        }
        let long = "a".repeat(65);
        for name in [
            "",
            "1st",
            "-a",
            "a b",
            "../a",
            "a/b",
            "größe",
            "fn",
            "std",
            "proc-macro",
            "serde",
            "Test",
            &long,
        ] {
            assert!(!is_crate_name(name), "{name}");
        }
    }

    #[test]
    fn a_folder_that_is_there_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let new = || New {
            name: "tag".to_owned(),
            into: dir.path().join("filters"),
        };
        let made = new().write().unwrap();
        std::fs::write(made.join("src/lib.rs"), "mine").unwrap();
        let refused = new().write().unwrap_err().to_string();
        assert!(
            refused.ends_with("tag is there already; nothing was written"),
            "{refused}"
        );
        assert_eq!(
            std::fs::read_to_string(made.join("src/lib.rs")).unwrap(),
            "mine"
        );
    }

    #[test]
    fn the_templates_cases_and_events_are_what_they_should_be() {
        for (path, text) in TEMPLATE {
            if path.starts_with("golden/") {
                let case = Case::parse(text).unwrap();
                assert!(case.expected().all(|step| step.is_some()), "{path}");
            }
            if path.starts_with("events/") {
                let event = Event::parse(Format::Json, Bytes::from_static(text.as_bytes()));
                assert!(!event.unwrap().name().is_empty(), "{path}");
            }
        }
    }
}
