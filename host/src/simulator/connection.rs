//! What the switch and a client's task share: the client's subscription and its queue of frames.
//!
//! A client that does not read fills its queue; then events are dropped without a sign on the wire, and after more than 500 in a row
//! the client is given up. An event is rendered when it enters the queue, so that a later change of the format does not reach it (the
//! real switch would send it in the new format).

use std::collections::VecDeque;
use std::sync::Mutex;

use bytes::Bytes;
use tokio::sync::Notify;

use super::encode::{Format, Frame};
use super::subscription::Subscription;
use super::switch::{Switch, lock};

/// As FreeSWITCH: so many events may be lost in a row, then the listener is given up.
const MAX_MISSED: u32 = 500;
/// Frames that wait are written together up to about this size.
pub(super) const BATCH_BYTES: usize = 64 * 1024;
/// `place_calls` without a rate keeps queues shorter than this, so that it waits instead of filling the memory.
const COMFORTABLE: usize = 1_024;

pub(super) const SHUTDOWN: &str = "The system is being shut down.\n";
const KILLED: &str = "killed listener because of lost events\n";

/// What the switch and the connection's task share.
#[derive(Debug, Default)]
pub(super) struct Connection {
    inner: Mutex<Inner>,
    /// The queue has something, or an ending was decided.
    ready: Notify,
    /// Everything that was queued is on the socket, or the connection is over.
    progress: Notify,
    /// Ends the task at once, wherever it waits.
    cut: Notify,
    /// The client is given up, also in the middle of a frame that it does not read.
    given_up: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    subscription: Subscription,
    format: Format,
    queue: VecDeque<Frame>,
    is_writing: bool,
    missed: u32,
    /// The text of the notice with which the connection ends once the queue is empty.
    farewell: Option<&'static str>,
    is_over: bool,
}

/// What became of an event that was offered to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offer {
    Unwanted,
    Queued,
    /// Queued for a connection for commands.
    Beside,
    Dropped,
    /// Dropped, and one too many.
    GivenUp,
}

/// What a client's task writes next.
pub(super) enum Outgoing {
    Frames(Vec<Frame>),
    Farewell(&'static str),
}

impl Connection {
    /// Changes the subscription, with the format.
    pub(super) fn subscribe<T>(
        &self,
        change: impl FnOnce(&mut Subscription, &mut Format) -> T,
    ) -> T {
        let mut inner = lock(&self.inner);
        let Inner {
            subscription,
            format,
            ..
        } = &mut *inner;
        change(subscription, format)
    }

    pub(super) fn is_over(&self) -> bool {
        lock(&self.inner).is_over
    }

    /// Whether the client listens to events, and not merely to what a connection for commands needs.
    pub(super) fn is_listening(&self) -> bool {
        let inner = lock(&self.inner);
        let subscription = &inner.subscription;
        !inner.is_over && subscription.is_listening() && !subscription.is_for_commands()
    }

    /// Whether the client hears what a connection for commands needs, and no more.
    pub(super) fn is_for_commands(&self) -> bool {
        let inner = lock(&self.inner);
        !inner.is_over && inner.subscription.is_for_commands()
    }

    /// Queues an event if it is wanted and there is room.
    pub(super) fn offer(
        &self,
        max_queue: usize,
        wants: impl FnOnce(&Subscription) -> bool,
        frame: impl FnOnce(Format) -> Frame,
    ) -> Offer {
        let mut inner = lock(&self.inner);
        if inner.is_over || inner.farewell.is_some() || !wants(&inner.subscription) {
            return Offer::Unwanted;
        }
        if inner.queue.len() < max_queue {
            inner.missed = 0;
            let frame = frame(inner.format);
            inner.queue.push_back(frame);
            self.ready.notify_one();
            return match inner.subscription.is_for_commands() {
                true => Offer::Beside,
                false => Offer::Queued,
            };
        }
        inner.missed += 1;
        if inner.missed > MAX_MISSED {
            inner.queue.clear();
            inner.farewell = Some(KILLED);
            self.ready.notify_one();
            self.given_up.notify_one();
            return Offer::GivenUp;
        }
        Offer::Dropped
    }

    /// Queues bytes as they are, whatever the queue holds already.
    pub(super) fn push_raw(&self, bytes: Bytes) {
        let mut inner = lock(&self.inner);
        inner.queue.push_back(Frame::raw(bytes));
        self.ready.notify_one();
    }

    /// Returns when all that was queued is written, or the connection is over.
    pub(super) async fn drained(&self) {
        self.until(|inner| inner.is_over || (inner.queue.is_empty() && !inner.is_writing))
            .await;
    }

    /// Returns when the connection is over.
    pub(super) async fn over(&self) {
        self.until(|inner| inner.is_over).await;
    }

    async fn until(&self, reached: impl Fn(&Inner) -> bool) {
        loop {
            let changed = self.progress.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if reached(&lock(&self.inner)) {
                return;
            }
            changed.await;
        }
    }

    /// Throws away what waits.
    pub(super) fn discard(&self) {
        lock(&self.inner).queue.clear();
        self.progress.notify_waiters();
    }

    /// Whether an unpaced load may go on.
    pub(super) fn is_comfortable(&self, max_queue: usize) -> bool {
        let inner = lock(&self.inner);
        inner.is_over
            || inner.farewell.is_some()
            || inner.queue.len() < COMFORTABLE.min(max_queue.max(1))
    }

    pub(super) fn say_farewell(&self, text: &'static str) {
        lock(&self.inner).farewell.get_or_insert(text);
        self.ready.notify_one();
    }

    /// Closes without a word.
    pub(super) fn cut(&self) {
        lock(&self.inner).is_over = true;
        self.cut.notify_one();
    }

    /// Returns when the connection is to be closed without a word.
    pub(super) async fn was_cut(&self) {
        self.cut.notified().await;
    }

    /// Returns when the client is given up: the text of the notice, which goes out wherever the stream stands.
    pub(super) async fn was_given_up(&self) -> &'static str {
        self.given_up.notified().await;
        KILLED
    }

    /// Waits for something to write. Takes it out of the queue only when it returns, so that a cancelled call loses nothing.
    pub(super) async fn next(&self) -> Outgoing {
        loop {
            {
                let mut inner = lock(&self.inner);
                let mut frames = Vec::new();
                let mut size = 0;
                while size < BATCH_BYTES
                    && let Some(frame) = inner.queue.pop_front()
                {
                    size += frame.bytes.len();
                    frames.push(frame);
                }
                if !frames.is_empty() {
                    inner.is_writing = true;
                    return Outgoing::Frames(frames);
                }
                if let Some(text) = inner.farewell {
                    return Outgoing::Farewell(text);
                }
            }
            self.ready.notified().await;
        }
    }

    /// Notes that what `next` gave is on the socket.
    pub(super) fn written(&self, switch: &Switch) {
        let mut inner = lock(&self.inner);
        inner.is_writing = false;
        let waiting = inner.queue.len();
        drop(inner);
        if waiting == 0 {
            self.progress.notify_waiters();
        }
        if waiting < COMFORTABLE / 2 {
            switch.room.notify_waiters();
        }
    }

    /// Notes that the task has ended.
    pub(super) fn end(&self) {
        lock(&self.inner).is_over = true;
        self.progress.notify_waiters();
    }
}
