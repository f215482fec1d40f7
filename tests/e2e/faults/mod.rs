//! The fault suite: what the promise is worth when everything around the host fails. `docs/faults.md` is its table.
//!
//! Each test is a [`trial::Trial`]: the real binary between a simulated FreeSWITCH with thousands of calls and a real redis-server,
//! with a proxy that can be disturbed on either side. A test does one thing to it and asks for the verdict: nothing lost, nothing
//! twice, every stream in order, accounts that balance, drained in time, memory and disk within bounds, and a readiness that
//! told the truth.
//!
//! In reading order: `dice` (seeds), `tap` (what FreeSWITCH sent, read independently), `watch` (what the host said of itself all
//! the while), `entries` (what is in Redis), `operator` (somebody else at the same Redis), `trial` (set-up, and what is done to it),
//! `verdict`, `interposer` (faults between the binary and the kernel), `power` (what a power cut takes back), `trouble` (what the host
//! says of a Redis in trouble), `sentinel` (a replica that is promoted). Then the tests; `swaps` is no trial, as nothing fails there.
//!
//! `make test` runs each once, from a fixed seed; `make soak` runs them again and again with new ones. `SEED=…` repeats one.

pub(crate) mod dice;
mod entries;
mod interposer;
mod operator;
mod power;
mod sentinel;
mod tap;
mod trial;
mod trouble;
mod verdict;
mod watch;

pub(crate) use watch::resident_kib;

mod clock;
mod damage;
mod disk;
mod esl_cut;
mod esl_flood;
mod esl_garbage;
mod esl_stopped;
mod filters_hurt;
mod killed_host;
mod pairs;
mod power_cut;
mod redis_forgets;
mod redis_gone;
mod redis_refuses;
mod redis_shared;
mod redis_wire;
mod signals;
mod swaps;
