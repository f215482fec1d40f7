//! The yardstick: Event Socket in, `XADD` out, as a careful programmer would write it in an afternoon.
//!
//! It reads events at all times, looks into the JSON for the event's name, and writes what has gathered meanwhile as one pipeline, one
//! in flight. It takes the environment of Telephony Event Sync. It keeps nothing: no journal, no filters, no second try. An error ends it.

use std::borrow::Cow;
use std::collections::HashSet;
use std::env;
use std::error::Error;

use bytes::{Buf, Bytes, BytesMut};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// Entries in one pipeline at most.
const BATCH: usize = 64;
/// Events that wait for the pipeline in flight; then reading waits.
const QUEUE: usize = 50_000;
const READ: usize = 256 << 10;
/// No header block of FreeSWITCH is longer.
const HEAD_MAX: usize = 64 << 10;

type Failure = Box<dyn Error + Send + Sync>;

/// What it needs to know of an event.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "Event-Name", borrow)]
    name: Cow<'a, str>,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let (tx, rx) = mpsc::channel(QUEUE);
    let writing = tokio::spawn(write(rx));
    tokio::select! {
        done = read(tx) => done,
        done = writing => done?,
    }
}

fn variable(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.to_owned())
}

/// Reads events until FreeSWITCH ends the connection.
async fn read(events: mpsc::Sender<Bytes>) -> Result<(), Failure> {
    let (host, port) = (
        variable("ESL_HOST", "127.0.0.1"),
        variable("ESL_PORT", "8021"),
    );
    let password = variable("ESL_PASSWORD", "ClueCon");
    let wanted = variable(
        "EVENTS_TO_PUSH",
        "CHANNEL_ANSWER,CHANNEL_HANGUP,DTMF,CUSTOM",
    );
    let names: HashSet<&str> = wanted.split(',').collect();
    let mut socket = TcpStream::connect(format!("{host}:{port}")).await?;
    socket.set_nodelay(true)?;
    let mut buffer = BytesMut::with_capacity(READ);
    loop {
        while let Some((head, body)) = frame(&mut buffer)? {
            match kind(&head) {
                b"auth/request" => {
                    let words = wanted.replace(',', " ");
                    let login = format!("auth {password}\n\nevent json {words}\n\n");
                    socket.write_all(login.as_bytes()).await?;
                }
                b"command/reply" if !contains(&head, b"Reply-Text: +OK") => {
                    return Err("FreeSWITCH refused".into());
                }
                b"text/event-json" => {
                    let event: Event = serde_json::from_slice(&body)?;
                    if names.contains(&*event.name) {
                        events.send(body).await?;
                    }
                }
                b"text/disconnect-notice" => return Ok(()),
                _ => {}
            }
        }
        buffer.reserve(READ);
        if socket.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

/// Takes a whole frame off the buffer: its headers, and its body.
fn frame(buffer: &mut BytesMut) -> Result<Option<(Bytes, Bytes)>, Failure> {
    let Some(end) = buffer
        .windows(2)
        .take(HEAD_MAX)
        .position(|two| two == b"\n\n")
    else {
        return Ok(None);
    };
    let length = match header(&buffer[..end], b"Content-Length: ") {
        Some(digits) => std::str::from_utf8(digits)?.trim().parse::<usize>()?,
        None => 0,
    };
    if buffer.len() < end + 2 + length {
        return Ok(None);
    }
    let head = buffer.split_to(end).freeze();
    buffer.advance(2);
    Ok(Some((head, buffer.split_to(length).freeze())))
}

fn header<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut lines = head.split(|&byte| byte == b'\n');
    lines.find_map(|line| line.strip_prefix(name))
}

fn kind(head: &[u8]) -> &[u8] {
    header(head, b"Content-Type: ").unwrap_or_default()
}

fn contains(head: &[u8], what: &[u8]) -> bool {
    head.windows(what.len()).any(|window| window == what)
}

/// Writes what has gathered, and waits for the replies before it takes more.
async fn write(mut events: mpsc::Receiver<Bytes>) -> Result<(), Failure> {
    let address = variable("REDIS_REMOTE_ADDR", "127.0.0.1:6379");
    let database = variable("REDIS_REMOTE_DB", "2");
    let stream = variable("STREAM_EVENTS", "freeswitch:telephony:events");
    let max_len: usize = variable("EVENTS_MAX_LEN", "10000").parse()?;
    let client = redis::Client::open(format!("redis://{address}/{database}"))?;
    let mut redis = client.get_multiplexed_async_connection().await?;
    let mut batch = Vec::with_capacity(BATCH);
    while events.recv_many(&mut batch, BATCH).await > 0 {
        let mut pipeline = redis::Pipeline::with_capacity(batch.len());
        for event in batch.drain(..) {
            let add = pipeline.cmd("XADD").arg(&stream);
            if max_len > 0 {
                add.arg("MAXLEN").arg("~").arg(max_len);
            }
            add.arg("*").arg("event").arg(&*event).ignore();
        }
        pipeline.query_async::<()>(&mut redis).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::{frame, kind};

    const TWO: &[u8] =
        b"Content-Type: auth/request\n\nContent-Length: 2\nContent-Type: text/event-json\n\n{}";

    #[test]
    fn frames_are_cut_wherever_a_read_ends() {
        for split in 0..=TWO.len() {
            let mut buffer = BytesMut::new();
            let mut frames = Vec::new();
            for part in [&TWO[..split], &TWO[split..]] {
                buffer.extend_from_slice(part);
                while let Some((head, body)) = frame(&mut buffer).unwrap() {
                    frames.push((kind(&head).to_vec(), body.to_vec()));
                }
            }
            let expected = [
                (b"auth/request".to_vec(), Vec::new()),
                (b"text/event-json".to_vec(), b"{}".to_vec()),
            ];
            assert_eq!(frames, expected, "split at {split}");
        }
    }
}
