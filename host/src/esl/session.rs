//! The events of one connection to the Event Socket, from `auth/request` to its end.
//!
//! A single loop reads at all times; commands wait in a buffer of their own and never hold the reading up. An event may
//! come before the reply to a command.

use std::time::Duration;

use bytes::Bytes;
use memchr::memmem;
use tokio::sync::watch;
use tokio::time::Instant;

use super::commands::Commands;
use super::error::EslError;
use super::frame::{Frame, Kind, MAX_FRAME, TooLarge};
use super::pulse::Pulse;
use super::subscription::{Subscribed, Subscription};
use super::wire::{Heard, TURN, Wire};
use crate::clock;
use crate::config;
use crate::event::Format;
use crate::link::Link;

/// A turn that comes later than this after it was due was kept from running: FreeSWITCH's queue is filled meanwhile.
const STALL: Duration = Duration::from_secs(1);

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
    pub(super) fn of(format: Format, frame: Frame) -> EventFrame {
        EventFrame {
            format,
            bytes: frame.body,
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

/// The events link's side of one connection.
pub(super) struct Session<'a> {
    settings: &'a config::Esl,
    link: &'a Link,
    commands: &'a Commands,
    wire: Wire<'a>,
    subscribed: Option<Subscribed>,
}

impl<'a> Session<'a> {
    pub(super) async fn open(
        settings: &'a config::Esl,
        link: &'a Link,
        commands: &'a Commands,
    ) -> Result<Session<'a>, EslError> {
        Ok(Session {
            settings,
            link,
            commands,
            wire: Wire::open(settings).await?,
            subscribed: None,
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
            let done = tokio::select! {
                turned = self.wire.turn(pulse.limit()) => match turned {
                    Ok(true) => self.read(wanted, pulse, deliver),
                    turned => turned.map(drop),
                },
                Ok(()) = wanted.changed(), if self.subscribed.is_some() => {
                    self.resubscribe(&wanted.borrow_and_update().clone());
                    Ok(())
                }
                () = self.link.asked_again() => Err(EslError::AskedFor),
            };
            if let Err(error) = done {
                return error;
            }
        }
    }

    /// Takes all whole frames. What was read before an error is delivered all the same.
    fn read(
        &mut self,
        wanted: &watch::Receiver<Subscription>,
        pulse: &mut Pulse,
        deliver: &mut impl FnMut(Received),
    ) -> Result<(), EslError> {
        let mut received = Received {
            at_us: clock::now_us(),
            connection: pulse.connection,
            events: Vec::new(),
            too_large: 0,
        };
        let done = self.take_frames(wanted, pulse, &mut received);
        if !received.events.is_empty() || received.too_large > 0 {
            if self.subscribed.is_some() && std::mem::take(&mut pulse.doubted) {
                self.ready();
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
        while let Some(heard) = self.wire.next()? {
            match heard {
                Heard::Event(format, frame) => {
                    pulse.hear(&frame.body, self.link);
                    let event = EventFrame::of(format, frame);
                    self.commands.offer(&event);
                    received.events.push(event);
                }
                Heard::Accepted => self.accepted(wanted, pulse),
                Heard::TooLarge(frame) => received.too_large += u64::from(pass_over(&frame)),
                Heard::Reply(_) => {}
            }
        }
        Ok(())
    }

    fn accepted(&mut self, wanted: &watch::Receiver<Subscription>, pulse: &Pulse) {
        if self.subscribed.is_none() {
            let (subscribed, commands) = Subscribed::start(self.settings.format, &wanted.borrow());
            self.subscribed = Some(subscribed);
            self.wire.send_all(&commands);
        } else if self.wire.is_settled() && !self.link.is_ready() && !pulse.doubted {
            self.ready();
        }
    }

    /// The peer is there, so the link for commands need not wait for its next try.
    fn ready(&self) {
        self.link.resyncing();
        self.commands.try_now();
    }

    fn resubscribe(&mut self, wanted: &Subscription) {
        if let Some(subscribed) = &mut self.subscribed {
            let commands = subscribed.change(wanted);
            tracing::debug!(link = "esl", ?commands, "subscription changes");
            self.wire.send_all(&commands);
        }
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
pub(super) fn glance(head: &[u8], format: Format, name: &str) -> Option<String> {
    let (start, end) = match format {
        Format::Json => (format!("\"{name}\":\""), b'"'),
        Format::Plain => (format!("{name}: "), b'\n'),
    };
    let at = memmem::find(head, start.as_bytes())?;
    let value = head.get(at + start.len()..)?.split(|byte| *byte == end);
    let value = value.take(1).next()?;
    Some(String::from_utf8_lossy(value.get(..200).unwrap_or(value)).into_owned())
}

#[cfg(test)]
mod tests {
    use super::{Format, glance};

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
}
