//! That there is a binary at all. With an integration test in this package, `cargo test --workspace` builds the binary with the
//! features that all other tests have; the end-to-end tests use it, and nothing is compiled twice.

use std::process::Command;

#[test]
fn the_binary_says_its_version() {
    let output = Command::new(env!("CARGO_BIN_EXE_jackfield"))
        .arg("--version")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text, format!("jackfield {}\n", env!("CARGO_PKG_VERSION")));
}
