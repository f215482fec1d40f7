//! What both links to the Event Socket share: a socket, its frames, the login, and commands of our own with their replies.
//!
//! One call of `turn` waits for the socket, and one of `next` takes a frame; neither holds the other up. Replies carry no
//! name and come in the order of the commands, so the place of a command is kept until its reply is there. Knows neither
//! what to subscribe to nor what becomes of an event.

use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until, timeout};

use super::error::EslError;
use super::frame::{Ending, Frame, Framed, Framer, Kind, TooLarge};
use crate::config;
use crate::event::Format;

/// Frames are slices of buffers of this size, so that a waiting event holds hardly more memory than its own bytes.
const BUFFER: usize = 128 << 10;
/// A new buffer is begun when less than this is left of one.
const LEAST: usize = 16 << 10;

/// A turn takes no longer than this, so that whoever owns the connection notices when it was kept from running.
pub(super) const TURN: Duration = Duration::from_secs(1);

/// How long after a notice the connection may stay open.
const CLOSE: Duration = Duration::from_secs(2);

/// One connection.
pub(super) struct Wire<'a> {
    settings: &'a config::Esl,
    stream: TcpStream,
    framer: Framer,
    outgoing: BytesMut,
    /// Commands of our own whose reply is awaited, and since when. The login's own text is never kept.
    awaited: VecDeque<(String, Instant)>,
    /// When bytes came last.
    heard: Instant,
    /// When a frame was whole last.
    framed: Instant,
    /// FreeSWITCH has said goodbye, and when.
    notice: Option<(String, Instant)>,
}

/// What a frame means to the owner of the connection.
pub(super) enum Heard {
    /// A command of our own was accepted.
    Accepted,
    /// A reply while no command of our own awaits one.
    Reply(Frame),
    /// An event.
    Event(Format, Frame),
    /// A frame that is passed over.
    TooLarge(TooLarge),
}

/// All that can end a turn.
enum Wake {
    Read(std::io::Result<usize>),
    Wrote(std::io::Result<usize>),
    Deadline,
}

impl<'a> Wire<'a> {
    pub(super) async fn open(settings: &'a config::Esl) -> Result<Wire<'a>, EslError> {
        let address = (settings.host.as_str(), settings.port);
        let late = |_| EslError::Late {
            what: "TCP connection".to_owned(),
            after: settings.timeout,
        };
        let connecting = timeout(settings.timeout, TcpStream::connect(address));
        let stream = connecting.await.map_err(late)?.map_err(EslError::Connect)?;
        keep_alive(&stream).map_err(EslError::Connect)?;
        let now = Instant::now();
        let awaited = VecDeque::from([("auth/request".to_owned(), now)]);
        Ok(Wire {
            settings,
            stream,
            framer: Framer::default(),
            outgoing: BytesMut::new(),
            awaited,
            heard: now,
            framed: now,
            notice: None,
        })
    }

    /// Reads, writes, or lets time pass, and says whether bytes came. `silence` is how long no frame may be whole.
    /// Dropped halfway it loses nothing.
    pub(super) async fn turn(&mut self, silence: Duration) -> Result<bool, EslError> {
        let deadline = self.deadline(silence).min(Instant::now() + TURN);
        let (mut reader, mut writer) = self.stream.split();
        let buffer = self.framer.buffer();
        if buffer.capacity() - buffer.len() < LEAST {
            buffer.reserve(BUFFER);
        }
        // Not biased: in a flood of events a read is always ready, and commands must go out all the same.
        let wake = tokio::select! {
            read = reader.read_buf(self.framer.buffer()) => Wake::Read(read),
            wrote = writer.write(&self.outgoing), if !self.outgoing.is_empty() => Wake::Wrote(wrote),
            () = sleep_until(deadline) => Wake::Deadline,
        };
        match wake {
            Wake::Read(Ok(0)) => Err(self.ended()),
            Wake::Read(Ok(_)) => {
                self.heard = Instant::now();
                Ok(true)
            }
            Wake::Wrote(Ok(written)) => {
                self.outgoing.advance(written);
                Ok(false)
            }
            Wake::Read(Err(error)) | Wake::Wrote(Err(error)) => Err(EslError::Broken(error)),
            Wake::Deadline => match self.overdue(silence) {
                // The process stood still: the time is up, and what shows that nothing was wrong waits to be read.
                Err(_) if self.has_unread() => {
                    yield_now().await;
                    Ok(false)
                }
                done => done.map(|()| false),
            },
        }
    }

    fn deadline(&self, silence: Duration) -> Instant {
        if let Some((_, since)) = self.notice {
            return since + CLOSE;
        }
        let silence = self.framed + silence;
        self.awaited.front().map_or(silence, |(_, since)| {
            silence.min(*since + self.settings.timeout)
        })
    }

    fn overdue(&self, silence: Duration) -> Result<(), EslError> {
        let now = Instant::now();
        if let Some((text, since)) = &self.notice {
            return if now >= *since + CLOSE {
                Err(EslError::Notice(text.clone()))
            } else {
                Ok(())
            };
        }
        if let Some((what, since)) = self.awaited.front()
            && now >= *since + self.settings.timeout
        {
            let what = if what == "auth/request" {
                what.clone()
            } else {
                format!("reply to {what:?}")
            };
            return Err(EslError::Late {
                what,
                after: self.settings.timeout,
            });
        }
        if now < self.framed + silence {
            return Ok(());
        }
        Err(match now < self.heard + silence {
            true => EslError::Stuck(silence),
            false => EslError::Silent(silence),
        })
    }

    /// Whether bytes, or the end, can be read now. Asked of the kernel, as the runtime may not have heard of it yet.
    fn has_unread(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        SockRef::from(&self.stream).peek(&mut byte).is_ok()
    }

    fn ended(&self) -> EslError {
        if let Some((text, _)) = &self.notice {
            return EslError::Notice(text.clone());
        }
        match self.framer.ending() {
            Ending::Notice(text) => EslError::Notice(text),
            Ending::Whole => EslError::Closed(""),
            Ending::Cut => EslError::Closed(" inside a frame"),
        }
    }

    /// The next frame that means something to the owner, or `None` until more bytes come. Logs in by itself.
    pub(super) fn next(&mut self) -> Result<Option<Heard>, EslError> {
        while let Some(framed) = self.framer.next_frame()? {
            self.framed = self.heard;
            let frame = match framed {
                Framed::Frame(frame) => frame,
                Framed::TooLarge(frame) => return Ok(Some(Heard::TooLarge(frame))),
            };
            match frame.kind {
                Kind::EventJson => return Ok(Some(Heard::Event(Format::Json, frame))),
                Kind::EventPlain => return Ok(Some(Heard::Event(Format::Plain, frame))),
                Kind::AuthRequest => self.authenticate(),
                Kind::CommandReply if !self.is_settled() => {
                    self.accepted(&frame)?;
                    return Ok(Some(Heard::Accepted));
                }
                Kind::CommandReply | Kind::ApiResponse => return Ok(Some(Heard::Reply(frame))),
                Kind::RudeRejection => return Err(EslError::Acl),
                // A lingering session's notice announces the end; it is not the end.
                Kind::DisconnectNotice if frame.header("Content-Disposition") == Some("linger") => {
                }
                // An event may still follow a notice; what ends the connection is its close.
                Kind::DisconnectNotice => {
                    let text = String::from_utf8_lossy(&frame.body)
                        .lines()
                        .next()
                        .unwrap_or_default()
                        .to_owned();
                    self.notice.get_or_insert((text, Instant::now()));
                }
                Kind::Other => {}
            }
        }
        Ok(None)
    }

    fn authenticate(&mut self) {
        self.awaited.pop_front();
        let password = self.settings.password.expose();
        let login = if self.settings.user.is_empty() {
            format!("auth {password}")
        } else {
            format!("userauth {}:{password}", self.settings.user)
        };
        self.write(&login);
        self.awaited.push_back(("login".to_owned(), Instant::now()));
    }

    /// The reply to the oldest command of our own.
    fn accepted(&mut self, frame: &Frame) -> Result<(), EslError> {
        let Some((command, _)) = self.awaited.pop_front() else {
            return Ok(());
        };
        let reply = frame.header("Reply-Text").unwrap_or_default();
        if reply.starts_with("+OK") {
            return Ok(());
        }
        Err(match command.as_str() {
            "login" => EslError::Password,
            _ => EslError::Refused {
                command,
                reply: reply.to_owned(),
            },
        })
    }

    /// Whether every command of our own has its reply.
    pub(super) fn is_settled(&self) -> bool {
        self.awaited.is_empty()
    }

    /// Sends commands of our own, which must be accepted in time.
    pub(super) fn send_all(&mut self, commands: &[String]) {
        for command in commands {
            self.write(command);
            self.awaited.push_back((command.clone(), Instant::now()));
        }
    }

    /// Sends a command whose reply is the owner's. It goes out whole: half a command holds up all that FreeSWITCH does here.
    pub(super) fn write(&mut self, command: &str) {
        self.outgoing.extend_from_slice(command.as_bytes());
        self.outgoing.extend_from_slice(b"\n\n");
    }
}

/// Notices a peer that is gone without a word, in both directions.
fn keep_alive(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let probes = TcpKeepalive::new()
        .with_time(Duration::from_secs(10))
        .with_interval(Duration::from_secs(5));
    socket.set_tcp_keepalive(&probes.with_retries(3))?;
    socket.set_tcp_user_timeout(Some(Duration::from_secs(20)))
}
