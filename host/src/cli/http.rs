//! The running host, as the CLI asks it: over HTTP, at `http.listen`, with `http.token` if there is one.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use thiserror::Error;
use ureq::http::StatusCode;
use ureq::typestate::WithoutBody;
use ureq::{Agent, RequestBuilder};

use crate::config::{Config, Secret};

/// Ample for a host that answers once a letter is in its journal.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer, in bytes: `show channels as json` of some ten thousand calls.
const LARGEST: u64 = 64 << 20;

/// Where the running host listens, and what it asks for.
pub(super) struct Host {
    address: SocketAddr,
    token: Secret,
    agent: Agent,
}

/// What the host said.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: String,
}

/// Nobody answered, or nobody that speaks HTTP.
#[derive(Debug, Error)]
#[error("no answer from {url}")]
pub(super) struct NoAnswer {
    url: String,
    source: ureq::Error,
}

impl Host {
    pub(super) fn of(config: &Config) -> Host {
        Host::at(config.http.listen, config.http.token.clone())
    }

    /// A host that listens on all addresses is asked on loopback.
    pub(super) fn at(listen: SocketAddr, token: Secret) -> Host {
        let ip = match listen.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            ip => ip,
        };
        // No proxy of the environment: what is asked is beside us.
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .timeout_connect(Some(TIMEOUT))
            .timeout_send_body(Some(TIMEOUT))
            .timeout_recv_response(Some(TIMEOUT));
        Host {
            address: SocketAddr::new(ip, listen.port()),
            token,
            agent: config.build().new_agent(),
        }
    }

    /// Whether there is a token: what changes something needs one.
    pub(super) fn has_token(&self) -> bool {
        !self.token.is_empty()
    }

    pub(super) fn get(&self, path: &str) -> Result<Answer, NoAnswer> {
        let url = self.url(path);
        read(self.ask(&url).call()).map_err(|source| NoAnswer { url, source })
    }

    /// An answer that goes on: its status, and its body as it comes.
    pub(super) fn open(&self, path: &str) -> Result<(StatusCode, impl Read + use<>), NoAnswer> {
        let url = self.url(path);
        let answer = self.ask(&url).call();
        let answer = answer.map_err(|source| NoAnswer { url, source })?;
        Ok((answer.status(), answer.into_body().into_reader()))
    }

    fn ask(&self, url: &str) -> RequestBuilder<WithoutBody> {
        let request = self.agent.get(url);
        match self.has_token() {
            true => request.header("Authorization", self.bearer()),
            false => request,
        }
    }

    /// Asks with the token. A host that refuses says so before the body is sent.
    pub(super) fn post(&self, path: &str, body: &str) -> Result<Answer, NoAnswer> {
        self.post_within(path, body, TIMEOUT)
    }

    /// The same where the answer may take so long.
    pub(super) fn post_within(
        &self,
        path: &str,
        body: &str,
        within: Duration,
    ) -> Result<Answer, NoAnswer> {
        let url = self.url(path);
        let request = self.agent.post(&url).config();
        let request = request.timeout_recv_response(Some(within)).build();
        let request = request
            .header("Authorization", self.bearer())
            .header("Expect", "100-continue");
        read(request.send(body)).map_err(|source| NoAnswer { url, source })
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.token.expose())
    }
}

fn read(
    answered: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Result<Answer, ureq::Error> {
    let mut answer = answered?;
    let status = answer.status();
    let body = answer.body_mut().with_config();
    let body = body.limit(LARGEST).lossy_utf8(true);
    let body = body.read_to_string()?;
    Ok(Answer { status, body })
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Asks a host that answers so. Gives back what it was asked.
    fn post(answer: &'static str) -> (Result<Answer, NoAnswer>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = Host::at(listener.local_addr().unwrap(), Secret::new("secret"));
        let body = r#"{"event":"{}"}"#;
        let answering = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = BufReader::new(stream.try_clone().unwrap());
            let mut text = String::new();
            while !text.ends_with("\r\n\r\n") {
                asked.read_line(&mut text).unwrap();
            }
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
            let mut rest = vec![0; body.len()];
            asked.read_exact(&mut rest).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            text + &String::from_utf8(rest).unwrap()
        });
        let answered = host.post("/dead/replay", body);
        (answered, answering.join().unwrap())
    }

    #[test]
    fn the_host_is_asked_with_its_token() {
        let (answer, asked) = post("HTTP/1.1 403 Forbidden\r\ncontent-length: 3\r\n\r\nno\n");
        let answer = answer.unwrap();
        assert_eq!(
            (answer.status.as_u16(), answer.body.as_str()),
            (403, "no\n")
        );
        let lines: Vec<&str> = asked.lines().collect();
        assert_eq!(lines.first(), Some(&"POST /dead/replay HTTP/1.1"));
        let has = |line: &str| lines.iter().any(|one| one.eq_ignore_ascii_case(line));
        assert!(has("Authorization: Bearer secret"), "{asked}");
        assert!(has("Content-Length: 14"), "{asked}");
        assert_eq!(lines.last(), Some(&r#"{"event":"{}"}"#));
    }

    #[test]
    fn what_speaks_no_http_is_no_answer() {
        for answer in ["", "SSH-2.0-x\r\n\r\n"] {
            let error = post(answer).0.unwrap_err();
            assert!(
                error
                    .to_string()
                    .starts_with("no answer from http://127.0.0.1:"),
                "{error}"
            );
        }
    }
}
