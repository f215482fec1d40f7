//! `jackfield simulate`: the simulated FreeSWITCH alone, to try out a host that is set up as for a real one.
//!
//! It places calls until a signal, whether or not anybody listens. It is no FreeSWITCH: there is no audio and no SIP.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Args;
use thiserror::Error;

use super::run::Signals;
use super::{FAILED, print_error, runtime};
use crate::simulator::{Load, Settings, Simulator};

#[derive(Debug, Args)]
pub(super) struct Simulate {
    /// Where the Event Socket listens.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8021")]
    listen: SocketAddr,
    /// The password of the Event Socket.
    #[arg(long, default_value = "ClueCon")]
    password: String,
    /// Events a second; 0 for as fast as they are taken.
    #[arg(long, value_name = "RATE", default_value_t = 100.0)]
    rate: f64,
    /// Calls at once.
    #[arg(long, value_name = "N", default_value_t = 10)]
    calls: usize,
    /// The same seed makes the same calls.
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Error)]
enum SimulateError {
    #[error("cannot start")]
    Start(#[source] std::io::Error),
    #[error("cannot listen on {address}")]
    Listen {
        address: SocketAddr,
        source: std::io::Error,
    },
}

impl Simulate {
    pub(super) fn main(self) -> ExitCode {
        let ran = runtime()
            .map_err(SimulateError::Start)
            .and_then(|runtime| runtime.block_on(self.run()));
        match ran {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                print_error(&error);
                ExitCode::from(FAILED)
            }
        }
    }

    async fn run(self) -> Result<(), SimulateError> {
        let mut signals = Signals::new().map_err(SimulateError::Start)?;
        let settings = Settings {
            listen: self.listen,
            password: self.password,
            seed: self.seed,
            ..Settings::default()
        };
        let switch = Simulator::start(settings)
            .await
            .map_err(|source| SimulateError::Listen {
                address: self.listen,
                source,
            })?;
        eprintln!("FreeSWITCH (simulated) listens on {}", switch.addr());
        let load = Load {
            rate: self.rate,
            events: None,
            calls_at_once: self.calls,
        };
        tokio::select! {
            _ = switch.place_calls(load) => {}
            () = signals.stop() => {}
        }
        switch.stop().await;
        Ok(())
    }
}
