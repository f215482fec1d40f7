//! The chains that ship go live as they are: `jackfield check` takes every filter with its settings.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::harness::{Redis, Setup, component, root};
use crate::scene::quiet_switch;

/// Puts components beside their settings, as `make chain` does; gives how many.
fn assemble(chain: &Path, into: &Path) -> usize {
    fs::create_dir_all(into).unwrap();
    let mut filters = 0;
    for file in fs::read_dir(chain).unwrap() {
        let settings = file.unwrap().path();
        let stem = settings.file_stem().unwrap().to_str().unwrap().to_owned();
        let Some((_, name)) = stem.split_once('-') else {
            continue;
        };
        fs::copy(&settings, into.join(format!("{stem}.toml"))).unwrap();
        fs::copy(component(name), into.join(format!("{stem}.wasm"))).unwrap();
        filters += 1;
    }
    filters
}

#[tokio::test(flavor = "multi_thread")]
async fn every_chain_that_ships_is_taken_by_check() {
    let chains = root().join("filters/chains");
    for (name, expected) in [("default", 3), ("production", 6)] {
        let (switch, redis) = (quiet_switch().await, Redis::start());
        let mut setup = Setup::new(switch.addr(), &redis);
        let config = chains.join(name).join("jackfield.toml");
        if config.exists() {
            setup = setup.config(&fs::read_to_string(config).unwrap());
        }
        let filters = assemble(&chains.join(name), &setup.filters());
        assert_eq!(filters, expected, "{name}");
        let (code, out, err) = setup.instead(&["check", "--json"]).run();
        assert_eq!(code, 0, "{name}: {out}{err}");
        let answer: Value = serde_json::from_str(&out).unwrap();
        let checked = answer["filters"].as_array().unwrap();
        assert_eq!(checked.len(), expected, "{name}: {answer:#}");
        assert!(
            checked.iter().all(|filter| filter["ok"] == true),
            "{name}: {answer:#}"
        );
    }
}
