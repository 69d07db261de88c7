//! The HTTP/1.1 server: an accept loop of our own, since axum's sets no limit on slow clients.

use std::io;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::Version;
use axum::http::header::{CONNECTION, HOST, TRANSFER_ENCODING};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

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
    let router = router.layer(from_fn(refuse_ambiguous));
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

/// Refuses what another server on the way may have read otherwise (RFC 9112, sections 3.2 and 6.1):
/// a request that names no host, or two, and a body that is encoded on its way, or announced as
/// chunked twice. hyper refuses every other doubt about where a request ends.
async fn refuse_ambiguous(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let hosts = headers.get_all(HOST).iter().count();
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let detail = if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
        "the request must have one Host header"
    } else if codings
        .next()
        .is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
        || codings.next().is_some()
    {
        "Transfer-Encoding must be chunked and nothing else"
    } else {
        return next.run(request).await;
    };
    ([(CONNECTION, "close")], Problem::malformed(detail)).into_response()
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
    let service = TowerToHyperService::new(router.clone());
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
