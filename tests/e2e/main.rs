//! The promises of Jackfield, one module each, over a real redis-server, the real binary and a simulated FreeSWITCH.

mod delivery;
mod harness;
mod reading;
