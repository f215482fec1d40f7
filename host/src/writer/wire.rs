//! The socket to Redis, with TLS or without: commands out, replies in.
//!
//! One task writes and reads: a batch passes through no channel and wakes no other task. It knows no timeouts; after any error it is of no
//! use.

use std::io;
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use futures_util::future::select_ok;
use redis::Value;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::join;
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;

use super::commands::Commands;
use super::replies;
use crate::config;

/// Room for replies in one read.
const READ: usize = 16 << 10;

/// A connection.
pub(super) struct Wire {
    stream: Box<dyn Stream>,
    /// What has come and was not read as a reply yet.
    received: BytesMut,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Wire {
    /// Connects, and that is all.
    pub(super) async fn connect(settings: &config::Redis) -> io::Result<Wire> {
        let stream = connect(settings).await?;
        stream.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match &settings.tls {
            None => Box::new(stream),
            Some(tls) => {
                let name = ServerName::try_from(settings.host.clone()).map_err(io::Error::other)?;
                let connector = TlsConnector::from(Arc::new(config::tls_client(tls)?));
                Box::new(connector.connect(name, stream).await?)
            }
        };
        Ok(Wire {
            stream,
            received: BytesMut::new(),
        })
    }

    /// Writes all commands and reads all replies, both at once: neither end ever waits for the other to read.
    pub(super) async fn ask(&mut self, commands: &Commands) -> io::Result<Vec<Value>> {
        let (mut from, mut to) = split(&mut self.stream);
        let writing = async {
            to.write_all(commands.packed()).await?;
            to.flush().await
        };
        let reading = read_all(&mut from, &mut self.received, commands.len());
        match join!(writing, reading) {
            (_, Ok(replies)) => Ok(replies),
            // Who ends a connection may have said why, and a write that fails for it says less.
            (Err(error), Err(end)) if end.kind() == io::ErrorKind::UnexpectedEof => Err(error),
            (_, Err(error)) => Err(error),
        }
    }
}

/// The first of the host's addresses that answers: one of a machine that is gone holds nobody up.
async fn connect(settings: &config::Redis) -> io::Result<TcpStream> {
    let addresses = lookup_host((settings.host.as_str(), settings.port)).await?;
    let mut connecting = addresses.map(|one| Box::pin(TcpStream::connect(one)));
    match connecting.next() {
        Some(first) => {
            let all = std::iter::once(first).chain(connecting);
            let (stream, _) = select_ok(all).await?;
            Ok(stream)
        }
        None => Err(io::Error::other("the host has no address")),
    }
}

async fn read_all(
    from: &mut (impl AsyncRead + Unpin),
    received: &mut BytesMut,
    count: usize,
) -> io::Result<Vec<Value>> {
    let mut found = Vec::with_capacity(count);
    while found.len() < count {
        if let Some((value, length)) = replies::read(received)? {
            received.advance(length);
            found.push(value);
            continue;
        }
        received.reserve(READ);
        if from.read_buf(received).await? == 0 {
            let text = "closed by Redis";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
    }
    if !received.is_empty() {
        // It would be taken for the reply to the next question.
        let text = "a reply to nothing";
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(found)
}
