//! The load generator, and what `make bench` measures with it: see docs/benchmarks.md.
//!
//! From the inside to the outside: events and when they are due, the two ends between which a subject stands, the subjects, the
//! measurements, and the table. Nothing here optimizes or tests anything, and nothing uses the host's code.

pub mod prepared;
pub mod schedule;

pub mod arrivals;
pub mod hiccups;
pub mod store;
pub mod switch;

pub mod stand;
pub mod subject;

pub mod folder;
pub mod footprint;
pub mod saturated;
pub mod steady;
pub mod steps;

pub mod machine;
pub mod table;
