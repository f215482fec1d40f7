//! The image in Docker Engine, under one processor, 1 GiB and a read-only root: `make container-test`, which builds it first.
//!
//! FreeSWITCH is the simulated one and Redis a real one, both on the machine, whose network the containers share. Every promise about
//! the streams is checked to the last entry. Runs by name only (`--test container`), as it needs an engine.

mod engine;
#[expect(dead_code, reason = "the end-to-end tests use the rest of it")]
#[path = "../e2e/harness.rs"]
mod harness;
mod image;
mod kills;
mod mounts;
#[expect(dead_code, reason = "the end-to-end tests use the rest of it")]
#[path = "../e2e/numbered.rs"]
mod numbered;
mod together;
