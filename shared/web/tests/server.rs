//! The server over real sockets: slow clients, large headers, and its end.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test says by panicking what went wrong"
)]

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use waybill_web::{ServerLimits, serve_within};

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(10);

struct Server {
    address: SocketAddr,
    stopping: CancellationToken,
    ended: JoinHandle<()>,
}

async fn server(connections: usize) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let slow = || async {
        sleep(SHORT).await;
        "slow"
    };
    let router = Router::new()
        .route("/fast", get(|| async { "fast" }))
        .route("/slow", get(slow))
        .route("/stuck", get(|| async { sleep(LONG * 6).await }))
        .route("/echo", post(|body: String| async { body }));
    let stopping = CancellationToken::new();
    let limits = ServerLimits { header_read: SHORT, connections, drain: SHORT * 3 };
    let ended = tokio::spawn(serve_within(limits, listener, router, stopping.clone()));
    Server { address, stopping, ended }
}

impl Server {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn ask(&self, path: &str) -> String {
        let mut stream = self.connect().await;
        send(&mut stream, path).await;
        rest(&mut stream).await
    }
}

async fn send(stream: &mut TcpStream, path: &str) {
    let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
}

/// All that comes until the server closes the connection, which it does in time.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = timeout(LONG, stream.read_to_end(&mut bytes)).await;
    // A reset is a close too.
    let _ = read.expect("the server closes the connection");
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn a_request_is_answered() {
    let answer = server(10).await.ask("/fast").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.ends_with("fast"), "{answer}");
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let server = server(10).await;
    let answer = rest(&mut server.connect().await).await;
    assert!(!answer.contains("200"), "{answer}");
}

#[tokio::test]
async fn a_connection_whose_headers_trickle_is_closed() {
    let server = server(10).await;
    let (mut read, mut write) = server.connect().await.into_split();
    let trickle = tokio::spawn(async move {
        for byte in b"GET /fast HTTP/1.1\r\nx: ".iter().chain([b'y'; 200].iter()) {
            if write.write_all(&[*byte]).await.is_err() {
                return;
            }
            sleep(SHORT / 10).await;
        }
    });
    let mut bytes = Vec::new();
    let closed = timeout(SHORT * 10, read.read_to_end(&mut bytes)).await;
    assert!(closed.is_ok(), "it is closed long before the headers end");
    trickle.abort();
}

#[tokio::test]
async fn headers_that_are_too_large_or_too_many_are_refused() {
    let server = server(10).await;
    let many = "x: y\r\n".repeat(65);
    let large = format!("x: {}\r\n", "y".repeat(17 * 1024));
    for headers in [many, large] {
        let mut stream = server.connect().await;
        let head = format!("GET /fast HTTP/1.1\r\nhost: x\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_their_turn() {
    let server = server(1).await;
    let idle = server.connect().await;
    // The first connection says nothing and is closed; then the second one is served.
    let answer = server.ask("/fast").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(idle);
}

#[tokio::test]
async fn a_server_that_stops_answers_what_it_has_begun_and_takes_nothing_new() {
    let server = server(10).await;
    let idle = server.connect().await;
    let mut open = server.connect().await;
    send(&mut open, "/slow").await;
    sleep(SHORT / 3).await;
    server.stopping.cancel();
    let answer = rest(&mut open).await;
    assert!(answer.ends_with("slow"), "{answer}");
    timeout(LONG, server.ended).await.expect("it ends").unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
    drop(idle);
}

#[tokio::test]
async fn a_server_that_stops_does_not_wait_for_ever() {
    let server = server(10).await;
    let mut open = server.connect().await;
    send(&mut open, "/stuck").await;
    sleep(SHORT / 3).await;
    server.stopping.cancel();
    timeout(SHORT * 10, server.ended).await.expect("it ends").unwrap();
    assert_eq!(rest(&mut open).await, "");
}
