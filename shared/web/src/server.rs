//! The HTTP/1.1 server: an accept loop of our own, since axum's sets no limit on slow clients.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use axum::Router;
use axum::http::header::{CONNECTION, HOST, TRANSFER_ENCODING};
use axum::http::{HeaderValue, Request, Version};
use axum::response::{IntoResponse as _, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use crate::limits;
use crate::problem::Problem;

/// The bounds of a server that tests set lower.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// How long headers may take to arrive, the silence before them included.
    pub header_read: Duration,
    /// Connections open at one time.
    pub connections: usize,
    /// How long open requests may take to finish once the server stops.
    pub drain: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            header_read: limits::HEADER_READ,
            connections: limits::CONNECTIONS,
            drain: limits::DRAIN,
        }
    }
}

/// Serves until it is to stop, and then lets open requests finish.
pub async fn serve(listener: TcpListener, router: Router, stopping: CancellationToken) {
    serve_within(ServerLimits::default(), listener, router, stopping).await;
}

/// [`serve`], within other bounds.
pub async fn serve_within(
    limits: ServerLimits,
    listener: TcpListener,
    router: Router,
    stopping: CancellationToken,
) {
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let http = http(&limits);
    loop {
        tokio::select! {
            () = stopping.cancelled() => break,
            accepted = listener.accept(), if connections.len() < limits.connections => {
                match accepted {
                    Ok((stream, _)) => {
                        let connection = connection(&http, stream, &router, graceful.watcher());
                        connections.spawn(connection);
                    }
                    Err(error) => pause_after(&error, &stopping).await,
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    if tokio::time::timeout(limits.drain, graceful.shutdown()).await.is_err() {
        tracing::warn!(open = connections.len(), "connections were still busy and are cut off");
    }
}

fn http(limits: &ServerLimits) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .half_close(true)
        .header_read_timeout(limits.header_read)
        .max_headers(crate::limits::HEADERS)
        .max_header_size(crate::limits::HEADER_BYTES);
    http
}

/// Answers a request, unless another server on the way may have read it otherwise.
async fn answer(mut router: Router, request: Request<Incoming>) -> Result<Response, Infallible> {
    match ambiguity(&request) {
        None => router.call(request).await,
        Some(detail) => Ok(([(CONNECTION, "close")], Problem::malformed(detail)).into_response()),
    }
}

/// What another server may have read otherwise (RFC 9112, sections 3.2 and 6.1): a request that names no
/// host, or two, and a body that is encoded on its way, or announced as chunked twice. hyper refuses
/// every other doubt about where a request ends.
fn ambiguity(request: &Request<Incoming>) -> Option<&'static str> {
    let headers = request.headers();
    let hosts = headers.get_all(HOST).iter().count();
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
        return Some("the request must have one Host header");
    }
    let is_chunked = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    let is_plain = codings.next().is_none_or(is_chunked) && codings.next().is_none();
    (!is_plain).then_some("Transfer-Encoding must be chunked and nothing else")
}

fn connection(
    http: &http1::Builder,
    stream: TcpStream,
    router: &Router,
    watcher: Watcher,
) -> impl Future<Output = ()> + use<> {
    // Small answers must not wait for more to send.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection keeps its delay");
    }
    let router = router.clone();
    let service = service_fn(move |request| answer(router.clone(), request));
    let connection = watcher.watch(http.serve_connection(TokioIo::new(stream), service));
    async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection ended early");
        }
    }
}

/// A client that is gone already is no reason to wait; a lack of file descriptors is.
async fn pause_after(error: &io::Error, stopping: &CancellationToken) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        return;
    }
    tracing::warn!(%error, "a connection could not be accepted");
    tokio::select! {
        () = stopping.cancelled() => {}
        () = tokio::time::sleep(limits::ACCEPT_PAUSE) => {}
    }
}
