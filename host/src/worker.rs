//! A thread of the host's own: named, owned, and its death noticed.
//!
//! The pipeline and the loader are threads and not tasks because filters are called synchronously. Inside, the runtime is
//! entered: what a filter does through WASI may need it.

use std::thread::JoinHandle;

use tokio::sync::oneshot;

/// A running thread.
#[derive(Debug)]
pub struct Worker {
    thread: JoinHandle<()>,
    /// Taken when it was seen.
    ended: Option<oneshot::Receiver<()>>,
}

impl Worker {
    /// Starts a thread of this name; must be called on the runtime.
    pub fn start(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<Worker> {
        let runtime = tokio::runtime::Handle::current();
        let (alive, ended) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                // Dropped at the end, whether that is a return or a panic.
                let _alive = alive;
                let _runtime = runtime.enter();
                run();
            })?;
        let ended = Some(ended);
        Ok(Worker { thread, ended })
    }

    /// Ready when the thread has ended, however.
    pub async fn ended(&mut self) {
        if let Some(ended) = &mut self.ended {
            // The sender never sends: it is dropped.
            let _dropped = ended.await;
            self.ended = None;
        }
    }

    /// Waits for the end; false if it was a panic.
    pub async fn join(mut self) -> bool {
        self.ended().await;
        self.thread.join().is_ok()
    }
}
