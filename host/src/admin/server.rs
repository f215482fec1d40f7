//! The connections of HTTP: how many there may be, and how long one may take to ask.
//!
//! Clients that ask for nothing, or one byte at a time, cost a little memory for a little while. When every place is taken,
//! the oldest that has not asked yet makes room; if all have, the newest is turned away. An answer may take as long as it likes, as
//! `body` limits what a request may take; but a client may not leave it unread.
//!
//! Knows nothing of routes and of who may use them.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

use crate::listeners::{LISTENERS, STALL, files};

/// The largest head of a request.
const HEAD: usize = 32 << 10;
/// What is read ahead, and held of an answer that is not taken.
const BUFFER: usize = 64 << 10;
/// What the kernel holds of an answer that is not taken; left to itself it holds megabytes.
const SEND_BUFFER: usize = 128 << 10;
/// Connections that no listener can take.
const OTHERS: usize = 128;
/// The pause after a connection could not be accepted, which is for want of file descriptors.
const PAUSE: Duration = Duration::from_secs(1);

/// What one client, and all together, may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections at a time: half of the file descriptors that a process usually may have.
    connections: usize,
    /// From a connection or an answer to the end of the next request's head.
    head: Duration,
    /// How long a client may leave what was sent to it unread, or unacknowledged.
    unread: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            // Files are for the links and the journal first.
            connections: (LISTENERS + OTHERS).min(files() / 2),
            head: Duration::from_secs(10),
            unread: STALL,
        }
    }
}

/// A connection from the moment it was accepted.
struct Place {
    task: AbortHandle,
    /// Whether it has sent the head of a request that is not answered yet.
    has_asked: Arc<AtomicBool>,
}

/// Answers requests until it is dropped.
pub(super) async fn serve(listener: TcpListener, routes: Router, limits: Limits) -> io::Result<()> {
    let mut places: VecDeque<Place> = VecDeque::new();
    let mut tasks = JoinSet::new();
    let mut is_full = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = tasks.join_next() => continue,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_about_client(&error) => continue,
            Err(error) => {
                tracing::warn!(%error, "HTTP takes no connections");
                sleep(PAUSE).await;
                continue;
            }
        };
        let was_full = is_full;
        is_full = !make_room(&mut places, limits.connections);
        if is_full {
            if !was_full {
                let connections = limits.connections;
                tracing::warn!(connections, %peer, "HTTP turns connections away: too many are busy");
            }
            continue;
        }
        let has_asked = Arc::new(AtomicBool::new(false));
        let connection = converse(stream, peer, routes.clone(), limits, Arc::clone(&has_asked));
        let task = tasks.spawn(connection);
        places.push_back(Place { task, has_asked });
    }
}

/// Lasts as long as a request is being answered.
struct Asked(Arc<AtomicBool>);

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Whether there is a place, if need be that of the oldest connection that has not asked.
fn make_room(places: &mut VecDeque<Place>, most: usize) -> bool {
    if places.len() < most {
        return true;
    }
    places.retain(|place| !place.task.is_finished());
    if places.len() < most {
        return true;
    }
    let idle = |place: &Place| !place.has_asked.load(Ordering::Relaxed);
    let oldest = places.iter().position(idle);
    match oldest.and_then(|oldest| places.remove(oldest)) {
        Some(oldest) => {
            oldest.task.abort();
            true
        }
        None => false,
    }
}

/// What went wrong with one client that is gone already.
fn is_about_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

/// One connection to its end. How it ends is the client's affair.
async fn converse(
    stream: TcpStream,
    peer: SocketAddr,
    routes: Router,
    limits: Limits,
    has_asked: Arc<AtomicBool>,
) {
    let socket = SockRef::from(&stream);
    let bounded = socket
        .set_tcp_user_timeout(Some(limits.unread))
        .and_then(|()| socket.set_send_buffer_size(SEND_BUFFER));
    if let Err(error) = bounded {
        tracing::debug!(%error, %peer, "an HTTP client may leave its answer unread");
    }
    let routes = TowerToHyperService::new(routes);
    let answer = service_fn(move |mut request: Request<Incoming>| {
        has_asked.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(ConnectInfo(peer));
        let answering = routes.call(request);
        let asked = Asked(Arc::clone(&has_asked));
        async move {
            let answer = answering.await?;
            Ok::<_, Infallible>(answer.map(|body| {
                body.map_frame(move |frame| {
                    // Until the answer is over, or nobody takes it any more.
                    let _asked = &asked;
                    frame
                })
            }))
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_header_size(HEAD)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), answer)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, %peer, "an HTTP connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::net::SocketAddr;
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use std::time::Duration;

    use axum::Router;
    use axum::body::{Body, HttpBody};
    use axum::extract::Request;
    use axum::response::IntoResponse;
    use axum::routing::{get, post};
    use bytes::Bytes;
    use hyper::body::Frame;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::JoinSet;
    use tokio::time::timeout;

    use super::super::body::read_within;
    use super::{Limits, serve};

    const DEADLINE: Duration = Duration::from_secs(20);
    const NEVER: Duration = Duration::from_secs(3600);

    const WHOLE: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    const HALF: &str = "GET / HTTP/1.1\r\nHo";

    /// An answer that goes on as long as somebody takes it.
    struct Endless;

    impl HttpBody for Endless {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 1024])))))
        }
    }

    async fn start(limits: Limits) -> (SocketAddr, JoinSet<std::io::Result<()>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let body = |request: Request| async {
            match read_within(request, 1 << 20, Duration::from_millis(50)).await {
                Ok(body) => body.len().to_string().into_response(),
                Err(why) => why.into_response(),
            }
        };
        let routes = Router::new()
            .route("/", get(|| async { "here" }))
            .route("/", post(body))
            .route("/endless", get(|| async { Body::new(Endless) }))
            .route("/large", get(|| async { vec![0_u8; 64 << 20] }));
        let mut server = JoinSet::new();
        server.spawn(serve(listener, routes, limits));
        (address, server)
    }

    async fn connect(address: SocketAddr, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // It may have been turned away already.
        drop(stream.write_all(text.as_bytes()).await);
        stream
    }

    /// What comes until this word, or until the end.
    async fn read_until(stream: &mut TcpStream, word: &str) -> String {
        let mut text = String::new();
        let reading = async {
            let mut bytes = [0; 1024];
            while !text.contains(word) {
                match stream.read(&mut bytes).await {
                    Ok(0) | Err(_) => break,
                    Ok(count) => text += std::str::from_utf8(&bytes[..count]).unwrap(),
                }
            }
        };
        timeout(DEADLINE, reading).await.expect("in time");
        text
    }

    fn limits(connections: usize, head: Duration) -> Limits {
        Limits {
            connections,
            head,
            unread: Duration::from_millis(200),
        }
    }

    #[tokio::test]
    async fn who_does_not_ask_in_time_is_cut_off() {
        let (address, _server) = start(limits(9, Duration::from_millis(50))).await;
        for begun in ["", HALF] {
            let mut slow = connect(address, begun).await;
            assert_eq!(read_until(&mut slow, "never").await, "", "after {begun:?}");
        }
        let mut idle = connect(address, WHOLE).await;
        let all = read_until(&mut idle, "never").await;
        assert!(
            all.ends_with("here"),
            "answered, and cut off when it asks no more: {all}"
        );
    }

    #[tokio::test]
    async fn who_sends_a_body_too_slowly_is_told_so() {
        let (address, _server) = start(limits(9, NEVER)).await;
        let slow = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nsl";
        let mut slow = connect(address, slow).await;
        let answer = read_until(&mut slow, "within").await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }

    #[tokio::test]
    async fn who_has_not_asked_makes_room_for_who_does() {
        let (address, _server) = start(limits(3, NEVER)).await;
        let mut busy = connect(address, WHOLE).await;
        assert!(read_until(&mut busy, "here").await.ends_with("here"));
        let mut half_open = Vec::new();
        for _ in 0..20 {
            half_open.push(connect(address, HALF).await);
        }
        let mut late = connect(address, WHOLE).await;
        assert!(read_until(&mut late, "here").await.ends_with("here"));
        for mut early in half_open.drain(..18) {
            assert_eq!(
                read_until(&mut early, "never").await,
                "",
                "the oldest go first"
            );
        }
        assert_eq!(
            read_until(&mut busy, "never").await,
            "",
            "who has been answered, and asks nothing more, was the first to go"
        );
    }

    #[tokio::test]
    async fn who_does_not_read_its_answer_is_given_up() {
        let (address, _server) = start(limits(1, NEVER)).await;
        let _unread = connect(address, &WHOLE.replacen('/', "/large", 1)).await;
        let served = async {
            while read_until(&mut connect(address, WHOLE).await, "here")
                .await
                .is_empty()
            {}
        };
        timeout(DEADLINE, served)
            .await
            .expect("its place is free again");
    }

    #[tokio::test]
    async fn where_all_are_busy_the_newest_is_turned_away_until_one_ends() {
        let patient = Limits {
            unread: DEADLINE,
            ..limits(2, NEVER)
        };
        let (address, _server) = start(patient).await;
        let mut busy = Vec::new();
        for _ in 0..2 {
            let mut stream = connect(address, &WHOLE.replacen('/', "/endless", 1)).await;
            assert!(!read_until(&mut stream, "\r\n\r\n").await.is_empty());
            busy.push(stream);
        }
        let mut refused = connect(address, WHOLE).await;
        assert_eq!(read_until(&mut refused, "here").await, "");
        busy.pop();
        let served = async {
            loop {
                let mut next = connect(address, WHOLE).await;
                if read_until(&mut next, "here").await.ends_with("here") {
                    break;
                }
            }
        };
        timeout(DEADLINE, served)
            .await
            .expect("a place is free again");
    }
}
