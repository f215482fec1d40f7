//! Who waits for the end of a background job.
//!
//! The table outlives connections: FreeSWITCH tells every connection that asks for BACKGROUND_JOB of a job's end, whichever
//! it was begun on, so a job that was begun before a cut is answered after it.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::frame::{Kind, TooLarge};
use super::session::{EventFrame, glance};
use crate::event::Format;

/// The jobs that somebody waits for, by their Job-UUID.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    waiting: Mutex<HashMap<String, oneshot::Sender<Ended>>>,
    /// How many there are, so that an event costs nothing while there are none.
    count: AtomicUsize,
}

/// How a job's end was told.
#[derive(Debug)]
pub(super) enum Ended {
    /// By its event, which carries the answer.
    Told(EventFrame),
    /// By an event of so many bytes, which is too large to keep.
    TooLarge(u64),
}

/// A job that is waited for. Dropped, it is waited for no more.
pub(super) struct Job<'a> {
    jobs: &'a Jobs,
    pub(super) uuid: String,
    pub(super) ended: oneshot::Receiver<Ended>,
}

impl Jobs {
    /// A new job, which is waited for from now on.
    pub(super) fn begin(&self) -> Job<'_> {
        let uuid = new_uuid();
        let (tell, ended) = oneshot::channel();
        let mut waiting = self.lock();
        waiting.insert(uuid.clone(), tell);
        self.count.store(waiting.len(), Ordering::Release);
        Job {
            jobs: self,
            uuid,
            ended,
        }
    }

    /// Looks whether an event tells of the end of a job that somebody waits for.
    pub(super) fn offer(&self, event: &EventFrame) {
        if self.has_waiting() && is_end(&event.bytes) {
            self.tell(&event.bytes, event.format, || Ended::Told(event.clone()));
        }
    }

    /// The same for an event that is passed over.
    pub(super) fn offer_too_large(&self, frame: &TooLarge) {
        let format = match frame.kind {
            Kind::EventJson => Format::Json,
            Kind::EventPlain => Format::Plain,
            _ => return,
        };
        if self.has_waiting() && is_end(&frame.head) {
            self.tell(&frame.head, format, || Ended::TooLarge(frame.length));
        }
    }

    fn tell(&self, head: &[u8], format: Format, ended: impl FnOnce() -> Ended) {
        // A UUID of ours has no character that either format would encode.
        let Some(uuid) = glance(head, format, "Job-UUID") else {
            return;
        };
        if let Some(tell) = self.remove(&uuid) {
            // Who gave up meanwhile is told nothing.
            drop(tell.send(ended()));
        }
    }

    fn has_waiting(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    fn remove(&self, uuid: &str) -> Option<oneshot::Sender<Ended>> {
        let mut waiting = self.lock();
        let removed = waiting.remove(uuid);
        self.count.store(waiting.len(), Ordering::Release);
        removed
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, oneshot::Sender<Ended>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Job<'_> {
    fn drop(&mut self) {
        drop(self.jobs.remove(&self.uuid));
    }
}

fn is_end(event: &[u8]) -> bool {
    event.starts_with(b"{\"Event-Name\":\"BACKGROUND_JOB\"")
        || event.starts_with(b"Event-Name: BACKGROUND_JOB\n")
}

/// A random UUID; unique, and not for secrets.
fn new_uuid() -> String {
    let [high, low] = [0_u8, 1].map(|half| RandomState::new().hash_one(half));
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xfff,
        0x8000 | ((low >> 48) & 0x3fff),
        low & 0xffff_ffff_ffff
    )
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use bytes::Bytes;

    use super::{Ended, EventFrame, Format, Jobs, TooLarge, new_uuid};
    use crate::esl::Kind;

    fn end_of(uuid: &str, format: Format) -> EventFrame {
        let text = match format {
            Format::Json => {
                format!("{{\"Event-Name\":\"BACKGROUND_JOB\",\"Job-UUID\":\"{uuid}\"}}")
            }
            Format::Plain => format!("Event-Name: BACKGROUND_JOB\nJob-UUID: {uuid}\n\n"),
        };
        EventFrame {
            format,
            bytes: Bytes::from(text),
            offset: 0,
        }
    }

    #[test]
    fn an_end_is_told_to_the_one_who_waits_for_it_in_either_format() {
        for format in [Format::Json, Format::Plain] {
            let jobs = Jobs::default();
            let (mut one, mut other) = (jobs.begin(), jobs.begin());
            jobs.offer(&end_of("somebody-else-s", format));
            jobs.offer(&end_of(&one.uuid, format));
            let told = one.ended.try_recv().unwrap();
            assert!(matches!(told, Ended::Told(event) if event.format == format));
            assert!(other.ended.try_recv().is_err(), "the other one goes on");
            jobs.offer(&end_of(&one.uuid, format));
            drop(other);
            assert!(!jobs.has_waiting(), "nobody waits any more");
        }
    }

    #[test]
    fn an_end_that_is_too_large_is_told_too() {
        let jobs = Jobs::default();
        let mut job = jobs.begin();
        jobs.offer_too_large(&TooLarge {
            kind: Kind::EventJson,
            length: 20 << 20,
            head: end_of(&job.uuid, Format::Json).bytes,
        });
        assert!(
            matches!(job.ended.try_recv().unwrap(), Ended::TooLarge(length) if length == 20 << 20)
        );
    }

    #[test]
    fn uuids_are_well_formed_and_differ() {
        let uuids: HashSet<String> = (0..1_000).map(|_| new_uuid()).collect();
        assert_eq!(uuids.len(), 1_000);
        for uuid in uuids {
            let parts: Vec<usize> = uuid.split('-').map(str::len).collect();
            assert_eq!(parts, [8, 4, 4, 4, 12], "{uuid}");
            let digits = uuid.bytes().filter(u8::is_ascii_hexdigit).count();
            assert_eq!((digits, uuid.as_bytes()[14]), (32, b'4'), "{uuid}");
        }
    }
}
