//! A thread of the host's own: named, owned, and its death noticed.
//!
//! The pipeline and the loader are threads and not tasks because filters are called synchronously. Inside, the runtime is
//! entered: what a filter does through WASI may need it. The links, the writer and the HTTP server are tasks, each with a thread and
//! a runtime to itself: none makes another one wait, and no thread is woken but the one that has something to do.

use std::future::Future;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Runtime};
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

/// A task with a thread of its own.
#[derive(Debug)]
pub struct Apart<T> {
    worker: Worker,
    /// Taken when it was told.
    end: Option<oneshot::Receiver<T>>,
    /// It ends when this is dropped.
    stop: oneshot::Sender<()>,
}

impl<T: Send + 'static> Apart<T> {
    /// Runs the task on a thread of this name; must be called on the runtime.
    pub fn start(
        name: &str,
        task: impl Future<Output = T> + Send + 'static,
    ) -> std::io::Result<Apart<T>> {
        let (stop, stopped) = oneshot::channel::<()>();
        let (ended, end) = oneshot::channel();
        let worker = Worker::start(name, move || {
            let runtime = match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => Own(Some(runtime)),
                Err(error) => return tracing::error!(%error, "no runtime"),
            };
            let end = runtime.block_on(async {
                tokio::select! {
                    end = task => Some(end),
                    _ = stopped => None,
                }
            });
            if let Some(end) = end {
                // Whoever waited may have gone.
                let _told = ended.send(end);
            }
        })?;
        let end = Some(end);
        Ok(Apart { worker, end, stop })
    }

    /// How it ended, once it has; none if it died, and if this was told before.
    pub async fn ended(&mut self) -> Option<T> {
        let end = self.end.as_mut()?.await.ok();
        self.end = None;
        end
    }

    /// Stops it, wherever it is; false if its thread panicked.
    pub async fn stop(self) -> bool {
        drop(self.stop);
        self.worker.join().await
    }
}

/// The runtime of one thread. What still blocks there (a resolver, a disk that hangs) is not waited for, whether the task ends or
/// panics.
struct Own(Option<Runtime>);

impl Own {
    fn block_on<T>(&self, task: impl Future<Output = Option<T>>) -> Option<T> {
        self.0.as_ref()?.block_on(task)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
