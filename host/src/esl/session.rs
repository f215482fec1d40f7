//! One connection to the Event Socket, from `auth/request` to its end.
//!
//! A single loop reads at all times; commands wait in a buffer of their own and never hold the reading up. An event may
//! come before the reply to a command, so frames are told apart by `Content-Type` and replies are matched in order.

use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use memchr::memmem;
use socket2::{SockRef, TcpKeepalive};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until, timeout};

use super::frame::{Ending, Frame, FrameError, Framed, Framer, Kind, MAX_FRAME, TooLarge};
use super::subscription::{Subscribed, Subscription};
use crate::clock;
use crate::config;
use crate::event::Format;
use crate::link::Link;

/// Frames are slices of buffers of this size, so that a waiting event holds hardly more memory than its own bytes.
const BUFFER: usize = 128 << 10;
/// A new buffer is begun when less than this is left of one.
const LEAST: usize = 16 << 10;

/// FreeSWITCH's `event-heartbeat-interval` unless its heartbeats show another one.
const HEARTBEAT: Duration = Duration::from_secs(20);

/// The loop turns at least so often, and so notices when it was kept from running.
const TURN: Duration = Duration::from_secs(1);
/// A turn that comes later than this after it was due was kept from running: FreeSWITCH's queue is filled meanwhile.
const STALL: Duration = Duration::from_secs(1);

/// FreeSWITCH's words to a listener whose queue was full for more than 500 events in a row.
const KILLED: &str = "killed listener because of lost events";

/// How long after a notice the connection may stay open.
const CLOSE: Duration = Duration::from_secs(2);

/// The body of a frame that is an event.
#[derive(Clone, Debug)]
pub struct EventFrame {
    /// How it is encoded.
    pub format: Format,
    /// As it came.
    pub bytes: Bytes,
    /// Where the frame begins, in bytes from the beginning of its connection.
    pub offset: u64,
}

impl EventFrame {
    fn of(format: Format, frame: &Frame) -> EventFrame {
        EventFrame {
            format,
            bytes: frame.body.clone(),
            offset: frame.offset,
        }
    }
}

/// What one read brought.
#[derive(Debug)]
pub struct Received {
    /// When, in microseconds since the epoch.
    pub at_us: u64,
    /// Which connection of this process, counted from 1.
    pub connection: u32,
    /// In the order of the wire.
    pub events: Vec<EventFrame>,
    /// Events over [`super::MAX_FRAME`], which were passed over.
    pub too_large: u64,
}

/// Why a connection ended, or could not be made.
#[derive(Debug, Error)]
pub enum EslError {
    /// No TCP connection.
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    /// The connection broke.
    #[error("connection broken: {0}")]
    Broken(std::io::Error),
    /// Not within the time allowed.
    #[error("no {what} within {} ms", after.as_millis())]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        after: Duration,
    },
    /// `apply-inbound-acl` keeps us out.
    #[error(
        "refused by the access list of FreeSWITCH (text/rude-rejection): allow this host in apply-inbound-acl"
    )]
    Acl,
    /// `esl.password` (or `esl.user`) is wrong.
    #[error("password rejected (-ERR invalid): check esl.password and esl.user")]
    Password,
    /// A command of ours was refused.
    #[error("{command:?} refused: {reply}")]
    Refused {
        /// The command, which carries no secret.
        command: String,
        /// FreeSWITCH's `Reply-Text`.
        reply: String,
    },
    /// The bytes make no sense.
    #[error("not an Event Socket stream: {0}")]
    Frame(#[from] FrameError),
    /// FreeSWITCH said goodbye.
    #[error("disconnected by FreeSWITCH: {0}")]
    Notice(String),
    /// The connection was closed without a word.
    #[error("connection closed by FreeSWITCH{0}")]
    Closed(&'static str),
    /// Nothing came for two and a half heartbeats.
    #[error("silent for {} ms", .0.as_millis())]
    Silent(Duration),
    /// Bytes came for two and a half heartbeats, and no frame was whole: a `Content-Length` that lies, or a link that is too slow.
    #[error("no whole frame for {} ms", .0.as_millis())]
    Stuck(Duration),
}

impl EslError {
    /// One word, for the metric.
    pub fn cause(&self) -> &'static str {
        match self {
            EslError::Connect(_) => "connect",
            EslError::Broken(_) => "broken",
            EslError::Late { .. } => "late",
            EslError::Acl => "acl",
            EslError::Password => "password",
            EslError::Refused { .. } => "refused",
            EslError::Frame(_) => "garbage",
            EslError::Notice(text) if text == KILLED => "killed",
            EslError::Notice(_) => "notice",
            EslError::Closed(_) => "closed",
            EslError::Silent(_) => "silent",
            EslError::Stuck(_) => "stuck",
        }
    }
}

/// What outlives a connection.
#[derive(Debug)]
pub(super) struct Pulse {
    /// How many connections there were.
    connection: u32,
    interval: Duration,
    last_us: Option<u64>,
    /// The connection before was lost to silence: the next one counts as ready only when an event comes.
    pub(super) doubted: bool,
}

impl Default for Pulse {
    fn default() -> Pulse {
        Pulse {
            connection: 0,
            interval: HEARTBEAT,
            last_us: None,
            doubted: false,
        }
    }
}

impl Pulse {
    fn limit(&self) -> Duration {
        self.interval.mul_f64(2.5)
    }

    /// A new connection: the time since the heartbeat before it is no interval.
    pub(super) fn restart(&mut self) {
        self.connection += 1;
        self.last_us = None;
    }

    /// Learns the interval from the dates of two heartbeats in a row, not from their arrival: after a freeze many come at once.
    fn observe(&mut self, event: &[u8]) {
        let Some(us) = heartbeat_us(event) else {
            return;
        };
        if let Some(gap) = self
            .last_us
            .replace(us)
            .and_then(|last| us.checked_sub(last))
        {
            self.interval = Duration::from_micros(gap)
                .clamp(Duration::from_millis(200), Duration::from_secs(300));
        }
    }
}

/// The `Event-Date-Timestamp` of a HEARTBEAT, without parsing any other event.
fn heartbeat_us(event: &[u8]) -> Option<u64> {
    let is_one = event.starts_with(b"{\"Event-Name\":\"HEARTBEAT\"")
        || event.starts_with(b"Event-Name: HEARTBEAT\n");
    if !is_one {
        return None;
    }
    let start = memmem::find(event, b"Event-Date-Timestamp")?;
    let digits = event
        .get(start..)?
        .iter()
        .skip_while(|byte| !byte.is_ascii_digit());
    digits
        .take_while(|byte| byte.is_ascii_digit())
        .try_fold(0_u64, |value, digit| {
            value.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
        })
}

/// One connection.
pub(super) struct Session<'a> {
    settings: &'a config::Esl,
    link: &'a Link,
    stream: TcpStream,
    framer: Framer,
    outgoing: BytesMut,
    /// Commands whose reply is awaited, and since when. The login's own text is never kept.
    awaited: VecDeque<(String, Instant)>,
    subscribed: Option<Subscribed>,
    /// When bytes came last.
    heard: Instant,
    /// When a frame was whole last.
    framed: Instant,
    /// FreeSWITCH has said goodbye, and when.
    notice: Option<(String, Instant)>,
}

/// All that can wake the loop.
enum Wake {
    Read(std::io::Result<usize>),
    Wrote(std::io::Result<usize>),
    Wanted,
    Deadline,
}

impl<'a> Session<'a> {
    pub(super) async fn open(
        settings: &'a config::Esl,
        link: &'a Link,
    ) -> Result<Session<'a>, EslError> {
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
        Ok(Session {
            settings,
            link,
            stream,
            framer: Framer::default(),
            outgoing: BytesMut::new(),
            awaited,
            subscribed: None,
            heard: now,
            framed: now,
            notice: None,
        })
    }

    /// Runs until the connection ends, which is always an error.
    pub(super) async fn run(
        &mut self,
        wanted: &mut watch::Receiver<Subscription>,
        pulse: &mut Pulse,
        deliver: &mut (impl FnMut(Received) + Send),
    ) -> EslError {
        let mut turned = Instant::now();
        loop {
            let now = Instant::now();
            let late = now.duration_since(turned).saturating_sub(TURN);
            turned = now;
            if late > STALL {
                self.link.stalled(late);
            }
            let deadline = self.deadline(pulse).min(now + TURN);
            let (mut reader, mut writer) = self.stream.split();
            let buffer = self.framer.buffer();
            if buffer.capacity() - buffer.len() < LEAST {
                buffer.reserve(BUFFER);
            }
            // Not biased: in a flood of events a read is always ready, and commands must go out all the same.
            let wake = tokio::select! {
                read = reader.read_buf(self.framer.buffer()) => Wake::Read(read),
                wrote = writer.write(&self.outgoing), if !self.outgoing.is_empty() => Wake::Wrote(wrote),
                Ok(()) = wanted.changed(), if self.subscribed.is_some() => Wake::Wanted,
                () = sleep_until(deadline) => Wake::Deadline,
            };
            let done = match wake {
                Wake::Read(Ok(0)) => Err(self.ended()),
                Wake::Read(Ok(_)) => self.read(wanted, pulse, deliver),
                Wake::Wrote(Ok(written)) => {
                    self.outgoing.advance(written);
                    Ok(())
                }
                Wake::Read(Err(error)) | Wake::Wrote(Err(error)) => Err(EslError::Broken(error)),
                Wake::Wanted => {
                    self.resubscribe(&wanted.borrow_and_update().clone());
                    Ok(())
                }
                Wake::Deadline => match self.overdue(pulse) {
                    // The process stood still: the time is up, and what shows that nothing was wrong waits to be read.
                    Err(_) if self.has_unread() => {
                        yield_now().await;
                        Ok(())
                    }
                    done => done,
                },
            };
            if let Err(error) = done {
                return error;
            }
        }
    }

    fn deadline(&self, pulse: &Pulse) -> Instant {
        if let Some((_, since)) = self.notice {
            return since + CLOSE;
        }
        let silence = self.framed + pulse.limit();
        self.awaited.front().map_or(silence, |(_, since)| {
            silence.min(*since + self.settings.timeout)
        })
    }

    fn overdue(&self, pulse: &Pulse) -> Result<(), EslError> {
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
        let limit = pulse.limit();
        if now < self.framed + limit {
            return Ok(());
        }
        Err(match now < self.heard + limit {
            true => EslError::Stuck(limit),
            false => EslError::Silent(limit),
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

    /// Takes all whole frames. What was read before an error is delivered all the same.
    fn read(
        &mut self,
        wanted: &watch::Receiver<Subscription>,
        pulse: &mut Pulse,
        deliver: &mut impl FnMut(Received),
    ) -> Result<(), EslError> {
        self.heard = Instant::now();
        let mut received = Received {
            at_us: clock::now_us(),
            connection: pulse.connection,
            events: Vec::new(),
            too_large: 0,
        };
        let done = self.take_frames(wanted, pulse, &mut received);
        if !received.events.is_empty() || received.too_large > 0 {
            if self.subscribed.is_some() && std::mem::take(&mut pulse.doubted) {
                self.link.ready();
            }
            deliver(received);
        }
        done
    }

    fn take_frames(
        &mut self,
        wanted: &watch::Receiver<Subscription>,
        pulse: &mut Pulse,
        received: &mut Received,
    ) -> Result<(), EslError> {
        while let Some(framed) = self.framer.next_frame()? {
            self.framed = self.heard;
            let frame = match framed {
                Framed::Frame(frame) => frame,
                Framed::TooLarge(frame) => {
                    received.too_large += u64::from(pass_over(&frame));
                    continue;
                }
            };
            match frame.kind {
                Kind::EventJson => {
                    pulse.observe(&frame.body);
                    received.events.push(EventFrame::of(Format::Json, &frame));
                }
                Kind::EventPlain => {
                    pulse.observe(&frame.body);
                    received.events.push(EventFrame::of(Format::Plain, &frame));
                }
                Kind::AuthRequest => self.authenticate(),
                Kind::CommandReply => self.reply(&frame, wanted, pulse)?,
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
                Kind::ApiResponse | Kind::Other => {}
            }
        }
        Ok(())
    }

    fn authenticate(&mut self) {
        self.awaited.pop_front();
        let password = self.settings.password.expose();
        let login = if self.settings.user.is_empty() {
            format!("auth {password}")
        } else {
            format!("userauth {}:{password}", self.settings.user)
        };
        self.send(&login, "login");
    }

    fn reply(
        &mut self,
        frame: &Frame,
        wanted: &watch::Receiver<Subscription>,
        pulse: &Pulse,
    ) -> Result<(), EslError> {
        let Some((command, _)) = self.awaited.pop_front() else {
            return Ok(());
        };
        let reply = frame.header("Reply-Text").unwrap_or_default();
        if !reply.starts_with("+OK") {
            return Err(match command.as_str() {
                "login" => EslError::Password,
                _ => EslError::Refused {
                    command,
                    reply: reply.to_owned(),
                },
            });
        }
        if self.subscribed.is_none() {
            let (subscribed, commands) = Subscribed::start(self.settings.format, &wanted.borrow());
            self.subscribed = Some(subscribed);
            self.send_all(&commands);
        } else if self.awaited.is_empty() && !self.link.is_ready() && !pulse.doubted {
            self.link.ready();
        }
        Ok(())
    }

    fn resubscribe(&mut self, wanted: &Subscription) {
        if let Some(subscribed) = &mut self.subscribed {
            let commands = subscribed.change(wanted);
            tracing::debug!(link = "esl", ?commands, "subscription changes");
            self.send_all(&commands);
        }
    }

    fn send_all(&mut self, commands: &[String]) {
        for command in commands {
            self.send(command, command);
        }
    }

    fn send(&mut self, command: &str, shown: &str) {
        self.outgoing.extend_from_slice(command.as_bytes());
        self.outgoing.extend_from_slice(b"\n\n");
        self.awaited.push_back((shown.to_owned(), Instant::now()));
    }
}

/// Says which event is lost, if it is one: FreeSWITCH does not repeat it.
fn pass_over(frame: &TooLarge) -> bool {
    let TooLarge { kind, length, head } = frame;
    let format = match kind {
        Kind::EventJson => Format::Json,
        Kind::EventPlain => Format::Plain,
        _ => {
            tracing::warn!(link = "esl", ?kind, bytes = length, "frame too large");
            return false;
        }
    };
    let value = |name| glance(head, format, name);
    tracing::error!(
        link = "esl",
        event = value("Event-Name"),
        subclass = value("Event-Subclass"),
        call = value("Unique-ID"),
        sequence = value("Event-Sequence"),
        bytes = length,
        limit = MAX_FRAME,
        "event too large: it is lost"
    );
    true
}

/// The value of a header near the beginning of an event that is not whole, as it is encoded.
fn glance(head: &[u8], format: Format, name: &str) -> Option<String> {
    let (start, end) = match format {
        Format::Json => (format!("\"{name}\":\""), b'"'),
        Format::Plain => (format!("{name}: "), b'\n'),
    };
    let at = memmem::find(head, start.as_bytes())?;
    let value = head.get(at + start.len()..)?.split(|byte| *byte == end);
    let value = value.take(1).next()?;
    Some(String::from_utf8_lossy(value.get(..200).unwrap_or(value)).into_owned())
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Format, Pulse, glance};

    #[test]
    fn the_beginning_of_an_event_names_it() {
        let json =
            b"{\"Event-Name\":\"CUSTOM\",\"Event-Subclass\":\"a::b\",\"Event-Sequence\":\"12";
        let plain = b"Event-Name: CUSTOM\nEvent-Subclass: a%3A%3Ab\nEvent-Sequence: 12";
        for (head, format, subclass) in [
            (&json[..], Format::Json, "a::b"),
            (plain, Format::Plain, "a%3A%3Ab"),
        ] {
            let value = |name| glance(head, format, name);
            assert_eq!(value("Event-Name").as_deref(), Some("CUSTOM"));
            assert_eq!(value("Event-Subclass").as_deref(), Some(subclass));
            assert_eq!(
                value("Event-Sequence").as_deref(),
                Some("12"),
                "as far as it came"
            );
            assert_eq!(value("Unique-ID"), None);
        }
    }

    #[test]
    fn the_heartbeat_interval_is_learnt_from_the_dates() {
        let mut pulse = Pulse::default();
        assert_eq!(pulse.limit(), Duration::from_secs(50));
        pulse.observe(
            b"{\"Event-Name\":\"HEARTBEAT\",\"Event-Date-Timestamp\":\"1795221302195132\"}",
        );
        pulse.observe(b"{\"Event-Name\":\"DTMF\",\"Event-Date-Timestamp\":\"1795221302195139\"}");
        pulse.observe(
            b"Event-Name: HEARTBEAT\nEvent-Date-Timestamp: 1795221304195132\nEvent-Sequence: 1\n\n",
        );
        assert_eq!(pulse.limit(), Duration::from_secs(5));
        pulse.restart();
        pulse.observe(b"Event-Name: HEARTBEAT\nEvent-Date-Timestamp: 1795221904195132\n\n");
        let limit = pulse.limit();
        assert_eq!(limit, Duration::from_secs(5), "an outage is no interval");
    }
}
