//! The SDK and the contract as a new crate gets them: the files of this repository, embedded. The SDK's manifest is made of its
//! own and the workspace's, because a crate elsewhere has no workspace to inherit from.

use toml::{Table, Value};

/// Where they lie in a new crate. The SDK's bindings look for the contract in `../wit`.
const SDK: &str = "jackfield/sdk";
const CONTRACT: &str = "jackfield/wit/filter.wit";

const WORKSPACE_MANIFEST: &str = include_str!("../../../../../Cargo.toml");
const SDK_MANIFEST: &str = include_str!("../../../../../guest-sdk/Cargo.toml");
const WIT: &str = include_str!("../../../../../wit/filter.wit");

macro_rules! sources {
    ($($file:literal),+ $(,)?) => {
        &[$(($file, include_str!(concat!("../../../../../guest-sdk/src/", $file)))),+]
    };
}

/// All of `guest-sdk/src`.
const SOURCES: &[(&str, &str)] = sources![
    "allocator.rs",
    "answer.rs",
    "bindings.rs",
    "duration.rs",
    "event.rs",
    "export.rs",
    "host.rs",
    "lib.rs",
    "running.rs",
    "stand_in.rs",
    "testing.rs",
    "tests.rs",
];

/// The files: paths and texts.
pub(super) fn files() -> Result<Vec<(String, String)>, String> {
    let sources = SOURCES.iter();
    let mut files: Vec<(String, String)> = sources
        .map(|(file, text)| (format!("{SDK}/src/{file}"), (*text).to_owned()))
        .collect();
    files.push((CONTRACT.to_owned(), WIT.to_owned()));
    files.push((
        format!("{SDK}/Cargo.toml"),
        standing_alone(SDK_MANIFEST, WORKSPACE_MANIFEST)?,
    ));
    Ok(files)
}

/// A member's manifest with all that it inherits written out, and without lints, which are this repository's own business.
fn standing_alone(member: &str, workspace: &str) -> Result<String, String> {
    let parse = |text: &str| toml::from_str::<Table>(text).map_err(|error| error.to_string());
    let (mut member, workspace) = (parse(member)?, parse(workspace)?);
    let inherited = |table: &str| {
        let workspace = workspace.get("workspace").and_then(Value::as_table);
        workspace?.get(table)?.as_table().cloned()
    };
    member.remove("lints");
    if let Some(Value::Table(package)) = member.get_mut("package") {
        inherit(package, &inherited("package").unwrap_or_default());
    }
    let dependencies = inherited("dependencies").unwrap_or_default();
    each_dependencies(&mut member, &dependencies);
    if let Some(Value::Table(targets)) = member.get_mut("target") {
        let targets = targets
            .iter_mut()
            .filter_map(|(_, target)| target.as_table_mut());
        targets.for_each(|target| each_dependencies(target, &dependencies));
    }
    toml::to_string(&member).map_err(|error| error.to_string())
}

fn each_dependencies(table: &mut Table, workspace: &Table) {
    for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
        if let Some(Value::Table(dependencies)) = table.get_mut(kind) {
            inherit(dependencies, workspace);
        }
    }
}

/// Each `x.workspace = true` becomes what the workspace says of `x`, with the features that the member adds.
fn inherit(table: &mut Table, workspace: &Table) {
    for (name, value) in table.iter_mut() {
        let Value::Table(own) = value else { continue };
        if own.remove("workspace").is_none() {
            continue;
        }
        let Some(theirs) = workspace.get(name) else {
            continue;
        };
        *value = match (std::mem::take(own), theirs.clone()) {
            (own, theirs) if own.is_empty() => theirs,
            (own, Value::Table(theirs)) => Value::Table(merged(theirs, own)),
            (own, theirs) => Value::Table(merged(
                Table::from_iter([("version".to_owned(), theirs)]),
                own,
            )),
        };
    }
}

/// The workspace's entry with the member's own keys; features of both.
fn merged(mut entry: Table, own: Table) -> Table {
    for (key, value) in own {
        match (entry.get_mut(&key), value) {
            (Some(Value::Array(features)), Value::Array(more)) => features.extend(more),
            (_, value) => {
                entry.insert(key, value);
            }
        }
    }
    entry
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use toml::{Table, Value};

    use super::{SDK_MANIFEST, SOURCES, WORKSPACE_MANIFEST, standing_alone};

    #[test]
    fn every_file_of_the_sdk_is_embedded() {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guest-sdk/src");
        let files = fs::read_dir(sources).unwrap();
        let there: BTreeSet<String> = files
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        let embedded: BTreeSet<String> =
            SOURCES.iter().map(|(file, _)| (*file).to_owned()).collect();
        assert_eq!(there, embedded, "guest-sdk/src and SOURCES hold the same");
    }

    #[test]
    fn the_sdks_manifest_stands_alone_and_has_its_own_dependencies() {
        let text = standing_alone(SDK_MANIFEST, WORKSPACE_MANIFEST).unwrap();
        assert!(!text.contains("workspace"), "{text}");
        let (real, alone): (Table, Table) = (
            toml::from_str(SDK_MANIFEST).unwrap(),
            toml::from_str(&text).unwrap(),
        );
        let names = |table: &Table| -> BTreeSet<String> {
            let dependencies = table["dependencies"].as_table().unwrap();
            dependencies.keys().cloned().collect()
        };
        assert_eq!(names(&alone), names(&real));
        assert_eq!(
            alone["dependencies"]["wit-bindgen"],
            real["dependencies"]["wit-bindgen"]
        );
        assert_eq!(alone["target"], real["target"]);
        assert_eq!(alone["package"]["name"].as_str(), Some("jackfield-sdk"));
    }

    #[test]
    fn what_is_inherited_is_written_out() {
        let workspace = r#"
            [workspace.package]
            edition = "2024"
            [workspace.dependencies]
            a = "1"
            b = { version = "2", features = ["x"] }
        "#;
        let member = r#"
            [package]
            name = "m"
            edition.workspace = true
            [lints]
            workspace = true
            [dependencies]
            a.workspace = true
            b = { workspace = true, features = ["y"] }
            [target.'cfg(unix)'.dependencies]
            a = { workspace = true, optional = true }
        "#;
        let expected = r#"
            [package]
            name = "m"
            edition = "2024"
            [dependencies]
            a = "1"
            b = { version = "2", features = ["x", "y"] }
            [target.'cfg(unix)'.dependencies]
            a = { version = "1", optional = true }
        "#;
        let alone: Value = toml::from_str(&standing_alone(member, workspace).unwrap()).unwrap();
        assert_eq!(alone, toml::from_str::<Value>(expected).unwrap());
    }
}
