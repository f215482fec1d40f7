//! Faults between an unchanged program and its operating system, for `LD_PRELOAD`.
//!
//! The tests run the real `jackfield` and the real `redis-server` with this library before the C library. It passes calls on
//! to the kernel; a rule in the control file makes the n-th call at a point fail, hang, or be the last thing that the process
//! does. It also moves the wall clock, and keeps a record of what a power cut could take back.
//!
//! In reading order: `layout` (what tests and library have agreed on), `control` (the file that tests write rules to), `point` (which file or connection a call is about),
//! `undo` (what a power cut could take back), `calls` (the functions of the C library that are replaced).
//!
//! Nothing here may allocate or use std's files: those functions are the ones that are replaced.

mod calls;
mod control;
mod layout;
mod point;
mod undo;
