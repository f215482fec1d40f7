//! The task that serves one client: commands in, answers and events out.
//!
//! Like FreeSWITCH it serves a connection with one task: while a command runs, or while half a command waits for its rest, that
//! connection gets no events.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;

use super::command::Inbox;
use super::connection::{BATCH_BYTES, Connection, Outgoing};
use super::encode::Frame;
use super::session::{Session, Then, notice};
use super::switch::Switch;

/// How long a client may take to send its first command.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(25);
const GOODBYE: &str = "Disconnected, goodbye.\nSee you at ClueCon! http://www.cluecon.com/\n";
const REJECTION: &str = "Access Denied, go away.\n";

/// Serves a client until one side ends the connection.
pub(super) async fn serve(
    switch: Arc<Switch>,
    connection: Arc<Connection>,
    number: usize,
    stream: TcpStream,
) {
    let result = tokio::select! {
        result = converse(&switch, &connection, number, stream) => result,
        () = connection.was_cut() => Ok(()),
    };
    if let Err(error) = result {
        tracing::debug!(%error, "client connection ended");
    }
    connection.end();
    switch.forget(&connection);
}

async fn converse(
    switch: &Arc<Switch>,
    connection: &Arc<Connection>,
    number: usize,
    stream: TcpStream,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut reader, mut writer) = stream.into_split();
    if switch.settings.acl_reject {
        let length = REJECTION.len();
        let rejection =
            format!("Content-Type: text/rude-rejection\nContent-Length: {length}\n\n{REJECTION}");
        writer.write_all(rejection.as_bytes()).await?;
        return part(writer, GOODBYE).await;
    }
    writer.write_all(b"Content-Type: auth/request\n\n").await?;
    let mut inbox = Inbox::default();
    let mut session = Session::new(Arc::clone(switch), Arc::clone(connection));
    let mut has_spoken = false;
    let too_late = tokio::time::sleep(LOGIN_TIMEOUT);
    tokio::pin!(too_late);
    loop {
        while let Some(command) = inbox.next() {
            has_spoken = true;
            switch.note_command(number, command.text());
            let answer = session.execute(&command).await;
            writer.write_all(&answer.bytes).await?;
            if let Then::Part = answer.then {
                return part(writer, GOODBYE).await;
            }
            session.begin_job(answer.then);
        }
        tokio::select! {
            read = reader.read_buf(inbox.buffer()) => {
                if read? == 0 {
                    return Ok(());
                }
            }
            outgoing = connection.next(), if inbox.is_empty() => match outgoing {
                Outgoing::Frames(frames) => {
                    let given_up = tokio::select! {
                        written = write(&mut writer, &frames) => {
                            written?;
                            None
                        }
                        text = connection.was_given_up() => Some(text),
                    };
                    if let Some(text) = given_up {
                        return part(writer, text).await;
                    }
                    connection.written(switch);
                }
                Outgoing::Farewell(text) => return part(writer, text).await,
            },
            () = &mut too_late, if !has_spoken => return part(writer, GOODBYE).await,
        }
    }
}

/// Writes header and body of the last frame apart, as FreeSWITCH does for every frame; those before it go along with its header.
async fn write(writer: &mut OwnedWriteHalf, frames: &[Frame]) -> io::Result<()> {
    let Some((last, before)) = frames.split_last() else {
        return Ok(());
    };
    let (head, body) = last
        .bytes
        .split_at_checked(last.head)
        .unwrap_or((&[], &last.bytes));
    if before.is_empty() {
        writer.write_all(head).await?;
    } else {
        let mut start = Vec::with_capacity(BATCH_BYTES);
        for frame in before {
            start.extend_from_slice(&frame.bytes);
        }
        start.extend_from_slice(head);
        writer.write_all(&start).await?;
    }
    writer.write_all(body).await
}

async fn part(mut writer: OwnedWriteHalf, text: &str) -> io::Result<()> {
    writer.write_all(&notice(text)).await?;
    writer.shutdown().await
}
