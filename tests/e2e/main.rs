//! The promises of Jackfield, one module each, over a real redis-server, the real binary and a simulated FreeSWITCH.

mod backlog;
mod captures;
mod captures_simulator;
mod cli;
mod consumers;
mod crash;
mod dead;
mod delivery;
mod demo;
mod disk;
mod faults;
mod filters;
mod harness;
mod heal;
mod hostile;
mod http;
mod journal;
mod links;
mod numbered;
mod owner;
mod proxy;
mod reading;
mod readme;
mod redis_outage;
mod reload;
mod scene;
