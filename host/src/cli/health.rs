//! `jackfield health`: `/health` of a running host as an exit code.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::{FAILED, Settings};

const TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Debug, Args)]
pub(super) struct Health {
    #[command(flatten)]
    settings: Settings,
}

impl Health {
    pub(super) fn main(self) -> ExitCode {
        let config = match self.settings.load() {
            Ok(config) => config,
            Err(code) => return code,
        };
        let address = reachable(config.http.listen);
        match ask(address) {
            Ok(answer) => {
                let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
                println!("{body}");
                let healthy = head.starts_with("HTTP/1.1 200");
                if healthy {
                    ExitCode::SUCCESS
                } else {
                    ExitCode::from(FAILED)
                }
            }
            Err(error) => {
                eprintln!("jackfield: no answer from http://{address}/health: {error}");
                ExitCode::from(FAILED)
            }
        }
    }
}

/// A host that listens on all addresses is asked on loopback.
pub(super) fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(
        stream,
        "GET /health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
