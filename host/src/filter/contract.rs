//! The contract by name and number: whether a file is what this host can run, told from what it imports and exports.
//!
//! It looks at names alone; whether the types behind them fit is the linker's to say. Compiles and runs nothing.

use super::refusal::Refusal;

/// The contract that this host speaks: the package of `wit/filter.wit`.
pub const CONTRACT: &str = "jackfield:filter@0.1.0";
/// The number alone.
pub(super) const VERSION: &str = "0.1.0";
/// What a filter exports.
pub(super) const HANDLER: &str = "jackfield:filter/handler@0.1.0";

const PACKAGE: &str = "jackfield:filter/";
/// The interfaces of the contract that a filter may import.
const OFFERED: [&str; 3] = [
    "jackfield:filter/types@0.1.0",
    "jackfield:filter/current-event@0.1.0",
    "jackfield:filter/host@0.1.0",
];
/// The parts of WASI that are there, locked down.
const WASI: [&str; 6] = [
    "wasi:cli/",
    "wasi:clocks/",
    "wasi:filesystem/",
    "wasi:io/",
    "wasi:random/",
    "wasi:sockets/",
];

const MAGIC: &[u8] = b"\0asm";
const CORE: [u8; 4] = [1, 0, 0, 0];
/// How the custom sections are named in which wit-bindgen describes a core module's component.
const COMPONENT_TYPE: &[u8] = b"component-type";

/// What a file is before anything reads on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Component,
    /// It says of itself which component it is to be.
    CoreModule,
}

/// Tells a file by its first bytes.
pub(super) fn form(bytes: &[u8]) -> Result<Form, Refusal> {
    if bytes.is_empty() {
        return Err(Refusal::Empty);
    }
    match bytes.strip_prefix(MAGIC) {
        Some(rest) if !rest.starts_with(&CORE) => Ok(Form::Component),
        Some(rest) if memchr::memmem::find(rest, COMPONENT_TYPE).is_some() => Ok(Form::CoreModule),
        Some(_) => Err(Refusal::CoreModule),
        None if MAGIC.starts_with(bytes) => Ok(Form::Component),
        None => Err(Refusal::NotWasm {
            start: bytes.iter().take(8).copied().collect(),
        }),
    }
}

/// Checks a component's names against the contract.
pub(super) fn check(imports: &[String], exports: &[String]) -> Result<(), Refusal> {
    let ours = |name: &&String| name.starts_with(PACKAGE);
    for name in exports.iter().chain(imports).filter(ours) {
        let version = name.split_once('@').map_or("", |(_, version)| version);
        if version != VERSION {
            return Err(Refusal::OtherVersion {
                version: version.to_owned(),
            });
        }
    }
    if !exports.iter().any(|name| name == HANDLER) {
        return Err(Refusal::OtherWorld {
            exports: exports.to_vec(),
        });
    }
    let offered = |name: &&String| {
        OFFERED.contains(&name.as_str()) || WASI.iter().any(|part| name.starts_with(part))
    };
    match imports.iter().find(|name| !offered(name)) {
        Some(name) => Err(Refusal::Import(name.clone())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{CONTRACT, Form, HANDLER, OFFERED, VERSION, check, form};

    #[track_caller]
    fn refusal(imports: &[&str], exports: &[&str]) -> String {
        let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let checked = check(&owned(imports), &owned(exports));
        checked.map_or_else(|refusal| refusal.to_string(), |()| "none".to_owned())
    }

    #[test]
    fn the_contract_is_that_of_the_wit_file() {
        let wit = include_str!("../../../wit/filter.wit");
        assert!(wit.contains(&format!("\npackage {CONTRACT};\n")));
        for name in OFFERED.iter().chain([&HANDLER]) {
            let interface = name.split_once('/').unwrap().1.strip_suffix("@0.1.0");
            let interface = interface.unwrap();
            assert!(wit.contains(&format!("\ninterface {interface} {{\n")));
        }
        assert!(CONTRACT.ends_with(&format!("@{VERSION}")));
    }

    #[test]
    fn a_filter_of_this_contract_passes() {
        let imports = [
            "jackfield:filter/types@0.1.0",
            "jackfield:filter/host@0.1.0",
            "wasi:io/poll@0.2.6",
        ];
        assert_eq!(refusal(&imports, &[HANDLER]), "none");
    }

    #[test]
    fn another_number_of_the_contract_is_named_with_what_to_do() {
        let says = "is built for contract jackfield:filter@0.2.0; this host speaks 0.1.0: rebuild it with the \
            jackfield-sdk and wit/ of this host, or run a host that speaks 0.2.0";
        assert_eq!(refusal(&[], &["jackfield:filter/handler@0.2.0"]), says);
        assert_eq!(
            refusal(&["jackfield:filter/host@0.2.0"], &[HANDLER]),
            says,
            "also where only an import has it"
        );
    }

    #[test]
    fn another_world_is_told_by_its_exports() {
        assert_eq!(
            refusal(&[], &[]),
            "is no filter: it exports nothing, not jackfield:filter/handler@0.1.0; is `jackfield_sdk::export!` missing, \
            or is it a program?"
        );
        assert_eq!(
            refusal(&[], &["wasi:cli/run@0.2.6", "other"]),
            "is no filter: it exports wasi:cli/run@0.2.6, other, not jackfield:filter/handler@0.1.0; is \
            `jackfield_sdk::export!` missing, or is it a program?"
        );
    }

    #[test]
    fn an_import_that_no_host_offers_is_named() {
        for import in ["wasi:http/outgoing-handler@0.2.0", "team:db/query"] {
            assert_eq!(
                refusal(&["wasi:io/poll@0.2.6", import], &[HANDLER]),
                format!(
                    "imports {import}, which this host does not offer; it offers jackfield:filter@0.1.0 and WASI 0.2's \
                    cli, clocks, filesystem, io, random, sockets"
                )
            );
        }
    }

    #[test]
    fn a_file_is_told_by_its_first_bytes() {
        let says = |bytes: &[u8]| form(bytes).map_err(|refusal| refusal.to_string());
        assert_eq!(says(b"\0asm\x0d\0\x01\0"), Ok(Form::Component));
        assert_eq!(
            says(b"\0as"),
            Ok(Form::Component),
            "cut short: the compiler says so"
        );
        assert_eq!(
            says(b"\0asm\x01\0\0\0\0\x10\x0fcomponent-type:x"),
            Ok(Form::CoreModule)
        );
        assert_eq!(
            says(b"").unwrap_err(),
            "is empty; a filter is a WebAssembly component"
        );
        assert_eq!(
            says(b"#!/bin/sh\n").unwrap_err(),
            "is not WebAssembly: it starts with \"#!/bin/s\", not with \"\\x00asm\""
        );
        assert_eq!(
            says(b"\0asm\x01\0\0\0").unwrap_err(),
            "is a core module that does not say which component it is; build it for wasm32-wasip2"
        );
    }
}
