//! The fuzz targets: one module for each, with a function `run` that takes any bytes and panics where a promise is broken.
//!
//! A promise is checked against a second reading of the format, which shares no code with the host: slow, simple, and over
//! the whole of the bytes at once. `libfuzzer/` hands these functions to the fuzzer, `tests/replay.rs` runs them over every
//! file in `corpus/`. A corpus file is written so that a person can read it and make another one by hand where the format
//! allows that; each module says how its bytes are taken.

pub mod config;
pub mod decision;
pub mod event;
pub mod framer;
pub mod journal;

mod object;
