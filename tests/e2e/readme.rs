//! The README's first filter is the one that `jackfield filter new` writes, which `authors` takes to a running host.

use std::fs;

use crate::harness::root;

/// The first code block of a language after `heading`.
fn block(readme: &str, heading: &str, language: &str) -> String {
    let section = &readme[readme.find(heading).expect("the heading is there")..];
    let fence = format!("```{language}\n");
    let start = section.find(&fence).expect("the block is there") + fence.len();
    let end = section[start..].find("```").expect("the block ends");
    section[start..start + end].to_owned()
}

#[test]
fn the_first_filter_is_the_one_that_new_writes() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let template = root().join("host/src/cli/filter/template/src/lib.rs");
    let template = fs::read_to_string(template).unwrap();
    let shown = block(&readme, "## A first filter", "rust");
    assert!(
        template.contains(&shown),
        "README.md shows another filter than host/src/cli/filter/template/src/lib.rs"
    );
}
